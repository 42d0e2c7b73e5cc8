"""WHIP, the WebRTC-HTTP Ingestion Protocol (RFC 9725): an offer comes in by POST, and a session is a URL.

The query of the POST is the session's configuration: `POST /whip?language=en&interim_results=false`. The session's URL
is a secret: whoever knows it may trickle candidates into the session, look at it, read its events and end it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Protocol

import structlog
from aiohttp import web
from multidict import CIMultiDict
from structlog.contextvars import bound_contextvars

from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics
from mediaserver.session.eventlog import Entry, EventLog
from mediaserver.session.resumption import GoingOn
from mediaserver.session.tap import Tap
from mediaserver.session_config import SessionConfig
from signaling.answering import Answering
from signaling.eventlogs import EventLogs
from signaling.limits import (
    SDP_MAX_BYTES,
    SDPFRAG_MAX_BYTES,
    load_denoiser,
    read_text,
)
from signaling.metadata import with_header_metadata
from signaling.openapi.operation import described
from signaling.problems import HttpError
from signaling.query import read_query
from signaling.registry import LiveSession, Registry, ReturningPeer, WebRtcPeer
from signaling.resume.elsewhere import Found
from signaling.resume.returning import ResumeQuery, Returning
from signaling.routes.whip_http import NOT_KEPT, require_match, require_type, what_may_be_sent
from signaling.routes.whip_opening import IS_STEREO, WEBHOOK_SECRET, WEBHOOK_URL, Opening, url_of
from signaling.routes.whip_operations import (
    CREATE,
    DELETE,
    DESCRIBE,
    NOTHING,
    PREFLIGHT,
    RESUME,
    SDP_TYPE,
    SDPFRAG_TYPE,
    SESSION_PREFLIGHT,
    TRICKLE,
    WhipQuery,
)
from signaling.seeing.audit_door import concerning
from signaling.session_webhooks import Receiver, SessionWebhooks, receiver_of
from stun_turn.servers import IceServers, newcomer

log = structlog.get_logger(__name__)

DOOR = "whip"

DELETE_DEADLINE_S = 5.0
"""How long the finals of a session may take that its client ends: a decode of a long utterance, with room to queue."""


class PeerFactory(Protocol):
    """Makes the peer of a new session."""

    def __call__(
        self,
        session_id: str,
        config: SessionConfig,
        *,
        taps: Sequence[Tap],
        is_stereo: bool,
        log: EventLog,
        door: str,
    ) -> WebRtcPeer:
        """The peer of a session, whose events `log` and `taps` hear too; raises ConfigError if that cannot be had."""
        ...


class Whip:
    """The WHIP endpoint (`/whip`) and its sessions (`/whip/<secret>`).

    Args:
        registry: where sessions live.
        answering: how an offer becomes a session.
        make_peer: makes the server's end of a peer connection.
        logs: where others read what a session tells.
        webhooks: where it is posted.
        returning: who may come back.
        ice_servers: what clients are told to use, with credentials of each session's own.
        metrics: refusals by code.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        answering: Answering,
        make_peer: PeerFactory,
        logs: EventLogs,
        webhooks: SessionWebhooks,
        returning: Returning,
        ice_servers: IceServers,
        metrics: Metrics,
    ) -> None:
        self._registry = registry
        self._answering = answering
        self._make_peer = make_peer
        self._logs = logs
        self._webhooks = webhooks
        self._returning = returning
        self._ice_servers = ice_servers
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router; other methods are 405 with `Allow`."""
        return [
            web.post("/whip", self.create),
            web.get("/whip", self.nothing, allow_head=False),
            web.options("/whip", self.preflight),
            web.get("/whip/{secret}", self.describe, allow_head=False),
            web.post("/whip/{secret}", self.resume),
            web.patch("/whip/{secret}", self.trickle),
            web.delete("/whip/{secret}", self.delete),
            web.options("/whip/{secret}", self.session_preflight),
        ]

    @described(CREATE)
    async def create(self, request: web.Request) -> web.Response:
        """POST an offer: 201 with the answer and the session's URL (RFC 9725 §4.2)."""
        try:
            return await self._create(request)
        except VoiceForgeError as exc:
            self._metrics.refused_total.labels(exc.code).inc()
            raise

    @described(RESUME)
    async def resume(self, request: web.Request) -> web.Response:
        """POST an offer to a session: 201 with the answer; it goes on over this peer connection."""
        try:
            return await self._resume(request)
        except VoiceForgeError as exc:
            self._metrics.refused_total.labels(exc.code).inc()
            self._metrics.resumes_total.labels(DOOR, "refused").inc()
            raise

    @described(NOTHING)
    async def nothing(self, _request: web.Request) -> web.Response:
        """GET of the endpoint: it has no representation, so 204 (RFC 9725 §4.1)."""
        return web.Response(status=HTTPStatus.NO_CONTENT)

    @described(PREFLIGHT)
    async def preflight(self, request: web.Request) -> web.Response:
        """OPTIONS: what may be posted, and what a page of another origin may do (RFC 9725 §4.2, CORS).

        ICE servers too, for clients that cannot learn of them after their offer; a browser that asks for a page's sake
        gets none, for it asks without credentials of its own (§4.6).
        """
        response = what_may_be_sent()
        if "Access-Control-Request-Method" not in request.headers:
            response.headers.update(NOT_KEPT)
            for link in self._ice_servers.links(newcomer()):
                response.headers.add("Link", link)
        return response

    @described(SESSION_PREFLIGHT)
    async def session_preflight(self, _request: web.Request) -> web.Response:
        """OPTIONS of a session: the same, whether or not there is one."""
        return what_may_be_sent()

    @described(DESCRIBE)
    async def describe(self, request: web.Request) -> web.Response:
        """GET a session: its state as JSON, for a person who looks for a fault."""
        live, _ = self._find(request)
        concerning(request, session=live.session_id)
        return web.json_response({"session_id": live.session_id, **live.peer.describe()}, headers=NOT_KEPT)

    @described(TRICKLE)
    async def trickle(self, request: web.Request) -> web.Response:
        """PATCH candidates into a session: 204 (RFC 9725 §4.3.1). ICE restarts are refused."""
        live, peer = self._find(request)
        require_type(request, SDPFRAG_TYPE, accept_header="Accept-Patch")
        require_match(request, live.etag)
        fragment = await read_text(request, limit_bytes=SDPFRAG_MAX_BYTES, invalid_code="INVALID_SDPFRAG")
        with bound_contextvars(session=live.session_id):
            await peer.add_candidates(fragment)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    @described(DELETE)
    async def delete(self, request: web.Request) -> web.Response:
        """DELETE a session: 200 once its finals are out and it is closed. Entity-tags are ignored (RFC 9725 §4.3)."""
        session_id = await self._returning.end(request.match_info["secret"], door=DOOR, deadline_s=DELETE_DEADLINE_S)
        concerning(request, session=session_id)
        return web.Response(status=HTTPStatus.OK)

    async def _create(self, request: web.Request) -> web.Response:
        require_type(request, SDP_TYPE, accept_header="Accept-Post")
        query = read_query(WhipQuery, request.query)
        config = with_header_metadata(query.session(), request.headers)
        receiver = receiver_of(request.headers, self._webhooks.policy)
        offer = await read_text(request, limit_bytes=SDP_MAX_BYTES, invalid_code="INVALID_SDP")
        await load_denoiser(config)
        opening = self._opening(config, receiver, is_stereo=query.multichannel)
        live, _, answer = await self._answering.open(
            offer, opening.make_peer, door=DOOR, registered=opening.registered, is_stereo=query.multichannel
        )
        opening.publish(live)
        return self._created(live, answer)

    def _opening(
        self,
        config: SessionConfig,
        receiver: Receiver | None,
        *,
        is_stereo: bool,
        entries: Sequence[Entry] = (),
        going_on: GoingOn | None = None,
    ) -> Opening:
        make_peer = partial(self._make_peer, config=config, is_stereo=is_stereo, door=DOOR)
        if going_on is not None:
            make_peer = partial(make_peer, going_on=going_on)
        first = 0 if going_on is None else going_on.seq
        return Opening(
            make_peer, self._logs, self._webhooks, receiver, is_stereo=is_stereo, entries=entries, first=first
        )

    async def _resume(self, request: web.Request) -> web.Response:
        live = await self._returning.find(request, request.match_info["secret"], door=DOOR)
        if isinstance(live, Found):
            return await self._go_on(request, live)
        peer = live.peer
        if not isinstance(peer, ReturningPeer) or not peer.can_resume:
            raise self._returning.cannot()
        require_type(request, SDP_TYPE, accept_header="Accept-Post")
        after = read_query(ResumeQuery, request.query).after
        self._returning.require_known(after, newest=peer.newest)
        offer = await read_text(request, limit_bytes=SDP_MAX_BYTES, invalid_code="INVALID_SDP")
        return self._created(live, await self._answering.resume(offer, live, peer, after=after))

    async def _go_on(self, request: web.Request, found: Found) -> web.Response:
        """Serve a session that another process had."""
        require_type(request, SDP_TYPE, accept_header="Accept-Post")
        after = read_query(ResumeQuery, request.query).after
        self._returning.require_known(after, newest=found.newest)
        offer = await read_text(request, limit_bytes=SDP_MAX_BYTES, invalid_code="INVALID_SDP")
        record, door = found.record, found.record.asked.door
        config = self._returning.config_of(found, SessionConfig)
        await load_denoiser(config)
        receiver = Receiver(door[WEBHOOK_URL], door.get(WEBHOOK_SECRET)) if WEBHOOK_URL in door else None
        async with self._returning.claimed(found) as taken:
            opening = self._opening(
                config,
                receiver,
                is_stereo=IS_STEREO in door,
                entries=record.entries(),
                going_on=found.going_on_live(),
            )

            def registered(live: LiveSession) -> None:
                opening.registered(live)
                taken(live)

            live, _, answer = await self._answering.open(
                offer,
                opening.make_peer,
                door=DOOR,
                registered=registered,
                going_on=(found, after),
                is_stereo=IS_STEREO in door,
            )
        opening.publish(live)
        return self._created(live, answer)

    def _created(self, live: LiveSession, answer: str) -> web.Response:
        headers = CIMultiDict({"Location": url_of(live), "ETag": live.etag, "Accept-Patch": SDPFRAG_TYPE})
        headers.update(NOT_KEPT)
        headers.add("Link", f'<{url_of(live)}/events>; rel="events"; type="text/event-stream"')
        for link in self._ice_servers.links(live.session_id):
            headers.add("Link", link)
        # As bytes: text would add `; charset=utf-8`, and clients compare the type with `application/sdp` as it is.
        return web.Response(status=HTTPStatus.CREATED, body=answer.encode(), content_type=SDP_TYPE, headers=headers)

    def _find(self, request: web.Request) -> tuple[LiveSession, WebRtcPeer]:
        live = self._returning.locate(request.match_info["secret"])
        if live is None or not isinstance(live.peer, WebRtcPeer):
            raise HttpError(
                HTTPStatus.NOT_FOUND,
                "SESSION_NOT_FOUND",
                "There is no such session, or it has ended.",
                "POST an offer to /whip for a new one.",
            )
        return live, live.peer
