"""A server as a whole program: it listens, loads its models meanwhile, and serves until a signal asks it to stop."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine

import click
from aiohttp import web

from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics
from mediaserver.settings import KeylessAccess, Settings
from signaling.app import ACCOUNTS, ADMISSION, JOBS, MODELS, REGISTRY, make_app
from signaling.auth.guard import require_keys
from signaling.limits import IDLE_CONNECTION_S, is_loopback
from signaling.loading import Loaded, load_models
from signaling.sessions import Models
from signaling.shutdown import StopSignals, shut_down
from signaling.telemetry import AccessLogger, configure_logging
from signaling.tls import tls_of

HANDLERS_END_S = 1.0
"""How long requests in flight may take to end once all sessions are closed: they have nothing left to wait for."""

EXIT_FAILED = 1

Loading = asyncio.Task[Loaded]
Loader = Callable[[Settings, Metrics], Coroutine[None, None, Loaded]]


async def serve(settings: Settings, *, load: Loader | None = None) -> None:
    """Listen, load the models meanwhile, and serve until a signal asks to stop.

    Args:
        settings: of this node.
        load: loads what sessions share; `load_models` if None.

    Raises:
        VoiceForgeError: PORT_IN_USE, PORT_NOT_PERMITTED, ADDRESS_UNAVAILABLE, or why the models cannot be loaded.
    """
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    metrics = Metrics()
    app = make_app(settings, metrics=metrics)
    signals = StopSignals()
    runner = web.AppRunner(
        app,
        access_log_class=AccessLogger,
        keepalive_timeout=IDLE_CONNECTION_S,
        shutdown_timeout=HANDLERS_END_S,
        auto_decompress=False,  # nothing is taken compressed, so nothing can be a bomb
    )
    await runner.setup()
    try:
        await require_keys(settings, app[ACCOUNTS].keys)
        url = await _listen(runner, settings)
    except VoiceForgeError:
        await runner.cleanup()
        raise
    signals.install()
    _announce(url, settings, has_keys=await app[ACCOUNTS].keys.exist())
    loading = asyncio.create_task((load or load_models)(settings, metrics), name="load-models")
    try:
        await _until_stopped(loading, app[MODELS], signals)
    finally:
        completed = await shut_down(
            admission=app[ADMISSION],
            registry=app[REGISTRY],
            then=[
                ("recordings", app[JOBS].close),
                ("models", lambda: _close_models(loading)),
                ("http", runner.cleanup),
            ],
            deadline_s=settings.shutdown_deadline_s,
            force=signals.force,
        )
        signals.remove()
        if not completed:
            os._exit(EXIT_FAILED)  # a second signal: threads that still decode or fetch are not waited for


def run(settings: Settings) -> int:
    """`serve` as a whole program; returns its exit code. A failure is a sentence and a hint, not a traceback."""
    try:
        asyncio.run(serve(settings))
    except VoiceForgeError as exc:
        click.echo(f"{exc.message}\n{exc.hint}", err=True)
        return EXIT_FAILED
    return 0


async def _until_stopped(loading: Loading, models: Models, signals: StopSignals) -> None:
    """Take the models in when they are there, and wait for the first signal."""
    stop = asyncio.create_task(signals.stop.wait(), name="stop-signal")
    try:
        await asyncio.wait({loading, stop}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loaded = loading.result()
            models.engine, models.vad, models.turns = loaded.engine, loaded.vad, loaded.turns
            click.echo(f"The model {models.engine.model_name} is loaded: sessions are taken.")
            await stop
    finally:
        stop.cancel()
        await asyncio.gather(stop, return_exceptions=True)


async def _close_models(loading: Loading) -> None:
    loading.cancel()  # does nothing to one that is done
    await asyncio.wait({loading})  # unlike a gather it can be cut at once, should loading not listen
    if not loading.cancelled() and loading.exception() is None:
        await loading.result().close()


async def _listen(runner: web.AppRunner, settings: Settings) -> str:
    """Open the port; returns the URL to look at."""
    tls = await asyncio.to_thread(tls_of, settings)
    try:
        await web.TCPSite(runner, settings.host, settings.port, ssl_context=tls).start()
    except OSError as exc:
        raise _cannot_listen(exc, settings) from exc
    host, port = runner.addresses[0][:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    scheme = "http" if settings.tls_certificate is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _cannot_listen(exc: OSError, settings: Settings) -> VoiceForgeError:
    if exc.errno == errno.EADDRINUSE:
        return VoiceForgeError(
            "PORT_IN_USE",
            f"Port {settings.port} is already in use on {settings.host}.",
            "Stop the other program, or choose another port with `--port`.",
            retryable=True,
        )
    if exc.errno == errno.EACCES:
        return VoiceForgeError(
            "PORT_NOT_PERMITTED",
            f"Port {settings.port} may not be opened by this user.",
            "Choose a port above 1023 with `--port`.",
        )
    return VoiceForgeError(
        "ADDRESS_UNAVAILABLE",
        f"The server cannot listen on {settings.host}.",
        "Give `--host` an address of this machine, for example 127.0.0.1.",
    )


def _announce(url: str, settings: Settings, *, has_keys: bool) -> None:
    click.echo(f"VoiceForge is listening: open {url}")
    if not has_keys and settings.keyless_access is not KeylessAccess.EVERYONE:
        click.echo("There are no keys: programs of this machine are served, and nobody else.", err=True)
    if settings.keyless_access is KeylessAccess.EVERYONE and not is_loopback(settings.host):
        click.echo(
            f"Warning: `keyless_access` lets in whoever reaches {settings.host}. "
            "Put it behind a proxy that asks who is there, or make keys.",
            err=True,
        )
