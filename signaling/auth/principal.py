"""Whom a request is from, as everything behind the guard sees it."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field


class Scope(StrEnum):
    """What a key may be used for."""

    STREAM = "stream"
    JOBS = "jobs"
    ADMIN = "admin"


class TokenKind(StrEnum):
    """What a short-lived token is for, and so which protocols it opens."""

    JOIN = "join"
    GRANT = "grant"
    SECRET = "secret"  # noqa: S105 - a kind, not one


class KeyLimits(BaseModel):
    """How much a key may use; what is left out is not limited, but by the node."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sessions: int | None = Field(default=None, ge=0, le=100_000, description="Most sessions at once.")
    sessions_per_minute: int | None = Field(
        default=None, ge=1, le=100_000, description="Most new sessions in a minute."
    )
    minutes_per_month: float | None = Field(
        default=None, ge=0, le=10_000_000, description="Most minutes of audio in a calendar month, by UTC."
    )
    session_s: float | None = Field(default=None, gt=0, le=604_800, description="Longest session in seconds.")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request is from.

    Args:
        tenant: whose recordings and usage it sees and adds to.
        key_id: which key it came with, or was given a token by; None without one.
        scopes: what it may do.
        limits: how much of it.
        is_local: whether it came from this machine and needed no key.
        pinned: what its token says of the session's configuration, which the client cannot change; None where it
            came with no token.
        token: which kind of token it came with; None where it came with a key or needed none.
    """

    tenant: str
    key_id: str | None
    scopes: frozenset[Scope]
    limits: KeyLimits = field(default_factory=KeyLimits)
    is_local: bool = False
    pinned: Mapping[str, Any] | None = None
    token: TokenKind | None = None

    @property
    def own_tenant(self) -> str | None:
        """Whose recordings and usage it sees; None is everybody's."""
        return None if Scope.ADMIN in self.scopes else self.tenant

    def may_see(self, tenant: str) -> bool:
        """Whether it sees what is a tenant's."""
        return self.own_tenant in (None, tenant)


LOCAL_TENANT = "local"
"""Whose recordings and usage those are that came without a key."""

LOCAL = Principal(LOCAL_TENANT, None, frozenset(Scope), is_local=True)
"""A program of this machine, where it needs no key."""

ANYBODY = Principal(LOCAL_TENANT, None, frozenset({Scope.STREAM, Scope.JOBS}))
"""Who comes without a key to a server that is open to everyone."""

NOBODY = Principal("", None, frozenset())
"""Who asks for what is open to anybody, or was not let in."""

PRINCIPAL = web.RequestKey("principal", Principal)

_CURRENT: ContextVar[Principal] = ContextVar("principal", default=LOCAL)


def principal_of(request: web.Request) -> Principal:
    """Who a request is from; raises KeyError before the guard has seen it."""
    return request[PRINCIPAL]


def current_principal() -> Principal:
    """Who the request is from that is being handled, also in tasks that it started.

    It lies in the context, so that no door can forget to hand it on. Outside of requests it is the server itself.
    """
    return _CURRENT.get()


def set_principal(request: web.Request, principal: Principal) -> None:
    """Say who a request is from; the guard does, and nobody else."""
    request[PRINCIPAL] = principal
    _CURRENT.set(principal)
