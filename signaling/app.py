"""The application: everything is wired here and nowhere else, from settings to a server that listens."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import click
import structlog
from aiohttp import web

from mediaserver.audio.turn import TurnPool
from mediaserver.audio.vad import VadPool
from mediaserver.errors import VoiceForgeError
from mediaserver.jobs.service import Jobs
from mediaserver.metrics import Metrics
from mediaserver.settings import KeylessAccess, Settings
from signaling.answering import Answering
from signaling.auth.accounts import Accounts
from signaling.auth.guard import Guard, require_keys
from signaling.eventlogs import EventLogs
from signaling.limits import IDLE_CONNECTION_S, SDP_MAX_BYTES, Admission, Gate, ServedEngine, is_loopback
from signaling.loading import Loaded, load_models
from signaling.outbound import Outbound
from signaling.problems import in_dialect, problems_middleware
from signaling.recordings import Recordings
from signaling.registry import Registry
from signaling.routes.admin import Admin
from signaling.routes.deepgram.door import PATHS as DEEPGRAM_PATHS
from signaling.routes.deepgram.door import Deepgram
from signaling.routes.deepgram.models import PATH as MODELS_PATH
from signaling.routes.deepgram.models import write_model_refusal
from signaling.routes.deepgram.refusals import write_refusal
from signaling.routes.docs import Docs
from signaling.routes.events import Events
from signaling.routes.health import Health
from signaling.routes.jobs import Transcriptions
from signaling.routes.jobs_submit import Submissions
from signaling.routes.jobs_uploads import Uploads
from signaling.routes.native import Native
from signaling.routes.openai_errors import refusal_response
from signaling.routes.openai_realtime import PREFIX as OPENAI_REALTIME
from signaling.routes.openai_realtime import OpenAIRealtime
from signaling.routes.openai_rest import PREFIX as OPENAI_AUDIO
from signaling.routes.openai_rest import OpenAIRest
from signaling.routes.page import STATIC_DIR, Page
from signaling.routes.usage import UsageReport
from signaling.routes.whip import PeerFactory, Whip
from signaling.session_webhooks import SessionWebhooks
from signaling.sessions import Models, SessionFactory
from signaling.shutdown import StopSignals, shut_down
from signaling.telemetry import AccessLogger, configure_logging, run_monitor
from signaling.tls import tls_of
from signaling.usage.meter import Meter
from stun_turn.servers import IceServers

log = structlog.get_logger(__name__)

HANDLERS_END_S = 1.0
"""How long requests in flight may take to end once all sessions are closed: they have nothing left to wait for."""

EXIT_FAILED = 1


METRICS = web.AppKey("metrics", Metrics)
REGISTRY = web.AppKey("registry", Registry)
ADMISSION = web.AppKey("admission", Admission)
MODELS = web.AppKey("models", Models)
JOBS = web.AppKey("jobs", Jobs)
RECORDINGS = web.AppKey("recordings", Recordings)
ACCOUNTS = web.AppKey("accounts", Accounts)

Loading = asyncio.Task[Loaded]
Loader = Callable[[Settings, Metrics], Coroutine[None, None, Loaded]]


def make_app(  # noqa: PLR0915 - a list of what there is, one line each
    settings: Settings,
    *,
    metrics: Metrics,
    engine: ServedEngine | None = None,
    vad: VadPool | None = None,
    turns: TurnPool | None = None,
    make_peer: PeerFactory | None = None,
    static_dir: Path = STATIC_DIR,
) -> web.Application:
    """The front door.

    Args:
        settings: of this node.
        metrics: shown at /metrics.
        engine, vad, turns: used for every session and closed by the caller. None: set them in `app[MODELS]` once they
            are loaded; until there is an engine, sessions are refused with MODEL_LOADING.
        make_peer: makes the server's end of a session; a `Peer` over `engine` and `vad` if None.
        static_dir: where the built page lies.

    Raises:
        ConfigError: INVALID_ICE_SERVERS, INVALID_ICE_URL, NOT_A_TURN_URL, or INVALID_URL for `webhook_url`.
    """
    accounts = Accounts(settings)
    models = Models(engine, vad, turns)
    ice_servers = IceServers.from_settings(settings)
    meter = Meter(accounts.database)
    registry = Registry(max_sessions=settings.max_sessions, metrics=metrics)
    admission = Admission(engine=lambda: models.engine, require_room=registry.require_room)
    outbound = Outbound(settings=settings, metrics=metrics)
    webhooks = SessionWebhooks(settings=settings, outbound=outbound, metrics=metrics)
    sessions = SessionFactory(settings=settings, models=models, metrics=metrics, webhooks=webhooks, meter=meter)
    registry.on_added.append(meter.opened)
    answering = Answering(registry=registry, admission=admission)
    gate = Gate(bound_host=settings.host, cors_origins=settings.cors_origins)
    logs = EventLogs(kept_kib=settings.event_log_kib, linger_s=settings.events_linger_s)
    whip = Whip(
        registry=registry,
        answering=answering,
        make_peer=make_peer or sessions.peer,
        logs=logs,
        webhooks=webhooks,
        ice_servers=ice_servers,
        metrics=metrics,
    )
    events = Events(logs=logs)
    recordings = Recordings(
        settings=settings, metrics=metrics, admission=admission, vad=lambda: models.vad, meter=meter
    )
    native = Native(sessions=sessions, registry=registry, admission=admission, metrics=metrics)
    openai_rest = OpenAIRest(recordings=recordings, settings=settings, metrics=metrics)
    jobs = Jobs(settings, metrics=metrics, transcriber=recordings.loaded)
    transcriptions = (
        Submissions(jobs=jobs, admission=admission, recorder=recordings.loaded, settings=settings, metrics=metrics),
        Transcriptions(jobs=jobs),
        Uploads(jobs=jobs, admission=admission, settings=settings),
    )
    deepgram = Deepgram(
        sessions=sessions,
        registry=registry,
        admission=admission,
        recordings=recordings,
        outbound=outbound,
        tokens=accounts.tokens,
        metrics=metrics,
    )
    realtime = OpenAIRealtime(
        sessions=sessions, answering=answering, registry=registry, admission=admission, metrics=metrics
    )
    admin = Admin(accounts=accounts)
    usage = UsageReport(database=accounts.database, prices=settings.price_per_minute)
    guard = Guard(
        settings=settings,
        keys=accounts.keys,
        tokens=accounts.tokens,
        secrets=realtime.client_secrets,
        meter=meter,
        metrics=metrics,
    )
    health = Health(admission=admission, metrics=metrics)
    page = Page(settings=settings, engine=lambda: models.engine, ice_servers=ice_servers, static_dir=static_dir)

    app = web.Application(
        middlewares=[
            problems_middleware,
            in_dialect(OPENAI_AUDIO, refusal_response),
            in_dialect(OPENAI_REALTIME, refusal_response),
            *(in_dialect(path, write_refusal) for path in DEEPGRAM_PATHS),
            in_dialect(MODELS_PATH, write_model_refusal),
            gate.middleware,  # within the dialects, so that vendors' clients can read its refusals too
            guard.middleware,
        ],
        client_max_size=SDP_MAX_BYTES,
    )
    app[METRICS], app[REGISTRY], app[ADMISSION], app[MODELS] = metrics, registry, admission, models
    app[RECORDINGS], app[ACCOUNTS] = recordings, accounts
    docs = Docs(app, host=f"{settings.host}:{settings.port}")
    app[JOBS] = jobs
    for door in (
        whip,
        native,
        events,
        *transcriptions,
        deepgram,
        openai_rest,
        realtime,
        admin,
        usage,
        health,
        page,
        docs,
    ):
        app.add_routes(door.routes())
    app.on_response_prepare.append(gate.on_response)

    async def monitor(_app: web.Application) -> AsyncIterator[None]:
        async for _ in run_monitor(metrics):
            yield

    async def close_sessions(_app: web.Application) -> None:
        # `serve` has closed them by now (signaling/shutdown.py); whoever runs the application otherwise has not.
        admission.stop()
        await registry.close_all("shutdown", deadline_s=settings.shutdown_deadline_s)
        logs.close()

    async def run_jobs(_app: web.Application) -> AsyncIterator[None]:
        await jobs.start()
        yield
        await jobs.close()

    async def close_outbound(_app: web.Application) -> AsyncIterator[None]:
        yield
        await deepgram.close()
        await webhooks.close()
        await outbound.close()

    async def count(_app: web.Application) -> AsyncIterator[None]:
        counting = asyncio.create_task(meter.run(), name="usage")
        yield
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)
        try:
            await meter.flush()
        except VoiceForgeError as exc:
            log.error("usage not written", code=exc.code)
        await accounts.close()

    app.cleanup_ctx.append(count)
    app.cleanup_ctx.append(monitor)
    app.cleanup_ctx.append(close_outbound)
    app.cleanup_ctx.append(run_jobs)
    app.on_shutdown.append(close_sessions)
    return app


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
