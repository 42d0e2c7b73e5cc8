"""An event loop in virtual time: what waits costs nothing, and work takes as long as a model of it says.

Whole sessions with timers, pauses and queues run as fast as their work can be done, and always in the same order: a
machine that is busy with something else changes nothing, which real time on shared cores cannot promise.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class NothingLeftError(RuntimeError):
    """Everybody waits for something that nobody will do."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still while something runs and jumps to the next timer when nothing does.

    What is given to an executor is run at once, in this thread, and is done, for those who wait for it, after the time
    that it is said to cost. So nothing here needs a lock, and what is modelled as parallel is computed in turn.

    Args:
        cost_s: asked after each call of an executor how many seconds it took on the modelled machine.
    """

    def __init__(self, cost_s: Callable[[], float]) -> None:
        self._now_s = 0.0
        self._cost_s = cost_s
        super().__init__(_Jumping(self._jump))

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._now_s

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run the function now; its result or exception comes after its cost."""
        future: asyncio.Future[T] = self.create_future()
        try:
            result = func(*args)
        except Exception as error:
            self.call_later(self._cost_s(), _unless_done(future, future.set_exception), error)
        else:
            self.call_later(self._cost_s(), _unless_done(future, future.set_result), result)
        return future

    def _jump(self, by_s: float) -> None:
        self._now_s += by_s


def run_virtually(main: Coroutine[Any, Any, T], *, cost_s: Callable[[], float]) -> T:
    """Run a coroutine in virtual time; call it from a thread in which no loop runs.

    Raises:
        NothingLeftError: it waits for something that nobody will do.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(cost_s)) as runner:
        return runner.run(main)


class _Jumping(selectors.SelectSelector):
    """Where a loop would wait for its next timer, this one tells how long that would be, and does not wait."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events:
            return events
        if timeout is None:
            raise NothingLeftError("No timer is set and nothing is being computed.")
        self._jump(timeout)
        return events


def _unless_done(future: asyncio.Future[T], settle: Callable[[Any], None]) -> Callable[[Any], None]:
    """`settle`, unless whoever waited has given up meanwhile."""
    return lambda outcome: None if future.done() else settle(outcome)
