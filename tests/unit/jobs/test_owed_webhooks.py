"""One receiver that does not answer keeps the webhooks of others from nowhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from mediaserver.jobs.deliveries import Deliveries
from mediaserver.jobs.models import Job
from mediaserver.jobs.outbox import SENT_AT_ONCE, SENT_TO_ONE, Outbox
from mediaserver.jobs.store import NewJob, Store, new_id
from mediaserver.outbound.webhooks import Webhooks
from mediaserver.storage.database import Database

OPTIONS = {"language": None, "prompt": None, "hotwords": [], "multichannel": False, "task": "transcribe"}


class FakeWebhooks:
    """Delivers at once to `good`, and never to `bad`."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.arrived = asyncio.Event()

    async def deliver(self, url: str, _body: bytes, **_given: object) -> None:
        self.tried.append(url)
        if "bad" in url:
            await asyncio.Event().wait()
        self.arrived.set()


async def test_a_receiver_that_is_away_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    store, webhooks = Store(database), FakeWebhooks()
    urls = [f"https://bad.example/{n}" for n in range(SENT_AT_ONCE + 10)] + ["https://good.example/"]
    jobs = [NewJob(new_id("job"), OPTIONS, 100.0, webhook_url=url) for url in urls]
    rows: list[Job] = await store.add(jobs, now_s=1.0)
    for row in rows:
        await store.cancel(row.id, now_s=1.0 + row.number)
    outbox = Outbox(Deliveries(database), cast(Webhooks, webhooks), wall_s=lambda: 1000.0)
    outbox.start()
    async with asyncio.timeout(10):
        await webhooks.arrived.wait()
    assert len([url for url in webhooks.tried if "bad" in url]) <= 2 * SENT_TO_ONE
    await outbox.close()
    await database.close()


class FailingWebhooks:
    """Tries again and again, as `Webhooks` does."""

    def __init__(self) -> None:
        self.trying = asyncio.Event()
        self.dropped = asyncio.Event()

    async def deliver(self, _url: str, _body: bytes, **_given: object) -> None:
        self.trying.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.dropped.set()


async def test_what_is_tried_again_is_dropped_once_its_recording_was_deleted_by_anybody(tmp_path: Path) -> None:
    """Another process deletes it: nobody tells this one."""
    database, elsewhere = (Database(f"sqlite:///{tmp_path / 'jobs.db'}") for _ in range(2))
    store, webhooks = Store(database), FailingWebhooks()
    (row,) = await store.add([NewJob(new_id("job"), OPTIONS, 100.0, webhook_url="https://x.example/")], now_s=1.0)
    await store.cancel(row.id, now_s=2.0)
    outbox = Outbox(Deliveries(database), cast(Webhooks, webhooks), wall_s=lambda: 1000.0)
    outbox.start()
    async with asyncio.timeout(20):
        await webhooks.trying.wait()
        outbox.wake()
        await asyncio.sleep(0)
        assert not webhooks.dropped.is_set()
        assert await Store(elsewhere).delete(row.id)
        await webhooks.dropped.wait()
    await outbox.close()
    await database.close()
    await elsewhere.close()
