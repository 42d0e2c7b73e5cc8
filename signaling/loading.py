"""What is loaded while the server already listens: the engine, wherever it runs, and the models that listen first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import click

from mediaserver.audio.denoise import preload
from mediaserver.audio.turn import TurnModel, TurnPool
from mediaserver.audio.vad import VadPool
from mediaserver.decoder.engine import open_engine, require_languages
from mediaserver.decoder.remote.client import RemoteEngine
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.engine_order import child_engine
from signaling.finding import find_model, find_turns, find_vad, in_daemon_thread
from signaling.limits import ServedEngine


class OwnedEngine(ServedEngine, Protocol):
    """An engine as its owner sees it."""

    async def start(self) -> None:
        """Load the model, or reach the process that has."""
        ...

    async def close(self) -> None:
        """Stop it; what still waits fails with ENGINE_CLOSED."""
        ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """What sessions share. `turns` is None where no session may ask an end-of-turn model."""

    engine: OwnedEngine
    vad: VadPool
    turns: TurnPool | None = None

    async def close(self) -> None:
        """Stop all of it."""
        await self.engine.close()
        await self.vad.close()
        if self.turns is not None:
            await self.turns.close()


async def load_models(settings: Settings, metrics: Metrics) -> Loaded:
    """Find, check and load all models, off the event loop, with a line for each step that takes time.

    Raises:
        ModelError: a model is not there, cannot be fetched or cannot be loaded.
        VoiceForgeError: the device that was asked for is not there, or no engine at `engine_socket`.
    """
    vad = await in_daemon_thread(lambda: _load_vad(settings, metrics), name="load-vad")
    turns: TurnPool | None = None
    engine: OwnedEngine | None = None
    try:
        if settings.wants_turn_model:
            turns = await in_daemon_thread(lambda: _load_turns(settings, metrics), name="load-turns")
        engine = await _engine(settings, metrics)
        await engine.start()
        # An engine of one's own has been asked already; one at a socket only says now what it knows.
        require_languages(settings, engine.model_name, engine.languages)
    except BaseException:
        if engine is not None:
            await engine.close()
        if turns is not None:
            await turns.close()
        await vad.close()
        raise
    return Loaded(engine, vad, turns)


async def _engine(settings: Settings, metrics: Metrics) -> OwnedEngine:
    """The engine that the settings ask for, not started."""
    if settings.engine_socket is not None:
        click.echo(f"Waiting for the engine at {settings.engine_socket} …")
        return RemoteEngine(settings.engine_socket, metrics=metrics, interim_period_s=settings.interim_period_ms / 1000)
    click.echo(f"Loading the model {settings.model} …")
    if settings.engine_process:
        files = await in_daemon_thread(lambda: find_model(settings), name="load-model")
        return child_engine(settings, files, metrics)
    # In a thread: the first start on a machine may try out how cores are shared best.
    return await in_daemon_thread(lambda: open_engine(settings, find_model(settings), metrics), name="load-model")


def _load_vad(settings: Settings, metrics: Metrics) -> VadPool:
    preload(settings.denoise)
    return VadPool(find_vad(settings), metrics=metrics)


def _load_turns(settings: Settings, metrics: Metrics) -> TurnPool:
    return TurnPool(TurnModel(find_turns(settings)), metrics=metrics)
