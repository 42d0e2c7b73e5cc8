"""What is loaded while the server already listens: the engine, wherever it runs, and the models that listen first."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

import click

from mediaserver.audio.denoise import preload
from mediaserver.audio.turn import TurnModel, TurnPool
from mediaserver.audio.vad import VadPool
from mediaserver.decoder.catalogue import ModelFiles, resolve, turn_model, vad_model
from mediaserver.decoder.engine import open_engine, require_languages
from mediaserver.decoder.model_fetch import Progress
from mediaserver.decoder.remote.client import RemoteEngine
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.engine_order import child_engine
from signaling.limits import ServedEngine

T = TypeVar("T")


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


def find_model(settings: Settings) -> ModelFiles:
    """The files of the model, fetched if they may be. Blocks.

    Raises:
        ModelError: they are not there and cannot be fetched.
    """
    return resolve(
        settings.model, model_dir=settings.model_dir, fetch=settings.model_fetch, on_progress=FetchProgress().report
    )


def _load_vad(settings: Settings, metrics: Metrics) -> VadPool:
    preload(settings.denoise)
    path = vad_model(model_dir=settings.model_dir, fetch=settings.model_fetch, on_progress=FetchProgress().report)
    return VadPool(path, metrics=metrics)


def _load_turns(settings: Settings, metrics: Metrics) -> TurnPool:
    path = turn_model(model_dir=settings.model_dir, fetch=settings.model_fetch, on_progress=FetchProgress().report)
    return TurnPool(TurnModel(path), metrics=metrics)


class FetchProgress:
    """A line for every tenth of a fetch: a log keeps lines, so a bar would be hundreds of them."""

    def __init__(self) -> None:
        self._told: tuple[str, int] | None = None

    def report(self, progress: Progress) -> None:
        """Called by a fetch on its own thread."""
        tenth = progress.done_bytes * 10 // progress.total_bytes if progress.total_bytes else 0
        if self._told == (progress.what, tenth):
            return
        self._told = (progress.what, tenth)
        done_mb, total_mb = progress.done_bytes / 1e6, progress.total_bytes / 1e6
        of_total = f" of {total_mb:.0f}" if progress.total_bytes else ""
        click.echo(f"Fetching {progress.model}: {progress.what}, {done_mb:.0f}{of_total} MB")


async def in_daemon_thread(work: Callable[[], T], *, name: str) -> T:
    """Run blocking work in a thread that does not keep the process alive: Ctrl-C ends a fetch of gigabytes at once."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return  # cancelled meanwhile
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(value)  # type: ignore[arg-type] # None only beside an error

    def target() -> None:
        value: T | None = None
        error: BaseException | None = None
        try:
            value = work()
        except BaseException as exc:  # handed over, whatever it is
            error = exc
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=target, name=name, daemon=True).start()
    return await outcome
