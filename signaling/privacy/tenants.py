"""How long things are kept, by tenant. What a tenant does not say is the node's setting."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import case, select, update
from sqlalchemy.sql.elements import ColumnElement

from mediaserver.errors import ConfigError
from mediaserver.jobs.models import Job, Upload
from mediaserver.storage.database import Database
from mediaserver.storage.tenants import Tenant
from mediaserver.storage.usage import Usage
from signaling.auth.keys import TENANT_LETTERS
from signaling.auth.tables import ApiKey
from signaling.usage.meter import day_of
from signaling.usage.rollup import roll_up

DAY_S = 86_400.0
KEEP_MIN_S = 60.0
LISTED_MAX = 10_000

STILL_S = 3600.0
"""A row that was written to within this is of a session that may still run: it is rolled up later."""

Seconds = Annotated[float, Field(ge=KEEP_MIN_S, le=365 * DAY_S)]


class Retention(BaseModel):
    """For how long things of a tenant are kept; null is the node's setting."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transcript_keep_s: Seconds | None = Field(
        default=None,
        description="Seconds after its end for which a recording's job is kept with its result; a client may ask for "
        "less. Null: `job_keep_s`, or what the client asks for.",
    )
    upload_keep_s: Annotated[float, Field(ge=KEEP_MIN_S, le=DAY_S)] | None = Field(
        default=None,
        description="Seconds for which an upload waits to become a job; null: a day. The audio of a job is deleted "
        "when the job ends, whatever stands here.",
    )
    usage_keep_days: Annotated[int, Field(ge=1, le=3650)] | None = Field(
        default=None,
        description="Days for which it is known which session used what; totals of days stay. Null: the setting.",
    )


class Tenants:
    """The tenants of a database. Methods raise what `Database.reading` does.

    Args:
        database: where they are kept.
        usage_keep_days: of tenants that do not say.
        wall_s: seconds since 1970.
    """

    def __init__(self, database: Database, *, usage_keep_days: int, wall_s: Callable[[], float] = time.time) -> None:
        self._database = database
        self._usage_keep_days = usage_keep_days
        self._wall_s = wall_s

    async def get(self, tenant: str) -> Retention:
        """What holds for one, known or not."""
        if not self._database.exists:
            return Retention()
        async with self._database.reading() as session:
            row = await session.get(Tenant, tenant)
        return Retention() if row is None else _retention(row)

    async def all(self) -> dict[str, Retention]:
        """All that have keys or a retention of their own, by name."""
        if not self._database.exists:
            return {}
        async with self._database.reading() as session:
            named = await session.scalars(select(ApiKey.tenant).distinct().limit(LISTED_MAX))
            found = dict.fromkeys(named, Retention())
            found |= {row.id: _retention(row) for row in await session.scalars(select(Tenant).limit(LISTED_MAX))}
        return dict(sorted(found.items()))

    async def set(self, tenant: str, retention: Retention) -> Retention:
        """Say for how long; what is there already and is kept for longer is kept for no longer from now on.

        Raises:
            ConfigError: INVALID_TENANT.
        """
        if not TENANT_LETTERS.fullmatch(tenant):
            raise ConfigError(
                "INVALID_TENANT", "That is no name of a tenant.", "Give 1 to 64 letters of A–Z, a–z, 0–9 and ._-"
            )
        now_s = self._wall_s()
        async with self._database.writing() as session:
            row = await session.get(Tenant, tenant)
            if row is None:
                row = Tenant(id=tenant, created_at=now_s)
                session.add(row)
            row.transcript_keep_s, row.upload_keep_s = retention.transcript_keep_s, retention.upload_keep_s
            row.usage_keep_days, row.updated_at = retention.usage_keep_days, now_s
            keep_s = retention.transcript_keep_s
            if keep_s is not None:
                await session.execute(
                    update(Job)
                    .where(Job.tenant == tenant, Job.keep_s > keep_s)
                    .values(
                        keep_s=keep_s,
                        expires_at=case((Job.finished_at.is_(None), Job.expires_at), else_=Job.finished_at + keep_s),
                    )
                )
            if retention.upload_keep_s is not None:
                until_s = Upload.created_at + retention.upload_keep_s
                await session.execute(
                    update(Upload)
                    .where(Upload.tenant == tenant, Upload.expires_at > until_s)
                    .values(expires_at=until_s)
                )
        return retention

    async def roll_up(self) -> int:
        """Forget which sessions used what, where nobody needs to know it any more; how many rows."""
        if not self._database.exists:
            return 0
        async with self._database.reading() as session:
            own = {
                row.id: row.usage_keep_days
                for row in await session.scalars(select(Tenant).where(Tenant.usage_keep_days.is_not(None)))
            }
        count = await roll_up(self._database, *self._older(self._usage_keep_days), Usage.tenant.not_in(list(own)))
        for tenant, days in own.items():
            count += await roll_up(self._database, *self._older(days or 1), Usage.tenant == tenant)
        return count

    def _older(self, days: int) -> tuple[ColumnElement[bool], ...]:
        now_s = self._wall_s()
        return Usage.day < day_of(now_s - days * DAY_S), Usage.updated_at < now_s - STILL_S


def _retention(row: Tenant) -> Retention:
    return Retention(
        transcript_keep_s=row.transcript_keep_s,
        upload_keep_s=row.upload_keep_s,
        usage_keep_days=row.usage_keep_days,
    )
