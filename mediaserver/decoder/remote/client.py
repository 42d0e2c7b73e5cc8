"""The engine as a media process sees it when it lives in another process: the same interface, over a socket.

While the engine is away, finals and revisions wait and are sent again; what is replaceable is given up.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import structlog

from mediaserver.decoder.remote import failures
from mediaserver.decoder.remote.answers import Answers
from mediaserver.decoder.remote.outbox import MAX_TRIES, Outbox
from mediaserver.decoder.remote.wire import (
    FRAMING,
    HELLO_LIMIT_S,
    PROTOCOL,
    SHAPE,
    SILENCE_LIMIT_S,
    Answer,
    Cancel,
    Decode,
    Failed,
    FromEngine,
    Hello,
    Refused,
    State,
    Superseded,
    Welcome,
    Withdraw,
    encode,
    read_from_engine,
)
from mediaserver.decoder.status import EngineStatus
from mediaserver.decoder.window import Hypothesis, Replaced, Window
from mediaserver.errors import VoiceForgeError
from mediaserver.local.frames import FrameError
from mediaserver.local.pauses import Pauses
from mediaserver.local.sockets import hang_up, read_frame, require_usable
from mediaserver.metrics import Metrics

log = structlog.get_logger(__name__)

WRITE_BYTES = 128 * 1024
"""What a socket takes at once if the engine reads."""

SWEEP_S = 0.5
"""How often windows that wait for an engine are looked at for their limit."""

START_LIMIT_S = 120.0
"""How long the first connection may take: an engine that was started at the same time may fetch its model first."""


class EngineHost(Protocol):
    """Whoever runs the engine's process, if it is ours."""

    async def start(self) -> None:
        """Start it and wait until it listens. Raises VoiceForgeError if it cannot."""
        ...

    def kill(self) -> None:
        """End a process that hangs; it is started again."""
        ...

    async def close(self) -> None:
        """End it for good."""
        ...


class RemoteEngine:
    """An engine behind a Unix socket. Use it from one event loop.

    Args:
        path: of the socket.
        metrics: where waits and outcomes are counted.
        interim_period_s: least time between two interims of a session.
        host: runs the engine; None if somebody else does.
        start_limit_s: how long `start` waits for the first connection.
    """

    def __init__(
        self,
        path: Path,
        *,
        metrics: Metrics,
        interim_period_s: float,
        host: EngineHost | None = None,
        start_limit_s: float = START_LIMIT_S,
    ) -> None:
        self._path = path
        self._metrics = metrics
        self._host = host
        self._start_limit_s = start_limit_s
        self._outbox = Outbox(interim_period_s=interim_period_s)
        self._answers = Answers(metrics)
        self._wake = asyncio.Event()
        self._welcome: Welcome | None = None
        self._first: asyncio.Future[Welcome] | None = None
        self._state = State(ready=False, retry_after_s=None)
        self._notices: list[Cancel | Withdraw] = []  # not written yet; bounded by what may be in flight
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    @property
    def model_name(self) -> str:
        """The model as the engine was asked for it."""
        return self._welcome.model if self._welcome is not None else ""

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that the model knows."""
        return self._welcome.languages if self._welcome is not None else ()

    @property
    def ready(self) -> bool:
        """Whether there is an engine, and it is ready."""
        return self._state.ready and not self._closed

    async def start(self) -> None:
        """Start the engine, if it is ours, and connect.

        Raises:
            VoiceForgeError: ENGINE_UNREACHABLE, ENGINE_VERSION, or why the engine cannot start.
        """
        require_usable(self._path, "engine")
        if self._host is not None:
            await self._host.start()
        self._first = asyncio.get_running_loop().create_future()
        self._tasks = [
            asyncio.create_task(self._stay_connected(), name="remote-engine"),
            asyncio.create_task(self._sweep(), name="remote-engine-sweep"),
        ]
        try:
            async with asyncio.timeout(self._start_limit_s):
                await self._first
        except TimeoutError as exc:
            raise failures.unreachable(self._path) from exc

    async def close(self) -> None:
        """Hang up; windows that still wait fail with ENGINE_CLOSED. An engine that is ours is ended."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for entry in self._outbox.clear():
            self._answers.fail(entry, failures.closed())
        if self._host is not None:
            await self._host.close()

    async def decode(self, window: Window) -> Hypothesis:
        """Decode one window; it may be sent to more than one engine until one answers.

        Raises:
            Replaced: a replaceable one gave way to a newer one or was withdrawn, or there is no engine now.
            VoiceForgeError: ENGINE_CLOSED, ENGINE_AWAY, ENGINE_OVERLOADED or DECODE_FAILED.
        """
        if self._closed:
            raise failures.closed()
        entry, replaced = self._outbox.add(window, time.monotonic())
        if replaced is not None:
            self._answers.replace(replaced)
        if entry is None:
            if window.kind.is_replaceable:
                self._answers.count(window, "replaced")
                raise Replaced
            raise failures.too_many()
        self._wake.set()
        try:
            return await self._answers.to(entry)
        finally:
            left = self._outbox.remove(entry.ident)
            if left is not None and left.sent:  # the caller gave up
                self._notices.append(Cancel(entry.ident))
                self._wake.set()

    def withdraw(self, session_id: str) -> None:
        """Give up the session's replaceable window if it still waits, here or in the engine."""
        if (entry := self._outbox.withdraw(session_id)) is not None:
            self._answers.replace(entry)
        if self._outbox.has_sent(session_id):
            self._notices.append(Withdraw(session_id))
            self._wake.set()

    def overload_retry_after_s(self) -> int | None:
        """What the engine said last: seconds after which a new session may be let in, or None."""
        return self._state.retry_after_s

    def status(self) -> EngineStatus | None:
        """What the engine said last of how it is; None while it is away."""
        return self._state.status

    # --- the connection

    async def _stay_connected(self) -> None:
        """Connect, serve the connection until it is lost, and connect again."""
        pauses = Pauses()
        while True:
            writer: asyncio.StreamWriter | None = None
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._path))
                await self._shake_hands(reader, writer)
                pauses.begin_anew()
                await self._serve(reader, writer)
            except (OSError, EOFError, FrameError) as exc:
                log.debug("no engine", reason=str(exc))
            except VoiceForgeError as exc:
                if self._first is not None and not self._first.done():
                    self._first.set_exception(exc)
                log.error("engine refused", code=exc.code, message=exc.message, hint=exc.hint)
            finally:
                self._lose()
                if writer is not None:
                    await hang_up(writer)
            await asyncio.sleep(pauses.next_s())

    async def _shake_hands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Say hello, and be told who the engine is."""
        writer.writelines(encode(Hello(PROTOCOL, SHAPE)))
        first = await _read(reader, limit_s=HELLO_LIMIT_S)
        if isinstance(first, Refused):
            raise VoiceForgeError(first.code, first.message, first.hint)
        if not isinstance(first, Welcome):
            raise FrameError("no welcome")
        if self._welcome not in (None, first):
            raise failures.changed(self.model_name, first.model)
        self._welcome = first

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._outbox.connected()
        self._wake.set()
        sender = asyncio.create_task(self._send_all(writer), name="remote-engine-send")
        try:
            while True:
                self._take(await _read(reader, limit_s=SILENCE_LIMIT_S))
        except TimeoutError:
            log.error("engine hangs", silent_s=SILENCE_LIMIT_S)
            if self._host is not None:
                self._host.kill()
            raise
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def _take(self, message: FromEngine) -> None:
        match message:
            case State():
                self._state = message
                if message.ready and self._first is not None and not self._first.done() and self._welcome is not None:
                    self._first.set_result(self._welcome)
            case Answer() | Superseded() | Failed():
                self._wake.set()  # there may be room for one more
                entry = self._outbox.remove(message.ident)
                if entry is not None:  # else cancelled meanwhile
                    self._answers.settle(entry, message)
            case _:
                raise FrameError(f"an unexpected {message.type}")

    async def _send_all(self, writer: asyncio.StreamWriter) -> None:
        """Write what waits, the most urgent first, no faster than the engine reads."""
        with suppress(OSError):  # lost: the reader sees it, too
            while True:
                notices, self._notices = self._notices, []
                for notice in notices:
                    writer.writelines(encode(notice))
                now_s = time.monotonic()
                if (entry := self._outbox.next_to_send(now_s)) is None:
                    await self._rest(now_s)
                    continue
                try:
                    buffers = encode(Decode(entry.ident, entry.window))
                except FrameError as exc:
                    log.error("window not sent", session=entry.window.session_id, reason=str(exc))
                    self._outbox.remove(entry.ident)
                    self._answers.fail(entry, failures.unsendable())
                    continue
                for buffer in buffers:
                    for start in range(0, len(buffer), WRITE_BYTES):
                        # In pieces: asyncio would copy what the socket does not take at once, again and again.
                        writer.write(buffer[start : start + WRITE_BYTES])
                        await writer.drain()

    async def _rest(self, now_s: float) -> None:
        """Wait until there may be something to send."""
        self._wake.clear()
        due_s = self._outbox.next_due_s(now_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(None if due_s is None else max(0.0, due_s - now_s)):
                await self._wake.wait()

    def _lose(self) -> None:
        """The connection is gone: keep what is kept, and let the rest go."""
        if self._state.ready and not self._closed:
            log.warning("engine lost", unanswered=len(self._outbox))
        self._state = State(ready=False, retry_after_s=None)
        self._notices.clear()
        replaceable, given_up = self._outbox.lost(time.monotonic())
        for entry in replaceable:
            self._answers.replace(entry)
        for entry in given_up:
            log.error("window given up", session=entry.window.session_id, tries=MAX_TRIES)
            self._answers.fail(entry, failures.given_up())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            for entry in self._outbox.expire(time.monotonic()):
                self._answers.fail(entry, failures.away())


async def _read(reader: asyncio.StreamReader, *, limit_s: float) -> FromEngine:
    """The next message.

    Raises:
        IncompleteReadError, OSError: the engine is gone.
        TimeoutError: it said nothing for `limit_s`.
        FrameError: what it said is no message.
    """
    async with asyncio.timeout(limit_s):
        return read_from_engine(*await read_frame(reader, FRAMING))
