"""The table of what was used, made by `migrations/`. Times are seconds since 1970."""

from __future__ import annotations

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from mediaserver.storage.base import Base


class Usage(Base):
    """What one session or recording used. `day` is the one on which it began, by UTC: `2026-11-21`."""

    __tablename__ = "usage"
    __table_args__ = (
        Index("ix_usage_tenant_day", "tenant", "day"),
        Index("ix_usage_key_id_day", "key_id", "day"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64))
    key_id: Mapped[str | None] = mapped_column(String(16))
    door: Mapped[str] = mapped_column(String(32))
    model: Mapped[str] = mapped_column(String(200))
    day: Mapped[str] = mapped_column(String(10))
    began_at: Mapped[float]
    updated_at: Mapped[float]
    audio_s: Mapped[float]
    speech_s: Mapped[float]
