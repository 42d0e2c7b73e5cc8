"""`POST /v1/realtime/calls`: a transcription session over WebRTC; events over the data channel `oai-events`."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web
from structlog.contextvars import bound_contextvars

from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics
from signaling.answering import Answering
from signaling.openapi.operation import described
from signaling.preflight import allowed
from signaling.problems import HttpError
from signaling.registry import Registry, WebRtcPeer
from signaling.routes.openai_realtime.access import Access
from signaling.routes.openai_realtime.conversation import Conversation
from signaling.routes.openai_realtime.realtime_operations import CALL, CALL_PREFLIGHT, HANG_UP, PREFLIGHT
from signaling.routes.openai_realtime.requests import SDP_TYPE, read_offer
from signaling.routes.openai_realtime.session_state import SessionState, parse_session
from signaling.sessions import SessionFactory

DOOR = "openai-webrtc"
PATH = "/v1/realtime/calls"
CALL_PREFIX = "rtc_"

ALLOWED_HEADERS = (
    "Authorization",
    "Content-Type",
    "OpenAI-Beta",
    "OpenAI-Organization",
    "OpenAI-Project",
    "OpenAI-Safety-Identifier",
    "X-OpenAI-Agents-SDK",
)
"""What the vendor's SDKs send from a browser."""

HANG_UP_DEADLINE_S = 5.0
"""How long the finals of a call may take that its client ends."""


class CallsDoor:
    """WebRTC calls.

    Args:
        sessions: makes their peers.
        answering: how an offer becomes a session.
        registry: where sessions live.
        access: who may come in.
        metrics: refusals by code.
    """

    def __init__(
        self, *, sessions: SessionFactory, answering: Answering, registry: Registry, access: Access, metrics: Metrics
    ) -> None:
        self._sessions = sessions
        self._answering = answering
        self._registry = registry
        self._access = access
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        return [
            web.post(PATH, self.create),
            web.options(PATH, self.preflight),
            web.post(f"{PATH}/{{call_id}}/hangup", self.hang_up),
            web.options(f"{PATH}/{{call_id}}/hangup", self.call_preflight),
        ]

    @described(CALL)
    async def create(self, request: web.Request) -> web.Response:
        """POST an offer: 201 with the answer and the call's URL."""
        try:
            return await self._create(request)
        except VoiceForgeError as error:
            self._metrics.refused_total.labels(error.code).inc()
            raise

    @described(HANG_UP)
    async def hang_up(self, request: web.Request) -> web.Response:
        """POST: 200 once the call's finals are out and it is closed.

        A key is asked for as for opening a call, as OpenAI does; the URL, a secret, says which call.
        """
        secret = request.match_info["call_id"].removeprefix(CALL_PREFIX)
        live = self._registry.find(secret)
        if live is None or live.door != DOOR:
            raise HttpError(
                HTTPStatus.NOT_FOUND,
                "CALL_NOT_FOUND",
                "There is no such call, or it has ended.",
                f"POST an offer to {PATH} for a new one.",
            )
        with bound_contextvars(session=live.session_id):
            await self._registry.close(live, "client", deadline_s=HANG_UP_DEADLINE_S)
        return web.Response(status=HTTPStatus.OK)

    @described(PREFLIGHT)
    async def preflight(self, _request: web.Request) -> web.Response:
        """OPTIONS: what a page of another origin may do, where its origin is let in."""
        return preflight_response()

    @described(CALL_PREFLIGHT)
    async def call_preflight(self, _request: web.Request) -> web.Response:
        """OPTIONS of a call."""
        return preflight_response()

    async def _create(self, request: web.Request) -> web.Response:
        state = await self._access.state_of(request)
        offer = await read_offer(request)
        if offer.session is not None:
            state = state.updated(parse_session(offer.session, within="session."))
        await self._access.admit(state)
        live, _, answer = await self._answering.open(
            offer.sdp, lambda session_id: self._peer(session_id, state), door=DOOR
        )
        return web.Response(
            status=HTTPStatus.CREATED,
            body=answer.encode(),  # as text it would get a charset, and clients compare the type as it is
            content_type=SDP_TYPE,
            headers={"Location": f"{PATH}/{CALL_PREFIX}{live.secret}", "Cache-Control": "no-store"},
        )

    def _peer(self, session_id: str, state: SessionState) -> WebRtcPeer:
        conversation = Conversation(
            session_id, state=state, settings=self._access.settings, expires_at=self._access.expires_at()
        )
        return self._sessions.peer(session_id, state.config(), conversation)


def preflight_response() -> web.Response:
    """What the SDKs send from a browser."""
    return allowed("POST, OPTIONS", ALLOWED_HEADERS)
