"""An engine as a whole program: `voiceforge engine`, by hand or as the child of a media process."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click
import structlog

from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.decoder.engine import open_engine
from mediaserver.decoder.remote.server import EngineServer
from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.engine_order import Order
from signaling.finding import find_model, in_daemon_thread
from signaling.parent import Parent, tell_parent
from signaling.scratch import remove_left
from signaling.seeing.telemetry import configure_logging
from signaling.shutdown import SIGNALS, StopSignals

log = structlog.get_logger(__name__)

EXIT_FAILED = 1

ORPHAN_LIMIT_S = 5.0
"""How long an engine whose parent is gone may take to end; then it is ended, whatever it does."""


def run(settings: Settings, path: Path) -> int:
    """Serve an engine at `path` until a signal asks to stop; returns the exit code."""
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    try:
        asyncio.run(_serve(settings, None, path, on_ready=lambda name: _say_ready(name, path), parent=None))
    except VoiceForgeError as exc:
        click.echo(f"{exc.message}\n{exc.hint}", err=True)
        return EXIT_FAILED
    return 0


def run_supervised(path: Path) -> int:
    """The same as the child of a media process: the order comes on standard input, whose end is the end."""
    order = Order.from_line(sys.stdin.readline())
    configure_logging(level=order.settings.log_level, log_format=order.settings.log_format)
    parent = Parent(limit_s=ORPHAN_LIMIT_S)
    try:
        asyncio.run(
            _serve(order.settings, order.model, path, on_ready=lambda _: tell_parent({"ready": True}), parent=parent)
        )
    except VoiceForgeError as exc:
        tell_parent({"failed": exc.as_dict()})
        return EXIT_FAILED
    finally:
        if parent.is_gone:
            remove_left(path.parent)  # made for this socket alone, by a parent that cannot remove it any more
    return 0


async def _serve(
    settings: Settings,
    model: ModelFiles | None,
    path: Path,
    *,
    on_ready: Callable[[str], None],
    parent: Parent | None,
) -> None:
    """Load, listen, and serve until a signal, or the end of the parent, asks to stop.

    Raises:
        VoiceForgeError: why it cannot.
    """
    signals = StopSignals()
    if parent is None:
        signals.install()
    else:
        # Its parent ends it, once nobody needs it; what a service's manager sends to all processes does not.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        parent.when_gone(signals.stop.set)
    serving = asyncio.create_task(_serve_forever(settings, model, path, on_ready), name="engine-serve")
    stop = asyncio.create_task(signals.stop.wait(), name="stop-signal")
    try:
        await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        for task in (serving, stop):
            task.cancel()
        await asyncio.gather(serving, stop, return_exceptions=True)
        if parent is None:
            signals.remove()


async def _serve_forever(
    settings: Settings, model: ModelFiles | None, path: Path, on_ready: Callable[[str], None]
) -> None:
    metrics = Metrics()
    engine = await in_daemon_thread(
        lambda: open_engine(settings, model if model is not None else find_model(settings), metrics), name="load-model"
    )
    server = EngineServer(engine, path)
    try:
        await engine.start()
        await server.start()
        on_ready(engine.model_name)
        await asyncio.Event().wait()
    finally:
        await server.close()  # first: clients keep what they wait for
        await engine.close()


def _say_ready(model_name: str, path: Path) -> None:
    click.echo(f"The engine has {model_name} loaded and listens at {path}: name it in `engine_socket`.")
