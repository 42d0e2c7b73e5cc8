"""The state of several nodes, in Redis: one server, the master that Sentinels name, or a Cluster."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any, TypeVar

import structlog
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisClusterException, RedisError

from signaling.cluster.redis_client import Heard, RedisClients
from signaling.cluster.redis_scripts import DRAW, JOIN, LEAVE, MEMBERS, PUT_BACK, SWAP, Script
from signaling.cluster.redis_url import RedisTarget
from signaling.cluster.state import CALL_LIMIT_S, StateAwayError, StateFullError, require_small

log = structlog.get_logger(__name__)

T = TypeVar("T")

AT_ONCE_MAX = 16
"""Calls on their way to Redis at once, and so connections; further ones wait. One takes well under a millisecond."""

WAITING_MAX = 2000
"""Calls that wait for their turn, which takes half a second; one more fails as if Redis were away."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
"""After a failure nobody asks for so long but one, doubling: a Redis that comes back is not met by everybody."""

JITTER = 0.5
"""Share of a pause that is left to chance: nodes that lost one Redis do not come back as one."""

PING_AFTER_S = 5.0
"""A topic on which nothing was told for so long is asked whether it still lives; as long again, and it does not."""

PREFIX = "voiceforge:"

FAILURES = (RedisError, RedisClusterException, OSError, TimeoutError, EOFError)
"""What calls may fail with. What it means is the same for all: nothing is known."""


class RedisState:
    """Values, groups, buckets and topics in Redis. Connects at the first call, and again by itself.

    No call is made twice: one that failed may have been done, and to draw or to add again would be wrong.

    Args:
        target: which Redis.
        prefix: of all names in it.
        limit_s: how long a call may take.
    """

    def __init__(self, target: RedisTarget, *, prefix: str = PREFIX, limit_s: float = CALL_LIMIT_S) -> None:
        self._clients = RedisClients(target, connections=AT_ONCE_MAX)
        self._prefix = prefix
        self._limit_s = limit_s
        self._room = asyncio.Semaphore(AT_ONCE_MAX)
        self._waiting = 0
        self._pause_s = 0.0  # 0: Redis answered last time
        self._again_s = 0.0
        self._is_closed = False

    async def put(self, name: str, value: bytes, *, ttl_s: float) -> None:
        """Set a value."""
        require_small(value)
        await self._ask(lambda: self._clients.calls.set(self._value(name), value, px=_ms(ttl_s)))

    async def get(self, name: str) -> bytes | None:
        """A value."""
        found: bytes | None = await self._ask(lambda: self._clients.calls.get(self._value(name)))
        return found

    async def left_s(self, name: str) -> float:
        """How long a value will stand."""
        left_ms = int(await self._ask(lambda: self._clients.calls.pttl(self._value(name))))
        return max(0, left_ms) / 1000  # below 0: there is none

    async def add(self, name: str, value: bytes, *, ttl_s: float) -> bool:
        """Set a value where there is none."""
        require_small(value)
        return bool(await self._ask(lambda: self._clients.calls.set(self._value(name), value, px=_ms(ttl_s), nx=True)))

    async def swap(self, name: str, expected: bytes, value: bytes, *, ttl_s: float) -> bool:
        """Set a value where there is just this one."""
        require_small(value)
        return bool(await self._run(SWAP, [self._value(name)], expected, value, _ms(ttl_s)))

    async def delete(self, name: str) -> None:
        """Forget a value."""
        await self._ask(lambda: self._clients.calls.delete(self._value(name)))

    async def join(self, group: str, member: str, value: bytes, *, ttl_s: float, limit: int | None = None) -> bool:
        """Make or keep somebody a member."""
        require_small(value)
        most = -1 if limit is None else limit
        return bool(await self._run(JOIN, self._group(group), member, value, _ms(ttl_s), most))

    async def leave(self, group: str, member: str) -> None:
        """No longer be a member."""
        await self._run(LEAVE, self._group(group), member)

    async def members(self, group: str) -> Mapping[str, bytes]:
        """The values of all members."""
        found = await self._run(MEMBERS, self._group(group))
        return {name.decode(errors="replace"): value for name, value in zip(found[::2], found[1::2], strict=True)}

    async def draw(self, bucket: str, *, per_minute: int) -> float:
        """Take one of a minute's share."""
        return int(await self._run(DRAW, [f"{self._prefix}b:{bucket}"], per_minute)) / 1e6

    async def put_back(self, bucket: str, *, per_minute: int) -> None:
        """Give back what was drawn and not used."""
        await self._run(PUT_BACK, [f"{self._prefix}b:{bucket}"], per_minute)

    async def publish(self, topic: str, message: bytes) -> None:
        """Tell everybody who listens now."""
        require_small(message)
        await self._ask(lambda: self._clients.calls.execute_command("PUBLISH", self._topic(topic), message))

    @asynccontextmanager
    async def listen(self, topic: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """What is published from now on, over a connection of its own."""
        heard = await self._ask(lambda: self._clients.listening(self._topic(topic)), has_turn=False)
        try:
            yield self._messages(heard)
        finally:
            with suppress(*FAILURES):
                await self._clients.hang_up(heard)

    async def close(self) -> None:
        """Hang up."""
        self._is_closed = True
        with suppress(*FAILURES):
            async with asyncio.timeout(self._limit_s):
                await self._clients.close()

    async def _messages(self, heard: Heard) -> AsyncIterator[bytes]:
        is_asked = False
        while not self._is_closed:
            try:
                message = await heard.get_message(PING_AFTER_S)
                _heed_cancellation()
                if message is None and not is_asked:
                    await heard.ping()
            except (*FAILURES, RuntimeError) as exc:  # RuntimeError: `close` has taken the connection away
                _heed_cancellation()
                raise StateAwayError from exc
            if message is None and is_asked:
                break
            is_asked = message is None
            if message is not None and message["type"] == "message":
                yield message["data"]
        raise StateAwayError

    async def _run(self, script: Script, keys: list[str], *args: str | bytes | int) -> Any:
        async def run() -> Any:
            redis = self._clients.calls
            try:
                return await redis.evalsha(script.sha, len(keys), *keys, *args)
            except NoScriptError:  # this server has not seen it yet, or was started again
                return await redis.eval(script.text, len(keys), *keys, *args)

        return await self._ask(run)

    async def _ask(self, ask: Callable[[], Awaitable[T]], *, has_turn: bool = True) -> T:
        """Ask Redis something.

        Raises:
            StateAwayError: there was no answer, or one that is none; it may have been done all the same.
            StateFullError: Redis has no memory left.
        """
        now_s = time.monotonic()
        if self._is_closed or self._waiting >= WAITING_MAX or (self._pause_s and now_s < self._again_s):
            raise StateAwayError
        if self._pause_s:
            self._again_s = now_s + self._pause_s  # this call finds out, the others wait for it
        self._waiting += 1
        has_asked = False
        try:
            async with asyncio.timeout(self._limit_s):
                async with self._room if has_turn else nullcontext():
                    has_asked = True
                    await self._clients.ready()
                    answer = await ask()
        except OutOfMemoryError as exc:
            log.error("redis full")
            raise StateFullError from exc
        except FAILURES as exc:
            _heed_cancellation()
            if has_asked:  # else it was this process that was too slow
                self._failed(exc)
            raise StateAwayError from exc
        finally:
            self._waiting -= 1
        _heed_cancellation()
        if self._pause_s:
            log.info("redis back")
            self._pause_s = 0.0
        return answer

    def _failed(self, exc: Exception) -> None:
        if not self._pause_s:
            log.warning("redis away", error=type(exc).__name__, reason=_reason(exc))
        pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
        self._pause_s = pause_s
        self._again_s = time.monotonic() + pause_s * (1 - JITTER * random.random())  # noqa: S311 - no secret

    def _value(self, name: str) -> str:
        return f"{self._prefix}v:{name}"

    def _topic(self, topic: str) -> str:
        return f"{self._prefix}t:{topic}"

    def _group(self, group: str) -> list[str]:
        return [f"{self._prefix}{{g:{group}}}:times", f"{self._prefix}{{g:{group}}}:values"]


def _heed_cancellation() -> None:
    """The library may take a cancellation for its own time-out; whoever cancelled would wait for ever."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _reason(exc: Exception) -> str:
    """Why Redis cannot be asked, in words that hold no address and no password."""
    below = exc.__context__
    if isinstance(below, socket.gaierror):
        return "no such host"
    if isinstance(below, OSError) and below.errno:
        return os.strerror(below.errno).lower()
    return str(exc).partition(" ")[0]  # what Redis says begins with its code (NOAUTH, NOPERM, LOADING …)
