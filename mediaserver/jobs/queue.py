"""The queue of one server: its own worker takes from the database whose turn it is.

Where several servers share a database, each takes what it has room for. With a broker (`celery_queue.py`), other
machines do the work and this one only tells them of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from mediaserver.errors import VoiceForgeError
from mediaserver.jobs.ledger import Ledger
from mediaserver.jobs.models import Job
from mediaserver.jobs.worker import Worker

log = structlog.get_logger(__name__)

LOOK_PERIOD_S = 1.0
"""How often it looks for jobs that others took in, and whether a model is loaded; its own jobs wake it at once."""


class Queue(Protocol):
    """Whoever sees to it that waiting jobs are run."""

    def start(self) -> None:
        """Begin; what waits already is seen to."""
        ...

    async def added(self, jobs: Sequence[Job]) -> None:
        """These wait now. Raises nothing: what fails is tried again."""
        ...

    def wake(self) -> None:
        """Something may wait."""
        ...

    def stop_now(self, job_id: str, *, deleted: bool) -> None:
        """A job is cancelled, or deleted, in the database: stop it if it runs here."""
        ...

    async def close(self) -> None:
        """Stop; what runs here is put back."""
        ...


class OwnQueue:
    """Runs jobs in this process.

    Args:
        ledger: where they wait.
        worker: who runs them.
    """

    def __init__(self, ledger: Ledger, worker: Worker) -> None:
        self._ledger = ledger
        self._worker = worker
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begin; what waits already is run."""
        self._task = asyncio.create_task(self._work(), name="jobs-queue")

    async def added(self, jobs: Sequence[Job]) -> None:
        """These wait now."""
        self._wake.set()

    def wake(self) -> None:
        """Something may wait."""
        self._wake.set()

    def stop_now(self, job_id: str, *, deleted: bool) -> None:
        """A job is cancelled, or deleted, in the database: stop it if it runs here."""
        (self._worker.drop if deleted else self._worker.cancel)(job_id)

    async def close(self) -> None:
        """Stop; what runs here is put back."""
        self._closed = True
        self._wake.set()
        if self._task is not None:
            await self._task  # cancelled in a claim, it would leave a job to nobody
        await self._worker.close()

    async def _work(self) -> None:
        while not self._closed:
            self._wake.clear()
            try:
                while not self._closed and self._worker.has_room and await self._ledger.has_waiting():
                    task = await self._worker.claim()
                    if task is None:
                        break
                    task.add_done_callback(lambda _: self._wake.set())
            except VoiceForgeError as exc:
                log.warning("jobs cannot be claimed", code=exc.code)
            except Exception:
                log.exception("jobs cannot be claimed")
            try:
                async with asyncio.timeout(LOOK_PERIOD_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
