"""The tables of keys and of tokens that were used, made by `mediaserver/storage/migrations`. Times are since 1970."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from mediaserver.storage.base import Base


class ApiKey(Base):
    """A key; of its secret there is a hash alone. A row is never deleted: a server that had keys does not fall open."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    tenant: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    limits: Mapped[dict[str, Any]] = mapped_column(JSON)
    plan: Mapped[str | None] = mapped_column(String(64))
    networks: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    last_used_at: Mapped[float | None]


class SpentToken(Base):
    """A join token that has been used, until it would have expired anyway."""

    __tablename__ = "spent_tokens"
    __table_args__ = (Index("ix_spent_tokens_expires_at", "expires_at"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    expires_at: Mapped[float]
