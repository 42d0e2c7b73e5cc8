"""The engine as it serves, without a door: model, VAD and sessions, wired for a benchmark."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

from benchmarks.drive import Sink
from mediaserver.audio.clock import samples_in
from mediaserver.audio.denoise import Denoiser
from mediaserver.audio.turn import TurnModel, TurnPool
from mediaserver.audio.vad import VadPool, VadStream, Verdict
from mediaserver.decoder import catalogue
from mediaserver.decoder.confidence import Calibration
from mediaserver.decoder.device import Placement, place
from mediaserver.decoder.engine import Engine, open_engine
from mediaserver.decoder.window import Decoder, Hypothesis, Kind, Replaced, Window
from mediaserver.metrics import Metrics
from mediaserver.session import Session
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings

FIRST_PERIOD_MS = 200
"""The engine's own least time between two tries to hear the first words of an utterance."""


class CountingDecoder:
    """A decoder that counts what passes through it."""

    def __init__(self, inner: Decoder) -> None:
        self._inner = inner
        self._finals: Counter[str] = Counter()
        self._windows: Counter[str] = Counter()
        self.decoded: Counter[str] = Counter()
        """Windows by kind; `replaced` are interims that gave way to newer ones."""
        self.by_session: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """The same of each session, and why texts were thrown away: a guard's reason, or `no words` were left."""

    @property
    def model_name(self) -> str:
        """The model as it was asked for."""
        return self._inner.model_name

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that the model knows."""
        return self._inner.languages

    def busy(self, session_id: str) -> bool:
        """Whether a final of that session waits or is being decoded."""
        return self._finals[session_id] > 0

    def waiting(self, session_id: str) -> bool:
        """Whether any window of that session waits or is being decoded."""
        return self._windows[session_id] > 0

    async def decode(self, window: Window) -> Hypothesis:
        """Decode one window; errors as the inner decoder's."""
        final = window.kind is Kind.FINAL
        self._finals[window.session_id] += final
        self._windows[window.session_id] += 1
        try:
            hypothesis = await self._inner.decode(window)
        except Replaced:
            self.decoded["replaced"] += 1
            raise
        finally:
            self._finals[window.session_id] -= final
            self._windows[window.session_id] -= 1
        own = self.by_session[window.session_id]
        self.decoded[window.kind.name.lower()] += 1
        own[window.kind.name.lower()] += 1
        if not hypothesis.words:
            own[hypothesis.rejected or "no words"] += 1
        return hypothesis

    def withdraw(self, session_id: str) -> None:
        """Give up the session's replaceable window if it still waits."""
        self._inner.withdraw(session_id)


class StreamPacedDecoder(CountingDecoder):
    """A decoder for streams that run faster than real time: interims of a session are a period of *stream* time apart.

    The engine spaces them by the wall's clock, which would hold every stream back to real time. What comes too early is
    replaced at once, for a newer window follows while somebody speaks.

    Args:
        inner: an engine with no least time between interims.
        period_ms: least stream time between two interims of a session.
    """

    def __init__(self, inner: Decoder, *, period_ms: int) -> None:
        super().__init__(inner)
        self._period_ms = period_ms
        self._ends: dict[str, int] = {}

    async def decode(self, window: Window) -> Hypothesis:
        """Decode one window; errors as the inner decoder's."""
        if window.kind.is_interim:
            end = window.start_sample + len(window.samples)
            first = window.kind is Kind.FIRST_INTERIM
            period = samples_in(ms=min(FIRST_PERIOD_MS, self._period_ms) if first else self._period_ms)
            if end - self._ends.get(window.session_id, -period) < period:
                self.decoded["replaced"] += 1
                raise Replaced
            self._ends[window.session_id] = end
        return await super().decode(window)


class FollowedVad(VadPool):
    """A VAD that knows which stream was opened last: a session does not tell how far its own is behind."""

    newest: VadStream | None = None

    def open(self, deliver: Callable[[Verdict], None], *, denoiser: Denoiser | None = None) -> VadStream:
        """As the pool's own."""
        self.newest = super().open(deliver, denoiser=denoiser)
        return self.newest


@dataclass(frozen=True, slots=True)
class Models:
    """Where the files are."""

    whisper: catalogue.ModelFiles
    vad: Path
    turn: Path | None = None


@dataclass(frozen=True, slots=True)
class Stack:
    """What sessions are made of."""

    settings: Settings
    models: Models
    decoder: CountingDecoder
    vad: FollowedVad
    metrics: Metrics
    engine: Engine
    turns: TurnPool | None = None
    streams: WeakValueDictionary[str, VadStream] = field(default_factory=WeakValueDictionary)

    def held(self, name: str) -> bool:
        """Whether something of that session still waits for the VAD or a decode."""
        stream = self.streams.get(name)
        return self.decoder.waiting(name) or (stream is not None and stream.backlog_frames > 0)

    def open(self, name: str, sink: Sink, config: SessionConfig, *, calibration: Calibration | None = None) -> Session:
        """A session of that name, not yet started; `calibration` as for `Session`."""
        session = Session(
            session_id=name,
            config=config,
            settings=self.settings,
            decoder=self.decoder,
            vad=self.vad,
            metrics=self.metrics,
            sink=sink,
            calibration=calibration,
            turns=self.turns,
        )
        if self.vad.newest is not None:
            self.streams[name] = self.vad.newest
            self.vad.newest = None
        return session


def find_models(settings: Settings, *, on_progress: catalogue.OnProgress | None = None) -> Models:
    """Find the models of the settings, fetching them where that is allowed. Blocks.

    Raises:
        ModelError: a model is not there and could not be fetched.
    """
    return Models(
        catalogue.resolve(
            settings.model, model_dir=settings.model_dir, fetch=settings.model_fetch, on_progress=on_progress
        ),
        catalogue.vad_model(model_dir=settings.model_dir, fetch=settings.model_fetch, on_progress=on_progress),
        catalogue.turn_model(model_dir=settings.model_dir, fetch=settings.model_fetch, on_progress=on_progress)
        if settings.wants_turn_model
        else None,
    )


def placement_of(settings: Settings) -> Placement:
    """Device and threads of the settings."""
    return place(device=settings.device, compute_type=settings.compute_type, cpu_threads=settings.cpu_threads)


@asynccontextmanager
async def serving(settings: Settings, models: Models, *, faster: bool = False) -> AsyncIterator[Stack]:
    """The stack, loaded and warm; closed at the end. `faster`: streams will run faster than real time."""
    metrics = Metrics()
    period_ms = settings.interim_period_ms
    own = settings.model_copy(update={"interim_period_ms": 0}) if faster else settings
    engine = open_engine(own, models.whisper, metrics)
    vad = await asyncio.to_thread(FollowedVad, models.vad, metrics=metrics)
    turns = None
    if models.turn is not None:
        turns = TurnPool(await asyncio.to_thread(TurnModel, models.turn), metrics=metrics)
    await engine.start()
    decoder = StreamPacedDecoder(engine, period_ms=period_ms) if faster else CountingDecoder(engine)
    try:
        yield Stack(settings, models, decoder, vad, metrics, engine, turns)
    finally:
        if turns is not None:
            await turns.close()
        await vad.close()
        await engine.close()
