"""Bytes that came in pieces, read in others; bounded, so that a header which never ends cannot fill the memory."""

from __future__ import annotations

from mediaserver.ingest.undecodable import undecodable

COMPACT_BYTES = 64 * 1024
"""What was read is cut off once there is this much of it: cutting at every read would copy the rest each time."""


class ByteBuffer:
    """A queue of bytes with a bound. Nothing is dropped: more than the bound is refused, and the stream with it.

    Args:
        max_bytes: the most that may wait. Bytes to be skipped do not wait and do not count.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = bytearray()
        self._start = 0
        self._to_skip = 0

    def __len__(self) -> int:
        return len(self._bytes) - self._start

    def append(self, data: bytes) -> None:
        """Add what came.

        Raises:
            MediaError: UNDECODABLE_AUDIO; more waits than the bound, so what it waits for is not audio.
        """
        if self._to_skip:
            skipped = min(self._to_skip, len(data))
            self._to_skip -= skipped
            data = data[skipped:]
        if len(self) + len(data) > self._max_bytes:
            raise undecodable(f"{self._max_bytes} bytes came without a whole block of audio.")
        if self._start >= COMPACT_BYTES:
            del self._bytes[: self._start]
            self._start = 0
        self._bytes += data

    def peek(self, n_bytes: int, at: int = 0) -> bytes:
        """The next bytes from offset `at`, fewer where fewer are here; they stay."""
        start = self._start + at
        return bytes(self._bytes[start : start + n_bytes])

    def find(self, pattern: bytes, at: int = 0) -> int:
        """The offset of the first `pattern` from offset `at` on; -1 where there is none."""
        found = self._bytes.find(pattern, self._start + at)
        return found - self._start if found >= 0 else -1

    def take(self, n_bytes: int) -> bytes:
        """The next bytes, which leave; `n_bytes` must be here."""
        taken = self.peek(n_bytes)
        self._start += n_bytes
        return taken

    def skip(self, n_bytes: int) -> None:
        """Leave out the next bytes, also those that are still to come."""
        here = min(n_bytes, len(self))
        self._start += here
        self._to_skip += n_bytes - here
