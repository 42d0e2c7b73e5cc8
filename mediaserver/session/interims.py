"""What is shown of an utterance while it is being said."""

from __future__ import annotations

import asyncio

from mediaserver.audio.clock import samples_in, seconds
from mediaserver.decoder.window import Decoder, Replaced, Window
from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics
from mediaserver.session.hearing import Hearing
from mediaserver.session.reporter import Reporter
from mediaserver.session.utterance import Utterance

FIRST_PERIOD_MS = 200
"""Between two tries to hear the first words of an utterance: windows are short then, and a reader waits for a sign."""


class Interims:
    """Has the running utterance of one session decoded while it grows.

    Args:
        hearing: the session's audio.
        decoder: shared by all sessions.
        reporter: where interims go.
        metrics: where the first-text latency goes.
        period_ms: least time between two interims.
    """

    def __init__(
        self, *, hearing: Hearing, decoder: Decoder, reporter: Reporter, metrics: Metrics, period_ms: int
    ) -> None:
        self._hearing = hearing
        self._decoder = decoder
        self._reporter = reporter
        self._metrics = metrics
        self._period_ms = period_ms
        self._tasks: set[asyncio.Task[None]] = set()  # one waiting and one being decoded at most

    def offer(self, utterance: Utterance, *, last_speech_sample: int) -> None:
        """Have the utterance decoded if it has grown by a period and somebody still speaks."""
        end = self._hearing.end_sample
        grown = end - utterance.requested_sample
        period = samples_in(ms=self._period_ms if utterance.shown else min(FIRST_PERIOD_MS, self._period_ms))
        # A pause is decoded once, when its silence begins: later windows would say the same.
        if grown < period or last_speech_sample <= utterance.requested_sample:
            return
        utterance.requested_sample = end
        start = utterance.interim_start(end)
        window = self._hearing.window(utterance.next_kind, start, end, language=utterance.language)
        if window is None:
            return
        task = asyncio.create_task(self._decode(utterance, window), name=f"interim-{window.session_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up what is being decoded."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _decode(self, utterance: Utterance, window: Window) -> None:
        try:
            hypothesis = await self._decoder.decode(window)
        except (Replaced, VoiceForgeError):
            return  # a newer window says more; a failure has been logged, and the final will tell
        if utterance.is_over:
            return
        end = window.start_sample + len(window.samples)
        if not utterance.understands(hypothesis, audio_s=window.duration_s):
            return
        view = utterance.heard(hypothesis, window_start_sample=window.start_sample, window_end_sample=end)
        if not (view.stable or view.unstable or utterance.shown):
            return
        if not utterance.shown:
            utterance.shown = True
            late_samples = self._hearing.received_samples - utterance.speech_sample
            self._metrics.first_text_seconds.observe(seconds(late_samples))
        self._reporter.interim(utterance, end_sample=end)
