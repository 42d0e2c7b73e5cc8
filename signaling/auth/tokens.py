"""Short-lived tokens (JWT, RFC 7519) for browsers and phones, which should not have a key.

A token is worth what the key is worth that it was given for, and ends with it. A join token is good for one session; a
grant (Deepgram's) for as many as are opened before it expires.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import jwt
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError

from mediaserver.errors import VoiceForgeError
from mediaserver.storage.database import Database
from signaling.auth.keys import Keys
from signaling.auth.principal import ANYBODY, LOCAL_TENANT, Principal, Scope, TokenKind
from signaling.auth.tables import SpentToken
from signaling.cluster.state import State, StateAwayError

ALGORITHM = "HS256"
ISSUER = "voiceforge"
SECRET_BYTES = 32
ID_BYTES = 12

LEFT_MIN_S = 60.0
"""For how long a used token is remembered beyond its end, or without keys at least: clocks of processes that take it
may differ."""


class _Claims(BaseModel):
    """What a token says."""

    model_config = ConfigDict(extra="ignore", strict=True)

    jti: str
    exp: float
    kind: str
    sub: str | None = None
    config: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A token that is good.

    Args:
        principal: whom it stands for.
        token_id: its own name.
        expires_at: seconds since 1970.
    """

    principal: Principal
    token_id: str
    expires_at: float


class Tokens:
    """Makes and checks tokens.

    Args:
        keys: whose tokens they are.
        database: where those are written down that were used, once there are keys.
        state: where they are, as long as there are none.
        secret: what tokens are signed with, the same for all processes that take each other's; made up if None.
        wall_s: seconds since 1970.
    """

    def __init__(
        self,
        *,
        keys: Keys,
        database: Database,
        state: State,
        secret: str | None = None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._database = database
        self._state = state
        self._secret = secrets.token_bytes(SECRET_BYTES) if secret is None else secret.encode()
        self._wall_s = wall_s

    def issue(
        self, principal: Principal, *, kind: TokenKind, ttl_s: float, config: Mapping[str, Any] | None = None
    ) -> str:
        """A token.

        Args:
            principal: whom it stands for.
            kind: what it is for.
            ttl_s: how long it opens sessions.
            config: what its session's configuration is, of which the client changes nothing.
        """
        now_s = self._wall_s()
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "iat": now_s,
            "exp": now_s + ttl_s,
            "jti": secrets.token_hex(ID_BYTES),
            "kind": kind.value,
        }
        if principal.key_id is not None:
            claims["sub"] = principal.key_id
        if config is not None:
            claims["config"] = dict(config)
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    async def read(self, value: str, *, address: str | None = None) -> tuple[Token | None, str]:
        """What a token says, or None and what is wrong with it. Raises what `Database.reading` does."""
        try:
            claims = _Claims.model_validate(
                jwt.decode(
                    value,
                    self._secret,
                    algorithms=[ALGORITHM],
                    issuer=ISSUER,
                    # The time is compared below, by the same clock that tokens are issued by.
                    options={"require": ["exp", "iss", "jti"], "verify_iat": False, "verify_exp": False},
                )
            )
            kind = TokenKind(claims.kind)
        except (jwt.InvalidTokenError, ValidationError, ValueError):
            return None, "The temporary token is not one of this server."
        if claims.exp <= self._wall_s():
            return None, "The temporary token has expired."
        principal = await self._principal(claims.sub, address)
        if principal is None:
            return None, "The temporary token's key no longer works."
        kept = {Scope.STREAM} if kind is TokenKind.JOIN else {Scope.STREAM, Scope.JOBS}
        principal = replace(principal, scopes=principal.scopes & kept, token=kind, pinned=claims.config, is_local=False)
        return Token(principal, claims.jti, claims.exp), ""

    async def spend(self, token: Token) -> bool:
        """Use a token up; False: it was used before.

        Raises:
            StateAwayError: nobody knows; it is not used then.
            VoiceForgeError: what `Database.writing` raises.
        """
        now_s = self._wall_s()
        if token.principal.key_id is None:
            # Without keys there need not be a database, and the state expires it by itself.
            left_s = max(LEFT_MIN_S, token.expires_at - now_s)
            return await self._state.add(_spent(token), b"", ttl_s=left_s)
        return await self._spend_for_all(token, now_s)

    async def give_back(self, token: Token) -> None:
        """The session that a token was for was refused: it may be tried again."""
        if token.principal.key_id is None:
            with suppress(StateAwayError):  # the client gets itself another token
                await self._state.delete(_spent(token))
            return
        try:
            async with self._database.writing() as session:
                await session.execute(delete(SpentToken).where(SpentToken.id == token.token_id))
        except VoiceForgeError:  # logged by the database; the client gets itself another token
            return

    async def _principal(self, key_id: str | None, address: str | None) -> Principal | None:
        if key_id is not None:
            return await self._keys.principal_of_id(key_id, address=address)
        # It was given out when nobody needed a key. The guard asks whether that is so still.
        return replace(ANYBODY, tenant=LOCAL_TENANT)

    async def _spend_for_all(self, token: Token, now_s: float) -> bool:
        async with self._database.writing() as session:
            await session.execute(delete(SpentToken).where(SpentToken.expires_at <= now_s - LEFT_MIN_S))
            if await session.get(SpentToken, token.token_id) is not None:
                return False
            session.add(SpentToken(id=token.token_id, expires_at=token.expires_at))
            try:
                await session.flush()
            except IntegrityError:  # another process was faster by a moment
                await session.rollback()
                return False
        return True


def _spent(token: Token) -> str:
    return f"spent-token:{token.token_id}"


def is_token(value: str) -> bool:
    """Whether it means to be a token, however broken: three parts, the first of them an object in Base64."""
    return value.startswith("eyJ") and value.count(".") == 2
