"""Webhooks that are owed: written together with the change that they tell of, so that no crash loses one.

Whoever sends one takes it for a short time and says again and again that it still has it. A server that dies leaves
its webhooks to whoever comes next: a receiver may get one twice, with the same delivery id, but never not at all.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from mediaserver.jobs.database import Database
from mediaserver.jobs.models import Delivery, Job, State
from mediaserver.outbound.webhooks import new_delivery_id

HELD_S = 60.0
"""For so long one that was taken is nobody else's; it is said again well before."""

OWED_MAX_S = 86_400.0
"""A receiver that is away for a day does not wait for yesterday's news."""


@dataclass(frozen=True, slots=True)
class Owed:
    """A webhook to send: the delivery, and the job it tells of."""

    id: str
    event: str
    job: Job


def ended_event(state: State) -> str:
    """The name of the webhook that tells of a job's end."""
    return f"transcription.{state}"


def owe(session: AsyncSession, job: Job, event: str, *, now_s: float) -> None:
    """Note in this transaction that the job's client is to be told, if it asked for that."""
    if job.webhook_url is not None:
        session.add(
            Delivery(id=new_delivery_id(), job_number=job.number, event=event, created_at=now_s, taken_until=0.0)
        )


class Deliveries:
    """The webhooks that are owed. Every method raises what `Database.reading` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def any_due(self, *, now_s: float) -> bool:
        """Whether any waits that nobody has."""
        async with self._database.reading() as session:
            return await session.scalar(select(Delivery.id).where(Delivery.taken_until < now_s).limit(1)) is not None

    async def take(self, *, limit: int, now_s: float) -> list[Owed]:
        """Some that nobody has, the oldest first. They are the caller's for `HELD_S`."""
        due = (
            select(Delivery)
            .where(Delivery.taken_until < now_s)
            .order_by(Delivery.created_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        async with self._database.writing() as session:
            await session.execute(delete(Delivery).where(Delivery.created_at < now_s - OWED_MAX_S))
            owed = []
            for delivery in (await session.scalars(due)).all():
                delivery.taken_until = now_s + HELD_S
                owed.append(Owed(delivery.id, delivery.event, await session.get_one(Job, delivery.job_number)))
            return owed

    async def hold(self, ids: list[str], *, now_s: float) -> None:
        """Say that these are still being sent."""
        async with self._database.writing() as session:
            await session.execute(update(Delivery).where(Delivery.id.in_(ids)).values(taken_until=now_s + HELD_S))

    async def give_back(self, ids: list[str]) -> None:
        """Leave these to others, at once."""
        async with self._database.writing() as session:
            await session.execute(update(Delivery).where(Delivery.id.in_(ids)).values(taken_until=0.0))

    async def done(self, owed: Owed) -> None:
        """It has arrived, or never will: forget it, and the secret that signed it."""
        async with self._database.writing() as session:
            await session.execute(delete(Delivery).where(Delivery.id == owed.id))
            await session.execute(
                update(Job)
                .where(Job.number == owed.job.number)
                .where(~select(Delivery.id).where(Delivery.job_number == Job.number).exists())
                .values(webhook_secret=None)
            )
