"""When `utterance_end` is told: with the final, or after a gap measured from the last word."""

from __future__ import annotations

import pytest

from mediaserver.audio.clock import samples_in
from mediaserver.decoder.window import HypothesisWord
from mediaserver.session.passage import Said
from mediaserver.session.utterance_end import UtteranceEnds


def said(number: int, *words: tuple[float, float]) -> Said:
    """An utterance with words that start and end at these seconds."""
    return Said(
        number=number,
        start_sample=0,
        speech_sample=0,
        speech_end_sample=0,
        end_sample=0,
        words=tuple(HypothesisWord(" w", start, end, 0.9) for start, end in words),
    )


class Told:
    """The events of a session with a gap of 1 s."""

    def __init__(self, gap_ms: int | None = 1000) -> None:
        self.numbers: list[int] = []
        self.ends = UtteranceEnds(lambda item: self.numbers.append(item.number))
        self.ends.gap_ms = gap_ms

    def at(self, s: float, *, speech_s: float | None = None, is_awaited: bool = False) -> list[int]:
        speech = None if speech_s is None else samples_in(s=speech_s)
        self.ends.passed(samples_in(s=s), speech_sample=speech, is_awaited=is_awaited)
        return self.numbers


def test_without_a_gap_each_utterance_that_ends_in_silence_gets_one_with_its_final() -> None:
    told = Told(None)
    told.ends.final(said(1, (0, 1)), has_stopped=True)
    told.ends.final(said(2, (1, 2)), has_stopped=False)
    told.ends.final(said(3), has_stopped=True)
    told.ends.flush()
    assert told.at(100) == [1]


def test_with_a_gap_it_comes_when_so_much_time_has_passed_since_the_last_word() -> None:
    told = Told()
    told.ends.final(said(1, (0, 1), (1, 2)), has_stopped=True)
    assert told.at(2.9) == []
    assert told.at(3.0) == [1]
    assert told.at(9.0) == [1], "once a last word"


def test_a_speaker_who_goes_on_is_not_told_to_have_ended() -> None:
    told = Told()
    told.ends.final(said(1, (0, 2)), has_stopped=True)
    assert told.at(5.0, speech_s=2.8) == []
    assert told.at(5.5, is_awaited=True) == [], "the next final is on its way"
    told.ends.final(said(2, (2.8, 5)), has_stopped=True)
    assert told.at(5.9) == []
    assert told.at(6.0) == [2]


def test_words_that_begin_after_the_gap_end_what_came_before_them() -> None:
    told = Told()
    told.ends.final(said(1, (0, 2)), has_stopped=True)
    assert told.at(5.0, is_awaited=True) == []
    told.ends.final(said(2, (3.5, 4)), has_stopped=True)
    assert told.numbers == [1]
    assert told.at(5.0) == [1, 2]


def test_speech_that_begins_after_the_gap_does_not_delay_it() -> None:
    told = Told()
    told.ends.final(said(1, (0, 2)), has_stopped=True)
    assert told.at(4.0, speech_s=3.2) == [1]


def test_a_noise_without_words_only_delays_it() -> None:
    told = Told()
    told.ends.final(said(1, (0, 2)), has_stopped=True)
    assert told.at(3.5, speech_s=2.5) == []
    told.ends.final(said(2), has_stopped=True)
    assert told.at(3.6) == [1]


def test_a_cut_is_no_end_where_words_go_on() -> None:
    told = Told()
    told.ends.final(said(1, (0, 20)), has_stopped=False)
    assert told.at(25, speech_s=20) == []
    told.ends.final(said(2, (20.1, 25)), has_stopped=True)
    assert told.at(26) == [2]


def test_what_is_open_is_told_at_the_end_of_the_stream() -> None:
    told = Told()
    told.ends.final(said(1, (0, 2)), has_stopped=True)
    told.ends.flush()
    told.ends.flush()
    assert told.numbers == [1]


@pytest.mark.parametrize(("gap_ms", "at_s"), [(200, 2.3), (None, 2.1)])
def test_a_gap_may_be_changed_while_it_runs(gap_ms: int | None, at_s: float) -> None:
    told = Told()
    told.ends.final(said(1, (0, 2)), has_stopped=True)
    assert told.at(at_s) == []
    told.ends.gap_ms = gap_ms
    assert told.at(at_s) == [1]
