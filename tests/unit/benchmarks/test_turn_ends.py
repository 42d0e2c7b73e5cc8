"""What counts as a cut, as an end that was noticed, and how long the wait for it was."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from benchmarks.corpus import Recording, Turn
from benchmarks.turn_ends import ANSWER_MS, Heard, Policy, Tally, TimedModel, play_policy, tally_of, turns_of
from mediaserver.audio.clock import FRAME_SAMPLES, samples_in
from mediaserver.audio.endpoint import Ended, EndpointerConfig, TurnWaits
from mediaserver.audio.turn import TurnModel


def recording(*turns: tuple[float, float, str]) -> Recording:
    segments = tuple(Turn(start=start, end=end, speaker=speaker) for start, end, speaker in turns)
    return Recording(folder=Path(), path="x/y.flac", duration_s=20.0, segments=segments)


def ended(s: float, *, told_s: float, reason: str = "silence") -> tuple[Ended, int]:
    at = samples_in(s=s)
    return Ended(at, at, reason), samples_in(s=told_s)  # type: ignore[arg-type]


def tallied(ends: list[tuple[Ended, int]], *turns: tuple[float, float]) -> Tally:
    return tally_of([end for end, _ in ends], [told for _, told in ends], turns)


def test_a_recording_that_nobody_divided_is_one_turn() -> None:
    assert turns_of(recording()) == [Turn(start=0.0, end=20.0)]


def test_a_breath_does_not_end_a_turn_but_another_speaker_does() -> None:
    turns = turns_of(recording((0, 2, "a"), (2.5, 4, "a"), (5.5, 6, "a"), (6.1, 7, "b"), (7.1, 8, "a")))
    assert [(turn.start, turn.end, turn.speaker) for turn in turns] == [
        (0, 4, "a"),
        (5.5, 6, "a"),
        (6.1, 7, "b"),
        (7.1, 8, "a"),
    ]


def test_an_end_within_a_turn_is_a_cut_and_one_at_its_end_has_a_wait() -> None:
    tally = tallied([ended(3.0, told_s=3.5), ended(6.05, told_s=6.6)], (1.0, 6.0))
    assert (tally.cuts, tally.run_together) == (1, 0)
    assert tally.waits_ms == [pytest.approx(600, abs=1)]
    assert tally.cuts_per_minute == pytest.approx(12)


def test_a_turn_whose_end_nobody_noticed_ran_together_with_the_next() -> None:
    tally = tallied([ended(9.0, told_s=9.5)], (1.0, 5.0), (5.2, 9.0))
    assert (tally.cuts, tally.run_together, len(tally.waits_ms)) == (0, 1, 1)


def test_long_speech_that_is_cut_for_its_length_counts_neither_way() -> None:
    tally = tallied([ended(3.0, told_s=3.0, reason="length")], (1.0, 6.0))
    assert (tally.cuts, tally.run_together) == (0, 1)


def test_nothing_said_has_no_rate() -> None:
    assert np.isnan(Tally().cuts_per_minute)
    assert np.isnan(Tally().wait_ms(50))


class Answers:
    """Stands where the model does."""

    def __init__(self, *answers: float) -> None:
        self.answers = list(answers)
        self.lengths: list[int] = []

    def probability(self, samples: np.ndarray[tuple[int], np.dtype[np.float32]]) -> float:
        self.lengths.append(len(samples))
        return self.answers.pop(0)


@pytest.mark.parametrize(
    ("answers", "cuts", "wait_ms"),
    [((0.1, 0.9), 0, 224 + ANSWER_MS + 32), ((0.9, 0.1), 1, 1504), ((0.1, 0.1), 0, 1504)],
)
def test_the_model_answers_in_time_for_the_wait_it_moves(answers: tuple[float, ...], cuts: int, wait_ms: int) -> None:
    """Speech, a pause of 640 ms, speech: one turn."""
    probabilities = np.repeat([0.0, 0.9, 0.0, 0.9, 0.0], [20, 50, 20, 50, 100]).astype(np.float32)
    samples = np.zeros(len(probabilities) * FRAME_SAMPLES, dtype=np.float32)
    heard = Heard(recording(), samples, probabilities, [Turn(start=0.64, end=4.48)])
    policy = Policy("semantic", EndpointerConfig(turn_waits=TurnWaits(300, 1500)))
    model = Answers(*answers)
    timed = TimedModel(cast(TurnModel, model))
    tally = play_policy(policy, heard, timed)
    assert tally.cuts == cuts
    assert tally.waits_ms == [pytest.approx(wait_ms, abs=1)]
    assert (tally.asked, tally.inside, tally.at_ends) == (2, (1, answers[0] > 0.5), (1, answers[1] > 0.5))
    assert tally.said_s == pytest.approx(3.84)
    assert play_policy(policy, heard, timed) == tally, "what is known is not asked again"
    assert len(model.lengths) == len(timed.cpu_ms) == 2


def test_silence_alone_asks_nothing() -> None:
    probabilities = np.repeat([0.9, 0.0], [50, 50]).astype(np.float32)
    heard = Heard(recording(), np.zeros(0, dtype=np.float32), probabilities, [Turn(start=0.0, end=1.6)])
    tally = play_policy(Policy("silence 500", EndpointerConfig()), heard, TimedModel(cast(TurnModel, Answers())))
    assert tally.waits_ms == [pytest.approx(512, abs=1)]
    assert tally.asked == 0
