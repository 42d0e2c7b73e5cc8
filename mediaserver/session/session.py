"""One speaker's stream, from samples to events: the only class that ties the stages together.

Samples go into a bounded ring and to the VAD; its verdicts go to the endpointer; while somebody speaks, windows of the
utterance are decoded for interims; at its end the whole of it is decoded once more for its final. Finals leave in the
order of their utterances.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import structlog

from mediaserver.audio.clock import FRAME_SAMPLES, Samples, samples_in, seconds
from mediaserver.audio.denoise import make_denoiser
from mediaserver.audio.endpoint import Edge, Ended, Endpointer, Paused, Started, TooLong
from mediaserver.audio.turn import TurnPool
from mediaserver.audio.vad import VadPool, VadStream, Verdict
from mediaserver.decoder.confidence import Calibration, calibration_of
from mediaserver.decoder.language import LanguageTracker
from mediaserver.decoder.window import Decoder, Hypothesis
from mediaserver.errors import VoiceForgeError
from mediaserver.events import (
    Closed,
    Event,
    Finalized,
    Metadata,
    Pong,
    Ready,
    SpeechStarted,
    SpeechStopped,
    UtteranceBegan,
    UtteranceSettled,
)
from mediaserver.metrics import Metrics
from mediaserver.session.effective import Effective
from mediaserver.session.finals import Finals
from mediaserver.session.hearing import Hearing
from mediaserver.session.interims import Interims
from mediaserver.session.passage import LONGEST_S
from mediaserver.session.reporter import Reporter, Sink
from mediaserver.session.resumption import MOVED, START, Position, whole_frames
from mediaserver.session.settling import Settling
from mediaserver.session.turns import Turns
from mediaserver.session.utterance import Utterance
from mediaserver.session.utterance_end import UtteranceEnds
from mediaserver.session_config import SessionConfig
from mediaserver.settings import DenoiseBranch, Settings

log = structlog.get_logger(__name__)

RING_SPARE_S = 10.0
"""What is kept beyond the longest utterance or passage: pre-roll, endpointing and the time until a cut."""

IDLE_KEPT_S = 2.0
"""What is kept, while nobody speaks, beyond the audio that an utterance would take in from before it was noticed: a
client may ask for that much more of it (`pre_roll_ms`). A silent stream holds a tenth of what one with a long utterance
does."""

VOICED = 0.1
"""Speech probability that something in an utterance must have for it to be decoded, whatever a client takes for speech.
In 20 s of each, hum, hiss, typing and a fire stay below. Of speech, 16 sentences at −65 dBFS are above, and at −60 dBFS
all but two of 68 short commands and prompts, which a VAD at its usual threshold misses too."""

FLUSH_DEADLINE_S = 10.0
"""How long a closing session waits for its last finals unless told otherwise."""


class Session:
    """One speaker's stream.

    Args:
        session_id: for logs and events; not a secret.
        config: what the client asked for.
        settings: the node's, for everything that the client left open.
        decoder: shared by all sessions.
        vad: shared by all sessions.
        turns: shared by all sessions; None where the node has no end-of-turn model: silence alone ends utterances.
        metrics: shared by all sessions.
        sink: where events go.
        calibration: of the words' confidence; that of the decoder's model where none is given.
        start: where it goes on, where another process had it.

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
        turns: TurnPool | None = None,
        calibration: Calibration | None = None,
        start: Position = START,
    ) -> None:
        self.id = session_id
        self.on_close_stream: Callable[[], None] | None = None
        self.on_finalized: Callable[[], None] | None = None
        """Called once what a `finalize` ended has been told, or that there was nothing; of several at once, once. Where
        finals are held until they settle, they may come later."""
        self.on_inner: Callable[[Event], None] | None = None
        """Told `UtteranceBegan`, `UtteranceSettled` and `Finalized`, in order with the events for the client."""
        self._settings = settings
        self._decoder = decoder
        self._metrics = metrics
        self._config = config
        self._effective = Effective.of(config, settings, decoder)
        self._log = log.bind(session=session_id)

        hearing = self._hearing = Hearing(
            session_id,
            capacity_samples=samples_in(s=max(settings.max_utterance_s, LONGEST_S) + RING_SPARE_S),
            languages=self._languages(),
            start_sample=start.sample,
        )
        self._reporter = Reporter(
            sink,
            stream_time_s=lambda: seconds(hearing.received_samples),
            calibration=calibration_of(decoder.model_name) if calibration is None else calibration,
            min_confidence=self._effective.min_confidence,
        )
        self._endpointer = Endpointer(self._effective.endpointer, start_sample=start.sample)
        self._turns = Turns(session_id, hearing=self._hearing, pool=turns, endpointer=self._endpointer)
        self._vad: VadStream = vad.open(self._judge, denoiser=make_denoiser(self._effective.denoise))
        self._interims = Interims(hearing=self._hearing, decoder=decoder, reporter=self._reporter, metrics=metrics)
        self._ends = UtteranceEnds(self._reporter.utterance_end)
        self._settling = Settling(hearing=self._hearing, decoder=decoder, reporter=self._reporter, ends=self._ends)
        self._finals = Finals(
            hearing=self._hearing,
            decoder=decoder,
            reporter=self._reporter,
            settling=self._settling,
            metrics=metrics,
            on_settled=self._settled,
        )
        self._finals.speech_samples = start.speech_samples
        self._apply()

        self._utterance: Utterance | None = None
        self._start = start
        self._utterances = start.utterances
        self._last_speech_sample = self._voice_sample = start.sample
        self._flushes: deque[int] = deque()  # bound: one for each `finalize` in what the VAD has still to judge
        self._flushed = asyncio.Event()
        self._concealed_samples = start.concealed_samples
        self._closing: asyncio.Task[None] | None = None
        self._flushing: asyncio.Timeout | None = None
        self._ends_s = math.inf  # of the loop's clock: finals that are out by then are told

    @property
    def speech_s(self) -> float:
        """Seconds of speech in the utterances so far."""
        return seconds(self._finals.speech_samples)

    @property
    def received_samples(self) -> int:
        """Samples of audio received, concealed ones included."""
        return self._hearing.received_samples

    @property
    def stream_time_s(self) -> float:
        """Seconds of audio received, concealed ones included."""
        return seconds(self._hearing.received_samples)

    @property
    def concealed_s(self) -> float:
        """Seconds of audio that were lost on the way and made up."""
        return seconds(self._concealed_samples)

    @property
    def unjudged_s(self) -> float:
        """Seconds of audio received that the VAD has still to judge."""
        return seconds(max(0, self._hearing.received_samples - self._endpointer.position_samples))

    @property
    def undecoded_s(self) -> float:
        """Seconds of utterances that are over and whose finals are still to come."""
        return seconds(self._finals.waiting_samples)

    @property
    def undecoded_utterances(self) -> int:
        """How many utterances are over whose finals are still to come; a session keeps `MAX_WAITING`."""
        return self._finals.waiting_utterances

    @property
    def is_settled(self) -> bool:
        """Whether all that was received has been judged, and the finals of all utterances that are over are told."""
        return not (self._flushes or self._finals.is_busy or self._settling.is_holding)

    @property
    def position(self) -> Position:
        """How far it has come: who goes on from there tells nothing twice that was final, and leaves nothing out."""
        earliest = self._settling.earliest or self._finals.earliest or self._utterance
        sample = self._endpointer.settled_sample if earliest is None else earliest.start_sample
        return Position(
            sample=max(self._start.sample, whole_frames(sample)),
            utterances=self._utterances if earliest is None else earliest.number - 1,
            speech_samples=self._finals.speech_samples - self._finals.waiting_samples,
            concealed_samples=self._concealed_samples,
            left_out=self._start.left_out,
        )

    @property
    def config(self) -> SessionConfig:
        """What the client asked for so far."""
        return self._config

    def start(self) -> None:
        """Tell the client that the session is there."""
        self._reporter.emit(Ready(config=self._effective.as_dict(), model=self._effective.model))

    def push(self, samples: Samples, *, concealed: int = 0) -> None:
        """Take the next samples of the stream.

        Args:
            samples: [n] float32, 16 kHz mono, any length.
            concealed: how many of them were made up for lost ones.
        """
        if self._closing is not None:
            return
        self._hearing.receive(samples)
        self._vad.push(samples)
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
        if (before.language, before.languages) != (self._effective.language, self._effective.languages):
            self._hearing.languages = self._languages()
        self._apply()
        if (before.denoise, before.denoise_branch) != (self._effective.denoise, self._effective.denoise_branch):
            self._vad.reset(denoiser)
        self._reporter.emit(Ready(config=self._effective.as_dict(), model=self._effective.model))

    def finalize(self) -> None:
        """End the running utterance with what has been received until now."""
        if not self._flushes or self._flushes[-1] < self._hearing.received_samples:
            self._flushes.append(self._hearing.received_samples)
        self._flush_if_judged()

    def keep_alive(self) -> None:
        """Answer a client that asks whether the session lives."""
        self._reporter.emit(Pong(timestamp=self.stream_time_s))

    def warn(self, error: VoiceForgeError) -> None:
        """Tell the client of something that does not end the session."""
        self._reporter.warn(error)

    def fail(self, error: VoiceForgeError) -> None:
        """Tell the client of a request that failed."""
        self._reporter.fail(error)

    async def close(self, reason: str, *, deadline_s: float = FLUSH_DEADLINE_S) -> None:
        """Flush the finals, say how much there was, say `closed`. Further calls wait for the first, which then takes no
        longer than they allow.

        Args:
            reason: one word, for the client and the metrics.
            deadline_s: how long finals may take; what is not there by then is given up, and the client told.
        """
        self._ends_s = min(self._ends_s, asyncio.get_running_loop().time() + deadline_s)
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(reason), name=f"close-{self.id}")
        elif self._flushing is not None and not self._flushing.expired():
            self._flushing.reschedule(self._ends_s)
        await asyncio.shield(self._closing)

    def _languages(self) -> LanguageTracker:
        effective = self._effective
        return LanguageTracker(self._decoder.languages, chosen=effective.language, allowed=effective.languages)

    def _apply(self) -> None:
        """What holds from here on."""
        effective = self._effective
        self._hearing.prompt, self._hearing.hotwords = effective.prompt, effective.hotwords
        self._endpointer.config = effective.endpointer
        self._interims.are_shown = effective.interim_results
        self._settling.with_revisions, self._settling.hold_ms = effective.revisions, effective.hold_ms
        self._reporter.min_confidence = effective.min_confidence
        self._ends.gap_ms = effective.utterance_end_ms

    # --- samples to utterances

    def _judge(self, verdict: Verdict) -> None:
        """The VAD's verdict on the next frames, on the event loop."""
        is_heard = self._effective.denoise_branch is DenoiseBranch.BOTH
        self._hearing.denoise(verdict.denoised if is_heard else None, start_sample=self._endpointer.position_samples)
        for probability in verdict.probabilities:
            heard = float(probability) if self._effective.vad_enabled else 1.0
            edges = self._endpointer.feed(heard)
            if heard >= self._endpointer.config.threshold:
                self._last_speech_sample = self._endpointer.position_samples
            if probability >= min(VOICED, self._endpointer.config.threshold):
                self._voice_sample = self._endpointer.position_samples
            for edge in edges:
                self._turn(edge)
            self._flush_if_judged()
        self._settling.settle_if_due(
            self._endpointer.position_samples, is_speaking=self._utterance is not None or self._finals.is_busy
        )
        self._ends.passed(
            self._endpointer.position_samples,
            speech_sample=self._utterance.speech_sample if self._utterance is not None else None,
            is_awaited=self._finals.is_busy or self._settling.is_holding,
        )
        if self._utterance is not None and self._has_voice(self._utterance):
            self._interims.hear(
                self._utterance,
                judged_sample=self._endpointer.position_samples,
                silence_samples=self._endpointer.position_samples - self._last_speech_sample,
                last_speech_sample=self._last_speech_sample,
                endpointing_ms=self._effective.endpointer.shortest_wait_ms,
            )

        if self._utterance is None and not self._finals.is_busy and self._settling.is_idle:
            self._hearing.forget(self._endpointer.settled_sample - samples_in(s=IDLE_KEPT_S))

    def _has_voice(self, utterance: Utterance) -> bool:
        """Whether anything in it was like speech: a VAD that lets everything through still tells what cannot be."""
        return self._voice_sample > utterance.start_sample

    def _flush_if_judged(self) -> None:
        """Carry out each `finalize` once all whole frames before it have been judged."""
        judged = self._endpointer.position_samples
        while self._flushes and judged + FRAME_SAMPLES > self._flushes[0]:
            self._flush(self._flushes.popleft(), judged)

    def _flush(self, until: int, judged: int) -> None:
        for edge in self._endpointer.flush():
            if isinstance(edge, Ended) and edge.speech_end_sample == judged:
                # Somebody spoke to the last: less than a frame, not judged, still belongs to the last word.
                end = max(until, judged)
                self._turn(replace(edge, end_sample=end, speech_end_sample=end))
            else:
                self._turn(edge)
        if not self._flushes:
            self._flushed.set()
        self._tell_inner(Finalized(at=seconds(until)))
        if self.on_finalized is not None:
            self._finals.after(self.on_finalized)

    def _turn(self, edge: Edge) -> None:
        if isinstance(edge, Started):
            self._begin(edge)
        elif isinstance(edge, Ended):
            self._end(edge)
        elif isinstance(edge, Paused):
            self._turns.ask(edge)
        else:
            self._split(edge)

    def _begin(self, edge: Started) -> None:
        self._utterances += 1
        self._utterance = Utterance(self._utterances, start_sample=edge.start_sample, speech_sample=edge.speech_sample)
        self._reporter.emit(SpeechStarted(at=seconds(edge.speech_sample)))
        self._tell_inner(UtteranceBegan(self._utterances))

    def _end(self, edge: Ended) -> None:
        self._turns.drop()
        utterance, self._utterance = self._utterance, None
        if utterance is None:
            return
        self._reporter.emit(SpeechStopped(at=seconds(edge.speech_end_sample)))
        self._finish(utterance, end_sample=edge.end_sample, speech_end_sample=edge.speech_end_sample, has_stopped=True)

    def _split(self, edge: TooLong) -> None:
        """Long speech without a pause: the words that are stable become a final, the rest goes on."""
        utterance = self._utterance
        if utterance is None:
            return
        cut = utterance.cut_sample(edge.quietest_sample)
        self._endpointer.cut(cut)
        self._utterances += 1
        self._utterance = Utterance(self._utterances, start_sample=cut, speech_sample=cut)
        self._tell_inner(UtteranceBegan(self._utterances))
        self._finish(utterance, end_sample=cut, speech_end_sample=cut, has_stopped=False)

    def _finish(self, utterance: Utterance, *, end_sample: int, speech_end_sample: int, has_stopped: bool) -> None:
        utterance.is_over = True
        if not self._has_voice(utterance):
            self._settled(utterance, None)  # nothing was said
            return
        speculation = utterance.speculation
        if speculation is not None and (not has_stopped or speculation.last_speech_sample < self._last_speech_sample):
            utterance.speculation = None  # somebody went on speaking
        self._finals.add(utterance, end_sample=end_sample, speech_end_sample=speech_end_sample, has_stopped=has_stopped)

    def _settled(self, utterance: Utterance, outcome: Hypothesis | VoiceForgeError | None) -> None:
        error = outcome.as_dict() if isinstance(outcome, VoiceForgeError) else None
        queued_s, decode_s = (outcome.queued_s, outcome.compute_s) if isinstance(outcome, Hypothesis) else (None, None)
        self._tell_inner(UtteranceSettled(utterance.number, error, queued_s, decode_s))

    def _tell_inner(self, event: Event) -> None:
        if self.on_inner is not None:
            self.on_inner(event)

    # --- the end

    def _give_up(self) -> None:
        """Tell of what the end comes too early for: finals, or audio that may have some. There may be none."""
        waiting = self._finals.waiting_utterances + (self._utterance is not None)
        if waiting or not self._flushed.is_set():
            self._finals.give_up()
            self._log.warning("finals given up", waiting=waiting, unjudged_s=round(self.unjudged_s, 1))

    async def _close(self, reason: str) -> None:
        try:
            async with asyncio.timeout_at(self._ends_s) as self._flushing:
                self._vad.finish()
                self._flushed.clear()
                self.finalize()
                await self._flushed.wait()
                await self._finals.flush()
        except TimeoutError:
            if reason != MOVED:
                self._give_up()
        self._flushing = None
        self._ends.flush()
        await self._settling.settle(timeout_s=max(0.0, self._ends_s - asyncio.get_running_loop().time()))
        await self._turns.close()
        await self._interims.close()
        await self._finals.close()
        self._vad.close()
        speech = self._finals.speech_samples - self._start.speech_samples
        received = self._hearing.received_samples - self._start.sample
        for kind, samples in (
            ("speech", speech),
            ("silence", max(0, received - speech)),
            ("concealed", self._concealed_samples - self._start.concealed_samples),
        ):
            self._metrics.audio_seconds_total.labels(kind).inc(seconds(samples))
        self._reporter.emit(
            Metadata(
                duration=self.stream_time_s,
                speech_duration=seconds(self._finals.speech_samples),
                utterances=self._utterances - self._start.left_out,
                concealed_duration=self.concealed_s,
                model=self._decoder.model_name,
            )
        )
        self._reporter.emit(Closed(reason=reason))
        # Nothing refers back from here on: it is freed when its owner lets go of it, and needs no search.
        self._reporter.close()
        self.on_close_stream = self.on_finalized = self.on_inner = None
