"""The audio of a stream that decodes may ask for."""

from __future__ import annotations

import numpy as np

from mediaserver.audio.clock import Samples
from mediaserver.audio.ring import SampleRing
from mediaserver.decoder.window import Kind, Window


class Hearing:
    """What was received, and beside it the denoised signal where the decoder is to hear that.

    Args:
        session_id: written on every window.
        capacity_samples: how much is kept; the oldest is dropped first.
        language: code, or None to have it detected.
    """

    def __init__(self, session_id: str, *, capacity_samples: int, language: str | None) -> None:
        self._session_id = session_id
        self._capacity_samples = capacity_samples
        self._received = SampleRing(capacity_samples)
        self._denoised: SampleRing | None = None
        self.language = language

    @property
    def received_samples(self) -> int:
        """Samples received, ever: the stream's clock."""
        return self._received.end_position

    @property
    def end_sample(self) -> int:
        """Stream position up to which there is something for the decoder to hear."""
        return self._audio.end_position

    def receive(self, samples: Samples) -> None:
        """Take the next samples of the stream, [n] float32."""
        self._received.append(samples)

    def received(self, start_sample: int, end_sample: int) -> Samples:
        """What was received between two positions, as it came, or what is left of it; [n], perhaps none."""
        begin = max(start_sample, self._received.start_position)
        return self._received.read(begin, end_sample) if begin < end_sample else np.zeros(0, dtype=np.float32)

    def denoise(self, samples: Samples | None, *, start_sample: int) -> None:
        """Take denoised samples that begin at `start_sample`; None where the decoder hears the raw signal."""
        if samples is None:
            self._denoised = None
            return
        if self._denoised is None:
            self._denoised = SampleRing(self._capacity_samples, start_position=start_sample)
        self._denoised.append(samples)

    def window(self, kind: Kind, start_sample: int, end_sample: int) -> Window | None:
        """The audio between two positions, or what is left of it; None where all of it has been dropped."""
        ring = self._audio if self._audio.start_position <= start_sample else self._received
        begin = max(start_sample, ring.start_position)
        if begin >= end_sample:
            return None
        return Window(self._session_id, kind, ring.read(begin, end_sample), begin, self.language)

    @property
    def _audio(self) -> SampleRing:
        return self._received if self._denoised is None else self._denoised
