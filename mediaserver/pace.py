"""How much work of a kind begins in one turn of the event loop: what comes in one moment is spread over several."""

from __future__ import annotations

import asyncio
from collections import deque


class Pace:
    """Lets so many begin in each turn of the event loop; others wait for the next turns, in the order they came.

    Between two turns the loop looks at its sockets and timers, so a crowd holds nobody else up. Unlike a semaphore it
    does not wait for the end of what has begun: one that hangs keeps nobody from beginning, and as many parts of a
    work are under way in a turn as it has, of `each_turn` works in all.

    It belongs to the event loop that it is first waited for on.

    Args:
        each_turn: how many begin.
    """

    def __init__(self, each_turn: int) -> None:
        self._each_turn = each_turn
        self._left = each_turn
        self._is_counting = False
        self._waiting: deque[asyncio.Future[None]] = deque()  # bound: the callers, who hold a place of their own each

    async def turn(self) -> None:
        """Wait for one's turn; where few come, one is there at once, without a step of the event loop.

        It is waited for no longer than `1 / each_turn` turns of the event loop for each that came before.
        """
        loop = asyncio.get_running_loop()
        if not self._is_counting:
            self._is_counting = True
            loop.call_soon(self._begin_turn, loop)
        if self._left > 0:
            self._left -= 1
            return
        waiting = loop.create_future()
        self._waiting.append(waiting)
        await waiting

    def _begin_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        woken = 0
        while self._waiting and woken < self._each_turn:
            waiting = self._waiting.popleft()
            if not waiting.done():  # whoever was cancelled leaves its turn to the next
                waiting.set_result(None)
                woken += 1
        self._left = 0 if woken else self._each_turn  # who has waited begins before who comes now
        self._is_counting = woken > 0
        if self._is_counting:
            loop.call_soon(self._begin_turn, loop)
