"""WAV (RIFF/WAVE, RF64) as it comes: linear, floating-point and G.711 samples, also of a length that nobody knew."""

from __future__ import annotations

import struct

from mediaserver.ingest.bytebuffer import ByteBuffer
from mediaserver.ingest.pcm import PcmReader, SampleFormat
from mediaserver.ingest.resampler import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ, Block
from mediaserver.ingest.undecodable import undecodable

BUFFER_BYTES = 128 * 1024
"""Room for what was given at once; a header needs some fifty bytes of it."""

PIECE_BYTES = 16 * 1024
"""What is read at once."""

SKIP_BYTES_MAX = 16 * 1024 * 1024
"""The longest chunk that is stepped over: cover pictures, not a way to send for ever and not be heard."""

FORMAT_BYTES_MAX = 64
"""`fmt ` has 16 to 40."""

HEADER_WRITTEN_LATER = (0, 0xFFFFFFFF)
"""Lengths of `data` in the header of a stream: whoever wrote it could not go back."""

_PCM, _FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_FORMATS = {
    (_PCM, 8): SampleFormat.U8,
    (_PCM, 16): SampleFormat.S16,
    (_PCM, 24): SampleFormat.S24,
    (_PCM, 32): SampleFormat.S32,
    (_FLOAT, 32): SampleFormat.F32,
    (_FLOAT, 64): SampleFormat.F64,
    (_A_LAW, 8): SampleFormat.A_LAW,
    (_MU_LAW, 8): SampleFormat.MU_LAW,
}
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
"""Of the sub-formats of WAVE_FORMAT_EXTENSIBLE that are wave formats: the first two bytes are the format."""


class WavSource:
    """A WAV stream. Chunks but `fmt ` and `data` are stepped over; another WAV after the first goes on with it."""

    slice_bytes = PIECE_BYTES

    def __init__(self) -> None:
        self._buffer = ByteBuffer(BUFFER_BYTES)
        self._reader: PcmReader | None = None
        self._odd = False  # whether a byte of padding follows it
        self._left: int | None = 0  # bytes of the running `data`; None: until the end

    def give(self, data: bytes) -> None:
        """More bytes of the stream."""
        self._buffer.append(data)

    def end(self) -> None:
        """A sample that was cut off is left out."""

    def take(self) -> Block | None:
        """The next samples."""
        while self._left == 0:
            if not self._chunk():
                return None
        assert self._reader is not None
        wanted = min(PIECE_BYTES, len(self._buffer), PIECE_BYTES if self._left is None else self._left)
        if not wanted:
            return None
        if self._left is not None:
            self._left -= wanted
            if not self._left and self._odd:
                self._buffer.skip(1)
        return self._reader.read(self._buffer.take(wanted))

    def close(self) -> None:
        """Holds nothing but memory."""

    def _chunk(self) -> bool:
        """Read the header of the next chunk, and the chunk if it is short; whether it was here."""
        if len(self._buffer) < 8:
            return False
        name, size = struct.unpack("<4sI", self._buffer.peek(8))
        if name in (b"RIFF", b"RF64"):
            if len(self._buffer) < 12:
                return False
            if self._buffer.take(12)[8:] != b"WAVE":
                raise undecodable("The RIFF file is not WAVE.")
        elif name == b"fmt ":
            if not 16 <= size <= FORMAT_BYTES_MAX:
                raise undecodable(f"The WAV header is broken: `fmt ` has {size} bytes.")
            if len(self._buffer) < 8 + size:
                return False
            self._reader = _reader(self._buffer.take(8 + size)[8:])
            self._buffer.skip(size % 2)
        elif name == b"data":
            if self._reader is None:
                raise undecodable("The WAV header is broken: `data` comes before `fmt `.")
            self._buffer.skip(8)
            self._left, self._odd = (None, False) if size in HEADER_WRITTEN_LATER else (size, bool(size % 2))
        else:
            if size > SKIP_BYTES_MAX:
                raise undecodable(f"The WAV has a chunk of {size} bytes that is not audio.")
            self._buffer.skip(8 + size + size % 2)
        return True


def _reader(header: bytes) -> PcmReader:
    """What reads the samples that `fmt ` describes."""
    tag, channels, rate, _, block_bytes, bits = struct.unpack_from("<HHIIHH", header)
    if tag == _EXTENSIBLE:
        if len(header) < 40 or header[26:40] != _GUID_TAIL:
            raise undecodable("The WAV has a sub-format that is not read.", _HINT)
        tag = struct.unpack_from("<H", header, 24)[0]
    sample_format = _FORMATS.get((tag, bits))
    if sample_format is None:
        raise undecodable(f"The WAV has format {tag} with {bits} bits, which is not read.", _HINT)
    if not 1 <= channels <= MAX_CHANNELS or block_bytes != channels * sample_format.n_bytes:
        raise undecodable(
            f"The WAV has {channels} channels of {block_bytes} bytes.", f"At most {MAX_CHANNELS} are read."
        )
    if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        raise undecodable(f"The WAV has {rate} Hz.", f"{MIN_RATE_HZ} to {MAX_RATE_HZ} Hz are read.")
    return PcmReader(sample_format, rate=rate, channels=channels)


_HINT = "Send linear samples of 8 to 32 bits, floating-point ones, mu-law or A-law."
