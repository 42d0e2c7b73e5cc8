"""What WHIP (RFC 9725) asks of requests and says in headers, whatever the session."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from signaling.metadata import METADATA_HEADER
from signaling.preflight import allowed
from signaling.problems import HttpError
from signaling.routes.whip_operations import SDP_TYPE, SDPFRAG_TYPE
from signaling.seeing.telemetry import REQUEST_HEADER
from signaling.seeing.tracing import TRACEPARENT
from signaling.session_webhooks import SECRET_HEADER, URL_HEADER

NOT_KEPT = {"Cache-Control": "no-store"}
"""What holds a secret or changes by the second is in no cache."""

ALLOWED_HEADERS = (
    "Content-Type",
    "If-Match",
    "Authorization",
    METADATA_HEADER,
    URL_HEADER,
    SECRET_HEADER,
    REQUEST_HEADER,
    TRACEPARENT,
)
"""What a page of another origin may send."""


def what_may_be_sent() -> web.Response:
    """The answer to OPTIONS: what may be posted and patched, and what a page of another origin may do (section 4.2)."""
    response = allowed("GET, POST, PATCH, DELETE, OPTIONS", ALLOWED_HEADERS)
    response.headers.update({"Accept-Post": SDP_TYPE, "Accept-Patch": SDPFRAG_TYPE})
    return response


def require_type(request: web.Request, content_type: str, *, accept_header: str) -> None:
    """Refuse a body of another type, or one that is compressed.

    Args:
        request: with the body.
        content_type: what it may be.
        accept_header: of the refusal, which says so.

    Raises:
        HttpError: UNSUPPORTED_MEDIA_TYPE (415).
    """
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if request.content_type != content_type or encoding != "identity":
        raise HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            f"The body is not plain {content_type}.",
            f"Send `Content-Type: {content_type}` and no Content-Encoding.",
            headers={accept_header: content_type},
        )


def require_match(request: web.Request, etag: str) -> None:
    """Refuse a PATCH that is not for the ICE session as it is (section 4.3.1).

    Args:
        request: with `If-Match`.
        etag: of the ICE session.

    Raises:
        HttpError: PRECONDITION_REQUIRED (428), PRECONDITION_FAILED (412), or ICE_RESTART_UNSUPPORTED (422): only a
            restart is for any.
    """
    tags = request.headers.get("If-Match", "").strip()
    if not tags:
        raise HttpError(
            HTTPStatus.PRECONDITION_REQUIRED,
            "PRECONDITION_REQUIRED",
            "The PATCH has no If-Match.",
            "Send the ETag of the 201 as If-Match.",
        )
    if tags == "*":
        raise _restart_unsupported()
    if etag not in [tag.strip() for tag in tags.split(",")]:
        raise HttpError(
            HTTPStatus.PRECONDITION_FAILED,
            "PRECONDITION_FAILED",
            "If-Match names another ICE session.",
            "Send the ETag of the 201 as If-Match.",
        )


def _restart_unsupported() -> HttpError:
    return HttpError(
        HTTPStatus.UNPROCESSABLE_ENTITY,  # RFC 9725 §4.3: what a session that only trickles says to a restart
        "ICE_RESTART_UNSUPPORTED",
        "ICE restarts are not supported.",
        "Open a new session: POST a new offer to /whip.",
    )
