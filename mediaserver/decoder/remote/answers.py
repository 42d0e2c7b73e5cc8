"""Who waits for which window, and what they are told."""

from __future__ import annotations

import asyncio

from mediaserver.decoder.remote.outbox import Entry
from mediaserver.decoder.remote.wire import Answer, Failed, Superseded
from mediaserver.decoder.window import Hypothesis, Replaced, Window
from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics


class Answers:
    """One future for each entry of an outbox.

    Args:
        metrics: where waits and outcomes are counted, as an engine in this process counts them. A batch is counted once
            for each of its windows.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._futures: dict[int, asyncio.Future[Hypothesis]] = {}

    async def to(self, entry: Entry) -> Hypothesis:
        """Wait for what becomes of a window.

        Raises:
            Replaced, VoiceForgeError: what it was told.
        """
        future: asyncio.Future[Hypothesis] = asyncio.get_running_loop().create_future()
        self._futures[entry.ident] = future
        try:
            return await future
        finally:
            del self._futures[entry.ident]
            del future  # an exception in it refers to this frame, and by it to the window's audio

    def settle(self, entry: Entry, message: Answer | Superseded | Failed) -> None:
        """Tell what the engine said."""
        match message:
            case Answer(hypothesis=hypothesis):
                kind = entry.window.kind.name.lower()
                self._metrics.queue_seconds.labels(kind).observe(hypothesis.queued_s)
                self._metrics.decode_seconds.labels(kind).observe(hypothesis.compute_s)
                self._metrics.decoding_seconds_total.labels(kind).inc(
                    hypothesis.compute_s / max(1, hypothesis.batch_windows)
                )
                self._metrics.decoded_audio_seconds_total.labels(kind).inc(entry.window.duration_s)
                self._metrics.decode_batch_windows.observe(hypothesis.batch_windows)
                self.count(entry.window, "rejected" if hypothesis.rejected else "decoded")
                future = self._futures.get(entry.ident)
                if future is not None and not future.done():
                    future.set_result(hypothesis)
            case Superseded():
                self.replace(entry)
            case Failed():
                error = VoiceForgeError(message.code, message.message, message.hint, retryable=message.retryable)
                self.fail(entry, error)

    def replace(self, entry: Entry) -> None:
        """Tell that it gave way."""
        self.count(entry.window, "replaced")
        self._raise(entry, Replaced())

    def fail(self, entry: Entry, error: VoiceForgeError) -> None:
        """Tell why it has no hypothesis."""
        self.count(entry.window, "failed")
        self._raise(entry, error)

    def count(self, window: Window, outcome: str) -> None:
        """Count what became of a window."""
        self._metrics.windows_total.labels(window.kind.name.lower(), outcome).inc()

    def _raise(self, entry: Entry, error: Exception) -> None:
        future = self._futures.get(entry.ident)
        if future is not None and not future.done():
            future.set_exception(error)
