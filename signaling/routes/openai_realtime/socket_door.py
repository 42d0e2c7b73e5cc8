"""`GET /v1/realtime`: a transcription session over a WebSocket, audio and events as JSON."""

from __future__ import annotations

import asyncio
from functools import partial

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from structlog.contextvars import bound_contextvars

from mediaserver.errors import MediaError, VoiceForgeError
from mediaserver.events import Event
from mediaserver.ingest.bytestream import AudioFormat
from mediaserver.ingest.feed import Feed
from mediaserver.metrics import Metrics
from signaling.limits import load_denoiser
from signaling.openapi.operation import described
from signaling.registry import Registry, new_session_id
from signaling.routes.openai_realtime.access import Access
from signaling.routes.openai_realtime.client_events import (
    APPEND_MAX_BYTES,
    AnyClientEvent,
    InputAudioBufferAppend,
    SessionUpdate,
    TranscriptionSessionUpdate,
    parse_event,
)
from signaling.routes.openai_realtime.conversation import Conversation
from signaling.routes.openai_realtime.errors import RealtimeError
from signaling.routes.openai_realtime.realtime_operations import CONNECT
from signaling.routes.openai_realtime.requests import PROTOCOL
from signaling.routes.openai_realtime.session_state import SessionState
from signaling.sessions import SessionFactory
from signaling.socket import OnMessage, Outgoing, offered_protocols
from signaling.socket_door import Terms, require_handshake, serve

DOOR = "openai-websocket"
PATH = "/v1/realtime"

MESSAGE_MAX_BYTES = -(-APPEND_MAX_BYTES // 3) * 4 + 64 * 1024
"""The longest audio in base64 and what is around it. A longer message ends the connection with 1009."""

INLINE_LETTERS = 64 * 1024
"""Longer messages are read in a thread: this one takes a millisecond, the longest a tenth of a second."""

TERMS = Terms(
    DOOR,
    MESSAGE_MAX_BYTES,
    {
        "client": (WSCloseCode.OK, ""),
        "session_max": (WSCloseCode.OK, "session_expired"),
        "key_ended": (WSCloseCode.POLICY_VIOLATION, "The key that opened this session no longer works."),
        "minutes_used_up": (WSCloseCode.POLICY_VIOLATION, "The key's minutes of this month are used up."),
        "data_deleted": (WSCloseCode.POLICY_VIOLATION, "The data of this session's tenant is being deleted."),
        "shutdown": (WSCloseCode.GOING_AWAY, "The server is shutting down."),
    },
)


class SocketDoor:
    """The WebSocket.

    Args:
        sessions: makes the sessions.
        registry: where they live.
        access: who may come in.
        metrics: refusals by code.
    """

    def __init__(self, *, sessions: SessionFactory, registry: Registry, access: Access, metrics: Metrics) -> None:
        self._sessions = sessions
        self._registry = registry
        self._access = access
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        return [web.get(PATH, self.connect, allow_head=False)]

    @described(CONNECT)
    async def connect(self, request: web.Request) -> web.StreamResponse:
        """GET with an upgrade: a session from the handshake to the close frame. Refusals come before the upgrade."""
        session_id = new_session_id()
        with bound_contextvars(session=session_id):
            try:
                state = await self._admitted(request)
                outlet = _Outlet(session_id, state, self._access)
                feed = Feed(
                    session_id=session_id,
                    audio_format=state.audio_format,
                    open_channels=lambda: self._sessions.channels(session_id, state.config(), outlet),
                    settings=self._sessions.settings,
                    metrics=self._metrics,
                )
            except VoiceForgeError as error:
                self._metrics.refused_total.labels(error.code).inc()
                raise

            def begin(outgoing: Outgoing) -> OnMessage:
                listener = _Listener(feed, outgoing, outlet.conversation)
                outlet.conversation.on_format = partial(_reformat, feed)
                outlet.conversation.begin(feed.channels)
                outlet.outgoing = outgoing
                feed.channels.start()
                return listener.hear

            return await serve(
                request,
                TERMS,
                session_id,
                feed,
                begin,
                registry=self._registry,
                metrics=self._metrics,
                protocols=(PROTOCOL,),
            )

    async def _admitted(self, request: web.Request) -> SessionState:
        offered = offered_protocols(request)
        if offered and PROTOCOL not in offered:
            # A browser would end the connection; and aiohttp would log what is offered instead, keys and all.
            raise RealtimeError(
                "INVALID_SUBPROTOCOL",
                f"The subprotocol `{PROTOCOL}` is not among those offered.",
                f"Offer `{PROTOCOL}` first, and the key after it.",
                param="Sec-WebSocket-Protocol",
            )
        require_handshake(
            request,
            "Connect with a WebSocket client (RFC 6455), or call /v1/realtime/calls over WebRTC.",
            protocols=(PROTOCOL,),
        )
        state = await self._access.state_of(request)
        await self._access.admit(state)
        return state


class _Outlet:
    """Tells events in OpenAI's words, once there is somebody to tell."""

    def __init__(self, session_id: str, state: SessionState, access: Access) -> None:
        self.conversation = Conversation(
            session_id, state=state, settings=access.settings, expires_at=access.expires_at()
        )
        self.outgoing: Outgoing | None = None

    def send(self, event: Event, seq: int, channel: int) -> None:
        """As `Outlet.send`."""
        if self.outgoing is not None:
            for telling in self.conversation.tell(event, seq, channel):
                self.outgoing.send(telling)


class _Listener:
    """What one client says, and what comes of it."""

    def __init__(self, feed: Feed, outgoing: Outgoing, conversation: Conversation) -> None:
        self._feed = feed
        self._outgoing = outgoing
        self._conversation = conversation

    async def hear(self, message: WSMessage) -> bool:
        """Act on a message, in order; the next is read once there is room for its audio. Never raises."""
        try:
            if message.type is WSMsgType.BINARY:
                raise RealtimeError(
                    "INVALID_JSON", "A binary message came.", "Send JSON as text, and audio in it as base64."
                )
            text = message.data
            event, audio = _read(text) if len(text) <= INLINE_LETTERS else await asyncio.to_thread(_read, text)
        except RealtimeError as error:
            self._outgoing.send(self._conversation.fault(error))
            return True
        if not self._feed.is_open:
            return True
        try:
            if audio is not None:
                await self._feed.push(audio)
                return True
            if isinstance(event, SessionUpdate | TranscriptionSessionUpdate):
                await load_denoiser(_asked(event).config())
        except MediaError as error:
            self._outgoing.send(self._conversation.fault(error, event_id=event.event_id))
            return False
        except VoiceForgeError as error:
            self._outgoing.send(self._conversation.fault(error, event_id=event.event_id))
            return True
        for telling in self._conversation.act(event, self._feed.channels):
            self._outgoing.send(telling)
        return True


def _reformat(feed: Feed, audio_format: AudioFormat) -> None:
    """Take another format of audio.

    Raises:
        RealtimeError: audio has come already.
    """
    if feed.received_bytes:
        raise RealtimeError(
            "INVALID_VALUE",
            "`session.audio.input.format`: audio has come already.",
            "Set the format before the first audio, or connect again.",
            param="session.audio.input.format",
        )
    feed.reformat(audio_format)


def _read(text: str) -> tuple[AnyClientEvent, bytes | None]:
    """A message and the audio in it.

    Raises:
        RealtimeError: what is wrong with it.
    """
    event = parse_event(text)
    return event, event.decoded() if isinstance(event, InputAudioBufferAppend) else None


def _asked(event: SessionUpdate | TranscriptionSessionUpdate) -> SessionState:
    """What an update asks for, whatever was asked for before it."""
    if isinstance(event, SessionUpdate):
        return SessionState().updated(event.session)
    return SessionState().updated_legacy(event.session)
