"""Tells watchers how jobs go on, whichever worker runs them: one question to the database serves all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import structlog

from mediaserver.errors import VoiceForgeError
from mediaserver.jobs.models import Job, State
from mediaserver.jobs.shares import Shared
from mediaserver.jobs.store import Store

log = structlog.get_logger(__name__)

LOOK_PERIOD_S = 0.5
"""Progress is written once a second; an end is seen within half of one."""

WATCHERS_MAX = 512
"""Of all tenants; one tenant alone has half. A further one is refused: it may ask from time to time instead."""

WATCHERS_RETRY_AFTER_S = 30

WATCHERS = Shared(
    "clients that watch jobs",
    "TOO_MANY_WATCHERS",
    "WATCHER_SHARE_USED_UP",
    WATCHERS_RETRY_AFTER_S,
    "Watch fewer at once, or ask for the job from time to time instead.",
)


class _Watcher:
    """What one watcher has still to be told: the newest state of its job takes the place of an older one."""

    def __init__(self, job_id: str, tenant: str) -> None:
        self.job_id = job_id
        self.tenant = tenant
        self.news = asyncio.Event()
        self.job: Job | None = None
        self._told: tuple[object, ...] | None = None

    def see(self, job: Job | None) -> None:
        seen = (None,) if job is None else (job.state, job.stage, job.progress, job.attempts)
        if seen != self._told:
            self._told = seen
            self.job = job
            self.news.set()


class Watch:
    """Looks after watched jobs as long as anybody watches."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watchers: set[_Watcher] = set()
        self._task: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    async def changes(self, job_id: str, *, tenant: str) -> AsyncGenerator[Job | None]:
        """The job now and after each change, up to its end; None once it is deleted, or nothing more can be told.

        Args:
            job_id: of the job.
            tenant: who watches it.

        Raises:
            CapacityError: TOO_MANY_WATCHERS or WATCHER_SHARE_USED_UP.
        """
        own = sum(watcher.tenant == tenant for watcher in self._watchers)
        WATCHERS.require(1, own=own, all_tenants=len(self._watchers), limit=WATCHERS_MAX)
        watcher = _Watcher(job_id, tenant)
        self._watchers.add(watcher)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look(), name="jobs-watch-all")
        try:
            while True:
                await watcher.news.wait()
                watcher.news.clear()
                yield watcher.job
                if watcher.job is None or State(watcher.job.state).ended:
                    return
        finally:
            self._watchers.discard(watcher)

    async def close(self) -> None:
        """Tell all watchers that nothing more comes."""
        self._closed.set()
        if self._task is not None:
            await self._task

    async def _look(self) -> None:
        while self._watchers and not self._closed.is_set():
            watchers = list(self._watchers)
            try:
                jobs = await self._store.get_all(sorted({watcher.job_id for watcher in watchers}))
            except VoiceForgeError as exc:
                log.warning("jobs cannot be watched", code=exc.code)
            else:
                for watcher in watchers:
                    watcher.see(jobs.get(watcher.job_id))
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_PERIOD_S):
                    await self._closed.wait()
        for watcher in self._watchers:
            watcher.see(None)
