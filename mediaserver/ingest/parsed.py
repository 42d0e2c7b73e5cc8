"""MP3 and AAC in ADTS as they come: FFmpeg's parsers find the frames, its decoders hear them."""

from __future__ import annotations

from collections import deque

import av

from mediaserver.ingest.packets import FfmpegPackets, codec_context
from mediaserver.ingest.resampler import Block
from mediaserver.ingest.undecodable import undecodable

SILENT_BYTES_MAX = 64 * 1024
"""What may come without a single frame in it; FFmpeg's parsers step over all that is no frame, for ever."""


SLICE_BYTES = 4 * 1024
"""A quarter of a second, as MP3 and AAC usually are."""


class ParsedSource:
    """A stream of frames that begin with a sync word.

    Args:
        codec: FFmpeg's name of parser and decoder.
        title: what people call it.
    """

    slice_bytes = SLICE_BYTES

    def __init__(self, codec: str, title: str) -> None:
        self._title = title
        self._parser = codec_context(codec)
        self._decoder = FfmpegPackets(codec, title)
        self._packets: deque[bytes] = deque()  # of what was given at once
        self._since_frame = 0

    def give(self, data: bytes) -> None:
        """More bytes of the stream."""
        self._since_frame += len(data)
        self._parse(data)

    def end(self) -> None:
        """What the parser held back is the last frame."""
        self._parse(b"")

    def take(self) -> Block | None:
        """The audio of the next frame."""
        while self._packets:
            block = self._decoder.decode(self._packets.popleft())
            if block is not None:
                self._since_frame = 0
                return block
        if self._since_frame > SILENT_BYTES_MAX:
            raise undecodable(f"{self._since_frame} bytes came without a frame of {self._title} in them.")
        return None

    def close(self) -> None:
        """FFmpeg frees its contexts with the last reference."""
        self._packets.clear()

    def _parse(self, data: bytes) -> None:
        try:
            self._packets.extend(bytes(packet) for packet in self._parser.parse(data))
        except (av.FFmpegError, ValueError) as exc:
            raise undecodable(f"The stream is not {self._title}.") from exc
