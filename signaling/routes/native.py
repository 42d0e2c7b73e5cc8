"""The native protocol over a WebSocket: `/ws/v1/transcribe`, audio in and events out on one connection, or on several
one after another where a connection drops.
"""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import WSCloseCode, web
from structlog.contextvars import bound_contextvars

from mediaserver.errors import CapacityError, VoiceForgeError
from mediaserver.ingest.bytestream import byte_at, open_audio
from mediaserver.ingest.feed import Feed
from mediaserver.metrics import Metrics
from mediaserver.session.channels import Outlet
from mediaserver.session.eventlog import EventLog
from mediaserver.session.resumption import GoingOn
from signaling.limits import Admission, load_denoiser
from signaling.metadata import with_header_metadata
from signaling.openapi.operation import described
from signaling.preflight import allowed
from signaling.problems import HttpError
from signaling.query import read_query
from signaling.registry import LiveSession, Registry, new_session_id
from signaling.resume.elsewhere import Found
from signaling.resume.returning import ResumeQuery, Returning
from signaling.routes.native_operations import CONNECT, END, PREFLIGHT, RESUME
from signaling.routes.native_stream import DOOR, LOG_KIB_MAX, PATH, NativeStream, check_labels
from signaling.seeing.audit_door import concerning
from signaling.seeing.telemetry import REQUEST_HEADER
from signaling.seeing.tracing import TRACEPARENT
from signaling.sessions import SessionFactory
from signaling.socket_door import SETUP_DEADLINE_S, Terms, require_handshake, serve, serve_again
from signaling.stream_config import StreamConfig, StreamQuery

MESSAGE_MAX_BYTES = 1024 * 1024
"""30 s of linear16 at 16 kHz; clients send 20 to 250 ms. A longer one ends the connection with 1009."""

LETTERS_PER_KIB = 1024

END_DEADLINE_S = 5.0
"""How long the finals of a session may take that its client ends: a decode of a long utterance, with room to queue."""

ALLOWED_HEADERS = ("Authorization", REQUEST_HEADER, TRACEPARENT)
"""What a page of another origin may send with a DELETE."""

TERMS = Terms(
    DOOR,
    MESSAGE_MAX_BYTES,
    {
        "client": (WSCloseCode.OK, ""),
        "shutdown": (WSCloseCode.GOING_AWAY, "The server is shutting down."),
        "undecodable": (WSCloseCode.UNSUPPORTED_DATA, "The audio cannot be decoded; the error before says why."),
        "timeout": (WSCloseCode.POLICY_VIOLATION, "No message came for too long: send audio or keep_alive."),
        "session_max": (WSCloseCode.POLICY_VIOLATION, "The session has lasted as long as one may."),
        "key_ended": (WSCloseCode.POLICY_VIOLATION, "The key that opened this session no longer works."),
        "minutes_used_up": (WSCloseCode.POLICY_VIOLATION, "The key's minutes of this month are used up."),
        "data_deleted": (WSCloseCode.POLICY_VIOLATION, "The data of this session's tenant is being deleted."),
    },
)


class Native:
    """The native WebSocket.

    Args:
        sessions: makes the sessions.
        registry: where they live.
        admission: whether one more may come in.
        returning: who may come back.
        metrics: refusals by code.
    """

    def __init__(
        self,
        *,
        sessions: SessionFactory,
        registry: Registry,
        admission: Admission,
        returning: Returning,
        metrics: Metrics,
    ) -> None:
        self._sessions = sessions
        self._registry = registry
        self._admission = admission
        self._returning = returning
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        return [
            web.get(PATH, self.connect, allow_head=False),
            web.get(f"{PATH}/{{secret}}", self.resume, allow_head=False),
            web.delete(f"{PATH}/{{secret}}", self.end),
            web.options(f"{PATH}/{{secret}}", self.preflight),
        ]

    @described(CONNECT)
    async def connect(self, request: web.Request) -> web.StreamResponse:
        """GET with an upgrade: a session from the handshake to the close frame. Refusals come before the upgrade."""
        try:
            config = await self._admitted(request)
        except VoiceForgeError as exc:
            self._metrics.refused_total.labels(exc.code).inc()
            raise
        session_id = new_session_id()
        with bound_contextvars(session=session_id):
            stream = self._stream(session_id, config)
            return await serve(
                request,
                TERMS,
                session_id,
                stream.feed,
                stream.begin,
                registry=self._registry,
                metrics=self._metrics,
                guest=stream,
                channels=config.audio_format.count,
            )

    @described(RESUME)
    async def resume(self, request: web.Request) -> web.StreamResponse:
        """GET with an upgrade, by a client whose connection dropped: its session goes on."""
        try:
            after, found = await self._found(request)
            if isinstance(found, Found):
                return await self._go_on(request, found, after)
            live, stream = self._waiting(request, found, after)
        except VoiceForgeError as exc:
            self._metrics.refused_total.labels(exc.code).inc()
            self._metrics.resumes_total.labels(DOOR, "refused").inc()
            raise
        with bound_contextvars(session=live.session_id):
            return await serve_again(
                request,
                TERMS,
                stream.feed,
                lambda outgoing: stream.resume(outgoing, after=after),
                metrics=self._metrics,
                guest=stream,
            )

    @described(END)
    async def end(self, request: web.Request) -> web.Response:
        """DELETE: 200 once the session has ended, whether or not its client is connected."""
        session_id = await self._returning.end(request.match_info["secret"], door=DOOR, deadline_s=END_DEADLINE_S)
        concerning(request, session=session_id)
        return web.Response(status=HTTPStatus.OK)

    @described(PREFLIGHT)
    async def preflight(self, _request: web.Request) -> web.Response:
        """OPTIONS: what a page of another origin may do (CORS); the same whether or not there is a session."""
        return allowed("GET, DELETE, OPTIONS", ALLOWED_HEADERS)

    async def _admitted(self, request: web.Request) -> StreamConfig:
        """What the client asks for, if it may come in."""
        _refuse_subprotocols(request)
        self._admission.check()
        config = with_header_metadata(read_query(StreamQuery, request.query), request.headers)
        check_labels(config)
        open_audio(config.audio_format).close()
        self._sessions.check(config.session())
        # After all else but what costs time: browsers ask without a handshake why they were refused.
        require_handshake(request, "Connect with a WebSocket client (RFC 6455).")
        await self._admission.check_once_loaded(config)
        return config

    async def _found(self, request: web.Request) -> tuple[int, LiveSession | Found]:
        """The last event that a client knows, and the session that it comes back to."""
        _refuse_subprotocols(request)
        after = read_query(ResumeQuery, request.query).after
        return after, await self._returning.find(request, request.match_info["secret"], door=DOOR)

    async def _go_on(self, request: web.Request, found: Found, after: int) -> web.StreamResponse:
        """Serve a session that another process had."""
        self._returning.require_known(after, newest=found.newest)
        require_handshake(request, "Come back with a WebSocket client (RFC 6455).")
        session_id = found.record.session_id
        config = self._returning.config_of(found, StreamConfig)
        await load_denoiser(config)
        with bound_contextvars(session=session_id):
            async with self._returning.claimed(found) as taken:
                stream = self._stream(session_id, config, found)
                stream.on_registered = taken
                try:
                    return await serve(
                        request,
                        TERMS,
                        session_id,
                        stream.feed,
                        lambda outgoing: stream.begin_again(outgoing, after=after),
                        registry=self._registry,
                        metrics=self._metrics,
                        guest=stream,
                        age_s=stream.age_s,
                        channels=config.audio_format.count,
                    )
                except CapacityError:  # there is no place for it; nobody was told of anything
                    await stream.close("setup_failed", deadline_s=SETUP_DEADLINE_S)
                    raise

    def _waiting(self, request: web.Request, live: LiveSession, after: int) -> tuple[LiveSession, NativeStream]:
        """A session that waits here for its client."""
        stream = live.peer
        if not isinstance(stream, NativeStream) or not stream.can_resume:
            raise self._returning.cannot()
        if not stream.is_open:
            raise self._returning.gone()
        self._returning.require_known(after, newest=stream.newest)
        require_handshake(request, "Come back with a WebSocket client (RFC 6455).")
        return live, stream

    def _stream(self, session_id: str, config: StreamConfig, found: Found | None = None) -> NativeStream:
        settings = self._sessions.settings
        going_on, first_byte = (None, 0) if found is None else _going_on(found, config)

        def open_feed(outlet: Outlet) -> Feed:
            return Feed(
                session_id=session_id,
                audio_format=config.audio_format,
                open_channels=lambda: self._sessions.channels(
                    session_id, config.session(), outlet, count=config.audio_format.count, going_on=going_on
                ),
                settings=settings,
                metrics=self._metrics,
                idle_timeout_s=settings.socket_idle_timeout_s,
                age_s=0.0 if going_on is None else going_on.age_s,
                first_byte=first_byte,
            )

        kept_kib = min(settings.event_log_kib, LOG_KIB_MAX)
        waits = settings.resume_window_s > 0
        return NativeStream(
            session_id=session_id,
            config=config,
            open_feed=open_feed,
            window_s=settings.resume_window_s,
            log=EventLog(session_id, kept_letters=kept_kib * LETTERS_PER_KIB) if waits else None,
            metrics=self._metrics,
            found=found,
        )


def _going_on(found: Found, config: StreamConfig) -> tuple[GoingOn, int]:
    """Where a session goes on that another process had, and which byte of the client's stream that is.

    Raw audio is sent again from where all of it was final. Packets and containers cannot be: what was not final is
    lost, and the clock has gone on.
    """
    settled = found.record.settled()
    first_byte = byte_at(config.audio_format, min(position.sample for position in settled))
    if first_byte is not None:
        return found.going_on(settled), first_byte
    return found.going_on_live(), 0


def _refuse_subprotocols(request: web.Request) -> None:
    if "Sec-WebSocket-Protocol" in request.headers:  # clients put keys there, and aiohttp logs what it knows not
        raise HttpError(
            HTTPStatus.BAD_REQUEST,
            "UNKNOWN_SUBPROTOCOL",
            "This address speaks no WebSocket subprotocol.",
            "Leave the subprotocols out.",
        )
