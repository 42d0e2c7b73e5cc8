"""Refusals as the vendor's clients read them: the shape of today and the one that older clients know, in one object."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web
from pydantic import BaseModel, Field

from mediaserver.errors import CapacityError, MediaError, VoiceForgeError
from signaling.problems import HttpError, status_of

REQUEST_ID = "dg-request-id"
ERROR = "dg-error"
"""Browsers and some clients see headers where they do not see the body of a refused upgrade."""

ERROR_LETTERS = 200

STATUSES: Mapping[str, HTTPStatus] = {
    "SERVER_FULL": HTTPStatus.TOO_MANY_REQUESTS,
    "OVERLOADED": HTTPStatus.TOO_MANY_REQUESTS,
    "RECORDINGS_FULL": HTTPStatus.TOO_MANY_REQUESTS,
    "TOO_LARGE": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "FETCH_TOO_LARGE": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}
"""Where the vendor's status is another than ours."""


class Refusal(BaseModel):
    """Why a request was refused."""

    category: str = Field(description="A code, SCREAMING_SNAKE, stable across versions.")
    message: str = Field(description="What is wrong, in one sentence.")
    details: str = Field(description="What to do about it.")
    request_id: str
    err_code: str = Field(description="As `category`, for older clients.")
    err_msg: str = Field(description="`message` and `details`, for older clients.")


def refusal_status(error: VoiceForgeError) -> HTTPStatus:
    """The status of a refusal; audio that is of no use is a bad request to this vendor's clients."""
    if error.code in STATUSES:
        return STATUSES[error.code]
    return HTTPStatus.BAD_REQUEST if isinstance(error, MediaError) else status_of(error)


def refusal_body(error: VoiceForgeError, request_id: str) -> Refusal:
    """A refusal in both shapes."""
    return Refusal(
        category=error.code,
        message=error.message,
        details=error.hint,
        request_id=request_id,
        err_code=error.code,
        err_msg=f"{error.message} {error.hint}",
    )


def refusal_response(error: VoiceForgeError, request_id: str) -> web.Response:
    """A refusal as a response, with `Retry-After` where it says when."""
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if isinstance(error, CapacityError):
        headers["Retry-After"] = str(error.retry_after_s)
    headers |= {
        "Cache-Control": "no-store",
        REQUEST_ID: request_id,
        ERROR: _header_text(error.message),
    }
    body = refusal_body(error, request_id)
    return web.json_response(text=body.model_dump_json(), status=refusal_status(error), headers=headers)


def _header_text(text: str) -> str:
    """Text as it may stand in a header: printable ASCII (RFC 9110 section 5.5), for a client's own words are in it."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text[:ERROR_LETTERS])


def write_refusal(error: VoiceForgeError) -> web.Response:
    """A refusal of a request that came to no handler, or whose handler failed."""
    return refusal_response(error, str(uuid.uuid4()))
