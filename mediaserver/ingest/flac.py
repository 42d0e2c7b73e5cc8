"""FLAC (RFC 9639) as it comes: its header, and where one frame ends and the next begins."""

from __future__ import annotations

from typing import NamedTuple

from mediaserver.ingest.bytebuffer import ByteBuffer
from mediaserver.ingest.packets import FfmpegPackets
from mediaserver.ingest.resampler import Block
from mediaserver.ingest.undecodable import undecodable

FRAME_BYTES_MAX = 2 * 1024 * 1024
"""Of one frame: eight channels of 65 535 samples with 24 bits are 1.6 MB."""

BUFFER_BYTES = FRAME_BYTES_MAX + 128 * 1024
"""A frame, and what was given at once."""

HEADER_BYTES_MAX = 16
"""Of a frame (section 9.1): 4, a number of up to 7, block size and rate of up to 2 each, and the checksum."""

STREAMINFO_BYTES = 34

SLICE_BYTES = 4 * 1024
"""Two thousand places where a frame might begin."""

_MARKER = b"fLaC"
_SMALLEST_FRAME_BYTES = 8


class FrameHeader(NamedTuple):
    """What of a frame's header says whether the next one follows it."""

    variable: bool
    block_size: int
    number: int
    """Of the frame, where the block size is fixed; else of its first sample."""

    def follows(self, before: FrameHeader) -> bool:
        """Whether this is the header of the frame after that one."""
        step = before.block_size if self.variable else 1
        return self.variable == before.variable and self.number == before.number + step


class FlacSource:
    """A FLAC stream. A frame is heard once the next one's header has come: FLAC does not say how long a frame is.

    The header is told from audio that looks like one by its checksum and by its number, which counts on.

    Args:
        rate: what the client says the stream has, in Hz.
    """

    slice_bytes = SLICE_BYTES

    def __init__(self, rate: int | None = None) -> None:
        self._buffer = ByteBuffer(BUFFER_BYTES)
        self._rate = rate
        self._begun = False
        self._info: bytes | None = None
        self._decoder: FfmpegPackets | None = None
        self._frame: FrameHeader | None = None
        self._searched = 0
        self._ended = False

    def give(self, data: bytes) -> None:
        """More bytes of the stream."""
        self._buffer.append(data)

    def end(self) -> None:
        """What is held is the last frame."""
        self._ended = True

    def take(self) -> Block | None:
        """The next frame."""
        while self._decoder is None:
            if not self._metadata():
                return None
        while (frame := self._next_frame()) is not None:
            block = self._decoder.decode(frame)
            if block is not None:
                return block
        return None

    def close(self) -> None:
        """FFmpeg frees its context with the last reference."""
        self._decoder = None

    def _metadata(self) -> bool:
        """Read one block of the stream's header (section 8); whether it was here."""
        if not self._begun:
            if len(self._buffer) < len(_MARKER):
                return False
            if self._buffer.take(len(_MARKER)) != _MARKER:
                raise undecodable("The stream does not begin as FLAC does.", "Send its header first: `fLaC`.")
            self._begun = True
        header = self._buffer.peek(4)
        if len(header) < 4:
            return False
        size = int.from_bytes(header[1:], "big")
        if self._info is None:
            if header[0] & 0x7F or size != STREAMINFO_BYTES:
                raise undecodable("The FLAC header does not begin with STREAMINFO.")
            if len(self._buffer) < 4 + size:
                return False
            self._info = self._buffer.take(4 + size)[4:]
            check_rate(self._info, self._rate)
        else:
            self._buffer.skip(4 + size)  # at most 16 MiB, a cover picture
        if header[0] & 0x80:
            self._decoder = FfmpegPackets("flac", "FLAC", extradata=self._info)
        return True

    def _next_frame(self) -> bytes | None:
        buffer = self._buffer
        if self._frame is None:
            if (len(buffer) < HEADER_BYTES_MAX and not self._ended) or not len(buffer):
                return None
            self._frame = frame_header(buffer.peek(HEADER_BYTES_MAX))
            if self._frame is None:
                raise undecodable("The FLAC stream has something else where a frame should begin.")
            self._searched = _SMALLEST_FRAME_BYTES
        sync = b"\xff\xf9" if self._frame.variable else b"\xff\xf8"
        while (at := buffer.find(sync, self._searched)) >= 0:
            if len(buffer) < at + HEADER_BYTES_MAX and not self._ended:
                self._searched = at
                return None
            following = frame_header(buffer.peek(HEADER_BYTES_MAX, at))
            if following is not None and following.follows(self._frame):
                self._frame, self._searched = following, _SMALLEST_FRAME_BYTES
                return buffer.take(at)
            self._searched = at + 1
        self._searched = max(self._searched, len(buffer) - 1)
        if len(buffer) > FRAME_BYTES_MAX:
            raise undecodable(f"The FLAC stream has no frame that ends within {FRAME_BYTES_MAX} bytes.")
        return buffer.take(len(buffer)) if self._ended and len(buffer) else None


def check_rate(stream_info: bytes, rate: int | None) -> None:
    """Compare the rate of STREAMINFO with what the client says.

    Raises:
        MediaError: UNDECODABLE_AUDIO.
    """
    stated = int.from_bytes(stream_info[10:13], "big") >> 4
    if rate is not None and stated != rate:
        raise undecodable(f"The FLAC stream has {stated} Hz, `sample_rate` says {rate}.", "Leave `sample_rate` out.")


def frame_header(data: bytes) -> FrameHeader | None:
    """The header that these bytes begin with (section 9.1); None where it is none."""
    if len(data) < 6 or data[0] != 0xFF or data[1] & 0xFE != 0xF8 or data[3] & 1:
        return None
    size_code, rate_code = data[2] >> 4, data[2] & 15
    if size_code == 0 or rate_code == 15 or data[3] >> 4 > 10 or data[3] >> 1 & 7 == 3:
        return None
    number, at = _coded_number(data)
    size_bytes = {6: 1, 7: 2}.get(size_code, 0)
    end = at + size_bytes + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if number is None or end >= len(data) or _checksum(data[:end]) != data[end]:
        return None
    if size_bytes:
        block_size = int.from_bytes(data[at : at + size_bytes], "big") + 1
    elif size_code == 1:
        block_size = 192
    else:
        block_size = 144 << size_code if size_code < 6 else 1 << size_code
    return FrameHeader(bool(data[1] & 1), block_size, number)


def _coded_number(data: bytes) -> tuple[int | None, int]:
    """The number from byte 4 on, written as UTF-8 writes a letter but up to 36 bits (section 9.1.5), and its end."""
    first = data[4]
    if first < 0x80:
        return first, 5
    extra = next((n for n in range(1, 7) if not first & (0x40 >> n)), 0) if first & 0x40 else 0
    rest = data[5 : 5 + extra]
    if not extra or first == 0xFF or len(rest) < extra or any(byte & 0xC0 != 0x80 for byte in rest):
        return None, 5
    number = first & (0x3F >> extra)
    for byte in rest:
        number = number << 6 | byte & 0x3F
    return number, 5 + extra


def _crc8(byte: int) -> int:
    for _ in range(8):
        byte = (byte << 1) ^ (0x107 if byte & 0x80 else 0)
    return byte


_CRC8 = tuple(_crc8(byte) for byte in range(256))


def _checksum(data: bytes) -> int:
    """CRC-8 with the polynomial x⁸ + x² + x + 1 (section 9.1.8)."""
    checksum = 0
    for byte in data:
        checksum = _CRC8[checksum ^ byte]
    return checksum
