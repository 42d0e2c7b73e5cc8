"""Where a recording is cut, and where what was said in a piece lies in it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaserver.audio.clock import FRAME_SAMPLES, SAMPLE_RATE, samples_in
from mediaserver.audio.endpoint import EndpointerConfig
from mediaserver.jobs.pieces import KEPT_GAP_S, LONGEST_S, Cutter, Piece, Run

FRAME_S = FRAME_SAMPLES / SAMPLE_RATE


def cut(script: list[tuple[bool, float]], *, block_frames: int = 500, longest_s: float = LONGEST_S) -> list[Piece]:
    """The pieces of a recording of speech (True) and silence; sample n of it has the value n."""
    frames = [speaks for speaks, length_s in script for _ in range(round(length_s / FRAME_S))]
    probabilities = np.array(frames, dtype=np.float32)
    samples = np.arange(len(frames) * FRAME_SAMPLES, dtype=np.float32)
    cutter = Cutter(0, endpoints=EndpointerConfig(endpointing_ms=300), longest_s=longest_s)
    pieces = []
    for at in range(0, len(frames), block_frames):
        block = slice(at * FRAME_SAMPLES, (at + block_frames) * FRAME_SAMPLES)
        pieces += cutter.feed(samples[block], probabilities[at : at + block_frames])
    return pieces + cutter.finish()


def assert_faithful(pieces: list[Piece]) -> None:
    """Each run has the audio of its place; pieces and runs are in order and share nothing."""
    end = 0
    for piece in pieces:
        assert sum(run.length for run in piece.runs) == len(piece.samples)
        offset = 0
        for run in piece.runs:
            assert run.offset == offset
            assert run.sample >= end
            heard = piece.samples[run.offset : run.offset + run.length]
            assert np.array_equal(heard, np.arange(run.sample, run.sample + run.length, dtype=np.float32))
            offset += run.length
            end = run.sample + run.length


def covers(pieces: list[Piece], start_s: float, end_s: float) -> bool:
    """Whether one run of one piece has all of a stretch."""
    start, end = samples_in(s=start_s), samples_in(s=end_s)
    return any(run.sample <= start and end <= run.sample + run.length for piece in pieces for run in piece.runs)


def test_silence_is_not_decoded() -> None:
    assert cut([(False, 120.0)]) == []


def test_a_click_is_not_decoded() -> None:
    assert cut([(False, 3.0), (True, 0.1), (False, 3.0)]) == []


def test_short_utterances_share_a_piece_and_long_silence_is_left_out() -> None:
    pieces = cut([(False, 5.0), (True, 4.0), (False, 60.0), (True, 4.0), (False, 0.6), (True, 3.0), (False, 30.0)])
    assert len(pieces) == 1
    assert_faithful(pieces)
    assert len(pieces[0].runs) == 2
    assert len(pieces[0].samples) < samples_in(s=4.0 + 4.0 + 0.6 + 3.0 + 1.5)
    assert covers(pieces, 5.0, 9.0)
    assert covers(pieces, 69.0, 76.6), "a short pause is heard as it is"


def test_a_piece_ends_at_the_longest_pause_that_it_could_end_at() -> None:
    script = [
        (True, 8.0),
        (False, 0.4),
        (True, 6.0),
        (False, 0.9),
        (True, 5.0),
        (False, 0.4),
        (True, 8.0),
        (False, 2.0),
    ]
    first, second = cut(script)
    assert first.end_sample == pytest.approx(samples_in(s=8.0 + 0.4 + 6.0 + 0.2), abs=2 * FRAME_SAMPLES)
    assert second.start_sample >= first.end_sample
    assert_faithful([first, second])


def test_speech_without_a_pause_is_cut_and_nothing_of_it_lost() -> None:
    pieces = cut([(False, 1.0), (True, 100.0), (False, 1.0)])
    assert_faithful(pieces)
    assert len(pieces) >= 4
    assert sum(len(piece.samples) for piece in pieces) >= samples_in(s=100.0)
    for before, after in pairwise(pieces):
        assert before.end_sample == after.start_sample
    assert all(len(piece.samples) <= samples_in(s=LONGEST_S) for piece in pieces)


LENGTHS = st.floats(0.05, 40.0)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.booleans(), LENGTHS), max_size=8), st.integers(50, 700))
def test_all_speech_is_in_a_piece_once_whatever_the_blocks(script: list[tuple[bool, float]], block: int) -> None:
    pieces = cut(script, block_frames=block)
    assert_faithful(pieces)
    assert pieces == [] or all(0 < len(piece.samples) <= samples_in(s=LONGEST_S) for piece in pieces)
    at_s = 0.0
    for speaks, asked_s in script:
        length_s = round(asked_s / FRAME_S) * FRAME_S
        if speaks and length_s >= 0.5:
            middle = samples_in(s=at_s + length_s / 2)
            assert any(run.sample <= middle < run.sample + run.length for piece in pieces for run in piece.runs)
        at_s += length_s


def test_the_blocks_that_audio_comes_in_change_nothing() -> None:
    script = [(True, 8.0), (False, 0.4), (True, 30.0), (False, 5.0), (True, 5.0), (False, 0.4), (True, 8.0)]
    whole, torn = cut(script, block_frames=5000), cut(script, block_frames=7)
    assert [piece.runs for piece in whole] == [piece.runs for piece in torn]


def test_a_word_is_placed_in_the_run_that_its_middle_is_in() -> None:
    piece = Piece(0, np.zeros(3000, dtype=np.float32), (Run(0, 10_000, 1000), Run(1000, 50_000, 2000)))
    assert piece.place(100, 300) == (10_100, 10_300)
    assert piece.place(1500, 1700) == (50_500, 50_700)
    assert piece.place(900, 1400) == (50_000, 50_400), "it begins where its run does"
    assert piece.place(700, 1200) == (10_700, 11_000), "and ends where its run does"
    assert (piece.start_sample, piece.end_sample) == (10_000, 52_000)


def test_a_pause_that_is_kept_is_not_longer_than_said() -> None:
    pieces = cut([(True, 2.0), (False, KEPT_GAP_S + 1.0), (True, 2.0), (False, 1.0)])
    assert len(pieces[0].runs) == 2
