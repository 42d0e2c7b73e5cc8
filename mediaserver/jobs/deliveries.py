"""Webhooks that are owed: written together with the change that they tell of, so that no crash loses one.

Whoever sends one takes it for a short time and says again and again that it still has it. A server that dies leaves
its webhooks to whoever comes next: a receiver may get one twice, with the same delivery id, but never not at all.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from mediaserver.jobs.models import Delivery, Job, State
from mediaserver.outbound.webhooks import new_delivery_id
from mediaserver.storage.database import Database

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


def receiver_of(url: str) -> str:
    """What the webhooks of one receiver begin with: scheme, host and port."""
    return f"{url.partition('://')[0]}://{url.partition('://')[2].partition('/')[0]}/"


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

    async def any_due(self, *, now_s: float, not_to: Collection[str] = ()) -> bool:
        """Whether any waits that nobody has; `not_to` as for `take`."""
        due = select(Delivery.id).where(*_due(now_s, not_to)).limit(1)
        async with self._database.reading() as session:
            return await session.scalar(due) is not None

    async def take(self, *, limit: int, now_s: float, not_to: Collection[str] = ()) -> list[Owed]:
        """Some that nobody has, the oldest first. They are the caller's for `HELD_S`.

        Args:
            limit: of them at most.
            now_s: seconds since 1970.
            not_to: receivers (`receiver_of`) that have enough under way.
        """
        due = (
            select(Delivery)
            .where(*_due(now_s, not_to))
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

    async def still_owed(self, ids: Collection[str]) -> set[str]:
        """Those of these that are there: what it told of may have been deleted meanwhile, by anybody."""
        async with self._database.reading() as session:
            return set(await session.scalars(select(Delivery.id).where(Delivery.id.in_(ids))))

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


def _due(now_s: float, not_to: Collection[str]) -> tuple[Any, ...]:
    """What a delivery is that nobody has and whose receiver is none of these."""
    free = (Delivery.taken_until < now_s,)
    if not not_to:
        return free
    theirs = or_(
        Job.webhook_url.in_([receiver.removesuffix("/") for receiver in not_to]),  # without a path
        *(Job.webhook_url.startswith(receiver, autoescape=True) for receiver in not_to),
    )
    return *free, ~select(Job.number).where(Job.number == Delivery.job_number, theirs).exists()
