"""The table of what was used, made by `migrations/`. Times are seconds since 1970."""

from __future__ import annotations

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from mediaserver.storage.base import Base

STREAMING, RECORDING, TRANSLATION = "streaming", "recording", "translation"
"""How audio was heard: one of them is of each session. A translation is a recording's."""


class Usage(Base):
    """What one session or recording used. `day` is the one on which it began, by UTC: `2026-11-21`.

    `features` is what it used of what may have a price, joined by `+`: how it was heard first (`streaming`).
    """

    __tablename__ = "usage"
    __table_args__ = (
        Index("ix_usage_tenant_day", "tenant", "day"),
        Index("ix_usage_key_id_day", "key_id", "day"),
        Index("ix_usage_day", "day"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64))
    key_id: Mapped[str | None] = mapped_column(String(16))
    door: Mapped[str] = mapped_column(String(32))
    model: Mapped[str] = mapped_column(String(200))
    features: Mapped[str] = mapped_column(String(200), default=STREAMING, server_default=STREAMING)
    day: Mapped[str] = mapped_column(String(10))
    began_at: Mapped[float]
    updated_at: Mapped[float]
    audio_s: Mapped[float]
    speech_s: Mapped[float]


class UsageDay(Base):
    """What was used on a day, of sessions whose own rows are forgotten: nothing in it says which they were."""

    __tablename__ = "usage_days"
    __table_args__ = (
        Index("ix_usage_days_tenant_day", "tenant", "day"),
        Index("ix_usage_days_key_id_day", "key_id", "day"),
    )

    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    """Empty where it came without one."""
    door: Mapped[str] = mapped_column(String(32), primary_key=True)
    model: Mapped[str] = mapped_column(String(200), primary_key=True)
    features: Mapped[str] = mapped_column(String(200), primary_key=True)
    sessions: Mapped[int]
    audio_s: Mapped[float]
    speech_s: Mapped[float]
