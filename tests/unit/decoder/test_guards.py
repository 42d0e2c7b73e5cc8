"""Guards against invented text."""

import pytest

from mediaserver.decoder import guards
from mediaserver.decoder.window import HypothesisWord


def said(text: str, probability: float = 0.9) -> list[HypothesisWord]:
    return [HypothesisWord(" " + word, n * 0.3, n * 0.3 + 0.3, probability) for n, word in enumerate(text.split())]


def kept(text: str) -> str:
    return "".join(word.text for word in guards.without_loops(said(text))).strip()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("turn off the light, the light, the light, the light and more", "turn off the light, the light,"),
        ("light light light light light light light", "light light"),
        ("I mean I mean it", "I mean I mean it"),
        ("zero zero zero four", "zero zero zero four"),
        ("no, no, no, no, stop", "no, no, no, no, stop"),
        ("", ""),
    ],
)
def test_loops_are_cut_and_honest_repetition_stays(text: str, left: str) -> None:
    assert kept(text) == left


@pytest.mark.parametrize(
    ("words", "left"),
    [
        # as decoded: a final of "seven eight seven seven", and interims that end within a word
        ([("787,", 1.2), ("787,", 0.02), ("787,", 0.64), ("787", 0.28)], "787, 787,"),
        ([("Fire", 0.66), ("fire", 0.16), ("fire", 0.0)], "Fire fire"),
        ([("Please,", 0.78), ("please,", 0.18), ("please", 0.0), ("take", 0.2), ("ten", 0.2)], "Please, take ten"),
        ([("Agent", 0.6), ("in", 0.6), ("agent", 0.0), ("in", 0.2), ("agent", 0.0), ("in", 0.04)], "Agent in"),
        ([("on", 0.2), ("an", 0.02), ("an", 0.02), ("an", 0.04)], "on an"),
        # said
        ([("zero", 0.3), ("zero", 0.28), ("zero", 0.24), ("four", 0.3)], "zero zero zero four"),
        ([("No,", 0.5), ("no,", 0.12), ("no.", 0.1)], "No, no, no."),
        ([("three", 0.4), ("three", 0.18), ("three", 0.16)], "three three three"),
        ([("1", 0.64), ("1", 0.44), ("1", 0.1)], "1 1 1"),
        ([("that", 0.2), ("that", 0.0), ("is", 0.1)], "that that is"),
        ([("...", 0.0), ("...", 0.0), ("...", 0.0)], "..."),
        ([], ""),
    ],
)
def test_copies_that_nobody_had_the_time_to_say_go(words: list[tuple[str, float]], left: str) -> None:
    at_s, timed = 0.0, []
    for text, lasts_s in words:
        timed.append(HypothesisWord(" " + text, at_s, at_s + lasts_s, 0.9))
        at_s += lasts_s
    assert "".join(word.text for word in guards.without_hurried_copies(timed)).strip() == left


def rejection(
    text: str, *, probability: float = 0.9, no_speech: float = 0.0, log_probability: float = -0.2, interim: bool = False
) -> str | None:
    return guards.rejection(
        said(text, probability),
        is_interim=interim,
        no_speech_probability=no_speech,
        mean_log_probability=log_probability,
    )


def test_text_where_the_model_doubts_that_anybody_speaks_is_rejected() -> None:
    assert rejection("hello there", no_speech=0.9, log_probability=-1.5) == "no_speech"
    assert rejection("hello there", no_speech=0.9, log_probability=-0.2) is None
    assert rejection("hello there", no_speech=0.7, log_probability=-0.7) is None


def test_an_interim_is_doubted_sooner_than_a_final() -> None:
    assert rejection("I love my life", no_speech=0.7, log_probability=-0.7, interim=True) == "no_speech"


@pytest.mark.parametrize(
    ("no_speech", "probability", "outcome"),
    [
        (0.79, 0.42, "improbable"),  # "Oh, oh, oh, oh" over birds
        (0.91, 0.15, "improbable"),  # "I'm" over white noise
        (0.51, 0.02, "improbable"),  # "F-" over a ringing tone
        (0.63, 0.85, None),  # "Please wait while I connect your call."
        (0.54, 0.41, None),  # "That's not true." over a crowd
        (0.04, 0.2, None),
    ],
)
def test_words_that_the_model_is_unsure_of_need_somebody_who_speaks(
    no_speech: float, probability: float, outcome: str | None
) -> None:
    assert rejection("oh hello", no_speech=no_speech, probability=probability) == outcome


@pytest.mark.parametrize(
    ("text", "no_speech", "outcome"),
    [
        ("Oh, oh, oh.", 0.71, "repetitive"),
        ("I see. I see. I see. I", 0.71, "repetitive"),
        ("Oh, oh.", 0.71, None),
        ("Oh, oh, oh well.", 0.71, None),
        ("No, no, no.", 0.1, None),
        ("I see. I see.", 0.71, None),
    ],
)
def test_one_word_over_and_over_needs_somebody_who_speaks(text: str, no_speech: float, outcome: str | None) -> None:
    assert rejection(text, no_speech=no_speech) == outcome


def test_text_that_repeats_itself_is_rejected() -> None:
    assert rejection("and so it goes on and on " * 12) == "repetitive"


def test_a_classic_invention_is_judged_by_its_first_word() -> None:
    assert rejection("Thank you for watching!", probability=0.15) == "invention"
    assert rejection("Thank you.", probability=0.3) is None  # spoken softly over room noise
    knocked = [HypothesisWord(" Thank", 12.2, 12.9, 0.05), HypothesisWord(" you.", 12.9, 13.0, 0.96)]
    assert guards.rejection(knocked, is_interim=False, no_speech_probability=0.8, mean_log_probability=-0.87) == (
        "invention"
    )


def test_no_words_are_no_reason_to_reject() -> None:
    assert guards.rejection([], is_interim=False, no_speech_probability=1.0, mean_log_probability=-9.0) is None


def test_the_token_budget_grows_with_the_speech() -> None:
    assert guards.token_budget(10.0, "en") > guards.token_budget(1.0, "en") > 0


def test_languages_whose_words_are_cut_smaller_have_more_tokens() -> None:
    assert guards.token_budget(10.0, "de") >= 2 * guards.token_budget(10.0, "en")
