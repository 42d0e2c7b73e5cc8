"""Keys that were revoked in one process are told to the others at once; otherwise they find out in the database."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import deque

from signaling.auth.keys import Keys
from signaling.cluster.state import State, StateAwayError

TOPIC = "keys"

TOLD_MAX = 1000
"""Keys that wait to be told of; the oldest is dropped first, for the database tells of all of them within seconds."""

AGAIN_S = 1.0
"""After which a state that was away is listened to again."""

_NEWS = re.compile(rb"([0-9a-f]{16}) ([0-9a-f]{1,32})")


class KeyNews:
    """Tells others of keys that end here, and this process of keys that end elsewhere.

    Args:
        state: which carries the news.
        keys: of the node.
    """

    def __init__(self, state: State, keys: Keys) -> None:
        self._state = state
        self._keys = keys
        self._own = secrets.token_hex(8).encode()
        self._to_tell: deque[str] = deque(maxlen=TOLD_MAX)
        self._wake = asyncio.Event()
        self._is_hearing = False
        self.listens = asyncio.Event()
        """Set while it hears what others tell."""
        keys.on_ended.append(self._ended)

    async def run(self) -> None:
        """Tell and listen until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell())
            tasks.create_task(self._listen())

    def _ended(self, key_id: str) -> None:
        if not self._is_hearing:
            self._to_tell.append(key_id)
            self._wake.set()

    async def _tell(self) -> None:
        while True:
            self._wake.clear()
            while self._to_tell:
                try:
                    await self._state.publish(TOPIC, b"%s %s" % (self._own, self._to_tell.popleft().encode()))
                except StateAwayError:
                    continue  # the others find out in the database
            await self._wake.wait()

    async def _listen(self) -> None:
        while True:
            try:
                async with self._state.listen(TOPIC) as heard:
                    self.listens.set()
                    async for news in heard:
                        self._hear(news)
            except StateAwayError:
                self.listens.clear()
                await asyncio.sleep(AGAIN_S)

    def _hear(self, news: bytes) -> None:
        match = _NEWS.fullmatch(news)
        if match is None or match[1] == self._own:
            return
        self._is_hearing = True
        try:
            self._keys.has_ended(match[2].decode())
        finally:
            self._is_hearing = False
