"""Sentences out of words."""

from __future__ import annotations

import numpy as np
import pytest

from mediaserver.audio.clock import samples_in
from mediaserver.decoder.confidence import Curve
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Token
from mediaserver.jobs.pieces import Piece, Run
from mediaserver.jobs.segments import Segmenter
from mediaserver.jobs.transcript import Segment


def piece(start_s: float, length_s: float = 20.0) -> Piece:
    length = samples_in(s=length_s)
    return Piece(0, np.zeros(length, dtype=np.float32), (Run(0, samples_in(s=start_s), length),))


def said(text: str, *, start_s: float = 0.0, step_s: float = 0.5, language: str = "en") -> Hypothesis:
    """Words half a second apart; `|` is a pause of two seconds more."""
    words, at_s = [], start_s
    for word in text.split():
        if word == "|":
            at_s += 2.0
            continue
        token = Token(len(word), f"Ġ{word}", -0.1)
        words.append(HypothesisWord(f" {word}", at_s, at_s + step_s - 0.1, 0.8, (token,)))
        at_s += step_s
    return Hypothesis(words=words, language=language, mean_log_probability=-0.3, no_speech_probability=0.1)


def segments(*pieces: tuple[float, Hypothesis]) -> list[Segment]:
    segmenter = Segmenter(curve=Curve(), min_confidence=0.9)
    done = [segment for start_s, hypothesis in pieces for segment in segmenter.add(piece(start_s), hypothesis)]
    return done + segmenter.finish()


def texts(*pieces: tuple[float, Hypothesis]) -> list[str]:
    return [segment.final.transcript for segment in segments(*pieces)]


def test_a_segment_is_a_sentence() -> None:
    assert texts((0.0, said("It rained. We went home. Nobody"))) == ["It rained.", "We went home.", "Nobody"]


def test_a_title_an_initial_and_a_small_letter_end_no_sentence() -> None:
    assert texts((0.0, said("Then Mr. Smith met J. Doe at ca. noon today."))) == [
        "Then Mr. Smith met J. Doe at ca. noon today."
    ]


def test_a_long_pause_ends_a_segment() -> None:
    assert texts((0.0, said("one two | three"))) == ["one two", "three"]


def test_a_sentence_goes_on_in_the_next_piece() -> None:
    assert texts((0.0, said("the bill", start_s=19.0)), (20.0, said("itself said no. And so"))) == [
        "the bill itself said no.",
        "And so",
    ]


def test_another_language_is_another_segment() -> None:
    first, second = segments((0.0, said("so we", start_s=19.0)), (20.0, said("gehen heim", language="de")))
    assert (first.final.language, second.final.language) == ("en", "de")


def test_what_has_no_full_stop_is_cut_at_a_comma_after_a_while() -> None:
    text = " ".join(["word"] * 41 + ["comma,"] + ["word"] * 5)
    assert [len(part.split()) for part in texts((0.0, said(text)))] == [42, 5]


def test_times_and_confidence_are_the_words() -> None:
    (segment,) = segments((30.0, said("Hello there.", start_s=1.0)))
    final = segment.final
    assert final.start == pytest.approx(31.0, abs=1e-3)
    assert final.duration == pytest.approx(0.9, abs=1e-3)
    assert [round(word.start, 3) for word in final.words] == [31.0, 31.5]
    assert final.confidence == pytest.approx(0.8)
    assert all(word.low_confidence for word in final.words)
    assert segment.mean_log_probability == -0.3
    assert [token.piece for token in segment.tokens] == ["ĠHello", "Ġthere."]
    assert 0 < segment.compression_ratio < 2


def test_words_never_go_back_in_time() -> None:
    done = segments((0.0, said("one two. Three", start_s=19.0)), (19.2, said("four five.")))
    times = [time for segment in done for word in segment.final.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert [segment.final.utterance_id for segment in done] == list(range(len(done)))
