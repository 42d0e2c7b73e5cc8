"""What every audio codec looks like from above, and the codecs of telephony: G.711 and G.722."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import av
import numpy as np
from numpy.typing import NDArray

from mediaserver.audio.clock import SAMPLE_RATE, Samples

TELEPHONE_RATE = 8_000
"""Hz; the sampling rate of G.711 and the RTP clock of both (G.722's is 8 kHz by an old mistake, RFC 3551 4.5.2)."""

MAX_CONCEALED_S = 0.1
"""Invented audio ends here and silence follows: after 100 ms a guess is a drone that a recogniser hears as a vowel."""


class Decoded(NamedTuple):
    """Audio, and how much of it nobody said."""

    samples: Samples
    made_up: int
    """How many of the samples are concealment."""


class AudioDecoder(Protocol):
    """The decoder of one stream. Stateful; never raises for what is in a payload."""

    clock_rate: int
    """Of its RTP timestamps, in Hz."""

    def duration_ticks(self, payload: bytes) -> int:
        """Length of a payload's audio in ticks of the RTP clock."""

    def decode(self, payload: bytes) -> Decoded:
        """The audio of one packet, float32 16 kHz mono, shape [n]; the array is the caller's own.

        A malformed packet is concealed, as long as `duration_ticks` says that it is; `made_up` tells.
        """

    def conceal(self, n_samples: int, next_payload: bytes | None) -> Decoded:
        """Exactly `n_samples` in place of lost packets; `next_payload` is the packet after them, where it is here."""

    def reset(self) -> None:
        """Forgets the past: what follows has nothing to do with it."""

    def close(self) -> None:
        """Frees what the decoder holds; it is not used again."""


class Upsampler:
    """8 to 16 kHz without seams between packets: a half-band windowed sinc, split into its two phases.

    Every second output is an input sample, delayed; only the others are computed. `TAPS` non-zero taps pass speech up
    to 3.4 kHz within 0.1 dB and keep its mirror image below -50 dB; the delay is TAPS - 1 output samples (1.4 ms).
    """

    TAPS = 24

    def __init__(self) -> None:
        offsets = np.arange(self.TAPS) - (self.TAPS - 1) / 2.0
        taps = np.sinc(offsets) * np.kaiser(self.TAPS, 6.0)
        self._taps: Samples = (taps / taps.sum()).astype(np.float32)
        self._past: Samples = np.zeros(self.TAPS - 1, np.float32)

    def process(self, narrow: Samples) -> Samples:
        """Twice as many samples, shape [2 n]."""
        line = np.concatenate((self._past, narrow))
        wide: Samples = np.empty(2 * len(narrow), np.float32)
        if not len(narrow):
            return wide
        delay = self.TAPS // 2 - 1
        wide[0::2] = line[delay : delay + len(narrow)]
        wide[1::2] = np.convolve(line, self._taps, "valid")
        self._past = line[-(self.TAPS - 1) :]
        return wide

    def reset(self) -> None:
        """Forgets the past."""
        self._past = np.zeros(self.TAPS - 1, np.float32)


class Repeater:
    """Concealment for codecs that have none: the last pitch period again and again, fading (after G.711 appendix I)."""

    FADE_S = 0.06
    """Speech stays itself for about this long."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._past: Samples = np.zeros(0, np.float32)
        self._faded = 0  # samples of the running loss that were concealed already

    def heard(self, samples: Samples) -> None:
        """Remembers what was decoded last."""
        self._faded = 0
        if len(samples) < self._rate // 25:
            samples = np.concatenate((self._past, samples))
        self._past = samples[-self._rate // 25 :]  # 40 ms: two periods of the lowest voice (66 Hz is 15 ms)

    def conceal(self, n_samples: int) -> Samples:
        """The next `n_samples` as they might have been; a loss that goes on goes on fading."""
        out: Samples = np.zeros(n_samples, np.float32)
        fade = int(self.FADE_S * self._rate)
        n_voiced = min(n_samples, fade - self._faded)
        if n_voiced > 0 and len(self._past) == self._rate // 25:
            period = self._past[-self._period() :]
            gains = 1.0 - (self._faded + np.arange(n_voiced, dtype=np.float32)) / fade
            phase = (self._faded + np.arange(n_voiced)) % len(period)
            out[:n_voiced] = period[phase] * gains
        self._faded += n_samples
        return out

    def _period(self) -> int:
        """Pitch period in samples, by normalised correlation of the last 10 ms with 2.5–15 ms before (66–400 Hz)."""
        window = self._rate // 100
        recent = self._past[-window:]
        shortest, longest = self._rate // 400, self._rate * 15 // 1000
        region = self._past[-window - longest : len(self._past) - shortest]
        scores = np.correlate(region, recent, "valid")
        power = np.convolve(region * region, np.ones(window, np.float32), "valid")
        best = int(np.argmax(scores / np.sqrt(power + 1e-6)))
        return longest - best

    def reset(self) -> None:
        """Forgets the past."""
        self._past = np.zeros(0, np.float32)
        self._faded = 0


def mu_law_table() -> Samples:
    """ITU-T G.711 table 2 as float32, shape [256]: a byte to full scale ±1."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    magnitude = (((mantissa << 3) + 132) << exponent) - 132
    return (np.where(code & 128, -magnitude, magnitude) / 32768.0).astype(np.float32)


def a_law_table() -> Samples:
    """ITU-T G.711 table 1 as float32, shape [256]: a byte to full scale ±1."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    magnitude = np.where(exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 264) << np.maximum(exponent, 1) >> 1)
    return (np.where(code & 128, magnitude, -magnitude) / 32768.0).astype(np.float32)


class G711Decoder:
    """PCMU or PCMA (RFC 3551 section 4.5.14) to 16 kHz; one byte is one sample at 8 kHz."""

    clock_rate = TELEPHONE_RATE

    def __init__(self, table: Samples) -> None:
        self._table = table
        self._repeater = Repeater(TELEPHONE_RATE)
        self._upsampler = Upsampler()

    def duration_ticks(self, payload: bytes) -> int:
        """One tick a byte."""
        return len(payload)

    def decode(self, payload: bytes) -> Decoded:
        """Samples, shape [2 len(payload)]."""
        narrow = self._table[np.frombuffer(payload, np.uint8)]
        self._repeater.heard(narrow)
        return Decoded(self._upsampler.process(narrow), 0)

    def conceal(self, n_samples: int, next_payload: bytes | None) -> Decoded:
        """The last pitch period, fading; G.711 has no error correction."""
        narrow = self._repeater.conceal((n_samples + 1) // 2)
        return Decoded(self._upsampler.process(narrow)[:n_samples], n_samples)

    def reset(self) -> None:
        """Forgets the past."""
        self._repeater.reset()
        self._upsampler.reset()

    def close(self) -> None:
        """Holds nothing but memory."""


class G722Decoder:
    """G.722 at 64 kbit/s (RFC 3551 section 4.5.2): one byte is two samples at 16 kHz."""

    clock_rate = TELEPHONE_RATE

    def __init__(self) -> None:
        self._repeater = Repeater(SAMPLE_RATE)
        self._codec = self._open()

    @staticmethod
    def _open() -> av.AudioCodecContext:
        codec = av.CodecContext.create("g722", "r")
        assert isinstance(codec, av.AudioCodecContext)
        codec.thread_count = 1  # by default PyAV's contexts start a thread for each core
        codec.sample_rate = SAMPLE_RATE
        codec.layout = "mono"
        return codec

    def duration_ticks(self, payload: bytes) -> int:
        """One tick a byte."""
        return len(payload)

    def decode(self, payload: bytes) -> Decoded:
        """Samples, shape [2 len(payload)]."""
        if not payload:
            return Decoded(np.zeros(0, np.float32), 0)
        try:
            frames = self._codec.decode(av.Packet(payload))
            pcm: NDArray[np.int16] = np.concatenate([frame.to_ndarray()[0] for frame in frames])
        except (av.FFmpegError, ValueError):  # ValueError: a decoder that gave nothing
            return self.conceal(2 * len(payload), None)
        samples = pcm.astype(np.float32) / np.float32(32768.0)
        self._repeater.heard(samples)
        return Decoded(samples, 0)

    def conceal(self, n_samples: int, next_payload: bytes | None) -> Decoded:
        """The last pitch period, fading; G.722 has no error correction."""
        return Decoded(self._repeater.conceal(n_samples), n_samples)

    def reset(self) -> None:
        """Forgets the past."""
        self._repeater.reset()
        self._codec = self._open()

    def close(self) -> None:
        """FFmpeg frees its context with the last reference."""
