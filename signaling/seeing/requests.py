"""What is known of a request before anybody has looked into it: its name in logs and records, and where it comes from.

A caller's `X-Request-ID` is kept, so that a line here is found by what stands in the caller's own log; without one, or
with one that could do mischief in a log, one is made. The response says it, whatever becomes of the request.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from aiohttp import web
from structlog.contextvars import bound_contextvars, unbind_contextvars

from signaling.auth.addresses import client_address
from signaling.problems import Handler, route_of
from signaling.seeing.telemetry import REQUEST_HEADER

ID_BYTES = 8
"""64 bits: unique in a log's lifetime, short enough to read out."""

_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,100}")


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """One request, as plain data: sessions keep it for as long as they live.

    Args:
        request_id: its name.
        address: of the client, as `auth.addresses.client_address` has it.
        method: of HTTP.
        route: the pattern, for a path may hold a secret.
        began_ns: when it was seen, in nanoseconds since 1970.
    """

    request_id: str
    address: str
    method: str
    route: str
    began_ns: int


REQUEST = web.RequestKey("request_info", RequestInfo)

_CURRENT: ContextVar[RequestInfo | None] = ContextVar("request_info", default=None)


def current_request() -> RequestInfo | None:
    """The request that is being handled, also in tasks that it started; None outside of any."""
    return _CURRENT.get()


def request_id_of(given: str | None) -> str:
    """A caller's name for its request, or a new one."""
    return given if given is not None and _ID.fullmatch(given) else secrets.token_hex(ID_BYTES)


class Requests:
    """Names requests.

    Args:
        trusted_proxies: networks of proxies that are believed.
    """

    def __init__(self, *, trusted_proxies: Sequence[str]) -> None:
        self._trusted_proxies = trusted_proxies

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The outermost of all: every line that is logged on a request's behalf has its name."""
        info = self.named(request)
        unbind_contextvars("trace_id")  # of the request before on the same connection
        token = _CURRENT.set(info)
        try:
            with bound_contextvars(request=info.request_id):
                return await handler(request)
        finally:
            _CURRENT.reset(token)

    def named(self, request: web.Request) -> RequestInfo:
        """What is known of a request by what it says and where it comes from; its response says its name."""
        info = request[REQUEST] = RequestInfo(
            request_id_of(request.headers.get(REQUEST_HEADER)),
            client_address(request, self._trusted_proxies),
            request.method,
            route_of(request),
            time.time_ns(),
        )
        return info

    async def on_response(self, request: web.Request, response: web.StreamResponse) -> None:
        """Says the name in the response."""
        info = request.get(REQUEST)
        if info is not None:
            response.headers[REQUEST_HEADER] = info.request_id
