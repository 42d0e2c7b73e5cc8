"""Requests to delete all of a tenant's data, in the database: they survive a restart, and stay with their certificates.

One process claims a request and works on it by and by; each step is written down with what it deleted, so whoever goes
on after a crash neither loses nor doubles a count.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from mediaserver.errors import CapacityError, ConfigError
from mediaserver.jobs.store import new_id
from mediaserver.storage.database import Database
from mediaserver.storage.tenants import Erasure
from signaling.auth.keys import TENANT_LETTERS
from signaling.problems import LimitError

UNFINISHED_MAX = 16
"""Requests at once, of all tenants; one more is refused. Each process works on one at a time, and each writes SQLite's
file anew: more would keep everybody waiting for minutes."""

OF_TENANT_MAX = 4
"""Of one tenant, so that it keeps nobody else from asking: the last of them deletes what all before it would."""

OF_TENANT_IN_PERIOD, PERIOD_S = 6, 3600.0
"""What a tenant may ask for itself. Each writes SQLite's file anew, which keeps everybody else waiting for a second or
two, and stays in the database for good."""

ONE_TAKES_S = 12
"""A request, where it waits for other processes (9 s) and a large file is written anew; what waits is done in turn."""

LEASE_S = 30.0
"""Who works on one says so at each step; a step takes a second. After this somebody else goes on."""

LISTED_MAX = 1000


class ErasureState(StrEnum):
    """Where a request is: `queued → running → completed`."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"


class Erasures:
    """The requests. Methods raise what `Database.reading` does.

    Args:
        database: where they are, and what is to be deleted.
        wall_s: seconds since 1970.
    """

    def __init__(self, database: Database, *, wall_s: Callable[[], float] = time.time) -> None:
        self._database = database
        self._wall_s = wall_s

    async def request(
        self, tenant: str, *, requested_by: str, keeps_totals: bool = True, is_own: bool = False
    ) -> Erasure:
        """Ask for all data of a tenant to be deleted that is there now.

        Args:
            tenant: whose.
            requested_by: a key's id, or what stands for a person at the machine.
            keeps_totals: whether the totals of days stay, for billing.
            is_own: whether the tenant itself asks, which is bounded by `OF_TENANT_IN_PERIOD`.

        Raises:
            ConfigError: INVALID_TENANT.
            CapacityError: TOO_MANY_ERASURES.
            LimitError: ERASED_TOO_OFTEN.
        """
        if not TENANT_LETTERS.fullmatch(tenant):
            raise ConfigError(
                "INVALID_TENANT", "That is no name of a tenant.", "Give 1 to 64 letters of A–Z, a–z, 0–9 and ._-"
            )
        async with self._database.writing() as session:
            waiting = (
                await session.scalars(
                    select(Erasure.tenant)
                    .where(Erasure.state != ErasureState.COMPLETED)
                    .order_by(Erasure.requested_at)
                    .limit(UNFINISHED_MAX)
                )
            ).all()
            if len(waiting) >= UNFINISHED_MAX:
                raise _too_many(f"{UNFINISHED_MAX} deletions are under way already.", ahead=1)
            if waiting.count(tenant) >= OF_TENANT_MAX:
                message = f"{OF_TENANT_MAX} deletions of this tenant's data are under way already."
                raise _too_many(message, ahead=waiting.index(tenant) + 1)
            if is_own:
                await self._require_rare(session, tenant)
            row = Erasure(
                id=new_id("era"),
                tenant=tenant,
                state=ErasureState.QUEUED,
                keeps_totals=keeps_totals,
                requested_at=self._wall_s(),
                requested_by=requested_by[:80],
                lease_until=0.0,
                finished_at=None,
                deleted={},
                certificate=None,
            )
            session.add(row)
        return row

    async def _require_rare(self, session: AsyncSession, tenant: str) -> None:
        now_s = self._wall_s()
        recent = (
            await session.scalars(
                select(Erasure.requested_at)
                .where(Erasure.tenant == tenant, Erasure.requested_at > now_s - PERIOD_S)
                .order_by(Erasure.requested_at.desc())
                .limit(OF_TENANT_IN_PERIOD)
            )
        ).all()
        if len(recent) >= OF_TENANT_IN_PERIOD:
            after_s = max(1, math.ceil(recent[-1] + PERIOD_S - now_s))
            raise LimitError(
                "ERASED_TOO_OFTEN",
                f"{OF_TENANT_IN_PERIOD} deletions of this tenant's data were asked for within an hour.",
                f"Try again in {after_s} s, or delete single recordings. What came before the last one is gone.",
                retry_after_s=after_s,
            )

    async def get(self, erasure_id: str) -> Erasure | None:
        """A request by its id."""
        if not self._database.exists:
            return None
        async with self._database.reading() as session:
            return await session.get(Erasure, erasure_id)

    async def all(self, *, tenant: str | None = None, since_s: float = 0.0, limit: int = LISTED_MAX) -> list[Erasure]:
        """Requests, the newest first.

        Args:
            tenant: only this one's.
            since_s: only those that came then or later, in seconds since 1970.
            limit: of them at most.
        """
        if not self._database.exists:
            return []
        query = select(Erasure).where(Erasure.requested_at >= since_s).order_by(Erasure.requested_at.desc())
        if tenant is not None:
            query = query.where(Erasure.tenant == tenant)
        async with self._database.reading() as session:
            return list(await session.scalars(query.limit(limit)))

    async def current(self, *, since_s: float) -> list[Erasure]:
        """Those that came then or later, in seconds since 1970, and those that are not completed."""
        if not self._database.exists:
            return []
        which = or_(Erasure.requested_at >= since_s, Erasure.state != ErasureState.COMPLETED)
        async with self._database.reading() as session:
            return list(await session.scalars(select(Erasure).where(which).limit(LISTED_MAX)))

    async def claim(self) -> Erasure | None:
        """Take the oldest request that nobody works on."""
        now_s = self._wall_s()
        free = (Erasure.state != ErasureState.COMPLETED, Erasure.lease_until < now_s)
        async with self._database.reading() as session:
            oldest = await session.scalar(select(Erasure.id).where(*free).order_by(Erasure.requested_at).limit(1))
        if oldest is None:
            return None
        async with self._database.writing() as session:
            claimed: Erasure | None = await session.scalar(
                update(Erasure)
                .where(Erasure.id == oldest, *free)
                .values(state=ErasureState.RUNNING, lease_until=now_s + LEASE_S)
                .returning(Erasure)
            )
            return claimed

    async def count(self, session: AsyncSession, erasure: Erasure, deleted: Mapping[str, int]) -> None:
        """Add to what a request has deleted, in the transaction that deletes it, and say that somebody is at it."""
        row = await session.get_one(Erasure, erasure.id, with_for_update=True, populate_existing=True)
        row.deleted = _sum(row.deleted, deleted)
        row.lease_until = self._wall_s() + LEASE_S
        erasure.deleted = row.deleted

    async def count_ended(self, erasure_id: str, ended: Mapping[str, int]) -> None:
        """Add what a process has ended, whoever works on the request; too late once its certificate is signed."""
        async with self._database.writing() as session:
            row = await session.get(Erasure, erasure_id, with_for_update=True, populate_existing=True)
            if row is not None and row.state != ErasureState.COMPLETED:
                row.deleted = _sum(row.deleted, ended)

    async def complete(self, erasure: Erasure, certificate: dict[str, Any]) -> None:
        """It is done; the certificate says what was."""
        async with self._database.writing() as session:
            await session.execute(
                update(Erasure)
                .where(Erasure.id == erasure.id)
                .values(
                    state=ErasureState.COMPLETED,
                    finished_at=self._wall_s(),
                    lease_until=0.0,
                    certificate=certificate,
                    deleted=erasure.deleted,
                )
            )

    async def give_back(self, erasure_id: str) -> None:
        """Leave it to whoever comes next, at once."""
        async with self._database.writing() as session:
            await session.execute(
                update(Erasure)
                .where(Erasure.id == erasure_id, Erasure.state == ErasureState.RUNNING)
                .values(lease_until=0.0)
            )


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {*one, *other}}


def _too_many(message: str, *, ahead: int) -> CapacityError:
    """A refusal until there is room, which is when so many of those that wait are done."""
    after_s = ahead * ONE_TAKES_S
    return CapacityError("TOO_MANY_ERASURES", message, f"Try again in {after_s} s.", retry_after_s=after_s)
