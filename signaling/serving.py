"""A process that serves: it listens, loads its models meanwhile, and goes on until it is asked to stop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from mediaserver.errors import ConfigError, VoiceForgeError
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.announcing import announce, say_failed, say_loaded
from signaling.app import ACCOUNTS, ADMISSION, JOBS, MEMBER, MODELS, REGISTRY, make_app
from signaling.auth.guard import require_keys
from signaling.cluster.hop_proxy import UNIX
from signaling.cluster.membership import LEAVING_S
from signaling.cluster.opening import open_state
from signaling.cluster.places import Place, new_place_id
from signaling.cluster.state import State
from signaling.limits import IDLE_CONNECTION_S
from signaling.loading import Loaded, load_models
from signaling.memory import Searches, settle
from signaling.nodes import new_node
from signaling.port import WAITING_MAX, listen_at, open_port, url_of
from signaling.seeing.audit import require_audit_log
from signaling.seeing.node_metrics import Crew
from signaling.seeing.telemetry import AccessLogger, configure_logging
from signaling.shutdown import StopSignals, drain, shut_down
from signaling.tls import tls_of

HANDLERS_END_S = 1.0
"""How long requests in flight may take to end once all sessions are closed: they have nothing left to wait for."""

EXIT_FAILED = 1

TAKEN_AT_ONCE = 1
"""Connections that one process takes before others that share the port have a turn: a burst is spread over them."""

Loader = Callable[[Settings, Metrics], Coroutine[None, None, Loaded]]


@dataclass(frozen=True, slots=True)
class Seat:
    """What one process among several is given.

    Args:
        state: what they share; its owner closes it.
        place: which one this is; None: nothing is passed on to it.
        crew: which of several workers; None: it is the only process of its server.
    """

    state: State
    place: Place | None = None
    crew: Crew | None = None


class Server:
    """One process's part of a node.

    Args:
        settings: of the process.
        seat: among others.
        load: loads what sessions share; `load_models` if None.

    Raises:
        ConfigError: as `make_app`.
    """

    def __init__(self, settings: Settings, *, seat: Seat, load: Loader | None = None) -> None:
        self._settings = settings
        self._load = load or load_models
        self._metrics = Metrics()
        self._place = seat.place
        self.app = make_app(settings, metrics=self._metrics, state=seat.state, place=seat.place, crew=seat.crew)
        self._searches = Searches(self._metrics, is_at_rest=lambda: not len(self.app[REGISTRY]))
        self._searching: asyncio.Task[None] | None = None
        self._runner = web.AppRunner(
            self.app,
            access_log_class=AccessLogger,
            keepalive_timeout=IDLE_CONNECTION_S,
            shutdown_timeout=HANDLERS_END_S,
            auto_decompress=False,  # nothing is taken compressed, so nothing can be a bomb
        )

    async def start(
        self, open_sockets: Callable[[], Coroutine[None, None, list[socket.socket]]]
    ) -> Sequence[socket.socket]:
        """Begin to listen; nothing is left of it where that fails.

        Args:
            open_sockets: opens the public port, or says what is open already.

        Raises:
            VoiceForgeError: why it cannot.
        """
        await self._runner.setup()
        try:
            await require_keys(self._settings, self.app[ACCOUNTS].keys)
            tls = await asyncio.to_thread(tls_of, self._settings)
            await self._listen_for_hops()
            sockets = await open_sockets()
            for one in sockets:
                await web.SockSite(self._runner, one, ssl_context=tls, backlog=TAKEN_AT_ONCE).start()
                one.listen(
                    WAITING_MAX
                )  # asyncio takes one number for both: how many wait, and how many it takes at once
        except BaseException:
            await self._runner.cleanup()
            raise
        return sockets

    async def run(self, signals: StopSignals, *, on_loaded: Callable[[str], None]) -> bool:
        """Load, serve until the first signal, and end.

        Args:
            signals: installed already.
            on_loaded: called with the model's name once sessions are taken.

        Returns:
            Whether all ended in order; False: it was forced.

        Raises:
            VoiceForgeError: why the models cannot be loaded.
        """
        app, settings = self.app, self._settings
        loading = asyncio.create_task(self._load(settings, self._metrics), name="load-models")
        try:
            await self._until_stopped(loading, signals, on_loaded)
            await self._drain(signals)
        finally:
            completed = await shut_down(
                admission=app[ADMISSION],
                registry=app[REGISTRY],
                then=[
                    ("searches", self._stop_searching),
                    ("recordings", app[JOBS].close),
                    ("models", lambda: _close_models(loading)),
                    ("http", self._runner.cleanup),
                ],
                deadline_s=settings.shutdown_deadline_s,
                force=signals.force,
                end_sessions=self._end_sessions,
            )
        return completed

    async def _until_stopped(
        self, loading: asyncio.Task[Loaded], signals: StopSignals, on_loaded: Callable[[str], None]
    ) -> None:
        """Take the models in when they are there, and wait for the first signal."""
        stop = asyncio.create_task(signals.stop.wait(), name="stop-signal")
        try:
            await asyncio.wait({loading, stop}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                loaded, models = loading.result(), self.app[MODELS]
                settle()  # before anybody is let in: it stops the event loop for a moment
                self._searching = asyncio.create_task(self._searches.run(), name="garbage")
                models.engine, models.vad, models.turns = loaded.engine, loaded.vad, loaded.turns
                await self._tell_others()
                on_loaded(loaded.engine.model_name)
                await stop
        finally:
            stop.cancel()
            await asyncio.gather(stop, return_exceptions=True)

    async def _stop_searching(self) -> None:
        if self._searching is not None:
            self._searching.cancel()
            await asyncio.gather(self._searching, return_exceptions=True)

    async def _drain(self, signals: StopSignals) -> None:
        self.app[ADMISSION].stop()
        await self._tell_others()
        await drain(self.app[REGISTRY], drain_s=self._settings.drain_s, hurry=signals.hurry)

    async def _end_sessions(self, deadline_s: float) -> None:
        registry, member = self.app[REGISTRY], self.app[MEMBER]
        if len(registry) and member is not None and member.has_successor:
            await member.leave()  # first, so that who comes back finds that this place is gone
            await registry.hand_over_all(deadline_s=max(0.0, deadline_s - LEAVING_S))
        else:
            await registry.close_all("shutdown", deadline_s=deadline_s)

    async def _tell_others(self) -> None:
        member = self.app[MEMBER]
        if member is not None:
            await member.tell()

    async def _listen_for_hops(self) -> None:
        """Open the inner door.

        Raises:
            ConfigError: NODE_ADDRESS_UNAVAILABLE.
        """
        member = self.app[MEMBER]
        if self._place is None or member is None:
            return
        address = self._place.address
        try:
            if address.startswith(UNIX):
                path = Path(address.removeprefix(UNIX))
                await web.UnixSite(self._runner, path).start()
                member.hop.listens_at(str(path))
                return
            parts = urlsplit(address)
            for one in await listen_at(parts.hostname or "", parts.port or 0):
                await web.SockSite(self._runner, one).start()
                member.hop.listens_at(one.getsockname()[:2])
        except OSError as exc:
            raise ConfigError(
                "NODE_ADDRESS_UNAVAILABLE",
                f"Other servers cannot be listened to at {address}: {exc.strerror or exc}.",
                "Give `node_address` an address of this machine and a port that is free; each worker has the next.",
            ) from exc


async def serve(settings: Settings, *, load: Loader | None = None) -> None:
    """Serve in this process alone.

    Args:
        settings: of this node.
        load: loads what sessions share; `load_models` if None.

    Raises:
        VoiceForgeError: PORT_IN_USE, PORT_NOT_PERMITTED, ADDRESS_UNAVAILABLE, AUDIT_LOG_UNUSABLE, or why the models
            cannot be loaded.
    """
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    await require_audit_log(settings)
    state = open_state(settings)
    try:
        server = Server(settings, seat=Seat(state, place_of(settings, node=new_node())), load=load)
        signals = StopSignals()
        sockets = await server.start(lambda: open_port(settings))
        signals.install()
        announce(url_of(sockets, settings), settings, has_keys=await server.app[ACCOUNTS].keys.exist())
        try:
            completed = await server.run(signals, on_loaded=say_loaded)
        finally:
            signals.remove()
        if not completed:
            os._exit(EXIT_FAILED)  # a second signal: threads that still decode or fetch are not waited for
    finally:
        await state.close()


def run(settings: Settings) -> int:
    """`serve` as a whole program; returns its exit code."""
    try:
        asyncio.run(serve(settings))
    except VoiceForgeError as exc:
        say_failed(exc)
        return EXIT_FAILED
    return 0


def place_of(settings: Settings, *, node: str, folder: Path | None = None, number: int = 1) -> Place | None:
    """The place of a process; None: nobody can pass anything on to it.

    Args:
        settings: of the process.
        node: of all processes of this server.
        folder: where their sockets lie.
        number: which of them it is, from 1.
    """
    place_id = new_place_id()
    if settings.node_address is not None:
        host, _, port = settings.node_address.rpartition(":")
        address = f"{host}:{int(port) + number - 1}"
    elif folder is not None:
        address = f"{UNIX}{folder / place_id}"
    else:
        return None
    return Place(place_id, node, address, max_sessions=settings.max_sessions)


async def _close_models(loading: asyncio.Task[Loaded]) -> None:
    loading.cancel()  # does nothing to one that is done
    await asyncio.wait({loading})  # unlike a gather it can be cut at once, should loading not listen
    if not loading.cancelled() and loading.exception() is None:
        await loading.result().close()
