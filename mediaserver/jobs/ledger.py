"""Jobs as their workers see them: claimed by one, kept by saying so, ended once.

A claim is one conditional UPDATE, so two workers never have the same job. It holds for a while and is renewed; a worker
that dies stops renewing, and its job is run again, once. Whatever a worker writes is written only while it still has
the job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import case, false, or_, select, update

from mediaserver.jobs.deliveries import ended_event, owe
from mediaserver.jobs.models import Job, Priority, Result, Stage, State
from mediaserver.storage.database import Database
from mediaserver.storage.usage import RECORDING, TRANSLATION, Usage

LEASE_S = 15.0
"""A worker that has not been heard of for so long is dead: several times what a busy machine may hold one up."""

ATTEMPTS_MAX = 2
"""A job whose worker died is run once more: a recording that kills its worker should not kill one after another."""

RECLAIMED_AT_ONCE = 100
"""Databases bound the length of a question."""

RISES_AFTER_S = 1800.0
"""A job that has waited so long is taken for one of the next priority, and after twice as long for an express one:
a stream of urgent jobs delays the others, and does not keep them out."""

REANNOUNCED_AFTER_S = 900.0
"""A broker that has lost a job's message is told of it again after this, then after ever longer:
a long queue would fill it. A worker that gets both messages runs the job once."""

CRASHED = {
    "code": "WORKER_CRASHED",
    "message": "The worker stopped in the middle of this recording, twice.",
    "hint": "Try a shorter or differently encoded recording; the server's log may say more.",
    "retryable": False,
}


class Ledger:
    """The workers' side of the database. Every method raises what `Database.reading` does.

    Args:
        database: where jobs are.
        counts_keyless: whether recordings that came without a key are counted as used.
    """

    def __init__(self, database: Database, *, counts_keyless: bool = False) -> None:
        self._database = database
        self._counts_keyless = counts_keyless

    async def has_waiting(self) -> bool:
        """Whether any job waits: a question that costs less than a claim in vain."""
        async with self._database.reading() as session:
            return await session.scalar(select(Job.number).where(Job.state == State.QUEUED).limit(1)) is not None

    async def overdue(self, *, now_s: float) -> dict[int, float]:
        """Jobs whose workers seem to be gone, and until when they had them; 0: one that is known to be dead.

        A clock that was set, or one that differs from the worker's, makes it seem so too: a worker that lives renews
        its claim all the same, so that this changes.
        """
        query = select(Job.number, Job.lease_until).where(Job.state == State.RUNNING, Job.lease_until < now_s)
        async with self._database.reading() as session:
            return {row.number: row.lease_until for row in await session.execute(query.limit(RECLAIMED_AT_ONCE))}

    async def claim(self, owner: str, *, now_s: float, job_id: str | None = None) -> Job | None:
        """Take the job whose turn is next, or a certain one; None where there is none that waits."""
        waiting = select(Job.number).where(Job.state == State.QUEUED)
        if job_id is not None:
            waiting = waiting.where(Job.id == job_id)
        following = waiting.order_by(_rank(now_s), Job.number).limit(1).with_for_update(skip_locked=True)
        async with self._database.writing() as session:
            return await session.scalar(
                update(Job)
                # `=`, not `IN`: PostgreSQL may ask a set again for each row, and would then take more than one.
                .where(Job.number == following.scalar_subquery(), Job.state == State.QUEUED)
                .values(
                    state=State.RUNNING,
                    stage=None,
                    progress=0.0,
                    attempts=Job.attempts + 1,
                    owner=owner,
                    lease_until=now_s + LEASE_S,
                    started_at=now_s,
                )
                .returning(Job)
            )

    async def renew(self, owner: str, progress: Mapping[int, tuple[Stage, float]], *, now_s: float) -> None:
        """Say how far these jobs are, and that their worker lives.

        Args:
            owner: whose they are.
            progress: by number; what they do, and how much is done, 0 to 100.
        """
        async with self._database.writing() as session:
            for number, (stage, done) in progress.items():
                await session.execute(
                    update(Job)
                    .where(_held(number, owner))
                    .values(lease_until=now_s + LEASE_S, stage=stage, progress=done)
                )

    async def held(self, owner: str) -> dict[int, bool]:
        """The numbers of the jobs that this worker has, and whether each is to be cancelled."""
        query = select(Job.number, Job.cancel_requested).where(Job.state == State.RUNNING, Job.owner == owner)
        async with self._database.reading() as session:
            return {row.number: row.cancel_requested for row in await session.execute(query)}

    async def complete(
        self, job: Job, owner: str, *, body: bytes, summary: dict[str, Any], size_bytes: int | None, now_s: float
    ) -> bool:
        """A job is done; its result appears with its state. False: it is not this worker's any more."""
        values = {"progress": 100.0, "summary": summary, "size_bytes": size_bytes}
        return await self._end(job, owner, State.COMPLETED, values, now_s=now_s, body=body)

    async def fail(self, job: Job, owner: str, error: dict[str, object], *, now_s: float) -> bool:
        """A job cannot be done. False: it is not this worker's any more."""
        return await self._end(job, owner, State.FAILED, {"error": error}, now_s=now_s)

    async def cancelled(self, job: Job, owner: str, *, now_s: float) -> bool:
        """A job was stopped as its client asked. False: it is not this worker's any more."""
        return await self._end(job, owner, State.CANCELLED, {}, now_s=now_s)

    async def release(self, job: Job, owner: str, *, now_s: float) -> bool:
        """Put a job back where it was, as if it had not been begun: its worker is asked to stop.

        One whose client was told that it will be cancelled is cancelled: nobody else need begin it for that.
        """
        async with self._database.writing() as session:
            released = await session.scalar(
                update(Job)
                .where(_held(job.number, owner), ~Job.cancel_requested)
                .values(**_WAITING, attempts=Job.attempts - 1)
                .returning(Job.number)
            )
        return released is not None or await self.cancelled(job, owner, now_s=now_s)

    async def reclaim(self, overdue: Mapping[int, float], *, now_s: float) -> list[str]:
        """Jobs whose workers are gone: run again, or failed at the second time; the ids of those that wait again.

        Args:
            overdue: of `overdue`; what was renewed since is left alone.
            now_s: seconds since 1970.
        """
        unchanged = ((Job.number == number) & (Job.lease_until == until_s) for number, until_s in overdue.items())
        gone = (Job.state == State.RUNNING, or_(false(), *unchanged))
        ended = {"owner": None, "lease_until": None, "stage": None, "finished_at": now_s}
        async with self._database.writing() as session:
            for state, which, values in (
                (State.CANCELLED, Job.cancel_requested, {}),
                (State.FAILED, Job.attempts >= ATTEMPTS_MAX, {"error": CRASHED}),
            ):
                over = await session.scalars(
                    update(Job)
                    .where(*gone, which)
                    .values(state=state, expires_at=now_s + Job.keep_s, **ended, **values)
                    .returning(Job)
                )
                for job in over.all():
                    owe(session, job, ended_event(state), now_s=now_s)
            again = await session.scalars(update(Job).where(*gone).values(**_WAITING).returning(Job.id))
            return list(again)

    async def forget_dead(self, is_dead: Callable[[str], bool]) -> None:
        """End the claims of workers that are known to be dead, so that nobody waits for their end."""
        async with self._database.writing() as session:
            owners = await session.scalars(select(Job.owner).where(Job.state == State.RUNNING).distinct())
            dead = [owner for owner in owners if owner is not None and is_dead(owner)]
            if dead:
                await session.execute(
                    update(Job).where(Job.state == State.RUNNING, Job.owner.in_(dead)).values(lease_until=0.0)
                )

    async def unannounced(self, *, limit: int, now_s: float) -> list[Job]:
        """Waiting jobs of which the broker has not been told, or so long ago that it may have forgotten."""
        forgotten = Job.announced_at.is_(None) | (
            (Job.announced_at < now_s - REANNOUNCED_AFTER_S)
            & (Job.announced_at - Job.created_at <= now_s - Job.announced_at)  # as long again as it has waited
        )
        query = select(Job).where(Job.state == State.QUEUED, forgotten).order_by(Job.priority, Job.number).limit(limit)
        async with self._database.reading() as session:
            return list(await session.scalars(query))

    async def announced(self, ids: list[str], *, now_s: float) -> None:
        """Note that the broker has been told of these."""
        async with self._database.writing() as session:
            await session.execute(update(Job).where(Job.id.in_(ids)).values(announced_at=now_s))

    async def _end(
        self, job: Job, owner: str, state: State, values: dict[str, Any], *, now_s: float, body: bytes | None = None
    ) -> bool:
        async with self._database.writing() as session:
            ended = await session.scalar(
                update(Job)
                .where(_held(job.number, owner))
                .values(
                    state=state,
                    stage=None,
                    owner=None,
                    lease_until=None,
                    finished_at=now_s,
                    expires_at=now_s + Job.keep_s,
                    **values,
                )
                .returning(Job)
            )
            if ended is None:
                return False
            if body is not None:
                session.add(Result(job_number=job.number, body=body))
                if ended.key_id is not None or self._counts_keyless:
                    session.add(_usage(ended, now_s=now_s))
            owe(session, ended, ended_event(state), now_s=now_s)
            return True


def _usage(job: Job, *, now_s: float) -> Usage:
    """What a completed job used, written with its end: once, whatever becomes of its worker."""
    summary = job.summary or {}
    audio_s = float(summary.get("duration_s", 0.0)) * int(summary.get("channels", 1))
    return Usage(
        id=job.id,
        tenant=job.tenant,
        key_id=job.key_id,
        door="jobs",
        model=str(summary.get("model", "")),
        features=TRANSLATION if (job.options or {}).get("task") == "translate" else RECORDING,
        day=datetime.fromtimestamp(job.created_at, UTC).strftime("%Y-%m-%d"),
        began_at=job.created_at,
        updated_at=now_s,
        audio_s=audio_s,
        speech_s=min(float(summary.get("speech_s") or 0.0), audio_s),  # each was rounded
    )


_WAITING: Mapping[str, Any] = {
    "state": State.QUEUED,
    "owner": None,
    "lease_until": None,
    "stage": None,
    "progress": 0.0,
    "started_at": None,
    "announced_at": None,
}


def _rank(now_s: float) -> Any:
    """A waiting job's priority, risen by how long it has waited."""
    return case(
        (Job.created_at <= now_s - 2 * RISES_AFTER_S, Priority.EXPRESS),
        ((Job.created_at <= now_s - RISES_AFTER_S) & (Job.priority > Priority.EXPRESS), Job.priority - 1),
        else_=Job.priority,
    )


def _held(number: int, owner: str) -> Any:
    return (Job.number == number) & (Job.state == State.RUNNING) & (Job.owner == owner)
