"""What is shown of an utterance while it is being said."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mediaserver.audio.clock import samples_in, seconds
from mediaserver.decoder.window import Decoder, Hypothesis, HypothesisWord, Kind, Replaced, Window
from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics
from mediaserver.session.hearing import Hearing
from mediaserver.session.reporter import Reporter
from mediaserver.session.utterance import Speculation, Utterance

OFFER_MS = 96
"""How often the newest audio takes the place of what still waits for its decode: three frames of the VAD."""

FIRST_SPEECH_MS = 350
"""Speech before which nothing is decoded: of tries after 260 ms none in eleven showed a word, of those after 360 ms
half did."""

TAIL_MS = 200
"""Silence after which the audio of a pause is complete: longer windows would say the same."""

AHEAD_MS = 96
"""How far beyond what the VAD has judged an utterance may be decoded: live audio lies within three frames of it. A file
that is pushed faster than it was spoken would bring in what the next utterance says."""

SPECULATE_MS, SPECULATE_SHARE = 250, 0.5
"""Silence after which an utterance is decoded as if it were over: half of the endpoint's wait, so that its final is
there when it is, and no more than most pauses within a sentence last."""


class Interims:
    """Has the running utterance of one session decoded while it grows.

    Args:
        hearing: the session's audio.
        decoder: shared by all sessions.
        reporter: where interims go.
        metrics: where the first-text latency goes.
    """

    def __init__(self, *, hearing: Hearing, decoder: Decoder, reporter: Reporter, metrics: Metrics) -> None:
        self._hearing = hearing
        self._decoder = decoder
        self._reporter = reporter
        self._metrics = metrics
        self._tasks: set[asyncio.Task[Hypothesis | None]] = set()  # one waiting and one being decoded at most
        self.are_shown = True
        """Whether the client wants interims."""

    def hear(
        self,
        utterance: Utterance,
        *,
        judged_sample: int,
        silence_samples: int,
        last_speech_sample: int,
        endpointing_ms: int,
    ) -> None:
        """Have the running utterance decoded: as an interim while somebody speaks, as its final in a pause.

        Args:
            utterance: call it for every new frame.
            judged_sample: how far the VAD has come.
            silence_samples: how long nobody has spoken.
            last_speech_sample: where somebody was last heard.
            endpointing_ms: the least silence that can end it.
        """
        end = min(self._hearing.end_sample, judged_sample + samples_in(ms=AHEAD_MS))
        if silence_samples >= samples_in(ms=min(SPECULATE_MS, endpointing_ms * SPECULATE_SHARE)):
            self._speculate(utterance, end, last_speech_sample)
        elif self.are_shown:
            self._offer(utterance, end, last_speech_sample)

    async def close(self) -> None:
        """Give up what is being decoded."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _offer(self, utterance: Utterance, end: int, last_speech_sample: int) -> None:
        """Have the utterance decoded as far as it has come, as soon as its turn comes."""
        if end - utterance.offered_sample < samples_in(ms=OFFER_MS):
            return
        if end - utterance.speech_sample < samples_in(ms=FIRST_SPEECH_MS):
            return
        if end - last_speech_sample > samples_in(ms=TAIL_MS) and utterance.offered_sample > last_speech_sample:
            return
        utterance.offered_sample = end
        start = utterance.interim_start(end)
        window = self._hearing.window(utterance.next_kind, start, end, language=utterance.language)
        if window is not None:
            self._start(utterance, window)

    def _speculate(self, utterance: Utterance, end: int, last_speech_sample: int) -> None:
        """Have the utterance decoded as if it ended in this pause, once a pause."""
        speculation = utterance.speculation
        if speculation is not None and speculation.last_speech_sample == last_speech_sample:
            return
        window = self._hearing.window(Kind.SPECULATIVE, utterance.start_sample, end)
        if window is not None:
            utterance.speculation = Speculation(last_speech_sample, self._start(utterance, window))

    def _start(self, utterance: Utterance, window: Window) -> asyncio.Task[Hypothesis | None]:
        task = asyncio.create_task(self._decode(utterance, window), name=f"interim-{window.session_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _decode(self, utterance: Utterance, window: Window) -> Hypothesis | None:
        """Decode and show; None where a newer window says more, or where the decode failed: the final will tell."""
        try:
            hypothesis = await self._decoder.decode(window)
        except (Replaced, VoiceForgeError):
            return None
        if not utterance.is_over:
            self._show(utterance, window, hypothesis)
        return hypothesis

    def _show(self, utterance: Utterance, window: Window, hypothesis: Hypothesis) -> None:
        end = window.start_sample + len(window.samples)
        if not utterance.understands(hypothesis, audio_s=window.duration_s):
            return
        stable = len(utterance.view.stable)
        view = utterance.heard(hypothesis, window_start_sample=window.start_sample, window_end_sample=end)
        if not self.are_shown or not (view.stable or view.unstable or utterance.shown):
            return
        if not utterance.shown:
            utterance.shown = True
            late_samples = self._hearing.received_samples - utterance.speech_sample
            if self._hearing.is_real_time:
                self._metrics.first_text_seconds.observe(seconds(late_samples))
        self._time_words(view.stable[stable:])
        self._reporter.interim(utterance, end_sample=end)

    def _time_words(self, words: Sequence[HypothesisWord]) -> None:
        """How late words are from which on they stay as they are."""
        if words and self._hearing.is_real_time:
            now_s = seconds(self._hearing.received_samples)
            for word in words:
                self._metrics.word_seconds.observe(max(0.0, now_s - word.end))
