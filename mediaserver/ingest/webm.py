"""WebM and Matroska (RFC 9559) as they come, also of unknown size, as browsers' MediaRecorder writes them.

The hierarchy is not followed: segments, clusters and block groups are entered, of all else only what describes the
tracks and what holds audio is read. So it does not matter where an element of unknown size ends.
"""

from __future__ import annotations

import struct
from collections import deque

from mediaserver.ingest.bytebuffer import ByteBuffer
from mediaserver.ingest.ebml import BrokenEbmlError, ElementHeader, children, element_header, unlaced, variable_integer
from mediaserver.ingest.ogg import opus_decoder
from mediaserver.ingest.packets import PacketDecoder
from mediaserver.ingest.pcm import PcmReader, SampleFormat
from mediaserver.ingest.resampler import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ, Block
from mediaserver.ingest.undecodable import CONTAINERS, undecodable

BLOCK_BYTES_MAX = 1024 * 1024
"""Of one block of audio; browsers write some hundred bytes."""

TRACKS_BYTES_MAX = 256 * 1024
"""Of the description of all tracks; browsers write some hundred bytes."""

SKIP_BYTES_MAX = 16 * 1024 * 1024
"""The longest element that is stepped over: a picture or a block of video."""

BUFFER_BYTES = BLOCK_BYTES_MAX + 128 * 1024
"""A block, and what was given at once."""

SLICE_BYTES = 2 * 1024
"""A thousand elements, if they are empty; of a browser's recorder a tenth of a second."""

_SEGMENT, _CLUSTER, _BLOCK_GROUP = 0x18538067, 0x1F43B675, 0xA0
_TRACKS, _TRACK_ENTRY, _SIMPLE_BLOCK, _BLOCK = 0x1654AE6B, 0xAE, 0xA3, 0xA1
_NUMBER, _TYPE, _CODEC, _PRIVATE, _AUDIO, _ENCODINGS = 0xD7, 0x83, 0x86, 0x63A2, 0xE1, 0x6D80
_RATE, _CHANNELS, _BIT_DEPTH = 0xB5, 0x9F, 0x6264
_AUDIO_TYPE = 2
_HEADER_BYTES_MAX = 12
_ENTERED = (_SEGMENT, _CLUSTER, _BLOCK_GROUP)


class WebmSource:
    """A WebM stream: its first audio track, which must be Opus or PCM. Another header begins another stream.

    Args:
        channels: 1 or as many as each is to be heard of.
    """

    slice_bytes = SLICE_BYTES

    def __init__(self, channels: int) -> None:
        self._buffer = ByteBuffer(BUFFER_BYTES)
        self._channels = channels
        self._track: int | None = None
        self._decoder: PacketDecoder | None = None
        self._packets: deque[bytes] = deque()  # of one block, 256 at most

    def give(self, data: bytes) -> None:
        """More bytes of the stream."""
        self._buffer.append(data)

    def end(self) -> None:
        """A block that was cut off is left out."""

    def take(self) -> Block | None:
        """The audio of the next frame."""
        while True:
            while self._packets:
                assert self._decoder is not None
                block = self._decoder.decode(self._packets.popleft())
                if block is not None:
                    return block
            try:
                if not self._element():
                    return None
            except (BrokenEbmlError, struct.error) as exc:
                raise undecodable("The WebM stream is broken.") from exc

    def close(self) -> None:
        """What decoders hold goes with the last reference."""
        self._decoder = None

    def _element(self) -> bool:
        """Read one element; whether it was here."""
        header = element_header(self._buffer.peek(_HEADER_BYTES_MAX))
        if header is None:
            return False
        if header.element_id in _ENTERED:
            self._buffer.skip(header.header_bytes)
            return True
        if header.size is None:
            raise BrokenEbmlError
        if header.element_id == _TRACKS:
            return self._tracks(header.header_bytes, header.size)
        if header.element_id in (_SIMPLE_BLOCK, _BLOCK):
            return self._block(header)
        self._skip(header.header_bytes + header.size)
        return True

    def _skip(self, n_bytes: int) -> None:
        if n_bytes > SKIP_BYTES_MAX:
            raise undecodable(f"The WebM stream has an element of {n_bytes} bytes that is not audio.")
        self._buffer.skip(n_bytes)

    def _tracks(self, header_bytes: int, size: int) -> bool:
        if size > TRACKS_BYTES_MAX:
            raise undecodable(f"The description of the WebM's tracks has {size} bytes.")
        if len(self._buffer) < header_bytes + size:
            return False
        tracks = self._buffer.take(header_bytes + size)[header_bytes:]
        for element_id, content in children(tracks):
            if element_id != _TRACK_ENTRY:
                continue
            fields = dict(children(content))
            if int.from_bytes(fields.get(_TYPE, b""), "big") == _AUDIO_TYPE:
                self._track = int.from_bytes(fields.get(_NUMBER, b""), "big")
                self._decoder = _decoder(fields, self._channels)
                return True
        raise undecodable("The WebM stream has no audio track.")

    def _block(self, header: ElementHeader) -> bool:
        assert header.size is not None
        if self._decoder is None:
            raise undecodable("The WebM stream has audio before it describes its tracks.")
        # Of other tracks, video say, blocks may be large: the number of the track is looked at first.
        number = variable_integer(self._buffer.peek(8, header.header_bytes), 0, keep_marker=False)
        if number is None:
            if len(self._buffer) >= header.header_bytes + header.size:
                raise BrokenEbmlError
            return False
        if number[0] != self._track:
            self._skip(header.header_bytes + header.size)
            return True
        if header.size > BLOCK_BYTES_MAX:
            raise undecodable(f"The WebM stream has a block of {header.size} bytes.")
        if len(self._buffer) < header.header_bytes + header.size:
            return False
        block = self._buffer.take(header.header_bytes + header.size)[header.header_bytes + number[1] :]
        if len(block) < 3:
            raise BrokenEbmlError
        self._packets.extend(frame for frame in unlaced(block[3:], block[2] >> 1 & 3) if frame)
        return True


class _PcmFrames:
    """Frames of plain samples, as Chromium writes for `audio/webm;codecs=pcm`."""

    def __init__(self, reader: PcmReader) -> None:
        self._reader = reader

    def decode(self, packet: bytes) -> Block | None:
        return self._reader.read(packet)


def _decoder(fields: dict[int, bytes], channels: int) -> PacketDecoder:
    """The decoder of a track entry."""
    codec = fields.get(_CODEC, b"").rstrip(b"\0").decode("ascii", "replace")
    if _ENCODINGS in fields:
        raise undecodable("The WebM's audio is compressed once more or encrypted.", "Send it as it is.")
    if codec == "A_OPUS":
        return opus_decoder(fields.get(_PRIVATE, b""), channels)
    audio = dict(children(fields.get(_AUDIO, b"")))
    bits = int.from_bytes(audio.get(_BIT_DEPTH, b""), "big")
    sample_format = {
        ("A_PCM/FLOAT/IEEE", 32): SampleFormat.F32,
        ("A_PCM/FLOAT/IEEE", 64): SampleFormat.F64,
        ("A_PCM/INT/LIT", 8): SampleFormat.U8,
        ("A_PCM/INT/LIT", 16): SampleFormat.S16,
        ("A_PCM/INT/LIT", 24): SampleFormat.S24,
        ("A_PCM/INT/LIT", 32): SampleFormat.S32,
    }.get((codec, bits))
    if sample_format is None:
        raise undecodable(f"The WebM's audio is {codec:.40}, which is not read.", f"Send {CONTAINERS}.")
    rate_bytes = audio.get(_RATE, b"")
    rate = struct.unpack(">f" if len(rate_bytes) == 4 else ">d", rate_bytes)[0] if rate_bytes else 8000.0
    stated = int.from_bytes(audio.get(_CHANNELS, b"\1"), "big")
    if not (MIN_RATE_HZ <= rate <= MAX_RATE_HZ and 1 <= stated <= MAX_CHANNELS):
        raise undecodable(f"The WebM has {stated} channels of {rate} Hz.", f"At most {MAX_CHANNELS} are read.")
    return _PcmFrames(PcmReader(sample_format, rate=round(rate), channels=stated))
