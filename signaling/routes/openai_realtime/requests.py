"""What HTTP requests of this protocol carry: the key, the query, and the three forms of an offer's body."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from aiohttp import web
from multidict import MultiMapping
from pydantic import BaseModel, Field, ValidationError

from signaling.auth.credentials import credentials_of
from signaling.limits import SDP_MAX_BYTES, read_text
from signaling.problems import HttpError
from signaling.query import repeated_names
from signaling.routes.openai_realtime.errors import RealtimeError, invalid
from signaling.routes.openai_realtime.session_models import MODEL_LETTERS, Strict

SESSION_MAX_BYTES = 64 * 1024
"""A session object with the longest prompt and all keywords is 10 KB."""

OFFER_MAX_BYTES = SDP_MAX_BYTES + SESSION_MAX_BYTES

PROTOCOL = "realtime"

SDP_TYPE = "application/sdp"
JSON_TYPE = "application/json"
FORM_TYPE = "multipart/form-data"

M = TypeVar("M", bound=BaseModel)


class RealtimeQuery(Strict):
    """The query of both doors."""

    intent: str | None = Field(default=None, description="`transcription`, which is all there is.")
    model: Annotated[str, Field(max_length=MODEL_LETTERS)] | None = Field(
        default=None, description="The node's model, or a name that its `model_aliases` let stand for it."
    )


class CallRequest(Strict):
    """An offer in JSON or in a form."""

    sdp: str = Field(min_length=1, max_length=SDP_MAX_BYTES)
    session: dict[str, Any] | None = Field(default=None, description="As in `client_secrets`.")


def key_of(request: web.Request) -> str | None:
    """The client's key, from its header or its subprotocol; never to be logged.

    Raises:
        HttpError: INVALID_API_KEY (401): an `Authorization` that is no bearer key. INVALID_SUBPROTOCOL (400).
    """
    header = request.headers.get("Authorization")
    if header is not None:
        scheme, _, key = header.strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise HttpError(
                HTTPStatus.UNAUTHORIZED,
                "INVALID_API_KEY",
                "`Authorization` is no bearer key.",
                "Send `Authorization: Bearer <key>`.",
                headers={"WWW-Authenticate": "Bearer"},
            )
    return credentials_of(request).value or None  # the one that the guard has looked at, where there are two


def read_query(query: MultiMapping[str]) -> RealtimeQuery:
    """The query of a WebSocket or a call.

    Raises:
        RealtimeError: names a parameter that is unknown, wrong or given twice.
    """
    for name in repeated_names(query):
        raise RealtimeError("INVALID_VALUE", f"`{name[:80]}`: is given twice.", "Give it once.", param=name[:80])
    if "call_id" in query:
        raise RealtimeError(
            "UNSUPPORTED_PARAMETER",
            "`call_id`: a call is not heard from a second connection.",
            "Its events come over its data channel `oai-events`.",
            param="call_id",
        )
    try:
        asked = RealtimeQuery.model_validate_strings(dict(query))
    except ValidationError as exc:
        raise invalid(exc) from exc
    if asked.intent not in (None, "transcription"):
        raise RealtimeError(
            "INVALID_VALUE",
            f"`intent`: {asked.intent[:80]!r} is not served; this server transcribes.",
            "Send `intent=transcription`.",
            param="intent",
        )
    return asked


async def read_object(request: web.Request) -> dict[str, Any]:
    """A JSON object; an empty body is an empty one.

    Raises:
        HttpError: BODY_TOO_LARGE, BODY_TIMEOUT or UNSUPPORTED_MEDIA_TYPE.
        RealtimeError: INVALID_JSON.
    """
    if not request.body_exists:
        return {}
    require_type(request, JSON_TYPE)
    return _parsed(await read_text(request, limit_bytes=SESSION_MAX_BYTES, invalid_code="INVALID_JSON"))


async def read_offer(request: web.Request) -> CallRequest:
    """An offer in one of its three forms.

    Raises:
        HttpError: BODY_TOO_LARGE, BODY_TIMEOUT, UNSUPPORTED_MEDIA_TYPE, INVALID_SDP.
        RealtimeError: what is wrong with the form or the JSON.
    """
    require_type(request, SDP_TYPE, JSON_TYPE, FORM_TYPE)
    limit_bytes = SDP_MAX_BYTES if request.content_type == SDP_TYPE else OFFER_MAX_BYTES
    text = await read_text(request, limit_bytes=limit_bytes, invalid_code="INVALID_SDP")
    if request.content_type == SDP_TYPE:
        return CallRequest(sdp=text)
    given: dict[str, Any]
    if request.content_type == JSON_TYPE:
        given = _parsed(text)
    else:
        given = dict(form_parts(text, boundary=_boundary(request)))
        if "session" in given:
            given["session"] = _parsed(given["session"])
    return read_model(CallRequest, given)


def read_model(model: type[M], given: object) -> M:
    """A client's object.

    Raises:
        RealtimeError: names the first field that is wrong.
    """
    try:
        return model.model_validate(given)
    except ValidationError as exc:
        raise invalid(exc) from exc


def form_parts(text: str, *, boundary: str) -> dict[str, str]:
    """The parts of a `multipart/form-data` body (RFC 7578) by name.

    Raises:
        RealtimeError: INVALID_FORM.
    """
    parts: dict[str, str] = {}
    pieces = text.split(f"--{boundary}")
    if len(pieces) < 3 or not pieces[-1].startswith("--"):
        raise _bad_form("the body does not end with the boundary that its type names")
    for piece in pieces[1:-1]:
        head, blank, value = piece.partition("\r\n\r\n")
        name = re.search(r'^content-disposition:\s*form-data\s*;.*?\bname="?([^";\r\n]*)"?', head.strip(), _FLAGS)
        if not blank or name is None or not value.endswith("\r\n"):
            raise _bad_form("a part has no name or no end")
        if name[1] in parts:
            raise _bad_form(f"there are two parts of the name {name[1][:80]!r}")
        parts[name[1]] = value[:-2]
    return parts


_FLAGS = re.IGNORECASE | re.MULTILINE


def _boundary(request: web.Request) -> str:
    found = re.search(r'boundary="?([^";,]+)', request.headers.get("Content-Type", ""), re.IGNORECASE)
    if found is None:
        raise _bad_form("its type names no boundary")
    return found[1].strip()


def _bad_form(problem: str) -> RealtimeError:
    return RealtimeError(
        "INVALID_FORM", f"The form cannot be read: {problem}.", "Send the parts `sdp` and `session`, each once."
    )


def _parsed(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise RealtimeError("INVALID_JSON", "The body is not JSON.", "Send one JSON object.") from exc
    if not isinstance(given, dict):
        raise RealtimeError("INVALID_JSON", "The body is not a JSON object.", "Send one JSON object.")
    return given


def require_type(request: web.Request, *types: str) -> None:
    """Refuse a body of another type.

    Raises:
        HttpError: UNSUPPORTED_MEDIA_TYPE (415).
    """
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if request.content_type not in types or encoding != "identity":
        raise HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            f"The body is not plain {' or '.join(types)}.",
            f"Send `Content-Type: {types[0]}` and no Content-Encoding.",
        )
