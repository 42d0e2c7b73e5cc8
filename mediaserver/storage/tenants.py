"""The tables of tenants and of erasures, made by `migrations/`. Times are seconds since 1970."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from mediaserver.storage.base import Base


class Tenant(Base):
    """What is kept of a tenant, and for how long; what is not said is the node's setting. No row: all of it is."""

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    transcript_keep_s: Mapped[float | None]
    upload_keep_s: Mapped[float | None]
    usage_keep_days: Mapped[int | None]
    created_at: Mapped[float]
    updated_at: Mapped[float]


class Erasure(Base):
    """A tenant's data being deleted, or that it was. `deleted` counts what is gone so far; `lease_until`: somebody is
    at it. The row stays, with its certificate: it says nothing of what was said."""

    __tablename__ = "erasures"
    __table_args__ = (Index("ix_erasures_requested_at", "requested_at"), Index("ix_erasures_tenant", "tenant"))

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    keeps_totals: Mapped[bool]
    requested_at: Mapped[float]
    requested_by: Mapped[str] = mapped_column(String(80))
    lease_until: Mapped[float]
    finished_at: Mapped[float | None]
    deleted: Mapped[dict[str, int]] = mapped_column(JSON)
    certificate: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
