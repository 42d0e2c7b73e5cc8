"""The engine as it serves, without a door: model, VAD and sessions, wired for a benchmark."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.drive import Sink
from mediaserver.audio.vad import VadPool
from mediaserver.decoder import catalogue
from mediaserver.decoder.device import Placement, place
from mediaserver.decoder.engine import open_engine
from mediaserver.decoder.window import Decoder, Hypothesis, Kind, Replaced, Window
from mediaserver.metrics import Metrics
from mediaserver.session import Session
from mediaserver.settings import SessionConfig, Settings


class CountingDecoder:
    """A decoder that counts what passes through it."""

    def __init__(self, inner: Decoder) -> None:
        self._inner = inner
        self._finals: Counter[str] = Counter()
        self.decoded: Counter[str] = Counter()
        """Windows by kind; `replaced` are interims that gave way to newer ones."""

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

    async def decode(self, window: Window) -> Hypothesis:
        """Decode one window; errors as the inner decoder's."""
        final = window.kind is Kind.FINAL
        self._finals[window.session_id] += final
        try:
            hypothesis = await self._inner.decode(window)
        except Replaced:
            self.decoded["replaced"] += 1
            raise
        finally:
            self._finals[window.session_id] -= final
        self.decoded[window.kind.name.lower()] += 1
        return hypothesis


@dataclass(frozen=True, slots=True)
class Models:
    """Where the files are."""

    whisper: catalogue.ModelFiles
    vad: Path


@dataclass(frozen=True, slots=True)
class Stack:
    """What sessions are made of."""

    settings: Settings
    models: Models
    decoder: CountingDecoder
    vad: VadPool
    metrics: Metrics

    def open(self, name: str, sink: Sink, config: SessionConfig) -> Session:
        """A session of that name, not yet started."""
        return Session(
            session_id=name,
            config=config,
            settings=self.settings,
            decoder=self.decoder,
            vad=self.vad,
            metrics=self.metrics,
            sink=sink,
        )


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
    )


def placement_of(settings: Settings) -> Placement:
    """Device and threads of the settings."""
    return place(device=settings.device, compute_type=settings.compute_type, cpu_threads=settings.cpu_threads)


@asynccontextmanager
async def serving(settings: Settings, models: Models) -> AsyncIterator[Stack]:
    """The stack, loaded and warm; closed at the end."""
    metrics = Metrics()
    engine = open_engine(settings, models.whisper, metrics)
    vad = await asyncio.to_thread(VadPool, models.vad, metrics=metrics)
    await engine.start()
    try:
        yield Stack(settings, models, CountingDecoder(engine), vad, metrics)
    finally:
        await vad.close()
        await engine.close()
