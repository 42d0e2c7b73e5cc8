"""How a benchmark is ended before its time: by Ctrl-C, or by a signal, which comes to the same."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

Measured = TypeVar("Measured")

ENDING = (signal.SIGTERM, signal.SIGHUP)
"""What a time limit sends, and a terminal that is closed."""


TOGETHER_S = 1.0
"""Signals that come so soon after the first are the same one: a time limit signals the process and its group."""


class EndedError(Exception):
    """The benchmark was ended by a signal before it had something to tell."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.signal = number


@dataclass(slots=True)
class Cut:
    """Whether something was ended early."""

    is_cut: bool = False


@contextmanager
def until_interrupted() -> Iterator[Cut]:
    """Ctrl-C or a signal ends what runs inside, and what was seen until then is told."""
    cut = Cut()
    try:
        yield cut
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        cut.is_cut = True


async def heeding_signals(measuring: Coroutine[Any, Any, Measured]) -> Measured:
    """Run a measurement; SIGTERM and SIGHUP cancel it, as Ctrl-C does, so that it ends what it has started.

    The first of them is heeded so. A later one ends the process at once, by the system's default. SIGHUP is left alone
    where it is ignored (nohup).

    Raises:
        EndedError: one came, and the measurement has nothing to tell.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    heeded = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    came: list[signal.Signals] = []

    def heed_no_more() -> None:
        while heeded:
            loop.remove_signal_handler(heeded.pop())

    def end(number: signal.Signals) -> None:
        came.append(number)
        if len(came) == 1:
            task.cancel()
            loop.call_later(TOGETHER_S, heed_no_more)

    for number in heeded:
        loop.add_signal_handler(number, end, number)
    try:
        return await measuring
    except asyncio.CancelledError:
        if came:
            raise EndedError(came[0]) from None
        raise
    finally:
        still_heeded = tuple(heeded)
        heed_no_more()
        for number in still_heeded if came else ():
            signal.signal(number, signal.SIG_IGN)  # the second of two that are one: what follows only tells
