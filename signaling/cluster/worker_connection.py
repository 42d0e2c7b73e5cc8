"""What the keeper of a node's state does for one worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Literal

from mediaserver.local.frames import FrameError
from signaling.cluster.state import State, StateAwayError, StateFullError
from signaling.cluster.state_wire import Answer, Call, Told, encode, read_call

TOPICS_MAX = 100
"""Topics that one worker listens to; a worker that names more is hung up on."""


class WorkerConnection:
    """A worker's connection. Its calls are answered one after the other, in their order.

    Args:
        state: that is asked for.
        reader, writer: of the connection; whoever accepted it closes it.
    """

    def __init__(self, state: State, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._state = state
        self._reader = reader
        self._writer = writer
        self._topics: dict[str, asyncio.Task[None]] = {}  # bound: TOPICS_MAX

    async def serve(self) -> None:
        """Until the worker hangs up.

        Raises:
            FrameError, OSError, EOFError: the connection is of no further use.
        """
        try:
            while True:
                call, body = await read_call(self._reader)
                try:
                    answer, values = await self._answered(call, body)
                except StateAwayError as exc:
                    failure: Literal["away", "full"] = "full" if isinstance(exc, StateFullError) else "away"
                    answer, values = Answer(call_id=call.call_id, failure=failure), b""
                await self._send(answer, values)
        finally:
            await end_tasks(self._topics.values())

    async def _answered(self, call: Call, body: bytes) -> tuple[Answer, bytes]:
        state, name, ttl_s = self._state, call.name, call.ttl_s
        result: bool | float | None = None
        match call.method:
            case "put":
                await state.put(name, body, ttl_s=ttl_s)
            case "get":
                value = await state.get(name)
                return Answer(call_id=call.call_id, result=value is not None), value or b""
            case "left_s":
                result = await state.left_s(name)
            case "add":
                result = await state.add(name, body, ttl_s=ttl_s)
            case "swap":
                expected, value = body[: call.expected_bytes], body[call.expected_bytes :]
                result = await state.swap(name, expected, value, ttl_s=ttl_s)
            case "delete":
                await state.delete(name)
            case "join":
                result = await state.join(name, call.member, body, ttl_s=ttl_s, limit=call.limit)
            case "leave":
                await state.leave(name, call.member)
            case "members":
                found = await state.members(name)
                sizes = [(member, len(value)) for member, value in found.items()]
                return Answer(call_id=call.call_id, members=sizes), b"".join(found.values())
            case "draw":
                result = await state.draw(name, per_minute=call.per_minute)
            case "put_back":
                await state.put_back(name, per_minute=call.per_minute)
            case "publish":
                await state.publish(name, body)
            case "listen":
                await self._listen(name)
            case "unlisten":
                await self._unlisten(name)
        return Answer(call_id=call.call_id, result=result), b""

    async def _listen(self, topic: str) -> None:
        if topic in self._topics:
            return
        if len(self._topics) >= TOPICS_MAX:
            raise FrameError("too many topics")
        listens: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._topics[topic] = asyncio.create_task(self._tell(topic, listens), name="state-topic")
        await listens

    async def _unlisten(self, topic: str) -> None:
        if (task := self._topics.pop(topic, None)) is not None:
            await end_tasks([task])

    async def _tell(self, topic: str, listens: asyncio.Future[None]) -> None:
        """Pass on what is published. Where something may have been missed the worker is hung up on: it begins again."""
        try:
            async with self._state.listen(topic) as heard:
                listens.set_result(None)
                async for message in heard:
                    await self._send(Told(topic=topic), message)
        except (StateAwayError, OSError) as exc:
            if listens.done():
                self._writer.transport.abort()
            else:
                self._topics.pop(topic, None)
                listens.set_exception(exc)

    async def _send(self, message: Answer | Told, body: bytes) -> None:
        self._writer.write(encode(message, body))
        await self._writer.drain()


async def end_tasks(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
