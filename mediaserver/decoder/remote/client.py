"""The engine as a media process sees it when it lives in another process: the same interface, over a socket.

While the engine is away, finals and revisions wait and are sent again; interims give way to newer ones.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import structlog

from mediaserver.decoder.remote import failures
from mediaserver.decoder.remote.outbox import MAX_TRIES, Entry, Outbox
from mediaserver.decoder.remote.unix import READ_BYTES, require_usable
from mediaserver.decoder.remote.wire import (
    HELLO_LIMIT_S,
    PROTOCOL,
    SHAPE,
    SILENCE_LIMIT_S,
    Answer,
    Cancel,
    Decode,
    Failed,
    FrameReader,
    FromEngine,
    Hello,
    Refused,
    State,
    Superseded,
    Welcome,
    WireError,
    encode,
    read_from_engine,
)
from mediaserver.decoder.window import Hypothesis, Replaced, Window
from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics

log = structlog.get_logger(__name__)

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
"""Between two tries to connect, doubling. A try on one's own machine costs nothing, and a final may wait for it."""

JITTER = 0.5
"""Share of a pause that is left to chance: processes that lost one engine do not come back as one."""

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
        host: runs the engine; None if somebody else does.
        start_limit_s: how long `start` waits for the first connection.
    """

    def __init__(
        self, path: Path, *, metrics: Metrics, host: EngineHost | None = None, start_limit_s: float = START_LIMIT_S
    ) -> None:
        self._path = path
        self._metrics = metrics
        self._host = host
        self._start_limit_s = start_limit_s
        self._outbox = Outbox()
        self._futures: dict[int, asyncio.Future[Hypothesis]] = {}  # one an entry of the outbox
        self._wake = asyncio.Event()
        self._welcome: Welcome | None = None
        self._first: asyncio.Future[Welcome] | None = None
        self._state = State(ready=False, retry_after_s=None)
        self._cancels: list[int] = []  # of sent windows; bounded by what may be in flight
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
        require_usable(self._path)
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
            self._fail(entry.ident, failures.closed())
        if self._host is not None:
            await self._host.close()

    async def decode(self, window: Window) -> Hypothesis:
        """Decode one window; it may be sent to more than one engine until one answers.

        Raises:
            Replaced: an interim gave way to a newer one of its session, or there is no engine now.
            VoiceForgeError: ENGINE_CLOSED, ENGINE_AWAY, ENGINE_OVERLOADED or DECODE_FAILED.
        """
        if self._closed:
            raise failures.closed()
        entry, replaced = self._outbox.add(window, time.monotonic())
        if replaced is not None:
            self._replace(replaced)
        if entry is None:
            if window.kind.is_interim:
                self._count(window, "replaced")
                raise Replaced
            raise failures.too_many()
        future: asyncio.Future[Hypothesis] = asyncio.get_running_loop().create_future()
        self._futures[entry.ident] = future
        self._wake.set()
        try:
            return await future
        finally:
            self._futures.pop(entry.ident, None)
            left = self._outbox.remove(entry.ident)
            if left is not None and left.sent:  # the caller gave up
                self._cancels.append(entry.ident)
                self._wake.set()

    def overload_retry_after_s(self) -> int | None:
        """What the engine said last: seconds after which a new session may be let in, or None."""
        return self._state.retry_after_s

    # --- the connection

    async def _stay_connected(self) -> None:
        """Connect, serve the connection until it is lost, and connect again."""
        pause_s = FIRST_PAUSE_S
        while True:
            writer: asyncio.StreamWriter | None = None
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._path))
                frames = FrameReader()
                rest = await self._shake_hands(reader, writer, frames)
                pause_s = FIRST_PAUSE_S
                await self._serve(reader, writer, frames, rest)
            except (OSError, WireError, TimeoutError) as exc:
                log.debug("no engine", reason=str(exc))
            except VoiceForgeError as exc:
                if self._first is not None and not self._first.done():
                    self._first.set_exception(exc)
                log.error("engine refused", code=exc.code, message=exc.message, hint=exc.hint)
            finally:
                self._lose()
                if writer is not None:
                    writer.close()
                    with suppress(OSError):
                        await writer.wait_closed()
            await asyncio.sleep(pause_s * (1 - JITTER * random.random()))  # noqa: S311 - no secret
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _shake_hands(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, frames: FrameReader
    ) -> list[FromEngine]:
        """Say hello; returns what came with the welcome."""
        writer.writelines(encode(Hello(PROTOCOL, SHAPE)))
        first, *rest = await _read(reader, frames, limit_s=HELLO_LIMIT_S)
        if isinstance(first, Refused):
            raise VoiceForgeError(first.code, first.message, first.hint)
        if not isinstance(first, Welcome):
            raise WireError("no welcome")
        if self._welcome not in (None, first):
            raise failures.changed(self.model_name, first.model)
        self._welcome = first
        return rest

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        frames: FrameReader,
        received: list[FromEngine],
    ) -> None:
        self._outbox.connected()
        self._wake.set()
        sender = asyncio.create_task(self._send_all(writer), name="remote-engine-send")
        try:
            while True:
                for message in received:
                    self._take(message)
                received = await _read(reader, frames, limit_s=SILENCE_LIMIT_S)
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
                self._metrics.engine_up.set(message.ready)
                if message.ready and self._first is not None and not self._first.done() and self._welcome is not None:
                    self._first.set_result(self._welcome)
            case Answer() | Superseded() | Failed():
                self._settle(message)
            case _:
                raise WireError(f"an unexpected {message.type}")

    async def _send_all(self, writer: asyncio.StreamWriter) -> None:
        """Write what waits, the most urgent first, no faster than the engine reads."""
        with suppress(OSError):  # lost: the reader sees it, too
            while True:
                cancels, self._cancels = self._cancels, []
                for ident in cancels:
                    writer.writelines(encode(Cancel(ident)))
                if (entry := self._outbox.next_to_send()) is None:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                try:
                    buffers = encode(Decode(entry.ident, entry.window))
                except WireError as exc:
                    log.error("window not sent", session=entry.window.session_id, reason=str(exc))
                    self._outbox.remove(entry.ident)
                    self._count(entry.window, "failed")
                    self._fail(entry.ident, failures.unsendable())
                    continue
                writer.writelines(buffers)
                await writer.drain()

    def _lose(self) -> None:
        """The connection is gone: keep what is kept, and let the rest go."""
        if self._state.ready:
            log.warning("engine lost", unanswered=len(self._outbox))
        self._state = State(ready=False, retry_after_s=None)
        self._metrics.engine_up.set(0)
        self._cancels.clear()
        interims, given_up = self._outbox.lost(time.monotonic())
        for entry in interims:
            self._replace(entry)
        for entry in given_up:
            log.error("window given up", session=entry.window.session_id, tries=MAX_TRIES)
            self._count(entry.window, "failed")
            self._fail(entry.ident, failures.given_up())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            for entry in self._outbox.expire(time.monotonic()):
                self._count(entry.window, "failed")
                self._fail(entry.ident, failures.away())

    # --- outcomes

    def _settle(self, message: Answer | Superseded | Failed) -> None:
        entry = self._outbox.remove(message.ident)
        self._wake.set()  # there may be room for one more
        if entry is None:
            return  # cancelled meanwhile
        match message:
            case Answer(hypothesis=hypothesis):
                kind = entry.window.kind.name.lower()
                self._metrics.queue_seconds.labels(kind).observe(hypothesis.queued_s)
                self._metrics.decode_seconds.labels(kind).observe(hypothesis.compute_s)
                self._metrics.decode_batch_windows.observe(hypothesis.batch_windows)
                self._count(entry.window, "rejected" if hypothesis.rejected else "decoded")
                future = self._futures.get(entry.ident)
                if future is not None and not future.done():
                    future.set_result(hypothesis)
            case Superseded():
                self._replace(entry)
            case Failed():
                self._count(entry.window, "failed")
                error = VoiceForgeError(message.code, message.message, message.hint, retryable=message.retryable)
                self._fail(entry.ident, error)

    def _replace(self, entry: Entry) -> None:
        self._count(entry.window, "replaced")
        self._fail(entry.ident, Replaced())

    def _fail(self, ident: int, error: Exception) -> None:
        future = self._futures.get(ident)
        if future is not None and not future.done():
            future.set_exception(error)

    def _count(self, window: Window, outcome: str) -> None:
        self._metrics.windows_total.labels(window.kind.name.lower(), outcome).inc()


async def _read(reader: asyncio.StreamReader, frames: FrameReader, *, limit_s: float) -> list[FromEngine]:
    """The next messages, at least one.

    Raises:
        ConnectionResetError: the engine hung up.
        TimeoutError: it said nothing for `limit_s`.
        WireError: what it said is no message.
    """
    async with asyncio.timeout(limit_s):
        while data := await reader.read(READ_BYTES):
            if messages := [read_from_engine(*frame) for frame in frames.feed(data)]:
                return messages
    raise ConnectionResetError("the engine hung up")
