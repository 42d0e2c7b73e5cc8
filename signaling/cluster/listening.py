"""One who listens to a topic: what was told and not yet heard."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from signaling.cluster.state import StateAwayError

WAITING_MAX = 1000
"""Messages that wait for one listener. One more ends it: it has to look for itself what it missed."""


class Listener:
    """Messages in order, until it is ended or too slow; then `StateAwayError`. For one event loop and one reader."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()  # bound: WAITING_MAX
        self._is_over = False
        self._wake = asyncio.Event()

    def push(self, message: bytes) -> None:
        """Tell it something."""
        if len(self._waiting) >= WAITING_MAX:
            self.end()
        if not self._is_over:
            self._waiting.append(message)
            self._wake.set()

    def end(self) -> None:
        """It may miss something from now on. What waits is still heard, but where it was too slow."""
        self._is_over = True
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.clear()
        self._wake.set()

    async def messages(self) -> AsyncIterator[bytes]:
        """What it is told.

        Raises:
            StateAwayError: it was ended.
        """
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._is_over:
                raise StateAwayError
            self._wake.clear()
            await self._wake.wait()


class Listeners:
    """Who listens, by topic.

    Args:
        on_change: called with a topic that has got its first listener, or lost its last.
    """

    def __init__(self, on_change: Callable[[str], None] | None = None) -> None:
        self._by_topic: dict[str, set[Listener]] = {}  # bound: what this process listens to
        self._on_change = on_change

    @property
    def topics(self) -> frozenset[str]:
        """Those that somebody listens to."""
        return frozenset(self._by_topic)

    @contextmanager
    def one(self, topic: str) -> Iterator[Listener]:
        """A listener, for as long as the context lasts."""
        listener = Listener()
        self._by_topic.setdefault(topic, set()).add(listener)
        try:
            if len(self._by_topic[topic]) == 1:
                self._changed(topic)
            yield listener
        finally:
            rest = self._by_topic.get(topic, set())
            rest.discard(listener)
            if not rest and self._by_topic.pop(topic, None) is not None:
                self._changed(topic)

    def tell(self, topic: str, message: bytes) -> None:
        """Pass a message on to those who listen to its topic."""
        for listener in list(self._by_topic.get(topic, ())):
            listener.push(message)

    def end_all(self) -> None:
        """Messages may have been missed: everybody has to begin again."""
        for listeners in list(self._by_topic.values()):
            for listener in listeners:
                listener.end()

    def _changed(self, topic: str) -> None:
        if self._on_change is not None:
            self._on_change(topic)
