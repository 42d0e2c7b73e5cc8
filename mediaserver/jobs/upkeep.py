"""What has to be done from time to time: jobs of dead workers are taken back, and what has expired is deleted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from mediaserver.errors import VoiceForgeError
from mediaserver.jobs.files import Files
from mediaserver.jobs.ledger import Ledger
from mediaserver.jobs.store import Store

log = structlog.get_logger(__name__)

RECLAIM_PERIOD_S = 2.0
EXPIRE_PERIOD_S = 30.0
SWEEP_PERIOD_S = 600.0

SILENT_S = 5.0
"""A worker that lives says so every second, whatever its clock says; one whose claim is over and that says nothing for
so long is gone. Clocks are set, differ, and go on while a machine sleeps."""

STRAY_AGE_S = 3600.0
"""A file of an id that no row has may be of a submission under way; after this it is what a crash left."""


ASKED_AT_ONCE = 500
"""Ids in one question: databases bound the length of those."""


class Upkeep:
    """Runs until it is closed.

    Args:
        ledger, store: the database.
        files: the recordings.
        on_reclaimed: each told that jobs wait again, or owe a webhook.
        wall_s: the time of day in seconds since 1970.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: Store,
        files: Files,
        on_reclaimed: Sequence[Callable[[], None]],
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._files = files
        self._on_reclaimed = on_reclaimed
        self._wall_s = wall_s
        self._task: asyncio.Task[None] | None = None
        self._seen_s: dict[tuple[int, float], float] = {}  # since when, by the loop's clock, a claim is overdue

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._work(), name="jobs-upkeep")

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def reclaim(self) -> None:
        """Take back the jobs of workers that are gone."""
        now_s, at_s = self._wall_s(), asyncio.get_running_loop().time()
        overdue = await self._ledger.overdue(now_s=now_s)
        self._seen_s = {claim: self._seen_s.get(claim, at_s) for claim in overdue.items()}
        gone = {
            number: until_s
            for (number, until_s), seen_s in self._seen_s.items()
            if until_s == 0.0 or at_s - seen_s >= SILENT_S
        }
        if gone:
            again = await self._ledger.reclaim(gone, now_s=now_s)
            log.warning("jobs of a dead worker taken back", waiting_again=len(again))
            for tell in self._on_reclaimed:
                tell()

    async def expire(self) -> None:
        """Delete jobs and uploads whose time is over, and what was deleted otherwise from the database's log too."""
        now_s = self._wall_s()
        for job_id in await self._store.delete_expired(now_s=now_s):
            await self._files.remove(job_id)
        for upload_id in await self._store.delete_expired_uploads(now_s=now_s):
            await self._files.remove_upload(upload_id)
        await self._store.scrub()

    async def sweep(self) -> None:
        """Delete files that nobody needs: a crash left them behind their jobs, or without any."""
        old = await self._files.older_than(STRAY_AGE_S, now_s=self._wall_s())
        for start in range(0, len(old), ASKED_AT_ONCE):
            some = old[start : start + ASKED_AT_ONCE]
            for stray in set(some) - await self._store.needed(some):
                await self._files.remove(stray)
                await self._files.remove_upload(stray)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = {self.reclaim: 0.0, self.expire: 0.0, self.sweep: 0.0}
        periods_s = {self.reclaim: RECLAIM_PERIOD_S, self.expire: EXPIRE_PERIOD_S, self.sweep: SWEEP_PERIOD_S}
        while True:
            for act, period_s in periods_s.items():
                if loop.time() < due_s[act]:
                    continue
                due_s[act] = loop.time() + period_s
                try:
                    await act()
                except VoiceForgeError as exc:
                    log.warning("upkeep of recordings failed", code=exc.code)
                except Exception:
                    log.exception("upkeep of recordings failed")
            await asyncio.sleep(RECLAIM_PERIOD_S)
