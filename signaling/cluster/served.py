"""The state of a node, for its workers: one process keeps it, at a Unix socket that only its user may open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from mediaserver.local.frames import FrameError
from mediaserver.local.pauses import Pauses
from mediaserver.local.sockets import SocketServer, hang_up
from signaling.cluster.listening import Listeners
from signaling.cluster.state import CALL_LIMIT_S, State, StateAwayError, StateFullError, require_small
from signaling.cluster.state_wire import Answer, Call, Told, encode, read_from_server
from signaling.cluster.worker_connection import WorkerConnection, end_tasks

log = structlog.get_logger(__name__)

CONNECTIONS_MAX = 256
"""Workers of one machine, and what is left of those that were replaced; one more is hung up on."""

IN_FLIGHT_MAX = 10_000
"""Calls of one worker that wait for an answer; one more fails as if the state were away."""


class StateServer(SocketServer):
    """Serves a state at a socket (mode 0600). The state's owner closes the state.

    Args:
        state: that is served.
        path: of the socket, in a folder of this user alone. One that is left over from a dead process is replaced.
    """

    def __init__(self, state: State, path: Path) -> None:
        super().__init__(path, self._talk, of="state", connections_max=CONNECTIONS_MAX)
        self._state = state

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, has_room: bool) -> None:
        if has_room:
            with suppress(StateAwayError):  # it may have missed what it listens to, and is to begin again
                await WorkerConnection(self._state, reader, writer).serve()


class ServedState:
    """The state that another process of this machine keeps. Connects at the first call, and again by itself.

    Args:
        path: of its socket.
        limit_s: how long a call may take.
    """

    def __init__(self, path: Path, *, limit_s: float = CALL_LIMIT_S) -> None:
        self._path = path
        self._limit_s = limit_s
        self._listeners = Listeners()
        self._calls: dict[int, asyncio.Future[tuple[Answer, bytes] | None]] = {}  # bound: IN_FLIGHT_MAX
        self._numbered = 0
        self._writer: asyncio.StreamWriter | None = None
        self._tried = asyncio.Event()  # set once a try to connect has ended, either way
        self._connecting: asyncio.Task[None] | None = None
        self._is_closed = False

    async def put(self, name: str, value: bytes, *, ttl_s: float) -> None:
        """Set a value."""
        require_small(value)
        await self._call(value, method="put", name=name, ttl_s=ttl_s)

    async def get(self, name: str) -> bytes | None:
        """A value."""
        answer, value = await self._call(method="get", name=name)
        return value if answer.result else None

    async def left_s(self, name: str) -> float:
        """How long a value will stand."""
        answer, _ = await self._call(method="left_s", name=name)
        return float(answer.result or 0.0)

    async def add(self, name: str, value: bytes, *, ttl_s: float) -> bool:
        """Set a value where there is none."""
        require_small(value)
        answer, _ = await self._call(value, method="add", name=name, ttl_s=ttl_s)
        return bool(answer.result)

    async def swap(self, name: str, expected: bytes, value: bytes, *, ttl_s: float) -> bool:
        """Set a value where there is just this one."""
        require_small(value)
        require_small(expected)
        both, size = expected + value, len(expected)
        answer, _ = await self._call(both, method="swap", name=name, ttl_s=ttl_s, expected_bytes=size)
        return bool(answer.result)

    async def delete(self, name: str) -> None:
        """Forget a value."""
        await self._call(method="delete", name=name)

    async def join(self, group: str, member: str, value: bytes, *, ttl_s: float, limit: int | None = None) -> bool:
        """Make or keep somebody a member."""
        require_small(value)
        answer, _ = await self._call(value, method="join", name=group, member=member, ttl_s=ttl_s, limit=limit)
        return bool(answer.result)

    async def leave(self, group: str, member: str) -> None:
        """No longer be a member."""
        await self._call(method="leave", name=group, member=member)

    async def members(self, group: str) -> Mapping[str, bytes]:
        """The values of all members."""
        answer, body = await self._call(method="members", name=group)
        found, at = {}, 0
        for member, size in answer.members or []:
            found[member] = body[at : at + size]
            at += size
        return found

    async def draw(self, bucket: str, *, per_minute: int) -> float:
        """Take one of a minute's share."""
        answer, _ = await self._call(method="draw", name=bucket, per_minute=per_minute)
        return float(answer.result or 0.0)

    async def put_back(self, bucket: str, *, per_minute: int) -> None:
        """Give back what was drawn and not used."""
        await self._call(method="put_back", name=bucket, per_minute=per_minute)

    async def publish(self, topic: str, message: bytes) -> None:
        """Tell everybody who listens now."""
        require_small(message)
        await self._call(message, method="publish", name=topic)

    @asynccontextmanager
    async def listen(self, topic: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """What is published from now on."""
        with self._listeners.one(topic) as listener:
            await self._call(method="listen", name=topic)
            try:
                yield listener.messages()
            finally:
                listener.end()
        if topic not in self._listeners.topics and not self._is_closed:
            with suppress(StateAwayError):  # then nobody listens there any more
                await self._call(method="unlisten", name=topic)

    async def close(self) -> None:
        """Hang up."""
        self._is_closed = True
        if self._connecting is not None:
            await end_tasks([self._connecting])

    async def _call(self, body: bytes = b"", **fields: Any) -> tuple[Answer, bytes]:
        """Call a method.

        Raises:
            StateAwayError: it could not be, or was not answered in time; it may have been done all the same.
        """
        if self._is_closed or len(self._calls) >= IN_FLIGHT_MAX:
            raise StateAwayError
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._stay_connected(), name="state")
        self._numbered += 1
        call_id = self._numbered
        future = self._calls[call_id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._limit_s):
                await self._tried.wait()
                if self._writer is None:
                    raise StateAwayError
                self._writer.write(encode(Call(call_id=call_id, **fields), body))
                await self._writer.drain()
                answer, values = await future or _LOST
        except (OSError, TimeoutError) as exc:
            raise StateAwayError from exc
        finally:
            del self._calls[call_id]
        if answer.failure is not None:
            raise StateFullError if answer.failure == "full" else StateAwayError
        return answer, values

    async def _stay_connected(self) -> None:
        """Connect, read until the connection is lost, and connect again."""
        pauses = Pauses()
        while True:
            writer: asyncio.StreamWriter | None = None
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._path))
                pauses.begin_anew()
                self._writer = writer
                self._tried.set()
                while True:
                    self._take(*await read_from_server(reader))
            except (OSError, EOFError, FrameError) as exc:
                log.debug("no state", reason=str(exc))
            finally:
                self._lose()
                if writer is not None:
                    await hang_up(writer)
            await asyncio.sleep(pauses.next_s())

    def _take(self, message: Answer | Told, body: bytes) -> None:
        if isinstance(message, Told):
            self._listeners.tell(message.topic, body)
            return
        future = self._calls.get(message.call_id)
        if future is not None and not future.done():  # else nobody waits for it any more
            future.set_result((message, body))

    def _lose(self) -> None:
        """There is no connection: nobody waits for it, and who listens may miss something."""
        self._writer = None
        self._tried.set()
        for future in self._calls.values():
            if not future.done():
                future.set_result(None)
        self._listeners.end_all()


_LOST = Answer(call_id=0, failure="away"), b""
"""What a call is answered whose connection went."""
