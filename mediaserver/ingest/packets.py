"""Packets of a codec to blocks of audio, for streams that lose none: Opus by libopus, FLAC, MP3 and AAC by FFmpeg."""

from __future__ import annotations

from typing import Protocol

import av
import numpy as np

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.ingest.opus import CLOCK_RATE, OpusReader
from mediaserver.ingest.resampler import Block
from mediaserver.ingest.undecodable import undecodable

BAD_PACKETS_MAX = 10
"""Packets in a row that no decoder takes before the stream counts as broken: nothing is lost on the way here, so it is
not Opus, say, but something else. The first packet of all must be good."""

PLANES_MAX = 7
"""Of a frame whose channels lie apart (MP3, AAC): PyAV 18 finds a ninth plane in one of eight, and reads it."""

_FULL_SCALE = {"i2": 32768.0, "i4": 2147483648.0, "f4": 1.0, "f8": 1.0}


class PacketDecoder(Protocol):
    """The decoder of one stream."""

    def decode(self, packet: bytes) -> Block | None:
        """The audio of one packet; None where it has none.

        Raises:
            MediaError: UNDECODABLE_AUDIO; the packets are not of this codec.
        """


class _Patience:
    """Counts the bad packets in a row."""

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._bad = BAD_PACKETS_MAX - 1

    def good(self) -> None:
        self._bad = 0

    def bad(self) -> None:
        self._bad += 1
        if self._bad >= BAD_PACKETS_MAX:
            raise undecodable(f"The audio is not {self._codec}: its decoder refuses it.")


class OpusPackets:
    """Opus (RFC 6716), straight to 16 kHz.

    Args:
        channels: 1 or 2, whatever the packets hold.
        pre_skip_ticks: what of the start is not to be heard, in samples at 48 kHz (RFC 7845 section 4.2).
        gain_db: what the samples are to be raised by (RFC 7845 section 5.1).

    Raises:
        VoiceForgeError: LIBOPUS_MISSING.
    """

    def __init__(self, channels: int, *, pre_skip_ticks: int = 0, gain_db: float = 0.0) -> None:
        self._reader = OpusReader(channels)
        self._to_skip = pre_skip_ticks * SAMPLE_RATE // CLOCK_RATE
        self._gain = np.float32(10.0 ** (gain_db / 20.0))
        self._patience = _Patience("Opus")

    def decode(self, packet: bytes) -> Block | None:
        """As `PacketDecoder.decode`."""
        samples = self._reader.decode(packet)
        if samples is None:
            self._patience.bad()
            return None
        self._patience.good()
        if self._to_skip:
            skipped = min(self._to_skip, samples.shape[1])
            self._to_skip -= skipped
            samples = samples[:, skipped:]
        if self._gain != 1.0:
            samples = np.clip(samples * self._gain, -1.0, 1.0)
        return Block(samples, SAMPLE_RATE)


class FfmpegPackets:
    """A codec of FFmpeg by its name (`flac`, `mp3`, `aac`).

    Args:
        codec: its decoder.
        title: what people call it.
        extradata: its header, where it has one outside of packets.
    """

    def __init__(self, codec: str, title: str, *, extradata: bytes | None = None) -> None:
        self._context = codec_context(codec)
        if extradata is not None:
            self._context.extradata = extradata
        self._patience = _Patience(title)

    def decode(self, packet: bytes) -> Block | None:
        """As `PacketDecoder.decode`."""
        try:
            frames = self._context.decode(av.Packet(packet))
        except (av.FFmpegError, ValueError):
            self._patience.bad()
            return None
        blocks = [block_of(frame) for frame in frames if frame.samples]
        if not blocks:
            return None
        self._patience.good()
        first = blocks[0]
        same = [block.samples for block in blocks if block.rate == first.rate and len(block.samples) == len(first[0])]
        return Block(np.concatenate(same, axis=1), first.rate)


def codec_context(codec: str) -> av.AudioCodecContext:
    """A decoder on the caller's thread: by default PyAV's contexts start a thread for each core."""
    context = av.CodecContext.create(codec, "r")
    assert isinstance(context, av.AudioCodecContext)
    context.thread_count = 1
    return context


def block_of(frame: av.AudioFrame) -> Block:
    """What FFmpeg decoded as a block.

    Raises:
        MediaError: UNDECODABLE_AUDIO; more channels than can be read.
    """
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels > PLANES_MAX:
        raise undecodable(f"The stream has {channels} channels.", f"Send {PLANES_MAX} at most in this codec.")
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, channels).T
    samples: Samples = np.asarray(values, np.float32) / np.float32(_FULL_SCALE[values.dtype.str[1:]])
    return Block(np.clip(samples, -1.0, 1.0), frame.sample_rate)
