"""One utterance on its way to text: which window to decode next, and what its hypotheses make of the words shown."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import pairwise

from mediaserver.audio.clock import SAMPLE_RATE, samples_in, seconds
from mediaserver.decoder.language import may_show
from mediaserver.decoder.stabilizer import Stabilizer, View
from mediaserver.decoder.window import Hypothesis, Kind

INTERIM_WINDOW_S = 6.0
"""Longest audio of an interim; beyond it the window starts at a later stable word. Encoding grows with its length."""

INTERIM_KEEP_S = 2.5
"""How much audio a shortened window keeps: with less before it, Whisper mishears what follows."""


@dataclass(frozen=True, slots=True)
class Speculation:
    """A decode of the whole utterance in a pause: its final, if nobody speaks again.

    Args:
        last_speech_sample: where somebody was last heard.
        decode: its outcome; None where it did not come to one.
    """

    last_speech_sample: int
    decode: asyncio.Task[Hypothesis | None]


class Utterance:
    """Speech between two endpoints.

    Args:
        number: its id on the wire, counted up by one within a session.
        start_sample: where its audio begins, pre-roll included.
        speech_sample: where speech was first heard.
    """

    def __init__(self, number: int, *, start_sample: int, speech_sample: int) -> None:
        self.number = number
        self.start_sample = start_sample
        self.speech_sample = speech_sample
        self.offered_sample = start_sample
        """Stream position up to which audio has been offered for decoding."""
        self.speculation: Speculation | None = None
        """The decode of its latest pause."""
        self.language: str | None = None
        """What its words are shown in: one language from its first word to its final."""
        self.shown = False
        """Whether a client has seen any of its words."""
        self.is_over = False
        """Whether its end has been found: what is decoded of it from then on is its final."""
        self.view = View()
        self._window_sample = start_sample
        self._stabilizer = Stabilizer()

    @property
    def next_kind(self) -> Kind:
        """First interim until there is something to show."""
        return Kind.INTERIM if self.shown else Kind.FIRST_INTERIM

    def interim_start(self, end_sample: int) -> int:
        """Where the next interim's window begins if it ends at `end_sample`.

        Moves on past stable words once the window is too long; without any, it slides.
        """
        if end_sample - self._window_sample > samples_in(s=INTERIM_WINDOW_S):
            latest = end_sample - samples_in(s=INTERIM_KEEP_S)
            starts = [int(word.start * SAMPLE_RATE) for word in self._stabilizer.stable]
            begin = [start for start in starts if self._window_sample < start <= latest]
            self._window_sample = begin[-1] if begin else latest
        return self._window_sample

    def understands(self, hypothesis: Hypothesis, *, audio_s: float) -> bool:
        """Whether a hypothesis is in the language that the utterance is shown in; the first words choose it, once it is
        sure enough.
        """
        if self.language is not None or not hypothesis.words:
            return self.language in (None, hypothesis.language)
        if not may_show(hypothesis.language_probability, audio_s=audio_s):
            return False
        self.language = hypothesis.language
        return True

    def heard(self, hypothesis: Hypothesis, *, window_start_sample: int, window_end_sample: int) -> View:
        """Take in an interim's hypothesis."""
        self.view = self._stabilizer.update(
            hypothesis.words, window_start_s=seconds(window_start_sample), audio_end_s=seconds(window_end_sample)
        )
        return self.view

    def cut_sample(self, quietest_sample: int) -> int:
        """Where to split an utterance that has grown too long: the widest gap between stable words, else the quietest
        frame.
        """
        words = self._stabilizer.stable
        half_s = (seconds(self.start_sample) + seconds(quietest_sample)) / 2
        gaps = [
            (after.start - before.end, (after.start + before.end) / 2)
            for before, after in pairwise(words)
            if before.end > half_s
        ]
        if not gaps:
            return quietest_sample
        return int(max(gaps)[1] * SAMPLE_RATE)
