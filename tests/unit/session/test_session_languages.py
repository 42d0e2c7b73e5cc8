"""A session whose speaker's language is found, kept and changed; what decodes are told to expect."""

from collections.abc import Callable

import pytest

from mediaserver.audio.clock import SAMPLE_RATE
from mediaserver.decoder.language import SURE, Asked, Heard, choose
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Kind, Window
from mediaserver.errors import ConfigError
from mediaserver.events import Final, Interim, Ready
from mediaserver.session.messages import handle_message
from mediaserver.session_config import SessionConfig
from tests.unit.session.scripted import ScriptedDecoder, Stream

KNOWN = ("en", "de", "fr")

Sounds = Callable[[Window], list[tuple[str, float]]]


class Listener(ScriptedDecoder):
    """Says a word each half second, in the language that it is decoded with; detects what `sounds` says."""

    def __init__(self, sounds: Sounds) -> None:
        super().__init__(languages=KNOWN)
        self.outcome = self.hear
        self.sounds = sounds

    def withdraw(self, session_id: str) -> None:
        pass

    def hear(self, window: Window) -> Hypothesis:
        language, probability, heard = window.language, None, Heard((), (), 0.0)
        if language is None:
            heard = Heard.of(self.sounds(window), audio_s=window.duration_s)
            asked = Asked(None, window.language_candidates, window.language_scores)
            language, probability = choose(asked, heard)
        first = -(-window.start_sample * 2 // SAMPLE_RATE)
        last = (window.start_sample + len(window.samples)) * 2 // SAMPLE_RATE
        return Hypothesis(
            words=[HypothesisWord(f" {language}{n}", n / 2, n / 2 + 0.5, 0.9) for n in range(first, last)],
            language=language,
            language_probability=probability,
            heard_languages=heard.languages,
            heard_probabilities=heard.probabilities,
        )


def after(switch_s: float, before: str, later: str) -> Sounds:
    """A speaker who changes language at a time of the stream."""
    return lambda w: [((later if w.start_sample >= switch_s * SAMPLE_RATE else before), 0.98)]


async def test_a_language_found_is_kept_and_told_with_every_final() -> None:
    stream = Stream(decoder=Listener(after(0.0, "de", "de")))
    for _ in range(3):
        await stream.speak(3.0)
        await stream.pause(1.0)
    await stream.session.close("client")
    finals = stream.sink.of(Final)
    assert [final.language for final in finals] == ["de"] * 3
    assert all(final.language_confidence is not None and final.language_confidence >= SURE for final in finals)
    interims = [w for w in stream.decoder.windows if w.kind.is_interim and w.start_sample > 3 * SAMPLE_RATE]
    assert interims
    assert {w.language for w in interims} == {"de"}  # detection is spared once the session's language is known


async def test_the_utterance_that_reveals_a_change_is_written_in_its_language() -> None:
    stream = Stream(decoder=Listener(after(7.0, "en", "de")))
    for _ in range(4):
        await stream.speak(3.0)
        await stream.pause(1.0)
    await stream.session.close("client")
    finals = stream.sink.of(Final)
    assert [final.language for final in finals] == ["en", "en", "de", "de"]
    assert "en" not in finals[2].transcript


async def test_words_decoded_in_another_language_do_not_outlast_their_final() -> None:
    """Stable words of interims were in the old language; the final is all in the new one."""
    stream = Stream(decoder=Listener(after(3.5, "en", "de")))
    await stream.speak(3.0)
    await stream.pause(1.0)
    await stream.speak(4.0)
    await stream.pause(1.0)
    assert any("en" in event.stable for event in stream.sink.of(Interim) if event.utterance_id == 2)
    assert "en" not in stream.sink.of(Final)[1].transcript


async def test_all_that_is_shown_of_an_utterance_is_in_one_language() -> None:
    doubtful = iter([("de", 0.5), ("fr", 0.6)] * 100)

    def sounds(window: Window) -> list[tuple[str, float]]:
        return [next(doubtful), ("en", 0.4)]

    stream = Stream(decoder=Listener(sounds))
    await stream.speak(6.0)
    shown = {word.word.rstrip("0123456789") for event in stream.sink.of(Interim) for word in event.words}
    assert len(shown) == 1
    first = stream.sink.of(Interim)[0]
    assert first.start + first.duration >= 1.9  # held back as long as the language was in doubt


async def test_utterances_of_two_languages_are_not_decoded_as_one() -> None:
    stream = Stream(decoder=Listener(after(7.0, "en", "de")))
    for _ in range(4):
        await stream.speak(3.0)
        await stream.pause(0.8)
    await stream.pause(3.0)
    await stream.session.close("client")
    revisions = [w for w in stream.decoder.windows if w.kind is Kind.REVISION]
    assert [w.language for w in revisions] == ["en", "de"]


async def test_a_language_that_was_chosen_is_never_looked_for() -> None:
    stream = Stream(decoder=Listener(after(0.0, "de", "de")), config=SessionConfig.model_validate({"language": "fr"}))
    await stream.speak(3.0)
    await stream.pause(1.0)
    assert {w.language for w in stream.decoder.windows} == {"fr"}
    assert stream.sink.of(Final)[0].language_confidence is None


async def test_detection_chooses_among_the_clients_languages() -> None:
    sounds: Sounds = lambda w: [("fr", 0.9), ("de", 0.06), ("en", 0.02)]  # noqa: E731
    stream = Stream(
        decoder=Listener(sounds), config=SessionConfig.model_validate({"languages": ["en", "de"]}), language="fr"
    )
    await stream.speak(3.0)
    await stream.pause(1.0)
    assert stream.sink.of(Final)[0].language == "de"


async def test_what_is_configured_counts_from_the_next_window_on() -> None:
    stream = Stream(decoder=Listener(after(0.0, "en", "en")), hotwords=["Aachen"], prompt="The node's own.")
    await stream.speak(1.0)
    handle_message(
        stream.session,
        '{"type":"configure","config":{"language":"de","hotwords":["Zürich","Genève"],"prompt":"Grüezi."}}',
    )
    asked = len(stream.decoder.windows)
    await stream.speak(2.0)
    await stream.pause(1.0)
    before, later = stream.decoder.windows[:asked], stream.decoder.windows[asked + 1 :]
    assert {(w.hotwords, w.prompt) for w in before} == {(("Aachen",), "The node's own.")}
    assert {(w.hotwords, w.prompt) for w in later} == {(("Zürich", "Genève"), "Grüezi.")}
    assert later[-1].language == "de"
    told = stream.sink.of(Ready)[-1].config
    assert (told["hotwords"], told["prompt"], told["language"]) == (["Zürich", "Genève"], "Grüezi.", "de")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"languages": ["xx", "en"]}, "'xx'"),
        ({"languages": "en,yy"}, "'yy'"),
    ],
)
async def test_languages_that_the_model_does_not_know_are_refused(config: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Stream(decoder=Listener(after(0.0, "en", "en")), config=SessionConfig.model_validate(config))


@pytest.mark.parametrize(
    "changes",
    [
        {"hotwords": ["x" * 61]},
        {"hotwords": [""]},
        {"hotwords": [1]},
        {"hotwords": ["word"] * 101},
        {"prompt": "x" * 801},
        {"prompt": 5},
        {"languages": {"en": 1}},
    ],
)
def test_what_is_too_long_or_of_another_type_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        SessionConfig.model_validate({}).merged(changes)


def test_lists_can_stand_in_a_url() -> None:
    config = SessionConfig.model_validate_strings({"languages": "en, de", "hotwords": "Zürich,Foo Bar,"})
    assert config.languages == ["en", "de"]
    assert config.hotwords == ["Zürich", "Foo Bar"]


async def test_the_lead_is_what_two_doubtful_utterances_overturn() -> None:
    def sounds(window: Window) -> list[tuple[str, float]]:
        is_later = window.start_sample >= 14 * SAMPLE_RATE
        return [("de", 0.9), ("en", 0.03)] if is_later else [("en", 0.99)]

    stream = Stream(decoder=Listener(sounds))
    for _ in range(8):
        await stream.speak(2.0)
        await stream.pause(1.0)
    await stream.session.close("client")
    languages = [final.language for final in stream.sink.of(Final)]
    assert languages == [*["en"] * 6, "de", "de"]
