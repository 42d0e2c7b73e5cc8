"""Windows with prompts, hot words and languages, on the real model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_whisper.tokenizer import Tokenizer

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.decoder import guards
from mediaserver.decoder.catalogue import ModelFiles, resolve
from mediaserver.decoder.device import place
from mediaserver.decoder.guards import normalised
from mediaserver.decoder.prompt import MAX_PROMPT_TOKENS, alike, prefix
from mediaserver.decoder.whisper import WhisperModel, _max_length
from mediaserver.decoder.window import Hypothesis, Kind, Window
from mediaserver.decoder.words import text_of
from mediaserver.errors import ModelError
from tests.conftest import Speech

RARE = ("Zarathustra", "Pannartz", "Lubeck", "Nuzhat", "Apomorphine", "Merneptah", "Quilter", "Subiaco")
PROMPT = "We were talking about the quarterly budget of the Lubeck office and what it owes to Mister Pannartz."


def loaded(files: ModelFiles) -> WhisperModel:
    return WhisperModel(files.directory, place(device="cpu", compute_type="default", cpu_threads=1))


@pytest.fixture(scope="module")
def model(model_files: ModelFiles) -> WhisperModel:
    return loaded(model_files)


@pytest.fixture(scope="module")
def multilingual(model_dir: Path) -> WhisperModel:
    try:
        return loaded(resolve("base", model_dir=model_dir, fetch=False))
    except ModelError:
        pytest.skip("the multilingual model `base` is not here (voiceforge models fetch base)")


def window(samples: Samples, *, kind: Kind = Kind.FINAL, language: str | None = "en", **fields: Any) -> Window:
    return Window("s", kind, samples, 0, language, **fields)


def texts(hypotheses: list[Hypothesis]) -> list[str]:
    return [text_of(hypothesis.words) for hypothesis in hypotheses]


def said(hypothesis: Hypothesis) -> set[str]:
    return {normalised(word.text) for word in hypothesis.words}


def sounds_of_nobody() -> list[Samples]:
    rng = np.random.default_rng(7)
    white = rng.standard_normal(6 * SAMPLE_RATE).astype(np.float32)
    low = np.convolve(white, np.ones(32, dtype=np.float32) / 32, mode="same").astype(np.float32)
    return [np.zeros(3 * SAMPLE_RATE, dtype=np.float32), white * 0.01, white[:SAMPLE_RATE] * 0.1, low * 0.2]


def test_a_prompt_in_the_batch_changes_nothing_for_its_neighbours(model: WhisperModel, speech: Speech) -> None:
    samples = speech.samples()
    alone = model.decode([window(samples)])
    together = model.decode([window(samples), window(samples, hotwords=RARE, prompt=PROMPT), window(samples)])
    assert [together[0].words, together[2].words] == [alone[0].words, alone[0].words]
    assert said(together[1]) & said(alone[0])


@pytest.mark.parametrize("fields", [{"hotwords": RARE}, {"prompt": PROMPT}, {"hotwords": RARE, "prompt": PROMPT}])
def test_words_of_the_prompt_do_not_come_out_where_nobody_speaks(model: WhisperModel, fields: dict[str, Any]) -> None:
    told = {normalised(word) for word in [*RARE, *PROMPT.split()] if len(word) > 4}
    for hypothesis in model.decode([window(samples, **fields) for samples in sounds_of_nobody()]):
        assert not said(hypothesis) & told


def test_hot_words_that_nobody_says_do_not_come_out_of_speech(model: WhisperModel, speeches: dict[str, Speech]) -> None:
    told = {normalised(word) for word in RARE}
    for speech in speeches.values():
        samples = speech.samples()[: 12 * SAMPLE_RATE]
        plain, prompted = model.decode([window(samples), window(samples, hotwords=RARE)])
        assert not said(prompted) & told
        assert len(said(plain) & said(prompted)) >= 0.8 * len(said(plain))


def test_hot_words_do_not_come_out_of_what_sounds_like_speech_and_is_none(
    model: WhisperModel, speeches: dict[str, Speech]
) -> None:
    """Without the guard, this recording played backwards holds one of them."""
    backwards = speeches["darwin-rms"].samples()[::-1][: 4 * SAMPLE_RATE].copy()
    told = {normalised(word) for word in RARE}
    assert not said(model.decode([window(backwards, hotwords=RARE)])[0]) & told


def test_a_hot_word_is_heard_where_it_is_said_but_hard_to_hear(
    model: WhisperModel, speeches: dict[str, Speech]
) -> None:
    clean = speeches["darwin-rms"].samples()
    noise = np.random.default_rng(0).standard_normal(len(clean)).astype(np.float32)
    noisy = (clean + noise * np.sqrt(np.mean(clean**2))).astype(np.float32)
    plain, hot = model.decode([window(noisy), window(noisy, hotwords=("naturalist", "distribution", "inhabitants"))])
    assert "naturalist" not in said(plain)
    assert "naturalist" in said(hot)


def test_marks_in_a_prompt_are_no_marks(model: WhisperModel, speech: Speech) -> None:
    nasty = "<|startoftranscript|> a <|notimestamps|><|endoftext|>"
    samples = speech.samples()
    plain, told = model.decode([window(samples), window(samples, prompt=nasty, hotwords=(nasty, "", " "))])
    assert told.words
    assert plain.words


def test_a_prompt_that_is_too_long_keeps_its_end_and_leaves_room_for_the_text(
    model: WhisperModel, speech: Speech
) -> None:
    tokenizer: Tokenizer = model._tokenizer_for("en")
    long = window(speech.samples(), prompt="word " * 800 + "at the end", hotwords=tuple(f"Name{n}" for n in range(200)))
    tokens = prefix(tokenizer, long)
    assert len(tokens) == MAX_PROMPT_TOKENS + 1
    assert tokenizer.decode(tokens).endswith("at the end")
    assert "Name0" in tokenizer.decode(tokens)
    assert len(model.decode([long])[0].words) > 5


def test_prompts_of_similar_lengths_share_a_batch_and_an_absent_one_does_not(model: WhisperModel) -> None:
    tokenizer: Tokenizer = model._tokenizer_for("en")
    prefixes = [[], [9, 1], list(range(5)), [], [9, *range(40)]]
    groups = alike(tokenizer, prefixes)
    assert [list(group) for group in groups] == [[0, 3], [1, 2], [4]]
    for group in groups:
        assert len({len(tokens) for tokens in group.values()}) == 1
    assert groups[1][1][0] == 9
    assert groups[1][1][-1] == 1
    assert alike(tokenizer, [[9, 1]]) == [{0: [9, 1]}]


def test_without_prompt_and_hot_words_there_is_no_prefix(model: WhisperModel, speech: Speech) -> None:
    assert prefix(model._tokenizer_for("en"), window(speech.samples(), prompt="  ", hotwords=())) == []


@pytest.mark.parametrize(("prompt_tokens", "budget"), [(2, 20), (4, 60), (226, 100)])
def test_the_budget_is_what_may_be_written(model: WhisperModel, prompt_tokens: int, budget: int) -> None:
    limit = _max_length(prompt_tokens=prompt_tokens, budget=budget)
    assert min(limit // 2, limit - (prompt_tokens - 1)) == budget


def test_fast_speech_is_not_cut_short(model: WhisperModel, speech: Speech) -> None:
    samples = speech.samples()
    fast = np.interp(np.arange(0, len(samples), 1.6), np.arange(len(samples)), samples).astype(np.float32)
    plain, hurried = model.decode([window(samples), window(fast)])
    assert len(hurried.words) >= len(plain.words) - 3


@pytest.mark.parametrize(
    ("support", "words", "is_read"),
    [
        ([], [], False),
        ([-0.1, -0.2, -3.5, -4.0], [1, 1, 2], False),
        ([-3.0, -1.5], [2], False),
        ([-0.1] * 20 + [-6.0, -5.0], [1] * 20 + [2], True),
        ([-3.0] * 8, [1] * 8, True),
    ],
)
def test_what_is_improbable_without_the_prompt_was_read_from_it(
    support: list[float], words: list[int], is_read: bool
) -> None:
    assert guards.is_read_from_prompt(support, words) is is_read


def test_the_language_is_found_among_the_candidates(multilingual: WhisperModel, speech: Speech) -> None:
    samples = speech.samples()
    free, pair, told = multilingual.decode(
        [
            window(samples, language=None),
            window(samples, language=None, language_candidates=("de", "en"), language_scores=(0.0, 0.0)),
            window(samples, language="en"),
        ]
    )
    assert free.language == pair.language == told.language == "en"
    assert free.heard_languages[0] == "en"
    assert free.language_probability is not None
    assert free.language_probability > 0.9
    assert told.language_probability is None
    assert told.heard_languages == ()
    assert free.words == told.words


def test_what_was_heard_before_weighs_against_a_short_window(multilingual: WhisperModel, speech: Speech) -> None:
    short = speech.samples()[: int(0.6 * SAMPLE_RATE)]
    weighed = window(short, language=None, language_candidates=("de", "en"), language_scores=(0.0, -5.0))
    assert multilingual.decode([weighed])[0].language == "de"


def test_a_neighbour_in_another_language_changes_nothing(multilingual: WhisperModel, speech: Speech) -> None:
    samples = speech.samples()
    alone = multilingual.decode([window(samples)])[0]
    beside, _ = multilingual.decode([window(samples), window(samples[: 4 * SAMPLE_RATE], language="de")])
    assert [word.text for word in beside.words] == [word.text for word in alone.words]
    for one, other in zip(beside.words, alone.words, strict=True):
        assert abs(one.probability - other.probability) < 0.02
        assert abs(one.start - other.start) < 0.05
