"""What every encoding looks like to the stream that reads it."""

from __future__ import annotations

from typing import Protocol

from mediaserver.ingest.packets import OpusPackets
from mediaserver.ingest.pcm import PcmReader
from mediaserver.ingest.resampler import Block
from mediaserver.ingest.undecodable import undecodable

RAW_SLICE_BYTES = 16 * 1024
"""Half a second of linear16 at 16 kHz."""

OPUS_PACKET_BYTES_MAX = 48 * 1275 + 100
"""48 frames of 1275 bytes and their lengths (RFC 6716 section 3.2.5)."""


class Source(Protocol):
    """Bytes in, blocks of audio out, as they become whole. Raises MediaError UNDECODABLE_AUDIO, nothing else."""

    @property
    def slice_bytes(self) -> int:
        """The most that is to be given at once: what is done with it, whatever it is, takes a few milliseconds."""

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

    slice_bytes = RAW_SLICE_BYTES

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


class OpusMessages:
    """Opus packets, one a message.

    Args:
        channels: 1 or 2, heard each.

    Raises:
        VoiceForgeError: LIBOPUS_MISSING.
    """

    slice_bytes = OPUS_PACKET_BYTES_MAX + 1  # a longer packet is refused by its first slice

    def __init__(self, channels: int) -> None:
        self._decoder = OpusPackets(channels)
        self._packet = b""

    def give(self, data: bytes) -> None:
        """One packet, which is to be taken before the next one is given."""
        if len(data) > OPUS_PACKET_BYTES_MAX:
            raise undecodable(f"An Opus packet of {len(data)} bytes came.", "Send one packet a message.")
        self._packet = data

    def end(self) -> None:
        """Nothing is held back."""

    def take(self) -> Block | None:
        """The audio of the packet."""
        packet, self._packet = self._packet, b""
        return self._decoder.decode(packet) if packet else None

    def close(self) -> None:
        """The decoder's memory goes with the last reference."""
