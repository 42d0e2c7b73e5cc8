"""What this process shares with others: the state, and what is counted and told by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mediaserver.settings import Settings
from signaling.auth.keys import Keys
from signaling.cluster.key_news import KeyNews
from signaling.cluster.leases import Leases
from signaling.cluster.memory import MemoryState
from signaling.cluster.state import State


class Shared:
    """The state, and what stands on it.

    Args:
        state: the caller's, who closes it; None: this process is alone, with a memory of its own.
        settings: of the node.
        keys: of the node: those that end are told to the others.
        is_away: whether the state is known not to be reached; None where nobody looks.
    """

    def __init__(
        self, state: State | None, *, settings: Settings, keys: Keys, is_away: Callable[[], bool] | None
    ) -> None:
        self.state: State = MemoryState() if state is None else state
        self._is_own = state is None
        self.leases = Leases(self.state, when_away=settings.state_away, is_away=is_away or (lambda: False))
        self.news = None if state is None else KeyNews(self.state, keys)

    async def run(self) -> None:
        """Renew leases, and hear of keys, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.leases.run())
            if self.news is not None:
                tasks.create_task(self.news.run())

    async def close(self) -> None:
        """Give leases back; the state is closed where it is this process's own."""
        await self.leases.close()
        if self._is_own:
            await self.state.close()
