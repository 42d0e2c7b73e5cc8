"""A recording from the file to its transcript, through the engine that live sessions use.

The file is read ahead of what is decoded, by a bounded number of pieces, so that the engine always has something to
fill its slots with; what is done is told in order.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path

import structlog

from mediaserver.audio.clock import seconds
from mediaserver.audio.endpoint import EndpointerConfig
from mediaserver.audio.vad import VadPool
from mediaserver.decoder.confidence import calibration_of
from mediaserver.decoder.language import Asked, LanguageTracker
from mediaserver.decoder.window import Decoder, Hypothesis, Kind, Task, Window
from mediaserver.errors import CapacityError, ConfigError, VoiceForgeError
from mediaserver.jobs.channel import Channel
from mediaserver.jobs.missed import DEEPEST, Decoded, missed_from
from mediaserver.jobs.pieces import PAUSE_MS, Piece
from mediaserver.jobs.reading import Hearing, Reading
from mediaserver.jobs.segments import Segmenter
from mediaserver.jobs.transcript import ChannelTranscript, RecordingOptions, Segment, Transcript
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings

__all__ = ["ChannelTranscript", "Recorder", "RecordingOptions", "Segment", "Task", "Transcript"]

log = structlog.get_logger(__name__)

AHEAD_BATCHES = 2
"""How many full batches of pieces are in the engine: one is decoded, the next one waits, and no slot idles."""

LEAST_AHEAD = 8
"""Pieces ahead at least: two for each slot of four cores; 1.5 MB each."""

TRIES = 2
"""A piece whose decode fails is tried once more, then left out with a warning: the rest is worth having."""

FULL_RETRY_AFTER_S = 10
"""Recordings end all the time; a short one takes seconds."""

OnProgress = Callable[[float], None]
"""Told the share of a recording that is done, 0 to 1, never less than before; on the event loop."""

OnSegment = Callable[[int, Segment], None]
"""Told a channel and its next segment, in order of time within a channel; on the event loop."""


class Recorder:
    """Transcribes recordings. One for an application; `max_recordings` run side by side, further ones wait.

    Args:
        decoder: the engine of all sessions.
        vad: whose model hears where somebody speaks.
        settings: of the node.
        metrics: where recordings are counted.
    """

    def __init__(self, *, decoder: Decoder, vad: VadPool, settings: Settings, metrics: Metrics) -> None:
        self._decoder = decoder
        self._vad = vad
        self._settings = settings
        self._metrics = metrics
        self._room = asyncio.Semaphore(settings.max_recordings)
        self._present = 0

    @property
    def model_name(self) -> str:
        """The model that decodes."""
        return self._decoder.model_name

    def check(self, options: RecordingOptions) -> None:
        """Refuse what this node's model cannot do, before a file is fetched or stored for it.

        Raises:
            ConfigError: UNKNOWN_LANGUAGE or TRANSLATION_UNSUPPORTED.
        """
        known = self._decoder.languages
        for name, asked in (
            ("language", [options.language] if options.language else []),
            ("languages", options.languages),
        ):
            unknown = [code for code in asked if code not in known]
            if unknown:
                raise ConfigError(
                    "UNKNOWN_LANGUAGE",
                    f"`{name}`: {self.model_name!r} does not know {', '.join(map(repr, unknown))}.",
                    f"It knows {', '.join(known)}.",
                )
        if options.task is Task.TRANSLATE and len(known) == 1:
            raise ConfigError(
                "TRANSLATION_UNSUPPORTED",
                f"`task`: {self.model_name!r} knows only {known[0]!r} and translates nothing.",
                "Start a node with a multilingual model such as `base`.",
            )

    def require_room(self) -> None:
        """Refuse a recording that somebody would wait for at a connection, where too many wait already.

        Raises:
            CapacityError: RECORDINGS_FULL.
        """
        if self._present >= 2 * self._settings.max_recordings:
            raise CapacityError(
                "RECORDINGS_FULL",
                f"{self._present} recordings are being transcribed or wait for it.",
                f"Try again in {FULL_RETRY_AFTER_S} s, or on another node.",
                retry_after_s=FULL_RETRY_AFTER_S,
            )

    async def transcribe(
        self,
        path: Path,
        options: RecordingOptions,
        *,
        on_progress: OnProgress | None = None,
        on_segment: OnSegment | None = None,
    ) -> Transcript:
        """Transcribe a file of any container that PyAV reads. Cancelling the task stops it within half a second.

        Args:
            path: of the file; it is only read.
            options: how.
            on_progress: told the share that is done.
            on_segment: told each segment as soon as it is sure.

        Raises:
            MediaError: FILE_NOT_FOUND, FILE_UNREADABLE, NOT_AUDIO or TOO_MANY_CHANNELS.
            ConfigError: as `check`.
            VoiceForgeError: the engine failed or is closed.
        """
        self.check(options)
        self._present += 1
        outcome = "failed"
        try:
            async with self._room:
                self._metrics.recordings.inc()
                try:
                    transcript = await self._transcribe(path, options, on_progress, on_segment)
                finally:
                    self._metrics.recordings.dec()
            self._metrics.recorded_seconds_total.inc(transcript.duration_s)
            outcome = "completed"
            return transcript
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._present -= 1
            self._metrics.recordings_total.labels(outcome).inc()

    async def _transcribe(
        self, path: Path, options: RecordingOptions, on_progress: OnProgress | None, on_segment: OnSegment | None
    ) -> Transcript:
        settings = self._settings
        hearing = Hearing(self._vad.network, _endpoints(options, settings))
        async with Reading(path, hearing, multichannel=options.multichannel) as reading:
            work = _Work(self._decoder, settings, options, reading, on_progress=on_progress, on_segment=on_segment)
            try:
                return await work.run()
            finally:
                await work.close()


class _Work:
    """One recording while it is transcribed."""

    def __init__(
        self,
        decoder: Decoder,
        settings: Settings,
        options: RecordingOptions,
        reading: Reading,
        *,
        on_progress: OnProgress | None,
        on_segment: OnSegment | None,
    ) -> None:
        self._decoder = decoder
        self._settings = settings
        self._options = options
        self._reading = reading
        self._on_progress = on_progress
        self._on_segment = on_segment
        self._ident = f"recording-{uuid.uuid4().hex[:12]}"
        self._curve = calibration_of(decoder.model_name).final
        self._chosen = _chosen_language(options, settings, decoder)
        self._ahead = max(LEAST_AHEAD, AHEAD_BATCHES * settings.max_batch)
        # Bound: `_ahead`. In order of time; nothing is read while it is full.
        self._pending: deque[tuple[Piece, asyncio.Task[list[Decoded]]]] = deque()
        self._channels: dict[int, Channel] = {}
        self._warnings: list[str] = []
        self._share = 0.0

    async def run(self) -> Transcript:
        """Read, decode and tell, until all is done."""
        is_read = False
        while not is_read or self._pending:
            while not is_read and len(self._pending) < self._limit:
                piece = await self._reading.next()
                if piece is None:
                    is_read = True
                    break
                decode = asyncio.create_task(self._decode_all(piece), name=f"{self._ident}-{piece.start_sample}")
                self._pending.append((piece, decode))
            if self._pending:
                piece, decode = self._pending[0]
                decoded = await decode
                self._pending.popleft()
                for part, hypothesis in decoded:
                    self._take(part, hypothesis)
                self._tell_progress(piece.end_sample)
        for number, channel in sorted(self._channels.items()):
            self._tell(number, channel.finish())
        self._tell_progress(self._reading.samples)
        return Transcript(
            channels=tuple(
                self._channel(number).transcript(is_detected=self._chosen is None)
                for number in range(self._reading.channels)
            ),
            duration_s=seconds(self._reading.samples),
            speech_s=seconds(self._reading.speech_samples),
            model=self._decoder.model_name,
            warnings=(*self._reading.warnings, *self._warnings),
        )

    async def close(self) -> None:
        """Give up what is not done: windows that wait leave the engine's queue."""
        tasks = [task for _, task in self._pending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _limit(self) -> int:
        """How many pieces may be in hand. One, until it has told of the language: the others go by that, too."""
        is_known = self._chosen is not None or any(channel.is_heard for channel in self._channels.values())
        return self._ahead if is_known else 1

    async def _decode_all(self, piece: Piece, *, depth: int = 0) -> list[Decoded]:
        """What a piece says; where the decoder broke off or looped, what is left is decoded by itself.

        Raises:
            VoiceForgeError: as `_decode`.
        """
        hypothesis = await self._decode(piece)
        if hypothesis is None:
            return []
        at = missed_from(piece, hypothesis) if depth < DEEPEST else None
        if at is None:
            return [(piece, hypothesis)]
        first, rest = piece.split(at)
        heard = await self._decode_all(first, depth=depth + 1) if hypothesis.rejected else [(first, hypothesis)]
        return [*heard, *await self._decode_all(rest, depth=depth + 1)]

    async def _decode(self, piece: Piece) -> Hypothesis | None:
        """What a piece says; None where it cannot be decoded.

        Raises:
            VoiceForgeError: the engine is closed or overloaded.
        """
        window = self._window(piece)
        for _ in range(TRIES):
            try:
                return await self._decoder.decode(window)
            except VoiceForgeError as error:
                if error.code != "DECODE_FAILED":
                    raise
        start_s, end_s = seconds(piece.start_sample), seconds(piece.end_sample)
        self._warnings.append(f"What was said from {start_s:.1f} s to {end_s:.1f} s could not be decoded.")
        return None

    def _window(self, piece: Piece) -> Window:
        asked = Asked(self._chosen) if self._chosen is not None else self._channel(piece.channel).asked
        options, settings = self._options, self._settings
        return Window(
            session_id=self._ident,
            kind=Kind.RECORDING,
            samples=piece.samples,
            start_sample=0,
            language=asked.language,
            language_candidates=asked.candidates,
            language_scores=asked.scores,
            prompt=settings.prompt if options.prompt is None else options.prompt,
            hotwords=options.hotwords or tuple(settings.hotwords),
            task=options.task,
            with_tokens=options.with_tokens,
        )

    def _take(self, piece: Piece, hypothesis: Hypothesis) -> None:
        self._tell(piece.channel, self._channel(piece.channel).add(piece, hypothesis))

    def _channel(self, number: int) -> Channel:
        if number not in self._channels:
            self._channels[number] = Channel(
                Segmenter(curve=self._curve, min_confidence=self._settings.min_confidence),
                LanguageTracker(
                    self._decoder.languages,
                    chosen=self._chosen,
                    allowed=self._options.languages or self._settings.languages,
                ),
            )
        return self._channels[number]

    def _tell(self, number: int, segments: list[Segment]) -> None:
        if self._on_segment is not None:
            for segment in segments:
                self._on_segment(number, segment)

    def _tell_progress(self, sample: int) -> None:
        duration_s = self._reading.duration_s
        share = min(seconds(sample) / duration_s, 1.0) if duration_s else 1.0
        if share > self._share:
            self._share = share
            if self._on_progress is not None:
                self._on_progress(share)


def _endpoints(options: RecordingOptions, settings: Settings) -> EndpointerConfig:
    """What begins and ends an utterance of a recording."""
    return EndpointerConfig(
        threshold=settings.vad_threshold if options.vad_threshold is None else options.vad_threshold,
        endpointing_ms=PAUSE_MS if options.pause_ms is None else options.pause_ms,
        pre_roll_ms=settings.pre_roll_ms if options.pre_roll_ms is None else options.pre_roll_ms,
        min_speech_ms=settings.min_speech_ms,
    )


def _chosen_language(options: RecordingOptions, settings: Settings, decoder: Decoder) -> str | None:
    """The language to decode in, or None where it is to be detected."""
    if len(decoder.languages) == 1:
        return decoder.languages[0]
    return options.language or (None if options.languages else settings.language)
