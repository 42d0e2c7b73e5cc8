"""The last seconds of a stream, addressed by stream position.

Bound: `capacity_samples`; the oldest samples are dropped first.
"""

from __future__ import annotations

import numpy as np

from mediaserver.audio.clock import Samples


class SampleRing:
    """Bounded samples at their places on the stream's clock. Not thread-safe: it belongs to one event loop.

    Args:
        capacity_samples: how many samples are kept at most.
        start_position: stream position of the first sample that will be appended.
    """

    def __init__(self, capacity_samples: int, *, start_position: int = 0) -> None:
        if capacity_samples <= 0:
            raise ValueError(f"A ring of {capacity_samples} samples holds nothing.")
        # Zeros, not empty: the system gives such pages on first use, so a short session pays for what it filled.
        self._buffer: Samples = np.zeros(capacity_samples, dtype=np.float32)
        self._first = start_position
        self._end = start_position

    @property
    def capacity_samples(self) -> int:
        """How many samples are kept at most."""
        return len(self._buffer)

    @property
    def start_position(self) -> int:
        """Stream position of the oldest sample that is still here; equal to `end_position` while empty."""
        return max(self._first, self._end - len(self._buffer))

    @property
    def end_position(self) -> int:
        """Stream position just after the newest sample."""
        return self._end

    def append(self, samples: Samples) -> None:
        """Put [n] samples behind the newest, in O(n) whatever the capacity; the oldest give way."""
        kept = samples[-len(self._buffer) :]
        self._end += len(samples)
        at = (self._end - len(kept)) % len(self._buffer)
        head = min(len(kept), len(self._buffer) - at)
        self._buffer[at : at + head] = kept[:head]
        self._buffer[: len(kept) - head] = kept[head:]

    def read(self, start: int, end: int) -> Samples:
        """A copy of the samples at positions [start, end).

        Nothing is clipped in silence, for a window that begins later than asked would shift every word time. A caller
        that can do with less asks from `max(start, ring.start_position)`.

        Raises:
            ValueError: some of them are gone, have not come yet, or `end` lies before `start`.
        """
        if not self.start_position <= start <= end <= self._end:
            raise ValueError(f"Samples {start} to {end} asked; {self.start_position} to {self._end} are here.")
        at = start % len(self._buffer)
        head = min(end - start, len(self._buffer) - at)
        copy = np.empty(end - start, dtype=np.float32)
        copy[:head] = self._buffer[at : at + head]
        copy[head:] = self._buffer[: end - start - head]
        return copy
