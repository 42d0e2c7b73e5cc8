"""Results that are posted to a client's URL instead of being sent: one after another, so that they arrive in order."""

from __future__ import annotations

import asyncio
from collections import deque

import structlog

from mediaserver.metrics import Metrics
from mediaserver.outbound.client import shown
from mediaserver.outbound.webhooks import Webhooks
from mediaserver.session.dialect import Telling
from signaling.outbound import Source

log = structlog.get_logger(__name__)

EVENT = "deepgram.callback"

WAITING_MAX = 512
"""Messages that wait while one is tried again; beyond it the oldest goes. Half an hour of finals."""

DROPPING = 8
"""With more than this waiting, interims are left out: they would come late."""

LAST_S = 20.0
"""How long the end of a stream waits until what is left has been taken."""


class CallbackPost:
    """The way to one URL.

    Args:
        webhooks: what delivers, each message until it is taken or refused for good.
        url: of the client.
        method: POST or PUT.
        headers: of every request.
        metrics: counts what is dropped.
        source: the session that it is told of.
    """

    def __init__(
        self,
        webhooks: Webhooks,
        url: str,
        *,
        method: str,
        headers: dict[str, str],
        metrics: Metrics,
        source: Source,
    ) -> None:
        self.source = source
        self._webhooks = webhooks
        self._url = url
        self._method = method
        self._headers = headers
        self._metrics = metrics
        self._waiting: deque[str] = deque()
        self._under_way = 0  # the message that is being sent
        self._is_dropped = False
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task = asyncio.create_task(self._run(), name="deepgram-callback")

    def send(self, telling: Telling) -> None:
        """Queue a message. Never blocks, never raises."""
        if self._is_dropped:
            return
        if telling.droppable and len(self._waiting) >= DROPPING:
            self._metrics.events_dropped_total.inc()
            return
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.popleft()
            self._metrics.events_dropped_total.inc()
            log.warning("callback dropped", receiver=shown(self._url))
        self._waiting.append(telling.text)
        self._idle.clear()
        self._wake.set()

    def drop(self) -> int:
        """Its tenant's data is deleted: nothing more is told, nor tried again; how many messages were not."""
        count = len(self._waiting) + self._under_way
        self._waiting.clear()
        self._under_way, self._is_dropped = 0, True
        self._task.cancel()  # it is awaited by `close`, which has nothing to wait for now
        self._idle.set()
        if count:
            log.info("callbacks dropped", receiver=shown(self._url), count=count, why="its data is deleted")
            self._metrics.webhooks_total.labels("dropped").inc(count)
        return count

    async def close(self, *, deadline_s: float = LAST_S) -> None:
        """Wait for what is left, at most so long."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("callbacks given up", receiver=shown(self._url), waiting=len(self._waiting))
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            while self._waiting:
                text = self._waiting.popleft()
                self._under_way = 1
                await self._webhooks.deliver(
                    self._url,
                    text.encode(),
                    secret=None,
                    event=EVENT,
                    headers=self._headers,
                    method=self._method,
                )
                self._under_way = 0
            self._idle.set()
            self._wake.clear()
            await self._wake.wait()
