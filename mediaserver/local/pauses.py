"""How long to wait between two tries."""

from __future__ import annotations

import random

FIRST_TO_CONNECT_S, LONGEST_TO_CONNECT_S = 0.05, 1.0
"""Between two tries to connect to a process of one's own machine: one costs nothing, and somebody may wait for it."""

JITTER = 0.5
"""Share of a pause that is left to chance: processes that lost the same one do not come back as one."""


class Pauses:
    """Twice as long each time, up to a bound.

    Args:
        first_s, longest_s: the shortest and the longest, before chance makes them shorter.
    """

    def __init__(self, first_s: float = FIRST_TO_CONNECT_S, longest_s: float = LONGEST_TO_CONNECT_S) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._pause_s = first_s

    def begin_anew(self) -> None:
        """A try went well: the next pause is the first again."""
        self._pause_s = self._first_s

    def next_s(self) -> float:
        """The pause before the next try."""
        pause_s = self._pause_s * (1 - JITTER * random.random())  # noqa: S311 - no secret
        self._pause_s = min(2 * self._pause_s, self._longest_s)
        return pause_s
