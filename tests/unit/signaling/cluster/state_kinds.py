"""The kinds of state that the contract suite runs over, each with its own way to let time pass."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from signaling.cluster.memory import MemoryState
from signaling.cluster.redis_state import RedisState
from signaling.cluster.redis_url import parse_redis_url
from signaling.cluster.served import ServedState, StateServer
from signaling.cluster.state import State

PATIENCE_S = 30.0
"""How long a call may take here: to find a Redis Cluster's nodes has taken 2 s on a busy machine, a server's limit."""


@dataclass(frozen=True)
class StateKit:
    """A state as two processes see it.

    Args:
        one, other: how each of them reaches it; the same object where there is one process.
        unit_s: what a short time is for it, in seconds.
        pass_s: lets so many seconds pass for it, and returns once they have.
    """

    one: State
    other: State
    unit_s: float
    pass_s: Callable[[float], Awaitable[None]]


@asynccontextmanager
async def in_memory() -> AsyncIterator[StateKit]:
    clock = [1000.0]
    state = MemoryState(now_s=lambda: clock[0])

    async def pass_s(seconds: float) -> None:
        clock[0] += seconds

    yield StateKit(state, state, 10.0, pass_s)
    await state.close()


@asynccontextmanager
async def in_redis(url: str) -> AsyncIterator[StateKit]:
    """A Redis that runs. Its clock is the real one: short times are short, and waited for."""
    prefix = f"test-{secrets.token_hex(4)}:"
    one, other = (RedisState(parse_redis_url(url), prefix=prefix, limit_s=PATIENCE_S) for _ in range(2))
    yield StateKit(one, other, 0.2, asyncio.sleep)
    await one.close()
    await other.close()


@asynccontextmanager
async def served() -> AsyncIterator[StateKit]:
    async with in_memory() as kit:
        with tempfile.TemporaryDirectory(prefix="vf-") as folder:
            path = Path(folder) / "state.sock"
            server = StateServer(kit.one, path)
            await server.start()
            one, other = ServedState(path), ServedState(path)
            yield StateKit(one, other, kit.unit_s, kit.pass_s)
            await one.close()
            await other.close()
            await server.close()
