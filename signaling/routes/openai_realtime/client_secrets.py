"""Client secrets: `ek_…`, each opens sessions with parameters that were chosen when it was made.

They are kept by their hashes in what the processes share, so that any of them takes a secret that another one made.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from pydantic import BaseModel, ConfigDict, ValidationError

from mediaserver.errors import CapacityError
from signaling.auth.principal import LOCAL, KeyLimits, Principal, Scope
from signaling.cluster.state import State
from signaling.problems import HttpError
from signaling.routes.openai_realtime.session_models import Session
from signaling.routes.openai_realtime.session_state import SessionState

PREFIX = "ek_"

SECRET_BYTES = 24
"""192 bits: not guessable."""

SECRETS_MAX = 2000
"""Secrets of one key at once, some 10 KB each at most. One more is refused until the first has expired; none is dropped
early."""

Now = Callable[[], float]


@dataclass(frozen=True, slots=True)
class IssuedSecret:
    """A secret that has just been made, and is nowhere kept as it is.

    Args:
        value: the secret.
        expires_at: seconds since 1970.
    """

    value: str
    expires_at: int


class _Kept(BaseModel):
    """What a secret stands for. It may come from a process of another version: fields that it adds are ignored."""

    model_config = ConfigDict(frozen=True)

    session: Session
    is_legacy: bool
    tenant: str
    key_id: str | None
    scopes: list[Scope]
    limits: KeyLimits


class ClientSecrets:
    """The secrets of all processes. Methods raise `StateAwayError` where what they share cannot be reached.

    Args:
        state: where they are kept.
        now: seconds since 1970.
    """

    def __init__(self, state: State, *, now: Now = time.time) -> None:
        self._state = state
        self._now = now

    async def issue(self, state: SessionState, *, seconds: int, issuer: Principal = LOCAL) -> IssuedSecret:
        """Make a secret.

        Args:
            state: what its sessions begin with.
            seconds: how long it opens sessions.
            issuer: whom it stands for.

        Raises:
            CapacityError: TOO_MANY_SECRETS.
        """
        now_s = self._now()
        value = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        expires_at = int(now_s) + seconds
        left_s = expires_at - now_s
        group, told = f"client-secrets:{issuer.key_id or ''}", str(expires_at).encode()
        if not await self._state.join(group, _digest(value), told, ttl_s=left_s, limit=SECRETS_MAX):
            first_s = min(map(int, (await self._state.members(group)).values()), default=0)
            wait_s = max(1, first_s - int(now_s))
            raise CapacityError(
                "TOO_MANY_SECRETS",
                f"There are {SECRETS_MAX} client secrets already.",
                f"Try again in {wait_s} s, and ask for secrets that expire sooner.",
                retry_after_s=wait_s,
            )
        kept = _Kept(
            session=state.asked,
            is_legacy=state.is_legacy,
            tenant=issuer.tenant,
            key_id=issuer.key_id,
            scopes=sorted(issuer.scopes),
            limits=issuer.limits,
        )
        # What was left open in the session stays so.
        await self._state.put(_name(value), kept.model_dump_json(exclude_unset=True).encode(), ttl_s=left_s)
        return IssuedSecret(value, expires_at)

    async def state_of(self, key: str | None) -> SessionState | None:
        """What sessions of a key begin with; None where the key is no client secret.

        Raises:
            HttpError: INVALID_API_KEY (401): a client secret that is unknown or has expired.
        """
        if key is None or not key.startswith(PREFIX):
            return None  # the guard has seen to it
        kept = await self._kept(key)
        if kept is None:
            raise HttpError(
                HTTPStatus.UNAUTHORIZED,
                "INVALID_API_KEY",
                "The client secret is unknown or has expired.",
                "Make a new one at /v1/realtime/client_secrets.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return SessionState(kept.session, kept.is_legacy)

    async def issuer_of(self, value: str) -> Principal | None:
        """For whom a secret was made; None: it is unknown or has expired."""
        kept = await self._kept(value)
        return None if kept is None else Principal(kept.tenant, kept.key_id, frozenset(kept.scopes), kept.limits)

    async def _kept(self, value: str) -> _Kept | None:
        found = await self._state.get(_name(value))
        if found is None:
            return None
        try:
            return _Kept.model_validate_json(found)
        except ValidationError:  # of a version that knows other parameters
            return None


def _name(value: str) -> str:
    return f"client-secret:{_digest(value)}"


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode(errors="replace")).hexdigest()
