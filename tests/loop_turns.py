"""Turns of the event loop, counted: what must not begin in one turn is told apart without a clock."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable


class LoopTurns:
    """Counts turns from `begin` to `end`, and what was noted in each."""

    def __init__(self) -> None:
        self.now = 0
        self.noted: dict[Hashable, list[int]] = {}
        self._next: asyncio.Handle | None = None

    def begin(self) -> None:
        self._tick()

    def end(self) -> None:
        if self._next is not None:
            self._next.cancel()

    def note(self, kind: Hashable) -> None:
        """Something of this kind begins now."""
        self.noted.setdefault(kind, []).append(self.now)

    def most(self, kind: Hashable) -> int:
        """How many of a kind began in one turn, at most."""
        return max(Counter(self.noted.get(kind, [])).values(), default=0)

    def _tick(self) -> None:
        self.now += 1
        self._next = asyncio.get_running_loop().call_soon(self._tick)
