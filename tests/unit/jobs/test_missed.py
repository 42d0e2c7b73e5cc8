"""What was left out is found, and decoded by itself."""

from __future__ import annotations

import numpy as np
import pytest

from mediaserver.audio.clock import samples_in
from mediaserver.decoder.window import Hypothesis, HypothesisWord
from mediaserver.jobs.missed import missed_from
from mediaserver.jobs.pieces import Piece, Run


def piece(*lengths_s: float) -> Piece:
    """Utterances end to end; sample n of the recording has the value n."""
    ends = [samples_in(s=sum(lengths_s[: n + 1])) for n in range(len(lengths_s))]
    samples = np.arange(ends[-1], dtype=np.float32)
    return Piece(0, samples, (Run(0, 0, ends[-1]),), tuple(ends[:-1]))


def heard(*, to_s: float, rejected: str | None = None) -> Hypothesis:
    words = [] if rejected else [HypothesisWord(" a", 0.0, 0.5, 0.9), HypothesisWord(" b", to_s - 0.5, to_s, 0.9)]
    return Hypothesis(words=words, rejected=rejected)


def test_what_was_heard_to_its_end_is_left_alone() -> None:
    assert missed_from(piece(8.0, 8.0), heard(to_s=15.5)) is None
    assert missed_from(piece(8.0, 8.0, 3.0), heard(to_s=15.5)) is None, "three seconds may be no words"
    assert missed_from(piece(16.0), heard(to_s=3.0)) is None, "there is no pause to cut it at"


def test_what_broke_off_goes_on_at_the_next_pause() -> None:
    assert missed_from(piece(8.0, 8.0, 8.0), heard(to_s=7.8)) == samples_in(s=8.0)
    assert missed_from(piece(8.0, 8.0, 8.0), heard(to_s=8.2)) == samples_in(s=8.0), "a word's end is not exact"
    assert missed_from(piece(8.0, 8.0, 8.0), heard(to_s=9.0)) == samples_in(s=16.0)


def test_a_loop_is_cut_in_the_middle_and_noise_left_alone() -> None:
    assert missed_from(piece(4.0, 9.0, 8.0), heard(to_s=0, rejected="repetitive")) == samples_in(s=13.0)
    assert missed_from(piece(20.0), heard(to_s=0, rejected="repetitive")) is None
    assert missed_from(piece(8.0, 8.0), heard(to_s=0, rejected="no_speech")) is None
    assert missed_from(piece(8.0, 8.0), Hypothesis()) is None


@pytest.mark.parametrize("at_s", [3.0, 5.0, 9.5])
def test_a_piece_that_is_split_is_still_where_it_was(at_s: float) -> None:
    runs = (Run(0, 1000, samples_in(s=5.0)), Run(samples_in(s=5.0), 900_000, samples_in(s=6.0)))
    samples = np.concatenate([np.arange(run.sample, run.sample + run.length, dtype=np.float32) for run in runs])
    whole = Piece(1, samples, runs, (samples_in(s=3.0), samples_in(s=5.0), samples_in(s=9.5)))
    parts = whole.split(samples_in(s=at_s))
    assert np.array_equal(np.concatenate([part.samples for part in parts]), samples)
    assert (parts[0].start_sample, parts[1].end_sample) == (whole.start_sample, whole.end_sample)
    assert len(parts[0].joints) + len(parts[1].joints) == 2
    for part in parts:
        assert part.channel == 1
        for run in part.runs:
            there = part.samples[run.offset : run.offset + run.length]
            assert np.array_equal(there, np.arange(run.sample, run.sample + run.length, dtype=np.float32))
