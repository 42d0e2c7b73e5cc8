"""The audio of a stream that decodes may ask for."""

from __future__ import annotations

import asyncio

import numpy as np

from mediaserver.audio.clock import Samples, seconds
from mediaserver.audio.ring import SampleRing
from mediaserver.decoder.language import Asked, LanguageTracker
from mediaserver.decoder.window import Kind, Window

REAL_TIME_S = 1.0
"""What a live stream may have saved up: a client's buffers, and what was said while it connected."""


class Hearing:
    """What was received, and beside it the denoised signal where the decoder is to hear that.

    Args:
        session_id: written on every window.
        capacity_samples: how much is kept; the oldest is dropped first.
        languages: what is known of the speaker's language.
        start_sample: where the stream begins.
    """

    def __init__(
        self, session_id: str, *, capacity_samples: int, languages: LanguageTracker, start_sample: int = 0
    ) -> None:
        self._session_id = session_id
        self._capacity_samples = capacity_samples
        self._received = SampleRing(capacity_samples, start_position=start_sample)
        self._denoised: SampleRing | None = None
        self.languages = languages
        """What is known of the speaker's language; replaced where the client chooses another way."""
        self.prompt: str | None = None
        """Text before what is heard."""
        self.hotwords: tuple[str, ...] = ()
        """Words to expect."""
        self._began: tuple[float, int] | None = None  # when the first samples came, and at which position

    @property
    def received_samples(self) -> int:
        """Samples received, ever: the stream's clock."""
        return self._received.end_position

    @property
    def end_sample(self) -> int:
        """Stream position up to which there is something for the decoder to hear."""
        return self._audio.end_position

    @property
    def is_real_time(self) -> bool:
        """Whether the audio came no faster than it is spoken: then the stream's clock also says how late a word is."""
        if self._began is None:
            return False
        began_s, began_sample = self._began
        passed_s = asyncio.get_running_loop().time() - began_s
        return seconds(self.received_samples - began_sample) <= passed_s + REAL_TIME_S

    def receive(self, samples: Samples) -> None:
        """Take the next samples of the stream, [n] float32."""
        if self._began is None:
            self._began = (asyncio.get_running_loop().time(), self.received_samples)
        self._received.append(samples)

    def forget(self, before_sample: int) -> None:
        """Give up the audio before a position: no decode will ask for it."""
        self._received.forget(before_sample)
        if self._denoised is not None:
            self._denoised.forget(before_sample)

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

    def window(self, kind: Kind, start_sample: int, end_sample: int, *, language: str | None = None) -> Window | None:
        """The audio between two positions, or what is left of it; None where all of it has been dropped.

        Args:
            kind: what it is for.
            start_sample, end_sample: stream positions.
            language: what it is to be decoded in; None leaves that to what is known of the speaker.
        """
        ring = self._audio if self._audio.start_position <= start_sample else self._received
        begin = max(start_sample, ring.start_position)
        if begin >= end_sample:
            return None
        given = Asked(language) if language is not None else None
        asked = given or (self.languages.interim() if kind.is_interim else self.languages.final())
        return Window(
            session_id=self._session_id,
            kind=kind,
            samples=ring.read(begin, end_sample),
            start_sample=begin,
            language=asked.language,
            language_candidates=asked.candidates,
            language_scores=asked.scores,
            prompt=self.prompt,
            hotwords=self.hotwords,
        )

    @property
    def _audio(self) -> SampleRing:
        return self._received if self._denoised is None else self._denoised
