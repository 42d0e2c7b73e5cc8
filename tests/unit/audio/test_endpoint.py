"""Where utterances begin, end and are cut. Positions are in samples; one probability is 512 of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaserver.audio.clock import FRAME_SAMPLES, samples_in
from mediaserver.audio.endpoint import (
    CUT_GRACE_S,
    Edge,
    Ended,
    Endpointer,
    EndpointerConfig,
    Paused,
    Started,
    TooLong,
    TurnWaits,
)

SPEECH, UNSURE, SILENCE = 0.9, 0.4, 0.05
CONFIG = EndpointerConfig(threshold=0.5, endpointing_ms=480, pre_roll_ms=320, min_speech_ms=256, max_utterance_s=20.0)
POST_ROLL = samples_in(ms=200)


def fed(endpointer: Endpointer, *runs: tuple[float, int]) -> list[Edge]:
    return [edge for probability, count in runs for _ in range(count) for edge in endpointer.feed(probability)]


def frames(count: int) -> int:
    return count * FRAME_SAMPLES


def test_speech_between_silences_is_one_utterance_with_pre_roll_and_post_roll() -> None:
    edges = fed(Endpointer(CONFIG), (SILENCE, 20), (SPEECH, 30), (SILENCE, 30))
    assert edges == [
        Started(start_sample=frames(10), speech_sample=frames(20)),
        Ended(end_sample=frames(50) + POST_ROLL, speech_end_sample=frames(50), reason="silence"),
    ]


def test_start_is_told_when_enough_speech_has_been_heard() -> None:
    endpointer = Endpointer(CONFIG)
    assert fed(endpointer, (SPEECH, 7)) == []
    assert not endpointer.in_utterance
    assert fed(endpointer, (SPEECH, 1)) == [Started(0, 0)]
    assert endpointer.in_utterance


def test_end_is_told_after_the_endpointing_silence_and_not_before() -> None:
    endpointer = Endpointer(CONFIG)
    assert fed(endpointer, (SPEECH, 20), (SILENCE, 14)) == [Started(0, 0)]
    assert len(fed(endpointer, (SILENCE, 1))) == 1


def test_short_bursts_never_become_an_utterance() -> None:
    assert fed(Endpointer(CONFIG), *[(SPEECH, 7), (SILENCE, 4)] * 20) == []


def test_a_stop_consonant_does_not_break_up_a_short_word() -> None:
    assert fed(Endpointer(CONFIG), (SPEECH, 4), (SILENCE, 3), (SPEECH, 4)) == [Started(0, 0)]


def test_a_vowel_that_fades_does_not_end_a_word_but_cannot_begin_one() -> None:
    edges = fed(Endpointer(CONFIG), (UNSURE, 40), (SPEECH, 10), (UNSURE, 40), (SILENCE, 20))
    assert [edge.speech_sample for edge in edges if isinstance(edge, Started)] == [frames(40)]
    assert [edge.speech_end_sample for edge in edges if isinstance(edge, Ended)] == [frames(90)]


def test_silence_goes_on_until_there_is_speech_again() -> None:
    edges = fed(Endpointer(CONFIG), (SPEECH, 10), (SILENCE, 8), (UNSURE, 7))
    assert edges[-1] == Ended(frames(10) + POST_ROLL, frames(10), "silence")


def test_threshold_near_zero_still_lets_utterances_end() -> None:
    edges = fed(Endpointer(replace(CONFIG, threshold=0.1)), (SPEECH, 20), (0.01, 20))
    assert isinstance(edges[-1], Ended)


def test_pre_roll_stops_at_the_utterance_before() -> None:
    config = replace(CONFIG, endpointing_ms=100, pre_roll_ms=2000)
    edges = fed(Endpointer(config), (SPEECH, 20), (SILENCE, 4), (SPEECH, 20))
    assert edges[1] == Ended(frames(24), frames(20), "silence")  # a post-roll cannot be longer than what was heard
    assert edges[2] == Started(frames(24), frames(24))


def test_flush_ends_now_and_gives_up_what_has_not_started() -> None:
    endpointer = Endpointer(CONFIG)
    fed(endpointer, (SPEECH, 20))
    assert endpointer.flush() == [Ended(frames(20), frames(20), "flush")]
    assert endpointer.flush() == []
    assert fed(endpointer, (SPEECH, 4)) == []
    assert endpointer.flush() == []
    assert fed(endpointer, (SPEECH, 4)) == []  # the eight frames are not one burst


def test_flush_in_the_silence_after_speech_ends_where_the_speech_did() -> None:
    endpointer = Endpointer(CONFIG)
    fed(endpointer, (SPEECH, 20), (SILENCE, 10))
    assert endpointer.flush() == [Ended(frames(20) + POST_ROLL, frames(20), "flush")]


def test_long_speech_is_reported_once_with_its_quietest_place_and_goes_on_from_the_cut() -> None:
    endpointer = Endpointer(replace(CONFIG, max_utterance_s=6.4))
    edges = fed(endpointer, (SPEECH, 150), (0.6, 1), (SPEECH, 60))
    assert edges == [Started(0, 0), TooLong(frames(148))]
    endpointer.cut(frames(148))
    # The next one is full 200 frames after the cut; what is told of it comes from after the cut.
    assert fed(endpointer, (SPEECH, 136)) == []
    (again,) = fed(endpointer, (SPEECH, 1))
    assert isinstance(again, TooLong)
    assert again.quietest_sample > frames(250)


def test_a_cut_that_does_not_come_is_made_here_in_time_for_whispers_window() -> None:
    endpointer = Endpointer(replace(CONFIG, max_utterance_s=28.0))
    edges = fed(endpointer, (SPEECH, 800), (0.6, 1), (SPEECH, 200))
    started, too_long, ended, again = edges
    assert started == Started(0, 0)
    assert too_long == TooLong(frames(798))
    assert ended == Ended(frames(798), frames(798), "length")
    assert again == Started(ended.end_sample, ended.end_sample)
    assert samples_in(s=28.0 + CUT_GRACE_S) + FRAME_SAMPLES <= samples_in(s=30.0)


@pytest.mark.parametrize("at_sample", [-5, 10**9])
def test_a_cut_outside_the_utterance_is_clipped_to_it(at_sample: int) -> None:
    endpointer = Endpointer(CONFIG)
    fed(endpointer, (SILENCE, 30), (SPEECH, 30))
    endpointer.cut(at_sample)
    (ended,) = endpointer.flush()
    assert ended == Ended(frames(60), frames(60), "flush")


def test_a_cut_in_the_silence_at_the_end_leaves_an_empty_piece_and_not_a_negative_one() -> None:
    endpointer = Endpointer(CONFIG)
    fed(endpointer, (SPEECH, 30), (SILENCE, 10))
    endpointer.cut(frames(39))
    assert endpointer.flush() == [Ended(frames(40), frames(39), "flush")]


def test_a_cut_after_the_end_changes_nothing() -> None:
    endpointer = Endpointer(CONFIG)
    fed(endpointer, (SPEECH, 30), (SILENCE, 30))
    endpointer.cut(frames(10))
    assert not endpointer.in_utterance
    assert endpointer.flush() == []


def test_configuration_holds_from_the_next_frame() -> None:
    endpointer = Endpointer(CONFIG)
    fed(endpointer, (SPEECH, 20), (SILENCE, 5))
    endpointer.config = replace(CONFIG, endpointing_ms=160)
    assert isinstance(endpointer.feed(SILENCE)[0], Ended)


def test_what_is_not_a_number_counts_as_speech() -> None:
    assert fed(Endpointer(CONFIG), (float("nan"), 8)) == [Started(0, 0)]


# Whether somebody has finished. A pause is told after 7 frames (224 ms); plain silence ends after 15.


TURNS = replace(CONFIG, turn_waits=TurnWaits(complete_ms=320, incomplete_ms=960))


def paused(endpointer: Endpointer, *, speech_frames: int = 30) -> Paused:
    edges = fed(endpointer, (SPEECH, speech_frames), (SILENCE, 7))
    assert isinstance(edges[-1], Paused)
    return edges[-1]


def frames_until_end(endpointer: Endpointer) -> int:
    for count in range(1, 1000):
        if any(isinstance(edge, Ended) for edge in endpointer.feed(SILENCE)):
            return count
    raise AssertionError("the utterance never ended")


def test_a_pause_is_told_once_with_what_was_said_before_it() -> None:
    endpointer = Endpointer(TURNS)
    edges = fed(endpointer, (SILENCE, 30), (SPEECH, 30), (SILENCE, 14))
    assert edges[1:] == [Paused(frames(20), speech_end_sample=frames(60), position_sample=frames(67))]


def test_pauses_are_not_told_where_silence_alone_decides() -> None:
    assert not any(isinstance(edge, Paused) for edge in fed(Endpointer(CONFIG), (SPEECH, 30), (SILENCE, 14)))


def test_the_gaps_inside_a_phrase_are_no_pauses() -> None:
    edges = fed(Endpointer(TURNS), *[(SPEECH, 10), (SILENCE, 6)] * 10)
    assert edges == [Started(0, 0)]


@pytest.mark.parametrize(("is_complete", "silent_frames"), [(True, 10), (False, 30), (None, 15)])
def test_the_answer_shortens_or_lengthens_the_wait(is_complete: bool | None, silent_frames: int) -> None:
    endpointer = Endpointer(TURNS)
    pause = paused(endpointer)
    if is_complete is not None:
        endpointer.turned(pause.speech_end_sample, is_complete=is_complete)
    assert frames_until_end(endpointer) == silent_frames - 7


def test_what_ends_is_where_the_speech_did_however_long_the_wait() -> None:
    endpointer = Endpointer(TURNS)
    endpointer.turned(paused(endpointer).speech_end_sample, is_complete=False)
    edges = fed(endpointer, (SILENCE, 40))
    assert edges == [Ended(frames(30) + POST_ROLL, frames(30), "silence")]


def test_an_answer_that_comes_after_the_shorter_wait_ends_with_the_next_frame() -> None:
    endpointer = Endpointer(TURNS)
    pause = paused(endpointer)
    assert fed(endpointer, (SILENCE, 6)) == []
    endpointer.turned(pause.speech_end_sample, is_complete=True)
    assert frames_until_end(endpointer) == 1


@pytest.mark.parametrize("is_complete", [True, False])
def test_an_answer_that_comes_when_there_is_speech_again_changes_nothing(is_complete: bool) -> None:
    endpointer = Endpointer(TURNS)
    late = paused(endpointer)
    again = paused(endpointer, speech_frames=5)
    assert again.speech_end_sample > late.speech_end_sample
    endpointer.turned(late.speech_end_sample, is_complete=is_complete)
    assert frames_until_end(endpointer) == 15 - 7


def test_an_answer_of_the_pause_before_is_forgotten_with_it() -> None:
    endpointer = Endpointer(TURNS)
    endpointer.turned(paused(endpointer).speech_end_sample, is_complete=False)
    paused(endpointer, speech_frames=5)
    assert frames_until_end(endpointer) == 15 - 7


@pytest.mark.parametrize("is_complete", [True, False])
def test_an_answer_that_comes_after_the_end_changes_nothing(is_complete: bool) -> None:
    endpointer = Endpointer(TURNS)
    late = paused(endpointer)
    frames_until_end(endpointer)
    endpointer.turned(late.speech_end_sample, is_complete=is_complete)
    assert fed(endpointer, (SILENCE, 50)) == []
    paused(endpointer)
    endpointer.turned(late.speech_end_sample, is_complete=is_complete)
    assert frames_until_end(endpointer) == 15 - 7


def test_complete_never_lengthens_the_wait_and_incomplete_never_shortens_it() -> None:
    waits = TurnWaits(complete_ms=2000, incomplete_ms=250)
    for is_complete in (True, False):
        endpointer = Endpointer(replace(TURNS, turn_waits=waits))
        endpointer.turned(paused(endpointer).speech_end_sample, is_complete=is_complete)
        assert frames_until_end(endpointer) == 15 - 7


def test_speech_goes_on_after_an_unfinished_pause_as_one_utterance() -> None:
    endpointer = Endpointer(TURNS)
    endpointer.turned(paused(endpointer).speech_end_sample, is_complete=False)
    edges = fed(endpointer, (SILENCE, 15), (SPEECH, 20))
    assert edges == []
    assert endpointer.in_utterance


def test_silence_and_turn_waits_may_be_changed_within_a_pause() -> None:
    endpointer = Endpointer(CONFIG)
    fed(endpointer, (SPEECH, 30), (SILENCE, 10))
    endpointer.config = TURNS
    (pause,) = endpointer.feed(SILENCE)
    assert isinstance(pause, Paused)
    endpointer.turned(pause.speech_end_sample, is_complete=False)
    assert fed(endpointer, (SILENCE, 10)) == []  # 21 frames of silence
    endpointer.config = replace(TURNS, turn_waits=TurnWaits(320, 672))
    assert frames_until_end(endpointer) == 1
    fed(endpointer, (SPEECH, 30))
    endpointer.turned(paused(endpointer).speech_end_sample, is_complete=False)
    endpointer.config = CONFIG
    assert frames_until_end(endpointer) == 15 - 7


def test_the_threshold_may_be_changed_within_an_utterance() -> None:
    endpointer = Endpointer(CONFIG)
    assert fed(endpointer, (SPEECH, 20), (UNSURE, 30)) == [Started(0, 0)]
    endpointer.config = replace(CONFIG, threshold=0.7)  # what was hardly speech is silence now
    assert frames_until_end(endpointer) == 15


WAITS = st.builds(TurnWaits, complete_ms=st.integers(200, 2000), incomplete_ms=st.integers(200, 3000))
CONFIGS = st.builds(
    EndpointerConfig,
    threshold=st.floats(0.01, 0.99),
    endpointing_ms=st.integers(100, 2000),
    pre_roll_ms=st.integers(0, 2000),
    min_speech_ms=st.integers(0, 600),
    max_utterance_s=st.floats(5, 28),
    turn_waits=st.none() | WAITS,
)
RUNS = st.lists(st.tuples(st.floats(), st.integers(1, 300)), max_size=14)
ACTS = st.lists(st.one_of(RUNS, st.just("flush"), st.integers(0, 300_000), CONFIGS), max_size=8)


@settings(max_examples=150, deadline=None)
@given(CONFIGS, ACTS, st.booleans(), st.sampled_from([0, 0, 5]))
def test_whatever_comes_edges_alternate_and_positions_never_go_back(
    config: EndpointerConfig, acts: list[object], answers: bool, late: int
) -> None:
    endpointer = Endpointer(config)
    started: int | None = None  # start of the utterance that runs
    last_end = 0

    def check(edges: list[Edge]) -> None:
        nonlocal started, last_end
        for edge in edges:
            match edge:
                case Started(start, speech):
                    assert started is None
                    assert last_end <= start <= speech <= endpointer.position_samples
                    started = start
                case Ended(end, speech_end, _):
                    assert started is not None
                    assert started <= speech_end <= end <= endpointer.position_samples
                    started, last_end = None, end
                case TooLong(quietest):
                    assert started is not None
                    assert started <= quietest < endpointer.position_samples
                    if answers:
                        endpointer.cut(quietest)
                        started = last_end = quietest
                case Paused(start, speech_end, position):
                    assert started is not None
                    assert started == start < position == endpointer.position_samples
                    assert speech_end < position
                    endpointer.turned(speech_end - frames(late), is_complete=answers)

    for act in acts:
        match act:
            case list():
                for probability, count in act:
                    for _ in range(count):
                        check(endpointer.feed(probability))
                        longest = samples_in(s=endpointer.config.max_utterance_s + CUT_GRACE_S)
                        assert started is None or endpointer.position_samples - started <= longest
            case "flush":
                check(endpointer.flush())
                assert started is None
            case int():
                endpointer.cut(act)
                if started is not None:
                    started = last_end = min(max(act, started), endpointer.position_samples)
            case EndpointerConfig():
                endpointer.config = act


def test_the_shortest_wait_is_that_of_a_finished_turn_where_it_is_shorter() -> None:
    assert EndpointerConfig(endpointing_ms=500).shortest_wait_ms == 500
    assert EndpointerConfig(endpointing_ms=500, turn_waits=TurnWaits(complete_ms=300)).shortest_wait_ms == 300
    assert EndpointerConfig(endpointing_ms=200, turn_waits=TurnWaits(complete_ms=300)).shortest_wait_ms == 200
