"""Runs one decoder and N workers, holds what they share, and no media.

The port is opened here and inherited: one queue of connections for all workers, so that those which wait when a worker
dies are taken by another. With a socket each (SO_REUSEPORT) they would be reset, and a worker that is busy for a moment
would keep those waiting that the kernel has dealt to it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress

import click
import structlog
from pydantic import SecretStr

from mediaserver.child import Child, Said
from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.announcing import announce, say_failed, say_loaded
from signaling.auth.accounts import Accounts
from signaling.auth.guard import require_keys
from signaling.cluster.opening import open_state
from signaling.cluster.places import GROUP
from signaling.cluster.served import StateServer
from signaling.cluster.state import State, StateAwayError
from signaling.engine_order import Order as EngineOrder
from signaling.engine_order import OwnProcess
from signaling.finding import find_model, find_turns, find_vad, in_daemon_thread
from signaling.nodes import new_node
from signaling.port import open_port, url_of
from signaling.scratch import WORKERS, Scratch
from signaling.seeing.audit import require_audit_log
from signaling.seeing.telemetry import configure_logging
from signaling.shutdown import StopSignals
from signaling.workers.order import Order, settings_of_worker, workers_of
from signaling.workers.supervisor_door import SupervisorDoor

log = structlog.get_logger(__name__)

START_LIMIT_S = 60.0
"""How long a worker may take to listen: its imports, from a slow disk, N at a time."""

SILENCE_LIMIT_S = 20.0
"""A worker whose event loop has not turned for so long hangs, and is replaced; it says that it lives every 2 s."""

STOP_MARGIN_S = 5.0
"""What a worker may take to end beyond what it is given for draining and for finals."""

FORCED_S = 2.0
"""What workers may take after a second signal; then they are killed."""

SECRET_BYTES = 32

EXIT_FAILED = 1


class Supervisor:
    """The processes of one server. The owner awaits `close`.

    Args:
        settings: of the node.
        sockets: the public port, open already.
    """

    def __init__(self, settings: Settings, sockets: Sequence[socket.socket]) -> None:
        self._settings = settings
        self._sockets = sockets
        self._count = workers_of(settings)
        self._node = new_node()
        self._scratch = Scratch(WORKERS)
        self._folder = self._scratch.path
        self._metrics = Metrics()
        self._state = open_state(settings)
        self._served = None if settings.redis_url is not None else StateServer(self._state, self._folder / "state")
        self._door = SupervisorDoor(self._folder, self._metrics)
        self._engine: OwnProcess | None = None
        self._workers: list[Child] = []
        self._places: dict[int, str] = {}  # by worker
        self._loaded: set[int] = set()
        self._has_said_loaded = False
        self._leaving: set[asyncio.Task[None]] = set()  # bound: workers that have just died

    async def start(self) -> None:
        """Start all of it, and wait until the port is served and the decoder is loaded.

        Raises:
            VoiceForgeError: why it cannot be.
        """
        if self._served is not None:
            await self._served.start()
        await self._door.start()
        settings = self._settings
        given: dict[str, object] = {"port": self._sockets[0].getsockname()[1]}
        if settings.token_secret is None:
            given["token_secret"] = SecretStr(secrets.token_urlsafe(SECRET_BYTES))
        starting: list[Callable[[], Coroutine[None, None, None]]] = []
        if settings.engine_socket is None:
            click.echo(f"Loading the model {settings.model} …")
            files = await in_daemon_thread(lambda: find_model(settings), name="find-model")
            await in_daemon_thread(lambda: _find_others(settings), name="find-models")
            self._engine = OwnProcess(EngineOrder(settings, files), self._metrics)
            given["engine_socket"] = self._engine.socket
            starting.append(self._engine.start)
        for number in range(1, self._count + 1):
            self._workers.append(self._worker(number, settings_of_worker(settings, number, self._count, given)))
        starting += [worker.start for worker in self._workers]
        async with asyncio.TaskGroup() as group:
            for start in starting:
                group.create_task(start())

    async def close(self, force: asyncio.Event) -> bool:
        """End the workers, then the decoder, then what they share.

        Args:
            force: set by a second signal.

        Returns:
            Whether they ended by themselves; False: it was forced.
        """
        closing = asyncio.create_task(self._close_workers(), name="close-workers")
        forced = asyncio.create_task(force.wait(), name="close-forced")
        await asyncio.wait({closing, forced}, return_when=asyncio.FIRST_COMPLETED)
        was_forced = not closing.done()
        if was_forced:
            log.warning("shutdown forced")
            for worker in self._workers:
                worker.ask_to_end()  # the second time, which forces
            await asyncio.wait({closing}, timeout=FORCED_S)
            for worker in self._workers:
                worker.kill()
        forced.cancel()
        await asyncio.gather(closing, forced, return_exceptions=True)
        if self._engine is not None:
            await self._engine.close()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self._door.close()
        if self._served is not None:
            await self._served.close()
        await self._state.close()
        await asyncio.to_thread(self._scratch.remove)
        return not was_forced

    async def _close_workers(self) -> None:
        await asyncio.gather(*(worker.close() for worker in self._workers))

    def _worker(self, number: int, settings: Settings) -> Child:
        order = Order(
            settings,
            number=number,
            node=self._node,
            folder=self._folder,
            state=None if self._served is None else self._folder / "state",
            ports=tuple(one.fileno() for one in self._sockets),
        )
        return Child(
            "worker",
            (sys.executable, "-m", "signaling.workers", f"worker-{number}"),
            order=order.to_line(),
            cannot_start=_cannot_start,
            start_limit_s=START_LIMIT_S,
            stop_limit_s=settings.drain_s + settings.shutdown_deadline_s + STOP_MARGIN_S,
            silence_limit_s=SILENCE_LIMIT_S,
            on_died=lambda: self._died(number),
            on_said=lambda said: self._hear(number, said),
            pass_fds=[one.fileno() for one in self._sockets],
            by_word=True,
            about={"number": number},
        )

    def _hear(self, number: int, said: Said) -> None:
        if isinstance(place := said.get("place"), str):
            self._places[number] = place
        if isinstance(model := said.get("loaded"), str):
            self._loaded.add(number)
            if len(self._loaded) == self._count and not self._has_said_loaded:
                self._has_said_loaded = True
                say_loaded(model)

    def _died(self, number: int) -> None:
        """Tell the others at once, who would see it some seconds later."""
        self._metrics.worker_restarts_total.inc()
        place_id = self._places.pop(number, None)
        if place_id:
            task = asyncio.create_task(_leave(self._state, place_id), name="leave")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)


async def supervise(settings: Settings) -> None:
    """Serve with several workers until a signal asks to stop.

    Raises:
        VoiceForgeError: why it cannot.
    """
    configure_logging(level=settings.log_level, log_format=settings.log_format, about={"worker": "supervisor"})
    await require_audit_log(settings)
    has_keys = await _keys_exist(settings)
    sockets = await open_port(settings)
    supervisor = Supervisor(settings, sockets)
    signals = StopSignals()
    signals.install()
    completed = False
    try:
        starting = asyncio.create_task(supervisor.start(), name="start")
        stop = asyncio.create_task(signals.stop.wait(), name="stop-signal")
        announce(url_of(sockets, settings), settings, has_keys=has_keys)
        try:
            await asyncio.wait({starting, stop}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                _raise_first(starting)
                await stop
        finally:
            for task in (starting, stop):
                task.cancel()
            await asyncio.gather(starting, stop, return_exceptions=True)
    finally:
        completed = await supervisor.close(signals.force)
        for one in sockets:
            one.close()
        signals.remove()
    if not completed:
        os._exit(EXIT_FAILED)


def run(settings: Settings) -> int:
    """`supervise` as a whole program; returns its exit code."""
    try:
        asyncio.run(supervise(settings))
    except VoiceForgeError as exc:
        say_failed(exc)
        return EXIT_FAILED
    return 0


def _raise_first(starting: asyncio.Task[None]) -> None:
    """Of what several children failed at, one thing is enough."""
    try:
        starting.result()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


async def _keys_exist(settings: Settings) -> bool:
    """Whether there are keys.

    Raises:
        VoiceForgeError: NO_KEYS, and what `Database.reading` raises.
    """
    accounts = Accounts(settings)
    try:
        await require_keys(settings, accounts.keys)
        return await accounts.keys.exist()
    finally:
        await accounts.close()


def _find_others(settings: Settings) -> None:
    """Fetched once, not by each worker."""
    find_vad(settings)
    if settings.wants_turn_model:
        find_turns(settings)


async def _leave(state: State, place_id: str) -> None:
    with suppress(StateAwayError):  # then others see it when its time is over
        await state.leave(GROUP, place_id)


def _cannot_start(why: str) -> VoiceForgeError:
    return VoiceForgeError("WORKER_FAILED", f"A worker did not start: {why}.", "What it said stands in the log.")
