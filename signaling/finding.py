"""Models on disk, fetched where they may be, with a line for what takes time. Loading them is `loading.py`'s."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import click

from mediaserver.decoder.catalogue import ModelFiles, resolve, turn_model, vad_model
from mediaserver.decoder.model_fetch import Progress
from mediaserver.settings import Settings

T = TypeVar("T")


def find_model(settings: Settings) -> ModelFiles:
    """The files of the model, fetched if they may be. Blocks.

    Raises:
        ModelError: they are not there and cannot be fetched.
    """
    return resolve(
        settings.model, model_dir=settings.model_dir, fetch=settings.model_fetch, on_progress=FetchProgress().report
    )


def find_vad(settings: Settings) -> Path:
    """The file of the VAD, fetched if it may be. Blocks.

    Raises:
        ModelError: it is not there and cannot be fetched.
    """
    return vad_model(model_dir=settings.model_dir, fetch=settings.model_fetch, on_progress=FetchProgress().report)


def find_turns(settings: Settings) -> Path:
    """The file of the end-of-turn model, fetched if it may be. Blocks.

    Raises:
        ModelError: it is not there and cannot be fetched.
    """
    return turn_model(model_dir=settings.model_dir, fetch=settings.model_fetch, on_progress=FetchProgress().report)


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
