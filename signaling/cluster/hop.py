"""Any place can take any request: one that is for a session of another place is passed on to it, and a new session goes
where there is room. What was passed on is handled where it arrives, but for a session that another place has taken up
meanwhile: then that one gets it. No request goes round, for one place at a time has the claim.

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
        """Which place has taken up the session of a URL; empty where none has, or nobody can tell."""
        self.lives_here: Callable[[str], bool] | None = None
        """Whether this place has the session of a URL."""
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
        tried: set[str] = set()  # a few: each has claimed the session that the one before had
        place = await self._place_of(request)
        while place is not None and place.place_id not in tried:
            tried.add(place.place_id)
            try:
                return await self._passed_on(request, place)
            except PlaceGone:
                self._metrics.hops_total.labels("gone").inc()
                secret = _secret_of(request)
                place = None if secret is None else await self._claimant_of(secret)
        return await handler(request)

    async def close(self) -> None:
        """Hang up on other places."""
        await self.proxy.close()

    async def _passed_on(self, request: web.Request, place: Place) -> web.StreamResponse:
        response: web.StreamResponse | None = None
        try:
            response = await self.proxy.pass_on(
                request,
                place,
                client_address(request, self._trusted_proxies),
                request_id=request[REQUEST].request_id if REQUEST in request else request_id_of(None),
            )
        except CapacityError:
            self._metrics.hops_total.labels("failed").inc()
            raise
        finally:
            if _secret_of(request) is None and (response is None or response.status >= HTTPStatus.BAD_REQUEST):
                self._choice.take_back(place)
        self._metrics.hops_total.labels("passed_on").inc()
        return response

    def _is_door(self, request: web.Request) -> bool:
        name = None if request.transport is None else request.transport.get_extra_info("sockname")
        return (name[:2] if isinstance(name, tuple) else name) in self._doors

    async def _place_of(self, request: web.Request) -> Place | None:
        """Where a request belongs; None: here."""
        if request.method == hdrs.METH_OPTIONS or request.match_info.http_exception is not None:
            return None
        secret, is_passed_on = _secret_of(request), HOP_ADDRESS in request
        if secret is not None:
            return await self._place_with(secret, is_passed_on=is_passed_on)
        if is_passed_on:
            return None
        operation = description_of(request.match_info.handler)
        if not isinstance(operation, Operation) or not operation.opens_session or self._places.is_alone:
            return None
        others = [place for place in self._places.others() if self._can_reach(place)]
        return self._choice.place_for(self._places.own, others, is_proxied=request.method == hdrs.METH_GET)

    async def _place_with(self, secret: str, *, is_passed_on: bool) -> Place | None:
        place_id = place_id_of(secret)
        if not place_id:
            return None
        place = None if is_passed_on else await self._place_called(place_id)
        return place or await self._claimant_of(secret)

    async def _claimant_of(self, secret: str) -> Place | None:
        """Who has taken a session up: its client may not know that it is not where its URL says."""
        if self.goes_on_at is None or (self.lives_here is not None and self.lives_here(secret)):
            return None
        return await self._place_called(await self.goes_on_at(secret))

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


def _secret_of(request: web.Request) -> str | None:
    """Of the session that a request is for; None where it is for none, and it was chosen where it goes."""
    for name in SECRETS:
        if name in request.match_info:
            return request.match_info[name].removeprefix(CALL_PREFIX)
    return None
