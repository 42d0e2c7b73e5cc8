"""Any number of channels at any usual rate to the channels that are heard, at 16 kHz, without seams."""

from __future__ import annotations

from typing import NamedTuple

import av
import numpy as np

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.ingest.undecodable import undecodable

MIN_RATE_HZ = 8_000
"""Telephony. Below it there is no speech that a model was trained on."""

MAX_RATE_HZ = 48_000
"""What sound cards and browsers record at; more holds nothing that is heard at 16 kHz."""

MAX_CHANNELS = 8
"""7.1; as many speakers have one connection. Each is a session of its own, where each is transcribed."""


class Block(NamedTuple):
    """Audio as its encoding had it."""

    samples: Samples
    """Shape [channels, n], full scale ±1."""
    rate: int
    """Hz."""


class Resampler:
    """Blocks of a stream to [count, n] at 16 kHz. A stream may change its rate; what was held back then comes first.

    Args:
        count: channels out.
        mix: whether other streams than of `count` channels are taken, by their mean; only for a count of 1.
    """

    def __init__(self, count: int, *, mix: bool) -> None:
        self.nothing: Samples = np.zeros((count, 0), np.float32)
        self._count = count
        self._mix = mix
        self._rate = SAMPLE_RATE
        self._resampler: av.AudioResampler | None = None

    def process(self, block: Block) -> Samples:
        """What has become whole, shape [count, n].

        Raises:
            MediaError: UNDECODABLE_AUDIO; a rate or number of channels that is not taken.
        """
        samples = self._mixed(block.samples)
        if block.rate == self._rate:
            return self._run(samples)
        if not MIN_RATE_HZ <= block.rate <= MAX_RATE_HZ:
            raise undecodable(
                f"The stream has {block.rate} Hz.", f"Send audio of {MIN_RATE_HZ} to {MAX_RATE_HZ} samples a second."
            )
        held = self.flush()
        self._rate = block.rate
        if block.rate != SAMPLE_RATE:
            self._resampler = av.AudioResampler(format="flt", layout=self._layout, rate=SAMPLE_RATE)
        return np.concatenate((held, self._run(samples)), axis=1)

    def flush(self) -> Samples:
        """What the filter held back, shape [count, n], at the end of the stream."""
        if self._resampler is None:
            return self.nothing
        frames, self._resampler, self._rate = self._resampler.resample(None), None, SAMPLE_RATE
        return self._joined(frames)

    @property
    def _layout(self) -> str:
        return "mono" if self._count == 1 else f"{self._count}c"

    def _mixed(self, samples: Samples) -> Samples:
        channels = len(samples)
        if channels == self._count:
            return samples
        if self._mix and 1 <= channels <= MAX_CHANNELS:
            mean: Samples = samples.mean(axis=0, dtype=np.float32, keepdims=True)
            return mean
        raise undecodable(
            f"The stream has {channels} channels, not {self._count}.",
            f"Say in `channels` how many it has, at most {MAX_CHANNELS}.",
        )

    def _run(self, samples: Samples) -> Samples:
        if self._resampler is None or not samples.shape[1]:
            return samples
        # Interleaved: PyAV cannot make a planar frame of eight channels.
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T).reshape(1, -1), format="flt", layout=self._layout
        )
        frame.sample_rate = self._rate
        return self._joined(self._resampler.resample(frame))

    def _joined(self, frames: list[av.AudioFrame]) -> Samples:
        if not frames:
            return self.nothing
        interleaved = np.concatenate([frame.to_ndarray()[0] for frame in frames])
        return np.ascontiguousarray(interleaved.reshape(-1, self._count).T)
