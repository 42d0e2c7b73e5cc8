"""What this vendor's clients say of who they are, and what they ask of a temporary token (`signaling.auth`)."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from signaling.auth import credentials
from signaling.auth.credentials import Credentials
from signaling.problems import HttpError
from signaling.socket import offered_protocols

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


def credentials_of(request: web.BaseRequest) -> Credentials:
    """The header's, or those that a browser puts into the subprotocol: `token, <key>` or `bearer, <jwt>`.

    Raises:
        HttpError: INVALID_SUBPROTOCOL (400): another subprotocol is offered, which would not be answered.
    """
    given = credentials.credentials_of(request)
    if given.subprotocol is None and offered_protocols(request):
        raise HttpError(
            HTTPStatus.BAD_REQUEST,
            "INVALID_SUBPROTOCOL",
            "No subprotocol is `token` or `bearer`.",
            "Offer `token` and a key, or `bearer` and a temporary token, or none.",
        )
    return given
