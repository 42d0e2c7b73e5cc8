"""Deletes all of a tenant's data that was there when it was asked for, and looks again afterwards.

Recordings and uploads go with their files, jobs with their results and the webhooks they owe; jobs that run are
stopped. Usage becomes totals of days, which name no session. What keys and tenants are called stays: it is no data of
theirs, and a server whose keys were deleted would fall open.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from mediaserver.jobs.files import Files
from mediaserver.jobs.models import Delivery, Job, Result, State, Upload
from mediaserver.jobs.outbox import LOOK_PERIOD_S
from mediaserver.storage.database import Database
from mediaserver.storage.tenants import Erasure
from mediaserver.storage.usage import Usage, UsageDay
from mediaserver.version import VERSION
from signaling.privacy.certificate import Document, Signer
from signaling.privacy.erasures import Erasures
from signaling.privacy.search import Searched, search
from signaling.usage.rollup import AT_ONCE, roll_up_some

log = structlog.get_logger(__name__)

JOBS_AT_ONCE = 100
"""Rows in a transaction, with their results: a few hundred kB each at most."""

STOPPED_S = LOOK_PERIOD_S + 0.5
"""Within this another process has noticed that its job is gone, and that a webhook which it tries again is owed no
more; then files are looked for once more."""

COMPACTED_MAX_BYTES = 256 << 20
"""Up to this size SQLite's file is written anew, which takes a second or two in which nobody else writes."""

SCRUB_TRIES, SCRUB_AGAIN_S = 20, 0.25
"""Readers take milliseconds; one that takes 5 s is said in the certificate."""

LOOKED_FOR_MAX = 32
"""Names of deleted recordings that the file is searched for, byte by byte."""

TABLES = ("jobs", "results", "deliveries", "uploads", "usage")

ALWAYS_NOT_COVERED = (
    "What clients and receivers of webhooks were told, and the operator's backups.",
    "Blocks of the disk that deleted files lay on, until the file system uses them again.",
    "Records for coming back of sessions that waited for their client: they expire within `resume_window_s`; one that "
    "comes back within a minute of the request is ended, and not counted here.",
    "Recordings whose client waited for the answer of the same request: they are gone when it ends.",
)
UNKNOWN_OTHERS = (
    "Whether other processes had sessions of the tenant could not be asked: if so, these are not counted, and end when "
    "those processes see the request.",
)
OF_POSTGRES = (
    "PostgreSQL's write-ahead log, replicas, and pages whose rows were freed by VACUUM and are not yet used again.",
)
NOT_COMPACTED = ("The database's file was too large to be written anew: `voiceforge privacy compact` does it.",)
NOT_SCRUBBED = ("SQLite's log could not be emptied while somebody read: it is tried again every 30 s.",)

StopJobs = Callable[[Sequence[str]], None]


async def _ends_none(_erasure: Erasure) -> int | None:
    return None


class Eraser:
    """Carries out requests.

    Args:
        database: where rows are.
        files: where recordings are.
        erasures: the requests.
        signer: gives what signs certificates; asked off the event loop.
        stop_jobs: stops jobs that run in this process.
        end_sessions: ends and counts the sessions of all processes that the request is about; how many processes
            have not told within a bounded time that they have. None: it is not known whether there are any.
        forget: forgets what is in its memory of a tenant's ended sessions; how many.
        wall_s: seconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        files: Files,
        erasures: Erasures,
        *,
        signer: Callable[[], Signer],
        stop_jobs: StopJobs = lambda _ids: None,
        end_sessions: Callable[[Erasure], Awaitable[int | None]] = _ends_none,
        forget: Callable[[str], int] = lambda _tenant: 0,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._files = files
        self._erasures = erasures
        self._signer = signer
        self._stop_jobs = stop_jobs
        self._end_sessions = end_sessions
        self._forget = forget
        self._wall_s = wall_s

    async def erase(self, erasure: Erasure) -> Document:
        """Carry out a request that was claimed; its certificate.

        Raises:
            VoiceForgeError: what `Database.writing` raises; the request is gone on with later.
            OSError: a file cannot be deleted, or the key not be read.
        """
        began_s = self._wall_s()
        unheard = await self._end_sessions(erasure)
        jobs, ran = await self._erase_jobs(erasure)
        uploads = await self._erase_uploads(erasure)
        await self._erase_usage(erasure)
        async with self._database.writing() as session:
            await self._erasures.count(session, erasure, {"event_logs": self._forget(erasure.tenant)})
        if ran or erasure.deleted.get("webhooks"):
            await asyncio.sleep(STOPPED_S)
            for job_id in ran:
                await self._files.remove(job_id)
        gaps = await self._clean()
        statement = await self._statement(erasure, began_s, names=[*jobs, *uploads], gaps=gaps, unheard=unheard)
        signer = await asyncio.to_thread(self._signer)
        certificate = signer.sign(statement)
        await self._erasures.complete(erasure, certificate)
        log.info("a tenant's data is deleted", erasure=erasure.id, **erasure.deleted)
        return certificate

    async def _erase_jobs(self, erasure: Erasure) -> tuple[list[str], list[str]]:
        """The ids of the jobs that are gone, and of those among them that ran."""
        gone: list[str] = []
        ran: list[str] = []
        while True:
            async with self._database.reading() as session:
                query = select(Job.number, Job.id, Job.state).where(*_jobs_of(erasure)).limit(JOBS_AT_ONCE)
                some = (await session.execute(query)).all()
            if not some:
                return gone, ran
            ids = [row.id for row in some]
            running = [row.id for row in some if row.state == State.RUNNING]
            # Files first: what a crash leaves behind a row that is there is found again.
            files = sum([await self._files.discard(job_id) for job_id in ids])
            async with self._database.writing() as session:
                numbers = [row.number for row in some]
                counts = {
                    "recordings": len(some),
                    "recordings_stopped": len([row for row in some if not State(row.state).ended]),
                    "files": files,
                    "webhooks": await _deleted(session, Delivery.id, Delivery.job_number.in_(numbers)),
                    "transcripts": await _deleted(session, Result.job_number, Result.job_number.in_(numbers)),
                }
                await session.execute(delete(Job).where(Job.number.in_(numbers)))
                await self._erasures.count(session, erasure, counts)
            self._stop_jobs(ids)
            gone += ids
            ran += running

    async def _erase_uploads(self, erasure: Erasure) -> list[str]:
        async with self._database.reading() as session:
            ids = list(await session.scalars(select(Upload.id).where(*_uploads_of(erasure))))  # UPLOADS_MAX
        files = sum([await self._files.discard_upload(upload_id) for upload_id in ids])
        async with self._database.writing() as session:
            for start in range(0, len(ids), JOBS_AT_ONCE):
                await session.execute(delete(Upload).where(Upload.id.in_(ids[start : start + JOBS_AT_ONCE])))
            await self._erasures.count(session, erasure, {"uploads": len(ids), "files": files})
        return ids

    async def _erase_usage(self, erasure: Erasure) -> None:
        count = AT_ONCE
        while count == AT_ONCE:
            async with self._database.writing() as session:
                count = await roll_up_some(session, *usage_of(erasure), keeps_totals=erasure.keeps_totals)
                await self._erasures.count(session, erasure, {"usage_rows": count})
        if not erasure.keeps_totals:
            async with self._database.writing() as session:
                totals = await _deleted(session, UsageDay.day, UsageDay.tenant == erasure.tenant)
                await self._erasures.count(session, erasure, {"usage_totals": totals})

    async def _clean(self) -> tuple[str, ...]:
        """Take what was deleted out of the database's files; what could not be done, a sentence each."""
        path = self._database.path
        if path is None:
            await self._database.compact(TABLES)
            return OF_POSTGRES
        gaps: tuple[str, ...] = ()
        if (await asyncio.to_thread(path.stat)).st_size <= COMPACTED_MAX_BYTES:
            await self._database.compact()
        else:
            gaps += NOT_COMPACTED
        for _ in range(SCRUB_TRIES):
            if await self._database.scrub():
                return gaps
            await asyncio.sleep(SCRUB_AGAIN_S)
        return gaps + NOT_SCRUBBED

    async def _statement(
        self, erasure: Erasure, began_s: float, *, names: Sequence[str], gaps: Sequence[str], unheard: int | None
    ) -> dict[str, Any]:
        """What was done, and what is found when one looks again."""
        async with self._database.reading() as session:
            rows = {
                "recordings": await _count(session, Job.number, _jobs_of(erasure)),
                "transcripts": await session.scalar(
                    select(func.count(Result.job_number))
                    .join(Job, Job.number == Result.job_number)
                    .where(*_jobs_of(erasure))
                )
                or 0,
                "uploads": await _count(session, Upload.id, _uploads_of(erasure)),
                "usage_rows": await _count(session, Usage.id, usage_of(erasure)),
            }
            totals = await _count(session, UsageDay.day, (UsageDay.tenant == erasure.tenant,))
        files = await self._files.present(names)
        path = self._database.path
        searched = Searched(0, 0, 0)
        if path is not None:
            searched = await asyncio.to_thread(search, path, list(names)[:LOOKED_FOR_MAX])
        return {
            "version": 1,
            "about": "deletion of a tenant's data",
            "request_id": erasure.id,
            "tenant": erasure.tenant,
            "requested_at": _when(erasure.requested_at),
            "requested_by": erasure.requested_by,
            "began_at": _when(began_s),
            "ended_at": _when(self._wall_s()),
            "server": f"VoiceForge {VERSION}",
            "deleted": dict(sorted(erasure.deleted.items())),
            "kept": {"usage_totals": totals},
            "found_afterwards": {
                "rows": rows,
                "files": len(files),
                "names_in_database_file": searched.found,
                "names_looked_for": searched.looked_for,
                "bytes_searched": searched.bytes,
            },
            "processes_not_heard": unheard,
            "is_complete": not any(rows.values()) and not files and not searched.found and not unheard,
            "not_covered": [*_not_heard(unheard), *gaps, *ALWAYS_NOT_COVERED],
        }


def _not_heard(unheard: int | None) -> tuple[str, ...]:
    if unheard is None:
        return UNKNOWN_OTHERS
    if not unheard:
        return ()
    return (
        f"{unheard} other processes did not tell in time that they have ended the tenant's sessions: what these had is "
        "not counted, and they may run on until those processes see the request.",
    )


def _jobs_of(erasure: Erasure) -> tuple[ColumnElement[bool], ...]:
    return Job.tenant == erasure.tenant, Job.created_at <= erasure.requested_at


def _uploads_of(erasure: Erasure) -> tuple[ColumnElement[bool], ...]:
    return Upload.tenant == erasure.tenant, Upload.created_at <= erasure.requested_at


def usage_of(erasure: Erasure) -> tuple[ColumnElement[bool], ...]:
    """Which rows of usage a request is about."""
    return Usage.tenant == erasure.tenant, Usage.began_at <= erasure.requested_at


async def _deleted(session: AsyncSession, column: Any, which: ColumnElement[bool]) -> int:
    return len((await session.execute(delete(column.class_).where(which).returning(column))).all())


async def _count(session: AsyncSession, column: Any, which: Sequence[ColumnElement[bool]]) -> int:
    return await session.scalar(select(func.count(column)).where(*which)) or 0


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
