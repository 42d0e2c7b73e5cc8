"""Audio that comes as bytes, in messages or a body, to samples: raw, or a container told by its first bytes. Sans-IO.

A stream may be cut anywhere into messages, but for `opus`, whose packets have no length of their own: there one message
is one packet.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.errors import ConfigError
from mediaserver.ingest.codecs import TELEPHONE_RATE
from mediaserver.ingest.detect import DetectedSource
from mediaserver.ingest.flac import FlacSource
from mediaserver.ingest.ogg import OggSource
from mediaserver.ingest.pcm import PcmReader, SampleFormat
from mediaserver.ingest.resampler import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ, Resampler
from mediaserver.ingest.source import OpusMessages, RawSource, Source
from mediaserver.ingest.undecodable import undecodable

BLOCK_SAMPLES = SAMPLE_RATE // 4
"""What one call gives at most, and one block of the encoding more: a kilobyte of FLAC may hold minutes of silence."""


class Encoding(StrEnum):
    """How audio is written; clients send these names."""

    LINEAR16 = "linear16"
    """Signed 16-bit little-endian."""
    LINEAR32 = "linear32"
    """Signed 32-bit little-endian."""
    FLOAT32 = "float32"
    """32-bit floating point, little-endian, full scale ±1: what browsers and `linear32` of other vendors mean."""
    MULAW = "mulaw"
    ALAW = "alaw"
    OPUS = "opus"
    """Packets (RFC 6716), one a message."""
    OGG_OPUS = "ogg-opus"
    FLAC = "flac"


_WIDTHS = {
    Encoding.LINEAR16: SampleFormat.S16.n_bytes,
    Encoding.LINEAR32: SampleFormat.S32.n_bytes,
    Encoding.FLOAT32: SampleFormat.F32.n_bytes,
    Encoding.MULAW: SampleFormat.MU_LAW.n_bytes,
    Encoding.ALAW: SampleFormat.A_LAW.n_bytes,
}
"""Bytes of a sample of one channel, where all have as many."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """What a client says of its audio.

    `encoding` None is a container, told by its first bytes: WAV, FLAC, Ogg Opus, Ogg FLAC, WebM Opus, MP3 or AAC in
    ADTS. It says its own rate; `channels` counts for it only with `multichannel`, and must be as many as it has.
    """

    encoding: Encoding | None = None
    sample_rate: int | None = None
    """Hz; needed for linear audio, 8000 by default for G.711, checked for FLAC, of no consequence for Opus."""
    channels: int = 1
    """Of the stream, interleaved."""
    multichannel: bool = False
    """Each channel is a transcript of its own; else they are mixed to one."""

    @property
    def count(self) -> int:
        """Channels out."""
        return self.channels if self.multichannel else 1


class ByteAudio(Protocol):
    """Bytes of one stream in, samples [count, n] float32 at 16 kHz out.

    A few bytes can hold minutes of audio, so one call gives a quarter of a second or one block: while `pending`, call
    again with `b""` (or `finish`). Give at most `slice_bytes` of a message at once, for each call takes some
    milliseconds at most; an Opus packet is always less.
    """

    @property
    def slice_bytes(self) -> int:
        """The most to be given at once; it may change once a container is known."""

    @property
    def pending(self) -> bool:
        """Whether there is more to be had before more is given."""

    def feed(self, data: bytes) -> Samples:
        """What can be heard with these bytes; n may be 0.

        Raises:
            MediaError: UNDECODABLE_AUDIO; the stream is over.
        """

    def finish(self) -> Samples:
        """What was held back at the end. Call it again while `pending`.

        Raises:
            MediaError: UNDECODABLE_AUDIO; also where bytes came and none of them were audio.
        """

    def close(self) -> None:
        """Frees what is held."""


def byte_at(audio_format: AudioFormat, sample: int) -> int | None:
    """Which byte of a stream belongs to a sample at 16 kHz; None where no rule says so (packets, containers).

    A stream may be taken up there: what is heard from that byte on begins at that sample, within one of the stream's.
    """
    width = _WIDTHS.get(audio_format.encoding) if audio_format.encoding is not None else None
    if width is None:
        return None
    rate = audio_format.sample_rate or TELEPHONE_RATE
    return sample * rate // SAMPLE_RATE * width * audio_format.channels


def open_audio(audio_format: AudioFormat) -> ByteAudio:
    """What reads audio of this format.

    Raises:
        ConfigError: INVALID_AUDIO_FORMAT, naming the field.
        VoiceForgeError: LIBOPUS_MISSING.
    """
    _check(audio_format)
    return ByteStream(_source(audio_format), Resampler(audio_format.count, mix=not audio_format.multichannel))


class ByteStream:
    """One stream: a source of blocks and a resampler."""

    def __init__(self, source: Source, resampler: Resampler) -> None:
        self._source = source
        self._resampler = resampler
        self._pending = False
        self._ended = False
        self._received = False
        self._is_audio = False

    @property
    def slice_bytes(self) -> int:
        """The most to be given at once."""
        return self._source.slice_bytes

    @property
    def pending(self) -> bool:
        """Whether there is more to be had before more is given."""
        return self._pending

    def feed(self, data: bytes) -> Samples:
        """As `ByteAudio.feed`."""
        if data:
            self._received = True
            self._source.give(data)
        return self._take()

    def finish(self) -> Samples:
        """As `ByteAudio.finish`."""
        if not self._ended:
            self._ended = True
            self._source.end()
        samples = self._take()
        if self._pending:
            return samples
        if self._received and not self._is_audio:
            raise undecodable("The stream ended before there was any audio in it.")
        return np.concatenate((samples, self._resampler.flush()), axis=1)

    def close(self) -> None:
        """As `ByteAudio.close`."""
        self._source.close()

    def _take(self) -> Samples:
        parts: list[Samples] = []
        count = 0
        self._pending = True
        while count < BLOCK_SAMPLES:
            block = self._source.take()
            if block is None:
                self._pending = False
                break
            self._is_audio = True
            parts.append(self._resampler.process(block))
            count += parts[-1].shape[1]
        return np.concatenate(parts, axis=1) if parts else self._resampler.nothing


def _check(audio_format: AudioFormat) -> None:
    rate, encoding = audio_format.sample_rate, audio_format.encoding
    if not 1 <= audio_format.channels <= MAX_CHANNELS:
        raise _invalid("channels", f"is {audio_format.channels}", f"Send 1 to {MAX_CHANNELS} channels.")
    if rate is not None and not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        raise _invalid("sample_rate", f"is {rate} Hz", f"Send {MIN_RATE_HZ} to {MAX_RATE_HZ} samples a second.")
    if rate is None and encoding in (Encoding.LINEAR16, Encoding.LINEAR32, Encoding.FLOAT32):
        raise _invalid("sample_rate", f"is missing, and {encoding} does not say it", "Say it in Hz, for example 16000.")
    if rate is not None and encoding is None:
        raise _invalid(
            "sample_rate", "is given without `encoding`", "Name the encoding, or leave both out: containers say theirs."
        )
    if encoding is Encoding.OPUS and audio_format.channels > 2:
        raise _invalid("channels", f"is {audio_format.channels}, and an Opus packet has 1 or 2", "Send 1 or 2.")


def _source(audio_format: AudioFormat) -> Source:
    rate, channels = audio_format.sample_rate, audio_format.channels
    match audio_format.encoding:
        case Encoding.LINEAR16:
            assert rate is not None
            return RawSource(PcmReader(SampleFormat.S16, rate=rate, channels=channels))
        case Encoding.LINEAR32:
            assert rate is not None
            return RawSource(PcmReader(SampleFormat.S32, rate=rate, channels=channels))
        case Encoding.FLOAT32:
            assert rate is not None
            return RawSource(PcmReader(SampleFormat.F32, rate=rate, channels=channels))
        case Encoding.MULAW:
            return RawSource(PcmReader(SampleFormat.MU_LAW, rate=rate or TELEPHONE_RATE, channels=channels))
        case Encoding.ALAW:
            return RawSource(PcmReader(SampleFormat.A_LAW, rate=rate or TELEPHONE_RATE, channels=channels))
        case Encoding.OPUS:
            return OpusMessages(audio_format.count)
        case Encoding.OGG_OPUS:
            return OggSource(audio_format.count, only_opus=True)
        case Encoding.FLAC:
            return FlacSource(rate)
        case None:
            return DetectedSource(audio_format.count)


def _invalid(field: str, what: str, hint: str) -> ConfigError:
    return ConfigError("INVALID_AUDIO_FORMAT", f"`{field}` {what}.", hint)
