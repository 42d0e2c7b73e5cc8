"""What the broker is told, and what happens when it is away. A real one is in tests/integration."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import unused_port
from click.testing import CliRunner

from mediaserver.errors import ConfigError
from mediaserver.jobs.celery_queue import TASK, CeleryQueue, make_celery
from mediaserver.jobs.ledger import Ledger
from mediaserver.jobs.models import Priority
from mediaserver.jobs.store import NewJob, Store, new_id
from mediaserver.storage.database import Database
from signaling.cli import main

OPTIONS = {"language": None, "prompt": None, "hotwords": [], "multichannel": False, "task": "transcribe"}


class FakeCelery:
    """A broker that keeps what it is told, or is away."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, int]] = []
        self.away = False

    def send_task(self, name: str, *, args: list[str], priority: int, retry: bool) -> None:
        assert not retry
        if self.away:
            raise ConnectionError
        self.sent.append((name, args[0], priority))

    def close(self) -> None:
        pass


async def until(queue: CeleryQueue, true: Any) -> None:
    async with asyncio.timeout(5):
        while not true():
            queue.wake()
            await asyncio.sleep(0.02)


async def test_the_broker_is_told_of_each_job_once_and_again_when_it_was_away(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    store, ledger, celery = Store(database), Ledger(database), FakeCelery()
    queue = CeleryQueue(ledger, celery, wall_s=lambda: 1.0)
    celery.away = True
    queue.start()
    rows = await store.add(
        [NewJob(new_id("job"), OPTIONS, 60.0, priority) for priority in (Priority.LOW, Priority.EXPRESS)], now_s=1.0
    )
    await queue.added(rows)
    await asyncio.sleep(0.1)
    assert celery.sent == []
    celery.away = False
    await until(queue, lambda: len(celery.sent) == 2)
    assert celery.sent == [(TASK, rows[1].id, 0), (TASK, rows[0].id, 6)]
    queue.wake()
    await asyncio.sleep(0.1)
    assert len(celery.sent) == 2
    await queue.close()
    await database.close()


async def test_a_real_celery_without_a_broker_fails_soon() -> None:
    celery = make_celery(f"redis://127.0.0.1:{unused_port()}/0")
    async with asyncio.timeout(10):
        with pytest.raises(Exception, match=r"refused|connect"):
            await asyncio.to_thread(celery.send_task, TASK, args=["job_x"], priority=0, retry=False)


@pytest.mark.parametrize("url", ["", "amqp://host", "http://host", "127.0.0.1:6379"])
def test_other_brokers_are_refused(url: str) -> None:
    with pytest.raises(ConfigError) as failure:
        make_celery(url)
    assert failure.value.code == "BROKER_URL_INVALID"


def test_a_worker_without_a_broker_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOICEFORGE_JOBS_BROKER_URL", raising=False)
    done = CliRunner().invoke(main, ["worker"], prog_name="voiceforge")
    assert done.exit_code == 1
    assert "names none" in done.output


def test_without_celery_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "celery", None)
    with pytest.raises(ConfigError) as failure:
        make_celery("redis://127.0.0.1/0")
    assert failure.value.code == "CELERY_MISSING"
