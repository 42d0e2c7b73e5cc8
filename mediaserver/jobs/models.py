"""The tables of recordings, made by `mediaserver/storage/migrations`. Times are seconds since 1970."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from mediaserver.storage.base import Base, Number

NO_TENANT = "local"
"""Whose recordings are that came without a key."""


class State(StrEnum):
    """Where a job is: `queued → running → completed | failed | cancelled`."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to the job."""
        return self not in (State.QUEUED, State.RUNNING)


class Stage(StrEnum):
    """What a running job does."""

    FETCHING = "fetching"
    TRANSCRIBING = "transcribing"


class Priority(IntEnum):
    """Whose turn is next; within one, who came first. Who waits long rises (`ledger.RISES_AFTER_S`)."""

    EXPRESS = 0
    NORMAL = 1
    LOW = 2


class Job(Base):
    """A recording to transcribe.

    `owner` and `lease_until` say which worker runs it and until when it may be believed to; `attempts` counts the runs
    that were begun. `webhook_secret` is forgotten once nothing is left to sign.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_next", "state", "priority", "number"),
        Index("ix_jobs_expires_at", "expires_at"),
        Index("ix_jobs_batch_id", "batch_id"),
        Index("ix_jobs_tenant_number", "tenant", "number"),
        Index("ix_jobs_state_number", "state", "number"),
        Index("ix_jobs_tenant_state_number", "tenant", "state", "number"),
    )

    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(64), unique=True)
    batch_id: Mapped[str | None] = mapped_column(String(64))
    tenant: Mapped[str] = mapped_column(String(64), default=NO_TENANT, server_default=NO_TENANT)
    key_id: Mapped[str | None] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str | None] = mapped_column(String(16))
    priority: Mapped[int]
    progress: Mapped[float]
    attempts: Mapped[int]
    owner: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[float | None]
    cancel_requested: Mapped[bool]
    announced_at: Mapped[float | None]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    expires_at: Mapped[float | None]
    keep_s: Mapped[float]
    url: Mapped[str | None] = mapped_column(Text)
    file_name: Mapped[str | None] = mapped_column(Text)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    options: Mapped[dict[str, Any]] = mapped_column(JSON)
    client_metadata: Mapped[dict[str, str]] = mapped_column(JSON)
    webhook_url: Mapped[str | None] = mapped_column(Text)
    webhook_secret: Mapped[str | None] = mapped_column(Text)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    summary: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class Result(Base):
    """What came of a completed job: `body` is packed JSON (`mediaserver/jobs/results.py`)."""

    __tablename__ = "results"

    job_number: Mapped[int] = mapped_column(ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)


class Delivery(Base):
    """A webhook that is still to arrive, written with the change it tells of. `taken_until`: somebody is at it."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index("ix_deliveries_taken_until", "taken_until"),
        Index("ix_deliveries_job_number", "job_number"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    job_number: Mapped[int] = mapped_column(ForeignKey("jobs.number", ondelete="CASCADE"))
    event: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float]
    taken_until: Mapped[float]


class Upload(Base):
    """A recording that arrives in pieces. How much of it is there, its file says."""

    __tablename__ = "uploads"
    __table_args__ = (Index("ix_uploads_expires_at", "expires_at"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64), default=NO_TENANT, server_default=NO_TENANT)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    file_name: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float]
    expires_at: Mapped[float]
