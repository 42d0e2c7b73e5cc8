"""The ring keeps the newest samples at their stream positions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.audio.ring import BLOCK_SAMPLES, SampleRing


def counted(start: int, count: int) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.float32)


@given(
    st.integers(1, 40),
    st.integers(0, 1000),
    st.lists(st.integers(0, 90), max_size=12),
    st.data(),
)
def test_every_readable_position_reads_back_as_written(
    capacity: int, start: int, sizes: list[int], data: st.DataObject
) -> None:
    ring = SampleRing(capacity, start_position=start)
    for size in sizes:
        ring.append(counted(ring.end_position, size))
    assert ring.end_position == start + sum(sizes)
    assert ring.end_position - ring.start_position == min(capacity, sum(sizes))
    begin = data.draw(st.integers(ring.start_position, ring.end_position))
    end = data.draw(st.integers(begin, ring.end_position))
    np.testing.assert_array_equal(ring.read(begin, end), counted(begin, end - begin))


@pytest.mark.parametrize(("begin", "end"), [(1, 5), (5, 13), (6, 5), (-1, 5)])
def test_reading_what_is_not_there_is_an_error_and_not_a_shorter_answer(begin: int, end: int) -> None:
    ring = SampleRing(10)
    ring.append(counted(0, 12))
    with pytest.raises(ValueError, match="2 to 12 are here"):
        ring.read(begin, end)


def test_what_was_read_does_not_change_when_the_ring_goes_on() -> None:
    ring = SampleRing(4)
    ring.append(counted(0, 4))
    window = ring.read(0, 4)
    ring.append(counted(4, 4))
    np.testing.assert_array_equal(window, counted(0, 4))


def test_a_ring_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="holds nothing"):
        SampleRing(0)


@given(
    st.integers(1, 3 * BLOCK_SAMPLES),
    st.integers(0, 2 * BLOCK_SAMPLES),
    st.lists(st.tuples(st.integers(0, 2 * BLOCK_SAMPLES), st.integers(-10, 4 * BLOCK_SAMPLES)), max_size=6),
)
def test_what_is_forgotten_is_gone_with_its_memory_and_the_rest_reads_back(
    capacity: int, start: int, steps: list[tuple[int, int]]
) -> None:
    ring = SampleRing(capacity, start_position=start)
    for size, before in steps:
        ring.append(counted(ring.end_position, size))
        oldest = ring.start_position
        ring.forget(before)
        assert ring.start_position == max(oldest, min(before, ring.end_position))
        kept = ring.read(ring.start_position, ring.end_position)
        np.testing.assert_array_equal(kept, counted(ring.start_position, len(kept)))
        assert ring.held_samples <= len(kept) + 2 * BLOCK_SAMPLES
