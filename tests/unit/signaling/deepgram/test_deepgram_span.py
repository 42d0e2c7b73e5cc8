"""What is final follows on what was, without gap or overlap."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.events import Final, Interim, Word
from signaling.routes.deepgram.span import FINALIZES_MAX, Piece, Span


def word(text: str, start: float, end: float) -> Word:
    return Word(text, start, end, 0.9)


def interim(number: int, text: str, start: float, end: float) -> Interim:
    step = (end - start) / max(1, len(text.split()))
    words = [word(w, start + n * step, start + (n + 1) * step) for n, w in enumerate(text.split())]
    return Interim(number, text, "", 0.8, start, end - start, end, words)


def final(number: int, text: str, start: float, end: float) -> Final:
    said = interim(number, text, start, end)
    return Final(number, text, 0.9, start, end - start, end + 0.5, "en", None, said.words)


def test_an_interim_tells_all_that_is_not_final() -> None:
    span = Span()
    first = span.interim(interim(1, "one two", 1.0, 2.0))
    assert first is not None
    assert (first.start, first.end, first.transcript, first.confidence) == (0.0, 2.0, "one two", 0.8)
    assert [first.is_final, first.speech_final, first.from_finalize] == [False] * 3
    both = span.interim(interim(2, "three", 3.0, 3.5))  # the final of the first is still to come
    assert both is not None
    assert (both.start, both.end, both.transcript) == (0.0, 3.5, "one two three")
    assert both.confidence == pytest.approx(0.9)
    (told,) = span.final(final(1, "one, two", 1.0, 2.2))
    assert (told.start, told.end, told.transcript) == (0.0, 2.2, "one, two")
    after = span.interim(interim(2, "three four", 3.0, 4.0))
    assert after is not None
    assert (after.start, after.end, after.transcript) == (2.2, 4.0, "three four")


def test_an_interim_that_comes_after_its_final_is_not_told() -> None:
    span = Span()
    span.final(final(1, "one", 0.0, 1.0))
    assert span.interim(interim(1, "one", 0.0, 1.0)) is None


def test_a_final_reaches_as_far_as_its_words() -> None:
    span = Span()
    (told,) = span.final(replace(final(1, "one two", 0.0, 2.0), duration=1.5))
    assert told.end == 2.0
    (following,) = span.final(final(2, "three", 1.9, 3.0))
    assert following.start == following.words[0].start == 2.0


def test_a_silence_makes_a_speech_final_and_a_cut_does_not() -> None:
    span = Span()
    (cut,) = span.final(final(1, "one", 0.0, 20.0))
    span.stopped(25.0)
    (ended,) = span.final(final(2, "two", 20.0, 25.0))
    assert (cut.speech_final, ended.speech_final) == (False, True)


def test_a_finalize_is_answered_by_the_last_final_that_it_brings() -> None:
    span = Span()
    span.finalize(5.0)
    assert span.final(final(1, "one", 0.0, 2.0)) == []  # it may be the answer
    (before,) = span.final(final(2, "two", 2.5, 4.0))
    assert (before.transcript, before.from_finalize) == ("one", False)
    answer = span.finalized()
    assert answer is not None
    assert (answer.transcript, answer.start, answer.end) == ("two", 2.0, 5.0)
    assert answer.from_finalize
    assert answer.is_final
    assert span.finalized() is None


def test_no_interim_begins_behind_a_final_that_waits_to_be_told() -> None:
    span = Span()
    span.finalize(3.0)
    assert span.final(final(1, "one", 0.0, 2.0)) == []  # it may be what answers the finalize
    assert span.interim(interim(2, "two", 3.5, 4.0)) is None
    answer = span.finalized()
    assert answer is not None
    told = span.interim(interim(2, "two three", 3.5, 4.5))
    assert told is not None
    assert (answer.end, told.start, told.transcript) == (3.0, 3.0, "two three")


def test_a_finalize_in_silence_is_answered_without_words() -> None:
    span = Span()
    span.final(final(1, "one", 0.0, 2.0))
    span.finalize(3.5)
    answer = span.finalized()
    assert answer == Piece(2.0, 3.5, from_finalize=True)
    (after,) = span.final(final(2, "two", 3.4, 4.0))
    assert after.start == 3.5


def test_each_finalize_is_answered_in_its_turn_and_the_same_one_once() -> None:
    span = Span()
    span.finalize(1.0)
    span.finalize(1.0)
    span.finalize(2.0)
    answers = [span.finalized() for _ in range(3)]
    assert [None if answer is None else answer.end for answer in answers] == [1.0, 2.0, None]


def test_a_flood_of_finalizes_is_bounded() -> None:
    span = Span()
    for n in range(1000):
        span.finalize(float(n + 1))
    answered = 0
    while span.finalized() is not None:
        answered += 1
    assert answered == FINALIZES_MAX


def test_at_the_end_everything_is_final() -> None:
    span = Span()
    assert span.rest(0.0) == []
    span.finalize(2.0)
    span.final(final(1, "one", 0.0, 1.0))
    held, silence = span.rest(4.0)
    assert (held.transcript, held.end, silence) == ("one", 1.0, Piece(1.0, 4.0))
    assert span.rest(4.0) == []


@given(st.lists(st.tuples(st.sampled_from("ifFsx"), st.floats(0.01, 2.0)), max_size=60))
def test_finals_lie_side_by_side_whatever_happens(steps: list[tuple[str, float]]) -> None:
    span = Span()
    told: list[Piece] = []
    now, number = 0.0, 1
    for what, length in steps:
        match what:
            case "i":
                piece = span.interim(interim(number, "some words", now, now + length))
                if piece is None:
                    assert span._held is not None
                    continue
                assert piece.start == (told[-1].end if told else 0.0)
                assert all(piece.start <= said.start <= said.end for said in piece.words)
            case "f":
                told += span.final(final(number, "some words", now, now + length))
                now, number = now + length, number + 1
            case "F":
                span.finalize(now)
            case "s":
                span.stopped(now)
            case _:
                answer = span.finalized()
                told += [answer] if answer is not None else []
    told += span.rest(now)
    assert all(before.end == after.start for before, after in pairwise(told))
    assert not told or told[0].start == 0.0
    for piece in told:
        assert piece.start <= piece.end
        assert piece.is_final
        assert all(piece.start <= said.start <= said.end for said in piece.words)
