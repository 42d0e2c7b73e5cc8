"""The kinds of state that the contract suite runs over, each with its own way to let time pass."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from signaling.cluster.memory import MemoryState
from signaling.cluster.state import State


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


KINDS = {"memory": in_memory}
