"""What every encoding looks like to the stream that reads it."""

from __future__ import annotations

from typing import Protocol

from mediaserver.ingest.pcm import PcmReader
from mediaserver.ingest.resampler import Block


class Source(Protocol):
    """Bytes in, blocks of audio out, as they become whole. Raises MediaError UNDECODABLE_AUDIO, nothing else."""

    def give(self, data: bytes) -> None:
        """More bytes of the stream, in order."""

    def end(self) -> None:
        """No more bytes come; `take` then gives what is left."""

    def take(self) -> Block | None:
        """The next block, of a few seconds at most; None: more bytes are needed, or the stream is over."""

    def close(self) -> None:
        """Frees what is held; the source is not used again."""


class RawSource:
    """Samples without a container."""

    def __init__(self, reader: PcmReader) -> None:
        self._reader = reader
        self._data = b""

    def give(self, data: bytes) -> None:
        """More bytes, cut anywhere."""
        self._data += data

    def end(self) -> None:
        """A sample that was cut off is left out."""

    def take(self) -> Block | None:
        """All that is whole."""
        if not self._data:
            return None
        data, self._data = self._data, b""
        return self._reader.read(data)

    def close(self) -> None:
        """Holds nothing but memory."""
