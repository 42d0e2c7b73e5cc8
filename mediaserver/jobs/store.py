"""Jobs and uploads as their clients see them: taken in, looked at, cancelled, deleted."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, func, select, update

from mediaserver.jobs.deliveries import ended_event, owe
from mediaserver.jobs.models import NO_TENANT, Job, Priority, Result, State, Upload
from mediaserver.jobs.shares import Shared
from mediaserver.storage.database import Database
from mediaserver.storage.tenants import Tenant

QUEUED_MAX = 20_000
"""Jobs that wait, of all tenants; one tenant alone has half. At a minute each those take a machine a week."""

UPLOADS_MAX = 2000
"""Uploads in pieces that are under way; a further one is refused until one is done or expires."""

FULL_RETRY_AFTER_S = 60

QUEUE = Shared(
    "recordings that wait",
    "QUEUE_FULL",
    "QUEUE_SHARE_USED_UP",
    FULL_RETRY_AFTER_S,
    "Wait until some of yours are done, or cancel those that you do not need.",
)
UPLOADS = Shared(
    "uploads under way",
    "TOO_MANY_UPLOADS",
    "UPLOAD_SHARE_USED_UP",
    FULL_RETRY_AFTER_S,
    "Submit those of yours that are complete, or delete those that you do not need.",
)

EXPIRED_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to take in.

    Args:
        id: of `new_id`; its files may be there already.
        options: of the recording, as plain JSON.
        keep_s: how long the ended job is kept, unless its tenant's transcripts are kept for less.
        priority: whose turn it is.
        url: of a recording to fetch, None where it was uploaded.
        file_name: what the client calls it.
        size_bytes: of an uploaded one.
        metadata: the client's own fields.
        webhook_url, webhook_secret: who is told of its end, and what signs that.
        batch_id: those submitted together have the same.
        tenant: whose it is.
        key_id: by which key it came.
        is_keep_asked: whether its client said `keep_s`; otherwise its tenant's time counts before it.
    """

    id: str
    options: dict[str, Any]
    keep_s: float
    priority: Priority = Priority.NORMAL
    url: str | None = None
    file_name: str | None = None
    size_bytes: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    webhook_url: str | None = None
    webhook_secret: str | None = None
    batch_id: str | None = None
    tenant: str = NO_TENANT
    key_id: str | None = None
    is_keep_asked: bool = False


def new_id(prefix: str) -> str:
    """An id that nobody can guess: whoever has it may see and delete what it names."""
    return f"{prefix}_{secrets.token_urlsafe(24)}"


class Store:
    """The clients' side of the database. Every method raises what `Database.reading` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, jobs: Sequence[NewJob], *, now_s: float) -> list[Job]:
        """Take jobs in, all or none, in their order.

        Raises:
            CapacityError: QUEUE_FULL or QUEUE_SHARE_USED_UP.
        """
        async with self._database.writing() as session:
            for name, more in Counter(job.tenant for job in jobs).items():
                counts = select(func.count(), func.count().filter(Job.tenant == name)).where(Job.state == State.QUEUED)
                waiting, own = (await session.execute(counts)).one()
                QUEUE.require(more, own=own, all_tenants=waiting, limit=QUEUED_MAX)
            tenants = {name: await session.get(Tenant, name) for name in {job.tenant for job in jobs}}
            rows = [_row(job, now_s, tenants[job.tenant]) for job in jobs]
            for row in rows:
                session.add(row)
                await session.flush()  # one by one: the numbers are the order
            return rows

    async def get(self, job_id: str) -> Job | None:
        """A job by its id."""
        async with self._database.reading() as session:
            return await session.scalar(select(Job).where(Job.id == job_id))

    async def get_all(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """Those of these jobs that are there."""
        async with self._database.reading() as session:
            return {job.id: job for job in await session.scalars(select(Job).where(Job.id.in_(job_ids)))}

    async def listed(
        self,
        *,
        limit: int,
        before: int | None = None,
        state: State | None = None,
        batch_id: str | None = None,
        tenant: str | None = None,
    ) -> list[Job]:
        """Jobs, the newest first.

        Args:
            limit: of them at most.
            before: the number of the last one of the page before, which may be deleted meanwhile.
            state, batch_id, tenant: only those.
        """
        query = select(Job).order_by(Job.number.desc()).limit(limit)
        if before is not None:
            query = query.where(Job.number < before)
        if state is not None:
            query = query.where(Job.state == state)
        if batch_id is not None:
            query = query.where(Job.batch_id == batch_id)
        if tenant is not None:
            query = query.where(Job.tenant == tenant)
        async with self._database.reading() as session:
            return list(await session.scalars(query))

    async def result(self, job_id: str) -> bytes | None:
        """What came of a completed job, packed."""
        async with self._database.reading() as session:
            return await session.scalar(
                select(Result.body).join(Job, Job.number == Result.job_number).where(Job.id == job_id)
            )

    async def cancel(self, job_id: str, *, now_s: float) -> Job | None:
        """Cancel a job: one that waits at once, one that runs by its worker. None: it has ended or is not there."""
        async with self._database.writing() as session:
            waiting: Job | None = await session.scalar(
                update(Job)
                .where(Job.id == job_id, Job.state == State.QUEUED)
                .values(state=State.CANCELLED, finished_at=now_s, expires_at=now_s + Job.keep_s)
                .returning(Job)
            )
            if waiting is not None:
                owe(session, waiting, ended_event(State.CANCELLED), now_s=now_s)
                return waiting
            running: Job | None = await session.scalar(
                update(Job)
                .where(Job.id == job_id, Job.state == State.RUNNING)
                .values(cancel_requested=True)
                .returning(Job)
            )
            return running

    async def delete(self, job_id: str) -> bool:
        """Forget a job, with its result and the webhooks it still owes; its worker stops. False: it is not there."""
        async with self._database.writing() as session:
            return await session.scalar(delete(Job).where(Job.id == job_id).returning(Job.id)) is not None

    async def delete_expired(self, *, now_s: float) -> list[str]:
        """Forget ended jobs whose time is over, some at a time; their ids."""
        some = select(Job.number).where(Job.expires_at < now_s).limit(EXPIRED_AT_ONCE)
        async with self._database.writing() as session:
            return list(await session.scalars(delete(Job).where(Job.number.in_(some)).returning(Job.id)))

    async def scrub(self) -> None:
        """Take what was deleted out of the database's log."""
        await self._database.scrub()

    async def needed(self, ids: Sequence[str]) -> set[str]:
        """Those of these ids whose files somebody needs: of uploads, and of jobs that have not ended."""
        under_way = Job.state.in_((State.QUEUED, State.RUNNING))
        async with self._database.reading() as session:
            jobs = await session.scalars(select(Job.id).where(Job.id.in_(ids), under_way))
            uploads = await session.scalars(select(Upload.id).where(Upload.id.in_(ids)))
            return {*jobs, *uploads}

    async def add_upload(self, upload: Upload) -> None:
        """Take an upload in.

        Raises:
            CapacityError: TOO_MANY_UPLOADS or UPLOAD_SHARE_USED_UP.
        """
        name = upload.tenant or NO_TENANT
        async with self._database.writing() as session:
            counts = select(func.count(Upload.id), func.count(Upload.id).filter(Upload.tenant == name))
            all_tenants, own = (await session.execute(counts)).one()
            UPLOADS.require(1, own=own, all_tenants=all_tenants, limit=UPLOADS_MAX)
            tenant = await session.get(Tenant, name)
            if tenant is not None and tenant.upload_keep_s is not None:
                upload.expires_at = min(upload.expires_at, upload.created_at + tenant.upload_keep_s)
            session.add(upload)

    async def get_upload(self, upload_id: str, *, now_s: float) -> Upload | None:
        """An upload that has not expired."""
        async with self._database.reading() as session:
            return await session.scalar(select(Upload).where(Upload.id == upload_id, Upload.expires_at > now_s))

    async def delete_upload(self, upload_id: str) -> bool:
        """Forget an upload; False: it is not there."""
        async with self._database.writing() as session:
            return await session.scalar(delete(Upload).where(Upload.id == upload_id).returning(Upload.id)) is not None

    async def delete_expired_uploads(self, *, now_s: float) -> list[str]:
        """Forget uploads whose time is over; their ids."""
        async with self._database.writing() as session:
            return list(await session.scalars(delete(Upload).where(Upload.expires_at < now_s).returning(Upload.id)))


def _keep_s(job: NewJob, tenant: Tenant | None) -> float:
    """How long the ended job is kept: a client may ask for less than its tenant's time, never for more."""
    if tenant is None or tenant.transcript_keep_s is None:
        return job.keep_s
    return min(job.keep_s, tenant.transcript_keep_s) if job.is_keep_asked else tenant.transcript_keep_s


def _row(job: NewJob, now_s: float, tenant: Tenant | None) -> Job:
    return Job(
        id=job.id,
        batch_id=job.batch_id,
        tenant=job.tenant,
        key_id=job.key_id,
        state=State.QUEUED,
        stage=None,
        priority=int(job.priority),
        progress=0.0,
        attempts=0,
        owner=None,
        lease_until=None,
        cancel_requested=False,
        announced_at=None,
        created_at=now_s,
        started_at=None,
        finished_at=None,
        expires_at=None,
        keep_s=_keep_s(job, tenant),
        url=job.url,
        file_name=job.file_name,
        size_bytes=job.size_bytes,
        options=job.options,
        client_metadata=job.metadata,
        webhook_url=job.webhook_url,
        webhook_secret=job.webhook_secret,
        error=None,
        summary=None,
    )
