"""Sends the webhooks that are owed, and keeps hold of those that it is at."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import structlog
from pydantic import BaseModel

from mediaserver.errors import VoiceForgeError
from mediaserver.jobs.bodies import WebhookBody
from mediaserver.jobs.deliveries import HELD_S, Deliveries, Owed, receiver_of
from mediaserver.jobs.observer import JobObserver
from mediaserver.outbound.webhooks import Webhooks

log = structlog.get_logger(__name__)

LOOK_PERIOD_S = 2.0
"""How often it looks for webhooks that others owe, and for those whose recording was deleted elsewhere: these are not
tried again. Those of this process wake it at once."""

SENT_AT_ONCE = 256
"""Deliveries under way, those that wait for another attempt among them; the others stay in the database meanwhile."""


SENT_TO_ONE = 8
"""Of them, to one receiver, or nearly so: one that is away for a day does not keep the others waiting."""


class Outbox:
    """Sends what is owed until it is closed.

    Args:
        deliveries: what is owed.
        webhooks: who sends it.
        wall_s: the time of day in seconds since 1970.
        observer: hears of what was told.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        webhooks: Webhooks,
        *,
        wall_s: Callable[[], float] = time.time,
        observer: JobObserver | None = None,
    ) -> None:
        self._observer = observer or JobObserver()
        self._deliveries = deliveries
        self._webhooks = webhooks
        self._wall_s = wall_s
        self._wake = asyncio.Event()
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._receivers: dict[str, str] = {}  # of those
        self._answered: set[str] = set()  # of those
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; what is owed already is sent."""
        self._task = asyncio.create_task(self._work(), name="jobs-outbox")

    def wake(self) -> None:
        """Something may be owed."""
        self._wake.set()

    async def close(self) -> None:
        """Stop; what has not arrived is left to whoever comes next."""
        tasks = [task for task in (self._task, *self._sending.values()) if task is not None]
        left = list(self._sending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if left:
            try:
                await self._deliveries.give_back(left)
            except VoiceForgeError as exc:
                log.warning("webhooks cannot be given back", code=exc.code)

    async def _work(self) -> None:
        held_s = float("-inf")
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            try:
                await self._drop_deleted()
                if self._sending and loop.time() - held_s >= HELD_S / 4:
                    await self._deliveries.hold(list(self._sending), now_s=self._wall_s())
                    held_s = loop.time()
                while await self._take_some():
                    pass
            except VoiceForgeError as exc:
                log.warning("webhooks cannot be taken up", code=exc.code)
            except Exception:
                log.exception("webhooks cannot be taken up")
            try:
                async with asyncio.timeout(LOOK_PERIOD_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _drop_deleted(self) -> None:
        """Give those up that are owed no more, the attempts under way too."""
        trying = self._sending.keys() - self._answered
        if not trying:
            return
        for delivery_id in trying - await self._deliveries.still_owed(trying):
            if delivery_id in self._sending and delivery_id not in self._answered:
                log.info("webhook dropped", delivery=delivery_id, reason="its recording was deleted")
                self._sending[delivery_id].cancel()

    async def _take_some(self) -> bool:
        """Begin with a few that are owed, while there is room; whether there were any."""
        room = min(SENT_AT_ONCE - len(self._sending), SENT_TO_ONE)
        under_way = Counter(self._receivers.values())
        busy = [receiver for receiver, count in under_way.items() if count >= SENT_TO_ONE]
        now_s = self._wall_s()
        if room <= 0 or not await self._deliveries.any_due(now_s=now_s, not_to=busy):
            return False
        taken = await self._deliveries.take(limit=room, now_s=now_s, not_to=busy)
        for owed in taken:
            self._send(owed)
        return bool(taken)

    def _send(self, owed: Owed) -> None:
        task = asyncio.create_task(self._deliver(owed), name=f"webhook-{owed.event}")
        self._sending[owed.id] = task
        self._receivers[owed.id] = receiver_of(owed.job.webhook_url or "")

        def forget(_task: asyncio.Task[None]) -> None:
            del self._sending[owed.id], self._receivers[owed.id]
            self._answered.discard(owed.id)
            self._wake.set()  # there is room

        task.add_done_callback(forget)

    async def _deliver(self, owed: Owed) -> None:
        job = owed.job
        assert job.webhook_url is not None
        body: BaseModel = WebhookBody.of(owed.event, job)
        began_s = self._wall_s()
        await self._webhooks.deliver(
            job.webhook_url,
            body.model_dump_json().encode(),
            secret=job.webhook_secret,
            event=owed.event,
            delivery_id=owed.id,
        )
        self._answered.add(owed.id)
        self._observer.delivered(job, owed.event, began_s=began_s, ended_s=self._wall_s())
        try:
            await self._deliveries.done(owed)
        except VoiceForgeError as exc:
            log.warning("a webhook cannot be written off", code=exc.code)
