"""The last seconds of a stream, addressed by stream position.

Bound: `capacity_samples`; the oldest samples are dropped first. Memory follows what is kept: it comes in blocks, and
goes with what is dropped or forgotten, so that a stream in which nobody speaks has a tenth of what a long utterance
needs.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from mediaserver.audio.clock import Samples

BLOCK_SAMPLES = 8_000
"""Half a second, 32 kB: below it the blocks' own cost would show, and more would be kept for nothing."""


class SampleRing:
    """Bounded samples at their places on the stream's clock. Not thread-safe: it belongs to one event loop.

    Args:
        capacity_samples: how many samples are kept at most.
        start_position: stream position of the first sample that will be appended.
    """

    def __init__(self, capacity_samples: int, *, start_position: int = 0) -> None:
        if capacity_samples <= 0:
            raise ValueError(f"A ring of {capacity_samples} samples holds nothing.")
        self._capacity = capacity_samples
        # Block k of the stream is samples [k * BLOCK_SAMPLES, (k + 1) * BLOCK_SAMPLES).
        self._blocks: deque[Samples] = deque()  # bound: what `_capacity` takes, and a block begun at either end
        self._base = start_position // BLOCK_SAMPLES  # number of the first block in it
        self._first = start_position
        self._end = start_position

    @property
    def capacity_samples(self) -> int:
        """How many samples are kept at most."""
        return self._capacity

    @property
    def start_position(self) -> int:
        """Stream position of the oldest sample that is still here; equal to `end_position` while empty."""
        return max(self._first, self._end - self._capacity)

    @property
    def end_position(self) -> int:
        """Stream position just after the newest sample."""
        return self._end

    @property
    def held_samples(self) -> int:
        """For how many samples there is memory."""
        return len(self._blocks) * BLOCK_SAMPLES

    def append(self, samples: Samples) -> None:
        """Put [n] samples behind the newest, in O(n) whatever the capacity; the oldest give way."""
        n = len(samples)
        at = self._end % BLOCK_SAMPLES
        if at and at + n <= BLOCK_SAMPLES and self._blocks:
            self._blocks[-1][at : at + n] = samples
            self._end += n
            return
        if n > self._capacity:
            self._end += n - self._capacity
            self._first = self._end
            samples = samples[n - self._capacity :]
            self._blocks.clear()
            self._base = self._end // BLOCK_SAMPLES
        while len(samples):
            at = self._end % BLOCK_SAMPLES
            if not at or not self._blocks:
                self._blocks.append(np.empty(BLOCK_SAMPLES, dtype=np.float32))
            part = samples[: BLOCK_SAMPLES - at]
            self._blocks[-1][at : at + len(part)] = part
            self._end += len(part)
            samples = samples[len(part) :]
        self._drop(self.start_position)

    def forget(self, before: int) -> None:
        """Give up the samples before a position, with their memory; those that are gone already are no matter."""
        if before > self.start_position:
            self._first = min(before, self._end)
            self._drop(self._first)

    def read(self, start: int, end: int) -> Samples:
        """A copy of the samples at positions [start, end).

        Nothing is clipped in silence, for a window that begins later than asked would shift every word time. A caller
        that can do with less asks from `max(start, ring.start_position)`.

        Raises:
            ValueError: some of them are gone, have not come yet, or `end` lies before `start`.
        """
        if not self.start_position <= start <= end <= self._end:
            raise ValueError(f"Samples {start} to {end} asked; {self.start_position} to {self._end} are here.")
        copy = np.empty(end - start, dtype=np.float32)
        position = start
        while position < end:
            number, at = divmod(position, BLOCK_SAMPLES)
            part = self._blocks[number - self._base][at : at + end - position]
            copy[position - start : position - start + len(part)] = part
            position += len(part)
        return copy

    def _drop(self, before: int) -> None:
        """Let go of blocks that end before a position."""
        while self._blocks and (self._base + 1) * BLOCK_SAMPLES <= before:
            self._blocks.popleft()
            self._base += 1
        if not self._blocks:
            self._base = self._end // BLOCK_SAMPLES
