"""`GET /v1/listen` with an upgrade: live speech by the vendor's protocol, from the handshake to the close frame."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from structlog.contextvars import bound_contextvars

from mediaserver.errors import MediaError, VoiceForgeError
from mediaserver.events import Event
from mediaserver.ingest.bytestream import open_audio
from mediaserver.ingest.feed import Feed
from mediaserver.metrics import Metrics
from mediaserver.outbound.client import parse_url
from mediaserver.session.dialect import Telling
from mediaserver.session_config import SessionConfig
from signaling.limits import Admission
from signaling.model_names import require_served
from signaling.openapi.operation import described
from signaling.outbound import Outbound, Source
from signaling.registry import Registry
from signaling.routes.deepgram.callbacks import CallbackPost
from signaling.routes.deepgram.credentials import credentials_of
from signaling.routes.deepgram.door_operations import LIVE
from signaling.routes.deepgram.query import LiveQuery
from signaling.routes.deepgram.reading import languages_of, parse_query
from signaling.routes.deepgram.refusals import REQUEST_ID, refusal_response
from signaling.routes.deepgram.served import model_info, model_uuid
from signaling.routes.deepgram.wire import Request, Wire
from signaling.sessions import SessionFactory
from signaling.socket import OnMessage, Outgoing
from signaling.socket_door import Terms, require_handshake, serve

DOOR = "deepgram"

IDLE_S = 10.0
"""The vendor's: without audio or a KeepAlive for so long the connection is closed."""

MESSAGE_MAX_BYTES = 4 * 1024 * 1024
"""Clients send 20 to 250 ms at a time, samples of the vendor's whole files. A longer one is closed with 1009."""

HASH_IN_THREAD_BYTES = 256 * 1024
"""A hash over more than this would hold the event loop up for a millisecond or more."""

TERMS = Terms(
    DOOR,
    MESSAGE_MAX_BYTES,
    {
        "client": (WSCloseCode.OK, ""),
        "undecodable": (WSCloseCode.POLICY_VIOLATION, "DATA-0000 The audio cannot be decoded."),
        "timeout": (WSCloseCode.INTERNAL_ERROR, f"NET-0001 Neither audio nor a KeepAlive came for {IDLE_S:g} s."),
        "shutdown": (WSCloseCode.GOING_AWAY, "The server is shutting down."),
        "session_max": (WSCloseCode.INTERNAL_ERROR, "The session has lasted as long as one may."),
        "key_ended": (WSCloseCode.POLICY_VIOLATION, "The key that opened this session no longer works."),
        "minutes_used_up": (WSCloseCode.POLICY_VIOLATION, "The key's minutes of this month are used up."),
        "data_deleted": (WSCloseCode.POLICY_VIOLATION, "The data of this session's tenant is being deleted."),
    },
    failed=(WSCloseCode.INTERNAL_ERROR, "NET-0000 The server failed at this session."),
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a client that may come in asks for."""

    query: LiveQuery
    config: SessionConfig
    model_name: str
    protocols: list[str]


class Listen:
    """The WebSocket.

    Args:
        sessions: makes the sessions.
        registry: where they live.
        admission: whether one more may come in.
        outbound: the way to callbacks.
        metrics: refusals by code.
    """

    def __init__(
        self,
        *,
        sessions: SessionFactory,
        registry: Registry,
        admission: Admission,
        outbound: Outbound,
        metrics: Metrics,
    ) -> None:
        self._sessions = sessions
        self._registry = registry
        self._admission = admission
        self._outbound = outbound
        self._metrics = metrics

    @described(LIVE)
    async def connect(self, request: web.Request) -> web.StreamResponse:
        """GET with an upgrade. Refusals come before it."""
        request_id = str(uuid.uuid4())
        try:
            asked = self._admitted(request)
        except VoiceForgeError as exc:
            self._metrics.refused_total.labels(exc.code).inc()
            return refusal_response(exc, request_id)
        with bound_contextvars(session=request_id):
            return await self._serve(request, request_id, asked)

    def _admitted(self, request: web.Request) -> _Asked:
        credentials = credentials_of(request)
        protocols = [credentials.subprotocol] if credentials.subprotocol else []  # known, or aiohttp logs the key
        require_handshake(
            request,
            "Connect with a WebSocket client, or POST a recording.",
            message="A GET of this address opens a WebSocket.",
            protocols=protocols,
        )
        query = parse_query(LiveQuery, request.query)
        open_audio(query.audio_format).close()
        if query.callback is not None:
            parse_url(query.callback, self._outbound.policy)
        self._admission.check()
        engine = self._sessions.engine
        assert engine is not None  # admitted
        settings = self._sessions.settings
        require_served(query.model, loaded=engine.model_name, aliases=settings.model_aliases)
        language, languages = languages_of(query, known=engine.languages, node_language=settings.language)
        config = SessionConfig.model_validate(
            {
                "language": language,
                "languages": languages,
                "hotwords": query.hotwords or None,
                "interim_results": query.interim_results,
                "revisions": False,  # finals of this protocol are told once
                "endpointing_ms": query.endpointing_ms,
                "utterance_end_ms": query.utterance_end_ms,
            }
        )
        self._sessions.check(config)
        return _Asked(query, config, engine.model_name, protocols)

    async def _serve(self, request: web.Request, request_id: str, asked: _Asked) -> web.StreamResponse:
        outlet = _Outlet()
        feed = Feed(
            session_id=request_id,
            audio_format=asked.query.audio_format,
            open_channels=lambda: self._sessions.channels(
                request_id, asked.config, outlet, count=asked.query.audio_format.count
            ),
            settings=self._sessions.settings,
            metrics=self._metrics,
            idle_timeout_s=IDLE_S,
        )

        def begin(outgoing: Outgoing) -> OnMessage:
            outlet.post = self._callback(asked.query, request_id)
            return _Conversation(feed, asked, request_id, answer=outgoing.send, outlet=outlet).hear

        return await serve(
            request,
            TERMS,
            request_id,
            feed,
            begin,
            registry=self._registry,
            metrics=self._metrics,
            protocols=asked.protocols,
            headers={REQUEST_ID: request_id},
            end=outlet.close,
            channels=asked.query.audio_format.count,
        )

    def _callback(self, query: LiveQuery, request_id: str) -> CallbackPost | None:
        if query.callback is None:
            return None
        post = CallbackPost(
            self._outbound.webhooks(),
            query.callback,
            method=query.callback_method,
            headers={REQUEST_ID: request_id},
            metrics=self._metrics,
            source=Source.now(request_id),
        )
        self._outbound.owes(post)
        return post


class _Outlet:
    """Tells events in the vendor's words, once there is somebody to tell."""

    def __init__(self) -> None:
        self.wire: Wire | None = None
        self.post: CallbackPost | None = None
        self.tell: Callable[[Telling], None] = lambda _telling: None

    def send(self, event: Event, seq: int, channel: int) -> None:
        """As `Outlet.send`."""
        if self.wire is not None:
            for telling in self.wire.tell(event, channel):
                self.tell(telling)

    async def close(self) -> None:
        """Hand what the callback is owed to it."""
        if self.post is not None:
            await self.post.close()


class _Conversation:
    """What one client says, and what comes of it."""

    def __init__(
        self,
        feed: Feed,
        asked: _Asked,
        request_id: str,
        *,
        answer: Callable[[Telling], None],
        outlet: _Outlet,
    ) -> None:
        self._feed = feed
        self._query = asked.query
        self._digest = hashlib.sha256()
        query = asked.query
        outlet.tell = answer if outlet.post is None else outlet.post.send
        self._wire = Wire(
            Request(
                request_id=request_id,
                created=datetime.now(UTC),
                model=model_info(asked.model_name),
                model_uuid=model_uuid(asked.model_name),
                style=query.style,
                channels=feed.channels.count,
                language=asked.config.language,
                has_endpoints=query.has_endpoints,
                has_vad_events=query.vad_events,
                has_utterance_ends=query.utterance_end_ms is not None,
                tags=tuple(query.tag),
                extra=tuple(query.extras.items()),
            ),
            tell=outlet.tell,
            answer=answer,
            digest=self._digest.hexdigest,
        )
        outlet.wire = self._wire
        feed.channels.on_finalized = self._wire.finalized
        feed.channels.start()

    async def hear(self, message: WSMessage) -> bool:
        """Act on a text or binary message; False: the client has said all. Never raises for what is in it."""
        self._feed.touch()
        if message.type is WSMsgType.TEXT:
            return self._wire.hear(message.data, self._feed.channels)
        return await self._take(message.data)

    async def _take(self, audio: bytes) -> bool:
        if not audio:
            return False  # how clients ended a stream before there was a message for it
        try:
            if not self._feed.received_bytes:
                container = self._query.container_format(audio)
                if container is not None:
                    self._feed.reformat(container)
            if len(audio) > HASH_IN_THREAD_BYTES:
                await asyncio.to_thread(self._digest.update, audio)
            else:
                self._digest.update(audio)
            await self._feed.push(audio)
        except MediaError as error:
            self._feed.channels.fail(error)
            await self._feed.close("undecodable")
            return False
        return True
