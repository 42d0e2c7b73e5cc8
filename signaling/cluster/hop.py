"""Any place can take any request: one that is for a session of another place is passed on to it, and a new session goes
where there is room. One hop at most: what was passed on is handled where it arrives.

What arrives by a hop is asked again who it is, for it comes with its credentials; only its address is taken from the
hop's word (`hop_origin.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

import structlog
from aiohttp import hdrs, web

from mediaserver.errors import CapacityError
from mediaserver.metrics import Metrics
from signaling.auth.addresses import HOP_ADDRESS, client_address
from signaling.cluster.hop_choice import Choice
from signaling.cluster.hop_headers import ORIGIN
from signaling.cluster.hop_origin import HopOrigin
from signaling.cluster.hop_proxy import UNIX, HopProxy, PlaceGone
from signaling.cluster.places import Place, Places, place_id_of
from signaling.openapi.operation import Operation, description_of
from signaling.problems import Handler, HttpError, problem_response
from signaling.seeing.requests import REQUEST, request_id_of

log = structlog.get_logger(__name__)

SECRETS = ("secret", "call_id")
"""Parts of paths that name a session by its secret."""

CALL_PREFIX = "rtc_"
"""What stands before it in OpenAI's."""


class Hop:
    """Two middlewares: `arriving`, the outermost, and `leaving`, which stands before whoever asks for credentials.

    Args:
        places: who is there.
        look: looks once more who is.
        origin: signs, and checks.
        trusted_proxies: networks of proxies that are believed.
        metrics: what was passed on, and what was refused.
        on_refused: hears of each request that came by the inner door and was not let in, with the code of the refusal.
    """

    def __init__(
        self,
        *,
        places: Places,
        look: Callable[[], Awaitable[None]],
        origin: HopOrigin,
        trusted_proxies: Sequence[str],
        metrics: Metrics,
        on_refused: Callable[[web.Request, str], None],
    ) -> None:
        self.proxy = HopProxy(origin)
        self._places = places
        self._look = look
        self._origin = origin
        self._trusted_proxies = trusted_proxies
        self._metrics = metrics
        self._on_refused = on_refused
        self.goes_on_at: Callable[[str], Awaitable[str]] | None = None
        """Which place has the session of a URL whose own place is gone; empty where none has, or nobody can tell."""
        self._doors: set[object] = set()
        self._inner: dict[str, Handler] = {}
        self._choice = Choice()
        places.on_gone += [self._choice.forget, self.proxy.forget]

    def listens_at(self, name: object) -> None:
        """What comes in at this address of a socket of ours was passed on: a path, or host and port."""
        self._doors.add(name)

    def answers(self, path: str, handler: Handler) -> None:
        """Have this path answered, for other places only."""
        self._inner[path] = handler

    @web.middleware
    async def arriving(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Believe what another place says of its client; from anybody else it is not even read."""
        if self._is_door(request):
            target = str(request.rel_url)
            try:
                request[HOP_ADDRESS] = self._origin.check(request.method, target, request.headers.get(ORIGIN, ""))
            except HttpError as exc:
                self._metrics.refused_total.labels(exc.code).inc()
                self._on_refused(request, exc.code)
                return problem_response(exc)
            if request.path in self._inner:
                return await self._inner[request.path](request)
        return await handler(request)

    @web.middleware
    async def leaving(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Pass on what is for another place."""
        place = None if HOP_ADDRESS in request else await self._place_of(request)
        if place is None:
            return await handler(request)
        response: web.StreamResponse | None = None
        try:
            response = await self.proxy.pass_on(
                request,
                place,
                client_address(request, self._trusted_proxies),
                request_id=request[REQUEST].request_id if REQUEST in request else request_id_of(None),
            )
        except PlaceGone:
            self._metrics.hops_total.labels("gone").inc()
            return await handler(request)
        except CapacityError:
            self._metrics.hops_total.labels("failed").inc()
            raise
        finally:
            if not _names_a_session(request) and (response is None or response.status >= HTTPStatus.BAD_REQUEST):
                self._choice.take_back(place)
        self._metrics.hops_total.labels("passed_on").inc()
        return response

    async def close(self) -> None:
        """Hang up on other places."""
        await self.proxy.close()

    def _is_door(self, request: web.Request) -> bool:
        name = None if request.transport is None else request.transport.get_extra_info("sockname")
        return (name[:2] if isinstance(name, tuple) else name) in self._doors

    async def _place_of(self, request: web.Request) -> Place | None:
        """Where a request belongs; None: here."""
        if request.method == hdrs.METH_OPTIONS or request.match_info.http_exception is not None:
            return None
        for name in SECRETS:
            if name in request.match_info:
                return await self._place_with(request.match_info[name].removeprefix(CALL_PREFIX))
        operation = description_of(request.match_info.handler)
        if not isinstance(operation, Operation) or not operation.opens_session or self._places.is_alone:
            return None
        others = [place for place in self._places.others() if self._can_reach(place)]
        return self._choice.place_for(self._places.own, others, is_proxied=request.method == hdrs.METH_GET)

    async def _place_with(self, secret: str) -> Place | None:
        place_id = place_id_of(secret)
        if place_id in ("", self._places.own.place_id):
            return None
        place = await self._place_called(place_id)
        if place is None and self.goes_on_at is not None:  # a client may not know yet that it is not there any more
            place = await self._place_called(await self.goes_on_at(secret))
        return place

    async def _place_called(self, place_id: str) -> Place | None:
        if place_id in ("", self._places.own.place_id):
            return None
        if self._places.find(place_id) is None:
            await self._look()  # it may have come since
        place = self._places.find(place_id)
        return place if place is not None and self._can_reach(place) else None

    def _can_reach(self, place: Place) -> bool:
        """A socket in a folder is of one machine."""
        return not place.address.startswith(UNIX) or place.node == self._places.own.node


def _names_a_session(request: web.Request) -> bool:
    """Whether it is for one that is there; of the others it was chosen where they go."""
    return any(name in request.match_info for name in SECRETS)
