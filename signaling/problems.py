"""Every refusal and every fault as one JSON shape: `{"error": {code, message, hint, retryable}}`.

Handlers raise; only this module knows how an error looks on the wire. A traceback goes to the log, never to a client.
RFC 9725 §4 leaves the body of an error to the server; clients act on the status, people read the sentence.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware
from pydantic import BaseModel

from mediaserver.errors import CapacityError, ConfigError, ErrorBody, MediaError, VoiceForgeError

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Writer = Callable[[VoiceForgeError], web.Response]
"""Makes a response of an error."""


class Problem(BaseModel):
    """The body of every refusal of the native interfaces."""

    error: ErrorBody


STATUS_OF_CODE: Mapping[str, HTTPStatus] = {
    "INVALID_SDP": HTTPStatus.BAD_REQUEST,
    "INVALID_SDPFRAG": HTTPStatus.BAD_REQUEST,
    # RFC 9725 §4.3: a session that trickles but does not restart answers 422 to a restart.
    "ICE_RESTART_UNSUPPORTED": HTTPStatus.UNPROCESSABLE_ENTITY,
    "CHANNELS_DIFFER": HTTPStatus.CONFLICT,
    "DENOISER_NOT_INSTALLED": HTTPStatus.NOT_IMPLEMENTED,
    "DISK_FULL": HTTPStatus.INSUFFICIENT_STORAGE,
    # A tenant has its share; others come in.
    "QUEUE_SHARE_USED_UP": HTTPStatus.TOO_MANY_REQUESTS,
    "UPLOAD_SHARE_USED_UP": HTTPStatus.TOO_MANY_REQUESTS,
    "WATCHER_SHARE_USED_UP": HTTPStatus.TOO_MANY_REQUESTS,
}
"""Codes of the stages below whose status does not follow from their class."""


class HttpError(VoiceForgeError):
    """A refusal that only HTTP knows: a wrong content type, a missing precondition, a foreign origin.

    Args:
        status: the response's status.
        headers: further headers of the response, for example `Accept-Post`.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        hint: str,
        *,
        retryable: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, message, hint, retryable=retryable)
        self.status = status
        self.headers = dict(headers or {})


class LimitError(CapacityError):
    """A key has used up what it may; others come in. 429, with the time after which it may try again."""


def status_of(error: VoiceForgeError) -> HTTPStatus:
    """The HTTP status that tells a client what class of failure this is."""
    if isinstance(error, HttpError):
        return error.status
    if isinstance(error, LimitError):
        return HTTPStatus.TOO_MANY_REQUESTS
    if error.code in STATUS_OF_CODE:
        return STATUS_OF_CODE[error.code]
    if isinstance(error, CapacityError):
        return HTTPStatus.SERVICE_UNAVAILABLE
    if isinstance(error, ConfigError):
        return HTTPStatus.BAD_REQUEST
    if isinstance(error, MediaError):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    return HTTPStatus.SERVICE_UNAVAILABLE if error.retryable else HTTPStatus.INTERNAL_SERVER_ERROR


def problem_response(error: VoiceForgeError) -> web.Response:
    """The error as a response, with `Retry-After` where it says when."""
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if isinstance(error, CapacityError):
        headers["Retry-After"] = str(error.retry_after_s)
    headers["Cache-Control"] = "no-store"
    return web.json_response({"error": error.as_dict()}, status=status_of(error), headers=headers)


@web.middleware
async def problems_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost middleware: whatever a handler or the router raises leaves as a problem."""
    return await _caught(request, handler, problem_response)


def in_dialect(prefix: str, write: Writer) -> Middleware:
    """A middleware for the routes of another vendor, whose clients read refusals of that vendor's shape.

    Args:
        prefix: what their paths begin with; also unknown paths and methods below it are told that way.
        write: makes a response of an error.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith(prefix):
            return await handler(request)
        return await _caught(request, handler, write)

    return middleware


def internal_error() -> HttpError:
    """What a client is told of a fault of ours."""
    return HttpError(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "INTERNAL_ERROR",
        "The server failed at this request.",
        "Try again; if it stays, the server's log says what happened.",
        retryable=True,
    )


async def _caught(request: web.Request, handler: Handler, write: Writer) -> web.StreamResponse:
    try:
        return await handler(request)
    except VoiceForgeError as exc:
        return write(exc)
    except web.HTTPException as exc:
        if exc.status < HTTPStatus.BAD_REQUEST:
            raise
        return write(_of_http(exc))
    except ConnectionError:
        raise  # the client is gone; nobody is left to tell
    except Exception:
        log.exception("request failed", method=request.method, route=route_of(request))
        return write(internal_error())


def route_of(request: web.BaseRequest) -> str:
    """The route's pattern, for logs: a path may hold a session's secret, a pattern never does."""
    if isinstance(request, web.Request):
        resource = request.match_info.route.resource
        if resource is not None:
            return resource.canonical
    return "-"


def _of_http(exc: web.HTTPException) -> HttpError:
    status = HTTPStatus(exc.status)
    if isinstance(exc, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(exc.allowed_methods))
        return HttpError(
            status,
            "METHOD_NOT_ALLOWED",
            f"This address does not take {exc.method[:20]}.",
            f"It takes {allowed}.",
            headers={"Allow": allowed},
        )
    if status is HTTPStatus.NOT_FOUND:
        return HttpError(status, "NOT_FOUND", "There is nothing at this address.", "Check the path.")
    return HttpError(status, f"HTTP_{status.value}", f"{status.phrase}.", "Check the request.")
