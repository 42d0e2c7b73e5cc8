"""Who a client says it is, and temporary tokens that it may have been given for saying so.

Keys are for a later day: any is taken, none is logged. A temporary token is a JWT of this process; one that has expired
or that somebody else signed is refused.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import jwt
from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field

from signaling.problems import HttpError
from signaling.socket import offered_protocols

ALGORITHM = "HS256"
SECRET_BYTES = 32
ISSUER = "voiceforge"
SCOPE = "usage:write"
SCHEMES = ("token", "bearer")

TTL_DEFAULT_S, TTL_MAX_S = 30.0, 3600.0
"""The vendor's: a token is for opening a connection, which then lasts as long as it likes."""


class GrantBody(BaseModel):
    """What is asked of a temporary token."""

    model_config = ConfigDict(extra="ignore")

    ttl_seconds: float | None = Field(
        default=None, strict=True, ge=1, le=TTL_MAX_S, description=f"Seconds; {TTL_DEFAULT_S:g} if left out."
    )


class Granted(BaseModel):
    """A temporary token."""

    access_token: str = Field(description="A JWT, to be sent as `Bearer`.")
    expires_in: float = Field(description="Seconds.")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What came with a request.

    Args:
        scheme: `token`, `bearer` or another, in lower case; empty where nothing came.
        value: the key or token.
        subprotocol: what the handshake answers, as the client wrote it.
    """

    scheme: str = ""
    value: str = field(default="", repr=False)
    subprotocol: str | None = None


def credentials_of(request: web.BaseRequest) -> Credentials:
    """The header's, or those that a browser puts into the subprotocol: `token, <key>` or `bearer, <jwt>`.

    Raises:
        HttpError: INVALID_SUBPROTOCOL (400): another subprotocol is offered, which would not be answered.
    """
    offered = offered_protocols(request)
    if offered:
        at = next((at for at, item in enumerate(offered) if item.lower() in SCHEMES), None)
        if at is None:
            raise HttpError(
                HTTPStatus.BAD_REQUEST,
                "INVALID_SUBPROTOCOL",
                "No subprotocol is `token` or `bearer`.",
                "Offer `token` and a key, or `bearer` and a temporary token, or none.",
            )
        return Credentials(offered[at].lower(), offered[at + 1] if len(offered) > at + 1 else "", offered[at])
    scheme, _, value = request.headers.get(hdrs.AUTHORIZATION, "").strip().partition(" ")
    return Credentials(scheme.lower(), value.strip())


class Grants:
    """Temporary tokens of this process; a restart forgets them, which is sooner than they expire by minutes at most.

    Args:
        wall_s: the time of day in seconds since 1970, for those that are issued.
    """

    def __init__(self, *, wall_s: Callable[[], float] = time.time) -> None:
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._wall_s = wall_s

    def issue(self, ttl_s: float) -> str:
        """A token that is good for so long."""
        now_s = self._wall_s()
        claims = {"iss": ISSUER, "iat": now_s, "exp": now_s + ttl_s, "jti": secrets.token_hex(8), "scope": SCOPE}
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def check(self, credentials: Credentials) -> bool:
        """Let credentials pass; whether they are a token of ours.

        Raises:
            HttpError: INVALID_AUTH (401): a token that has expired or is not ours.
        """
        if credentials.scheme != "bearer" or not _is_jwt(credentials.value):
            return False
        try:
            jwt.decode(
                credentials.value,
                self._secret,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                options={"require": ["exp", "iss"], "verify_iat": False},
            )
        except jwt.InvalidTokenError as exc:
            why = "has expired" if isinstance(exc, jwt.ExpiredSignatureError) else "is not one of this server"
            raise HttpError(
                HTTPStatus.UNAUTHORIZED,
                "INVALID_AUTH",
                f"The temporary token {why}.",
                "Get another from /v1/auth/grant.",
                headers={"WWW-Authenticate": "Bearer"},
            ) from exc
        return True


def _is_jwt(value: str) -> bool:
    """Whether it means to be one, however broken: three parts, the first of them an object in Base64."""
    return value.startswith("eyJ") and value.count(".") == 2
