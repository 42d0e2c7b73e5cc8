"""The queue where there is more than one machine: Celery on Redis carries job ids, the database says what they are.

A message only says that a job waits. A worker that gets one claims the job in the database, so a message that comes
twice, or late, does nothing; one that is lost is sent again. Cancelling, priorities within what waits, and crashes are
all decided by the database.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import structlog

from mediaserver.errors import ConfigError, VoiceForgeError
from mediaserver.jobs.ledger import Ledger
from mediaserver.jobs.models import Job, Priority

log = structlog.get_logger(__name__)

TASK = "voiceforge.transcribe"
QUEUE = "voiceforge"

REDIS_PRIORITIES = {Priority.EXPRESS: 0, Priority.NORMAL: 3, Priority.LOW: 6}
"""Redis has no priorities: Celery makes a list for each of these steps, and takes from the first that has something."""

BROKER_TIMEOUT_S = 5.0
LOOK_PERIOD_S = 1.0
ANNOUNCED_AT_ONCE = 100


def make_celery(broker_url: str) -> Any:
    """Celery's application, for those who announce jobs and for those who run them.

    Raises:
        ConfigError: CELERY_MISSING, or BROKER_URL_INVALID.
    """
    if not broker_url.startswith(("redis://", "rediss://", "unix://")):
        raise ConfigError(
            "BROKER_URL_INVALID", "`jobs_broker_url` is not a Redis URL.", "Give one such as redis://host:6379/0."
        )
    try:
        from celery import Celery  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as exc:
        raise ConfigError(
            "CELERY_MISSING",
            "`jobs_broker_url` needs Celery, which is not installed.",
            "Install it: `pip install 'voiceforge[celery]'`.",
        ) from exc
    app = Celery("voiceforge", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        task_ignore_result=True,  # results are in the database
        task_acks_late=True,  # so that a worker holds no message but those of the jobs it runs
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "priority_steps": sorted(REDIS_PRIORITIES.values()),
            "queue_order_strategy": "priority",
            "max_retries": 1,  # announcing is tried again by itself, and nobody should wait for its thread
            "interval_start": 0,
            "interval_step": 0,
            "socket_timeout": BROKER_TIMEOUT_S,
            "socket_connect_timeout": BROKER_TIMEOUT_S,
        },
    )
    return app


class CeleryQueue:
    """Tells the broker of waiting jobs; workers elsewhere (`voiceforge worker`) run them.

    Args:
        ledger: where they wait.
        celery: of `make_celery`.
        wall_s: the time of day in seconds since 1970.
    """

    def __init__(self, ledger: Ledger, celery: Any, *, wall_s: Callable[[], float] = time.time) -> None:
        self._ledger = ledger
        self._celery = celery
        self._wall_s = wall_s
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the broker is told of what waits already."""
        self._task = asyncio.create_task(self._work(), name="jobs-announce")

    async def added(self, jobs: Sequence[Job]) -> None:
        """These wait now."""
        self._wake.set()

    def wake(self) -> None:
        """Something may wait."""
        self._wake.set()

    def stop_now(self, job_id: str, *, deleted: bool) -> None:
        """Workers see in the database what is cancelled or deleted, five times a second."""

    async def close(self) -> None:
        """Stop announcing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._celery.close)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            try:
                while jobs := await self._ledger.unannounced(limit=ANNOUNCED_AT_ONCE, now_s=self._wall_s()):
                    told = await asyncio.to_thread(self._announce, jobs)
                    await self._ledger.announced(told, now_s=self._wall_s())
                    if len(told) < len(jobs):
                        break
            except VoiceForgeError as exc:
                log.warning("jobs cannot be announced", code=exc.code)
            except Exception:
                log.exception("jobs cannot be announced")
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_PERIOD_S):
                    await self._wake.wait()

    def _announce(self, jobs: Sequence[Job]) -> list[str]:
        """Send the messages; the ids of the jobs whose messages the broker has. Blocks."""
        told: list[str] = []
        for job in jobs:
            try:
                priority = REDIS_PRIORITIES[Priority(job.priority)]
                self._celery.send_task(TASK, args=[job.id], priority=priority, retry=False)
            except Exception as exc:  # whatever Celery, Kombu and Redis call it: the broker is away
                log.warning("the broker does not answer", failure=type(exc).__name__)
                break
            told.append(job.id)
        return told
