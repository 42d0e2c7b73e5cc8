"""An engine on a Unix socket, for several media processes at once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import structlog

from mediaserver.decoder.remote import failures
from mediaserver.decoder.remote.wire import (
    FRAMING,
    HELLO_LIMIT_S,
    MAX_IN_FLIGHT,
    PROTOCOL,
    SHAPE,
    STATE_PERIOD_S,
    Answer,
    Cancel,
    Decode,
    Failed,
    FromEngine,
    Hello,
    Refused,
    State,
    Superseded,
    ToEngine,
    Welcome,
    Withdraw,
    encode,
    read_to_engine,
)
from mediaserver.decoder.status import Telling
from mediaserver.decoder.window import Decoder, Replaced, Window
from mediaserver.errors import VoiceForgeError
from mediaserver.local.frames import FrameError
from mediaserver.local.sockets import SocketServer, read_frame

log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 64
"""Media processes of one machine; one more is refused."""


class LoadedEngine(Decoder, Protocol):
    """The engine as its server sees it."""

    @property
    def ready(self) -> bool:
        """Whether the model is loaded and warm."""
        ...

    def overload_retry_after_s(self) -> int | None:
        """Seconds after which a new session may be let in, or None while finals are on time."""
        ...


class EngineServer(SocketServer):
    """Serves an engine on a socket that only this user may open. The engine's owner closes the engine.

    What clients still wait for when it closes they keep, for the next engine.

    Args:
        engine: started already.
        path: of the socket. One that is left over from an engine that died is replaced.
    """

    def __init__(self, engine: LoadedEngine, path: Path) -> None:
        super().__init__(path, self._talk, of="engine", connections_max=MAX_CONNECTIONS)
        self._engine = engine
        self._numbered = 0

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, has_room: bool) -> None:
        self._numbered += 1
        await _Connection(self._engine, reader, writer, number=self._numbered).serve(has_room=has_room)


class _Connection:
    """One media process. Session ids get its number in front, so that two processes never share one."""

    def __init__(
        self, engine: LoadedEngine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, number: int
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._writer = writer
        self._number = number
        # Bound: MAX_IN_FLIGHT. A window counts until its answer is in the socket; one more is refused.
        self._decoding: dict[int, asyncio.Task[None]] = {}

    async def serve(self, *, has_room: bool) -> None:
        """Until the client hangs up.

        Raises:
            FrameError, TimeoutError, OSError, EOFError: the connection is of no further use.
        """
        async with asyncio.timeout(HELLO_LIMIT_S):
            refusal = _refusal(await self._read(), has_room=has_room)
            await self._send(refusal or Welcome(self._engine.model_name, self._engine.languages))
        if refusal is not None:
            return
        states = asyncio.create_task(self._tell_state(), name=f"engine-state-{self._number}")
        try:
            while True:
                await self._take(await self._read())
        finally:
            tasks = [states, *self._decoding.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> ToEngine:
        return read_to_engine(*await read_frame(self._reader, FRAMING))

    async def _take(self, message: ToEngine) -> None:
        if isinstance(message, Cancel):
            if (task := self._decoding.get(message.ident)) is not None:
                task.cancel()
            return
        if isinstance(message, Withdraw):
            self._engine.withdraw(self._own(message.session_id))
            return
        if not isinstance(message, Decode):
            raise FrameError("a second hello")
        if message.ident in self._decoding:
            raise FrameError(f"window {message.ident} is already being decoded")
        if len(self._decoding) >= MAX_IN_FLIGHT:
            # Awaited, so that a client that sends on and reads nothing is not read from either.
            await self._send(_failed(message.ident, failures.too_many()))
            return
        task = asyncio.create_task(self._decode(message), name=f"engine-window-{self._number}-{message.ident}")
        self._decoding[message.ident] = task
        task.add_done_callback(lambda _: self._decoding.pop(message.ident, None))

    async def _decode(self, message: Decode) -> None:
        outcome = await self._outcome(message.ident, message.window)
        with suppress(OSError):  # the client is gone: `serve` sees it, too
            try:
                await self._send(outcome)
            except FrameError as exc:
                log.error("hypothesis not sent", reason=str(exc))
                await self._send(_failed(message.ident, failures.unsendable()))

    async def _outcome(self, ident: int, window: Window) -> FromEngine:
        try:
            own = replace(window, session_id=self._own(window.session_id))
            return Answer(ident, await self._engine.decode(own))
        except Replaced:
            return Superseded(ident)
        except VoiceForgeError as error:
            return _failed(ident, error)

    def _own(self, session_id: str) -> str:
        return f"{self._number}/{session_id}"

    async def _tell_state(self) -> None:
        with suppress(OSError):
            while True:
                status = self._engine.status() if isinstance(self._engine, Telling) else None
                await self._send(State(self._engine.ready, self._engine.overload_retry_after_s(), status))
                await asyncio.sleep(STATE_PERIOD_S)

    async def _send(self, message: FromEngine) -> None:
        self._writer.writelines(encode(message))
        await self._writer.drain()


def _refusal(first: ToEngine, *, has_room: bool) -> Refused | None:
    if not isinstance(first, Hello):
        raise FrameError("no hello")
    if (first.protocol, first.shape) != (PROTOCOL, SHAPE):
        return Refused(
            "ENGINE_VERSION",
            "The engine and this media process are of different versions.",
            "Run both from the same release.",
        )
    if not has_room:
        return Refused(
            "ENGINE_FULL", f"The engine already serves {MAX_CONNECTIONS} processes.", "Start another engine."
        )
    return None


def _failed(ident: int, error: VoiceForgeError) -> Failed:
    return Failed(ident, error.code, error.message, error.hint, error.retryable)
