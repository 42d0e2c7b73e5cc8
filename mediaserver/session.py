"""One speaker's stream, from samples to events: the only class that ties the stages together.

Samples go into a bounded ring and to the VAD; its verdicts go to the endpointer; while somebody speaks, windows of the
utterance are decoded for interims; at its end the whole of it is decoded once more for its final. Finals leave in the
order of their utterances.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from mediaserver.audio.clock import FRAME_SAMPLES, Samples, samples_in, seconds
from mediaserver.audio.denoise import make_denoiser
from mediaserver.audio.endpoint import Edge, Ended, Endpointer, Started, TooLong
from mediaserver.audio.ring import SampleRing
from mediaserver.audio.vad import VadPool, VadStream, Verdict
from mediaserver.decoder.revising import revised
from mediaserver.decoder.window import Decoder, Hypothesis, HypothesisWord, Kind, Replaced, Window
from mediaserver.decoder.words import confidence_of, text_of
from mediaserver.effective import Effective
from mediaserver.errors import VoiceForgeError
from mediaserver.events import (
    Closed,
    Event,
    Failed,
    Final,
    Interim,
    Metadata,
    Pong,
    Ready,
    Revision,
    SpeechStarted,
    SpeechStopped,
    UtteranceEnd,
    Warned,
    Word,
)
from mediaserver.metrics import Metrics
from mediaserver.passage import LONGEST_S, Passage, Said, revisions
from mediaserver.settings import DenoiseBranch, SessionConfig, Settings
from mediaserver.utterance import Utterance

log = structlog.get_logger(__name__)

RING_SPARE_S = 10.0
"""What the ring holds beyond the longest utterance or passage: pre-roll, endpointing and the time until a cut."""

MAX_WAITING_FINALS = 32
"""Utterances of one session that may wait for their final. Beyond it the oldest is given up, and the client told."""

LANGUAGE_SURE = 0.8
"""From this probability on a detected language is kept for the session."""

FINAL_GAIN = 0.1
"""By how much a final's words must be surer than the stable words they replace, on which two decodes agreed. Without it
a thirtieth of the stable words change, with it a hundredth, and fewer of them are wrong."""

REVISION_WAIT_S = 10.0
"""A revision that comes later helps nobody: under load revisions are what is left out first."""

FIRST_PERIOD_MS = 200
"""Between two tries to hear the first words of an utterance: windows are short then, and a reader waits for a sign."""

FLUSH_DEADLINE_S = 10.0
"""How long a closing session waits for its last finals unless told otherwise."""


class Sink(Protocol):
    """Where a session's events go: one for each protocol."""

    def send(self, event: Event, seq: int) -> None:
        """Take an event. Never blocks and never raises; an event that is `droppable` may be left out."""
        ...


class Session:
    """One speaker's stream.

    Args:
        session_id: for logs and events; not a secret.
        config: what the client asked for.
        settings: the node's, for everything that the client left open.
        decoder: shared by all sessions.
        vad: shared by all sessions.
        metrics: shared by all sessions.
        sink: where events go.

    Raises:
        ConfigError: the configuration names a model or language that is not there.
        VoiceForgeError: a noise suppressor that is not installed.
    """

    def __init__(
        self,
        *,
        session_id: str,
        config: SessionConfig,
        settings: Settings,
        decoder: Decoder,
        vad: VadPool,
        metrics: Metrics,
        sink: Sink,
    ) -> None:
        self.id = session_id
        self.on_close_stream: Callable[[], None] | None = None
        self._settings = settings
        self._decoder = decoder
        self._metrics = metrics
        self._sink = sink
        self._config = config
        self._effective = Effective.of(config, settings, decoder)
        self._seq = 0  # counts events, sent or left out: a client sees a gap
        self._log = log.bind(session=session_id)

        self._ring = SampleRing(_ring_samples(settings))
        self._clean: SampleRing | None = None  # the denoised signal, where the decoder is to hear it
        self._endpointer = Endpointer(self._effective.endpointer)
        self._language = self._effective.language
        self._vad: VadStream = vad.open(self._judge, denoiser=make_denoiser(self._effective.denoise))

        self._utterance: Utterance | None = None
        self._utterances = 0
        self._last_speech_sample = 0
        # Bound: MAX_WAITING_FINALS; the oldest is given up first, for its audio is the next to be overwritten.
        self._finals: deque[_Pending] = deque()
        self._finalizer: asyncio.Task[None] | None = None
        self._passage = Passage()
        self._reviser: asyncio.Task[None] | None = None
        self._interims: set[asyncio.Task[None]] = set()  # one waiting and one being decoded at most
        self._flush_at: int | None = None
        self._flushed = asyncio.Event()
        self._speech_samples = 0
        self._concealed_samples = 0
        self._closing: asyncio.Task[None] | None = None

    @property
    def stream_time_s(self) -> float:
        """Seconds of audio received, concealed ones included."""
        return seconds(self._ring.end_position)

    @property
    def concealed_s(self) -> float:
        """Seconds of audio that were lost on the way and made up."""
        return seconds(self._concealed_samples)

    @property
    def config(self) -> SessionConfig:
        """What the client asked for so far."""
        return self._config

    def start(self) -> None:
        """Tell the client that the session is there."""
        self._emit(Ready(config=self._effective.as_dict(), model=self._effective.model))

    def push(self, samples: Samples, *, concealed: int = 0) -> None:
        """Take the next samples of the stream.

        Args:
            samples: [n] float32, 16 kHz mono, any length.
            concealed: how many of them were made up for lost ones.
        """
        if self._closing is not None:
            return
        self._append(samples)
        self._concealed_samples += concealed

    def configure(self, changes: object) -> None:
        """Change the configuration from here on.

        Raises:
            ConfigError: names every field that is unknown or of a wrong type; nothing has changed then.
            VoiceForgeError: a suppressor that is not installed; nothing has changed then either.
        """
        config = self._config.merged(changes)
        effective = Effective.of(config, self._settings, self._decoder)
        denoiser = make_denoiser(effective.denoise)  # may not be installed: before anything is changed
        before, self._effective, self._config = self._effective, effective, config
        self._endpointer.config = self._effective.endpointer
        if before.language != self._effective.language:
            self._language = self._effective.language
        if (before.denoise, before.denoise_branch) != (self._effective.denoise, self._effective.denoise_branch):
            self._vad.reset(denoiser)
        self._emit(Ready(config=self._effective.as_dict(), model=self._effective.model))

    def finalize(self) -> None:
        """End the running utterance with what has been received until now."""
        self._flush_at = self._ring.end_position
        self._flush_if_judged()

    def keep_alive(self) -> None:
        """Answer a client that asks whether the session lives."""
        self._emit(Pong(timestamp=self.stream_time_s))

    def warn(self, error: VoiceForgeError) -> None:
        """Tell the client of something that does not end the session."""
        self._emit(Warned(error=error.as_dict()))

    def fail(self, error: VoiceForgeError) -> None:
        """Tell the client of a request that failed."""
        self._emit(Failed(error=error.as_dict()))

    async def close(self, reason: str, *, deadline_s: float = FLUSH_DEADLINE_S) -> None:
        """Flush the finals, say how much there was, say `closed`. Further calls wait for the first.

        Args:
            reason: one word, for the client and the metrics.
            deadline_s: how long finals may take; what is not there by then is given up, and the client told.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(reason, deadline_s), name=f"close-{self.id}")
        await asyncio.shield(self._closing)

    # --- samples to utterances

    def _append(self, samples: Samples) -> None:
        self._ring.append(samples)
        self._vad.push(samples)

    def _judge(self, verdict: Verdict) -> None:
        """The VAD's verdict on the next frames, on the event loop."""
        self._keep_clean(verdict.denoised)
        for probability in verdict.probabilities:
            heard = float(probability) if self._effective.vad_enabled else 1.0
            edges = self._endpointer.feed(heard)
            if heard >= self._endpointer.config.threshold:
                self._last_speech_sample = self._endpointer.position_samples
            for edge in edges:
                self._turn(edge)
        self._flush_if_judged()
        self._settle_if_due()
        self._request_interim()

    def _keep_clean(self, denoised: Samples | None) -> None:
        """Keep the denoised signal while the decoder is to hear it."""
        if denoised is None or self._effective.denoise_branch is not DenoiseBranch.BOTH:
            self._clean = None
            return
        if self._clean is None:
            self._clean = SampleRing(_ring_samples(self._settings), start_position=self._endpointer.position_samples)
        self._clean.append(denoised)

    def _flush_if_judged(self) -> None:
        """Carry out a `finalize` once all whole frames before it have been judged."""
        judged = self._endpointer.position_samples
        if self._flush_at is None or judged + FRAME_SAMPLES <= self._flush_at:
            return
        until, self._flush_at = self._flush_at, None
        for edge in self._endpointer.flush():
            if isinstance(edge, Ended) and edge.speech_end_sample == judged:
                # Somebody spoke to the last: less than a frame, not judged, still belongs to the last word.
                end = max(until, judged)
                self._turn(replace(edge, end_sample=end, speech_end_sample=end))
            else:
                self._turn(edge)
        self._flushed.set()

    def _turn(self, edge: Edge) -> None:
        if isinstance(edge, Started):
            self._begin(edge)
        elif isinstance(edge, Ended):
            self._end(edge)
        else:
            self._split(edge)

    def _begin(self, edge: Started) -> None:
        self._utterances += 1
        self._utterance = Utterance(self._utterances, start_sample=edge.start_sample, speech_sample=edge.speech_sample)
        self._emit(SpeechStarted(at=seconds(edge.speech_sample)))

    def _end(self, edge: Ended) -> None:
        utterance, self._utterance = self._utterance, None
        if utterance is None:
            return
        self._emit(SpeechStopped(at=seconds(edge.speech_end_sample)))
        self._enqueue_final(utterance, end_sample=edge.end_sample, speech_end_sample=edge.speech_end_sample, over=True)

    def _split(self, edge: TooLong) -> None:
        """Long speech without a pause: the words that are stable become a final, the rest goes on."""
        utterance = self._utterance
        if utterance is None:
            return
        cut = utterance.cut_sample(edge.quietest_sample)
        self._endpointer.cut(cut)
        self._utterances += 1
        self._utterance = Utterance(self._utterances, start_sample=cut, speech_sample=cut)
        self._enqueue_final(utterance, end_sample=cut, speech_end_sample=cut, over=False)

    # --- utterances to words

    def _request_interim(self) -> None:
        """Have the running utterance decoded if it has grown by a period and somebody still speaks."""
        utterance = self._utterance
        if utterance is None or not self._effective.interim_results:
            return
        end = self._audio.end_position
        grown = end - utterance.requested_sample
        period_ms = self._settings.interim_period_ms
        period = samples_in(ms=period_ms if utterance.shown else min(FIRST_PERIOD_MS, period_ms))
        # A pause is decoded once, when its silence begins: later windows would say the same.
        if grown < period or self._last_speech_sample <= utterance.requested_sample:
            return
        utterance.requested_sample = end
        start = utterance.interim_start(end)
        window = self._window(utterance.next_kind, start, end)
        if window is None:
            return
        task = asyncio.create_task(self._interim(utterance, window), name=f"interim-{self.id}")
        self._interims.add(task)
        task.add_done_callback(self._interims.discard)

    async def _interim(self, utterance: Utterance, window: Window) -> None:
        try:
            hypothesis = await self._decoder.decode(window)
        except (Replaced, VoiceForgeError):
            return  # a newer window says more; a failure has been logged, and the final will tell
        if utterance is not self._utterance:
            return
        window_end = window.start_sample + len(window.samples)
        view = utterance.heard(hypothesis, window_start_sample=window.start_sample, window_end_sample=window_end)
        words = [*view.stable, *view.unstable]
        if not words and not utterance.shown:
            return
        if not utterance.shown:
            utterance.shown = True
            self._metrics.first_text_seconds.observe(self.stream_time_s - seconds(utterance.speech_sample))
        self._emit(
            Interim(
                utterance_id=utterance.number,
                transcript=text_of(words),
                stable=text_of(view.stable),
                confidence=confidence_of(words),
                start=seconds(utterance.speech_sample),
                duration=seconds(window_end - utterance.speech_sample),
                timestamp=self.stream_time_s,
                words=_wire(words),
            )
        )

    def _enqueue_final(self, utterance: Utterance, *, end_sample: int, speech_end_sample: int, over: bool) -> None:
        end = min(end_sample, self._audio.end_position)
        window = self._window(Kind.FINAL, utterance.start_sample, end)
        if window is None:
            self.warn(_final_lost())
            return
        self._speech_samples += len(window.samples)
        if len(self._finals) >= MAX_WAITING_FINALS:
            self._finals.popleft()
            self.warn(_final_lost())
        self._finals.append(_Pending(utterance, window, speech_end_sample, over))
        if self._finalizer is None or self._finalizer.done():
            self._finalizer = asyncio.create_task(self._finalize_all(), name=f"finals-{self.id}")

    async def _finalize_all(self) -> None:
        """Decode the waiting utterances in order."""
        while self._finals:
            pending = self._finals.popleft()
            try:
                hypothesis = await self._decoder.decode(pending.window)
            except VoiceForgeError as error:
                self.fail(error)
                continue
            self._final(pending, hypothesis)

    def _final(self, pending: _Pending, hypothesis: Hypothesis) -> None:
        utterance = pending.utterance
        words = revised(utterance.view.stable, hypothesis.words, gain=FINAL_GAIN)
        if not words and not utterance.shown:
            return  # a noise: nobody has seen anything of it
        probability = hypothesis.language_probability
        if self._language is None and probability is not None and probability >= LANGUAGE_SURE:
            self._language = hypothesis.language
        self._metrics.final_seconds.observe(max(0.0, self.stream_time_s - seconds(pending.speech_end_sample)))
        self._emit(
            Final(
                utterance_id=utterance.number,
                transcript=text_of(words),
                confidence=confidence_of(words),
                start=seconds(utterance.speech_sample),
                duration=seconds(pending.speech_end_sample - utterance.speech_sample),
                timestamp=self.stream_time_s,
                language=hypothesis.language,
                language_confidence=probability,
                words=_wire(words),
            )
        )
        if pending.over and words:
            self._emit(UtteranceEnd(utterance_id=utterance.number, last_word_end=words[-1].end))
        if words:
            self._passage.add(
                Said(
                    number=utterance.number,
                    start_sample=utterance.start_sample,
                    speech_sample=utterance.speech_sample,
                    speech_end_sample=pending.speech_end_sample,
                    end_sample=pending.window.start_sample + len(pending.window.samples),
                    words=tuple(words),
                )
            )

    def _settle_if_due(self) -> None:
        is_finalizing = self._finalizer is not None and not self._finalizer.done()
        more = self._utterance is not None or is_finalizing
        if self._passage.is_settled(self._endpointer.position_samples, speaking=more):
            self._settle()

    def _settle(self) -> None:
        """Have the passage decoded as one, unless it is one utterance or the last revision still waits."""
        passage, self._passage = self._passage, Passage()
        if not passage.is_joined or not self._effective.revisions:
            return
        if self._reviser is not None and not self._reviser.done():
            return
        window = self._window(Kind.REVISION, *passage.span)
        if window is None:
            return
        self._reviser = asyncio.create_task(self._revise(passage, window), name=f"revise-{self.id}")

    async def _revise(self, passage: Passage, window: Window) -> None:
        try:
            async with asyncio.timeout(REVISION_WAIT_S):
                hypothesis = await self._decoder.decode(window)
        except (TimeoutError, VoiceForgeError):
            return  # what was final stays
        for said in revisions(passage.said, hypothesis.words):
            words = list(said.words)
            self._emit(
                Revision(
                    utterance_id=said.number,
                    transcript=text_of(words),
                    confidence=confidence_of(words),
                    start=seconds(said.speech_sample),
                    duration=seconds(said.speech_end_sample - said.speech_sample),
                    timestamp=self.stream_time_s,
                    words=_wire(words),
                )
            )

    def _window(self, kind: Kind, start: int, end: int) -> Window | None:
        """The audio from `start` to `end`, or what is left of it; None where a VAD far behind let all of it be lost."""
        ring = self._audio if self._audio.start_position <= start else self._ring
        begin = max(start, ring.start_position)
        if begin >= end:
            return None
        return Window(self.id, kind, ring.read(begin, end), begin, self._language)

    @property
    def _audio(self) -> SampleRing:
        """What the decoder hears: the denoised signal where that was asked for."""
        return self._ring if self._clean is None else self._clean

    # --- the end

    async def _close(self, reason: str, deadline_s: float) -> None:
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                self._vad.finish()
                self._flushed.clear()
                self.finalize()
                await self._flushed.wait()
                if self._finalizer is not None:
                    await self._finalizer
        except TimeoutError:
            self._log.warning("finals given up", waiting=len(self._finals), deadline_s=deadline_s)
            self.warn(_final_lost())
        self._settle()
        if self._reviser is not None:
            # A revision that does not come in time is left out: what was final stays.
            await asyncio.wait([self._reviser], timeout=max(0.0, ends_s - loop.time()))
        await self._stop_tasks()
        self._vad.close()
        for kind, samples in (
            ("speech", self._speech_samples),
            ("silence", max(0, self._ring.end_position - self._speech_samples)),
            ("concealed", self._concealed_samples),
        ):
            self._metrics.audio_seconds_total.labels(kind).inc(seconds(samples))
        self._emit(
            Metadata(
                duration=self.stream_time_s,
                speech_duration=seconds(self._speech_samples),
                utterances=self._utterances,
                concealed_duration=self.concealed_s,
                model=self._decoder.model_name,
            )
        )
        self._emit(Closed(reason=reason))

    async def _stop_tasks(self) -> None:
        tasks = [*self._interims, *(task for task in (self._finalizer, self._reviser) if task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _emit(self, event: Event) -> None:
        self._sink.send(event, self._seq)
        self._seq += 1


@dataclass(frozen=True, slots=True)
class _Pending:
    """An utterance that waits for its final. `over`: it ended with a silence, not with a cut."""

    utterance: Utterance
    window: Window
    speech_end_sample: int
    over: bool


def _ring_samples(settings: Settings) -> int:
    return samples_in(s=max(settings.max_utterance_s, LONGEST_S) + RING_SPARE_S)


def _wire(words: list[HypothesisWord]) -> list[Word]:
    return [Word(word.text.strip(), word.start, word.end, word.probability) for word in words]


def _final_lost() -> VoiceForgeError:
    return VoiceForgeError(
        "FINAL_LOST",
        "The decoder did not keep up: the text of an utterance was given up.",
        "Open fewer sessions on this node, or use a smaller model.",
        retryable=True,
    )
