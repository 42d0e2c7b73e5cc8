"""The native protocol over a WebSocket: `/ws/v1/transcribe`, audio in and events out on one connection."""

from __future__ import annotations

import base64
from dataclasses import replace
from http import HTTPStatus

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from structlog.contextvars import bound_contextvars

from mediaserver.errors import ConfigError, MediaError, VoiceForgeError
from mediaserver.events import Event, Ready
from mediaserver.ingest.bytestream import open_audio
from mediaserver.ingest.feed import Feed
from mediaserver.metrics import Metrics
from mediaserver.session.channels import Channels
from mediaserver.session.dialect import NativeDialect
from signaling.limits import Admission, load_denoiser
from signaling.metadata import with_header_metadata
from signaling.openapi.operation import described
from signaling.problems import HttpError
from signaling.query import read_query
from signaling.registry import Registry, new_session_id
from signaling.routes.native_messages import Audio, CloseStream, Configure, Finalize, KeepAlive, parse_message
from signaling.routes.native_operations import CONNECT
from signaling.sessions import SessionFactory
from signaling.socket import OnMessage, Outgoing
from signaling.socket_door import Terms, require_handshake, serve
from signaling.stream_config import StreamConfig, StreamQuery

DOOR = "websocket"
PATH = "/ws/v1/transcribe"

MESSAGE_MAX_BYTES = 1024 * 1024
"""30 s of linear16 at 16 kHz; clients send 20 to 250 ms. A longer one ends the connection with 1009."""

FORMAT_FIELDS = ("encoding", "sample_rate", "channels", "multichannel")
"""What of the configuration is about the bytes."""

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
    },
)


class Native:
    """The native WebSocket.

    Args:
        sessions: makes the sessions.
        registry: where they live.
        admission: whether one more may come in.
        metrics: refusals by code.
    """

    def __init__(self, *, sessions: SessionFactory, registry: Registry, admission: Admission, metrics: Metrics) -> None:
        self._sessions = sessions
        self._registry = registry
        self._admission = admission
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        return [web.get(PATH, self.connect, allow_head=False)]

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
            return await self._serve(request, session_id, config)

    async def _admitted(self, request: web.Request) -> StreamConfig:
        """What the client asks for, if it may come in."""
        if "Sec-WebSocket-Protocol" in request.headers:  # clients put keys there, and aiohttp logs what it knows not
            raise HttpError(
                HTTPStatus.BAD_REQUEST,
                "UNKNOWN_SUBPROTOCOL",
                "This address speaks no WebSocket subprotocol.",
                "Leave the subprotocols out.",
            )
        require_handshake(request, "Connect with a WebSocket client (RFC 6455).")
        config = with_header_metadata(read_query(StreamQuery, request.query), request.headers)
        _check_labels(config)
        open_audio(config.audio_format).close()
        self._admission.check()
        self._sessions.check(config.session())
        await self._admission.check_once_loaded(config)
        return config

    async def _serve(self, request: web.Request, session_id: str, config: StreamConfig) -> web.StreamResponse:
        outlet = _Outlet(session_id, config)
        feed = Feed(
            session_id=session_id,
            audio_format=config.audio_format,
            open_channels=lambda: self._sessions.channels(
                session_id, config.session(), outlet, count=config.audio_format.count
            ),
            settings=self._sessions.settings,
            metrics=self._metrics,
            idle_timeout_s=self._sessions.settings.socket_idle_timeout_s,
        )

        def begin(outgoing: Outgoing) -> OnMessage:
            outlet.outgoing = outgoing
            conversation = _Conversation(feed, outlet, config)
            feed.channels.start()
            return conversation.hear

        return await serve(request, TERMS, session_id, feed, begin, registry=self._registry, metrics=self._metrics)


class _Outlet:
    """Writes events in the native protocol. Nothing is told before `outgoing` is there: the first event is `ready`."""

    def __init__(self, session_id: str, config: StreamConfig) -> None:
        self.config = config
        self.outgoing: Outgoing | None = None
        self._dialect = NativeDialect(session_id)

    def begin(self, channels: Channels) -> None:
        """Events carry the metadata and labels of these channels."""
        self._dialect.begin(channels)

    def send(self, event: Event, seq: int, channel: int) -> None:
        """As `Outlet.send`."""
        if self.outgoing is None:
            return
        if isinstance(event, Ready):
            of_audio = self.config.model_dump(mode="json", include=set(FORMAT_FIELDS))
            event = replace(event, config={**event.config, **of_audio})
        for telling in self._dialect.tell(event, seq, channel):
            self.outgoing.send(telling)


class _Conversation:
    """What one client says, and what comes of it."""

    def __init__(self, feed: Feed, outlet: _Outlet, config: StreamConfig) -> None:
        self._feed = feed
        self._outlet = outlet
        self._config = config
        outlet.begin(feed.channels)

    async def hear(self, message: WSMessage) -> bool:
        """Act on a text or binary message; False: the client has said all. Never raises for what is in it."""
        self._feed.touch()
        try:
            if message.type is WSMsgType.BINARY:
                return await self._take(message.data)
            return await self._act(message.data)
        except VoiceForgeError as error:
            self._feed.channels.fail(error)
            return True

    async def _take(self, audio: bytes) -> bool:
        try:
            await self._feed.push(audio)
        except MediaError as error:
            self._feed.channels.fail(error)
            await self._feed.close("undecodable")
            return False
        return True

    async def _act(self, text: str) -> bool:
        match parse_message(text):
            case Audio(data=data):
                return await self._take(_from_base64(data))
            case Configure(config=changes):
                await self._configure(changes)
            case Finalize():
                self._feed.channels.finalize()
            case KeepAlive():
                self._feed.channels.keep_alive()
            case CloseStream():
                return False
        return True

    async def _configure(self, changes: dict[str, object]) -> None:
        """All of the changes, or none and why."""
        before, config = self._config, self._config.merged(changes)
        _check_labels(config)
        changed = [name for name in FORMAT_FIELDS if getattr(config, name) != getattr(before, name)]
        if changed and self._feed.received_bytes:
            raise ConfigError(
                "AUDIO_HAS_BEGUN",
                f"{_named(changed)} cannot change once audio has come.",
                "Say it in the URL, or by `configure` before the first audio.",
            )
        if config.audio_format.count != before.audio_format.count:
            raise ConfigError(
                "CHANNELS_ARE_SET",
                f"{_named(changed)} would change how many transcripts there are.",
                "Say `multichannel` and `channels` in the URL.",
            )
        if config.denoise != before.denoise:
            await load_denoiser(config)
        if changed:
            self._feed.reformat(config.audio_format)
        self._config = self._outlet.config = config
        try:
            self._feed.channels.configure({name: value for name, value in changes.items() if name not in FORMAT_FIELDS})
        except VoiceForgeError:
            self._config = self._outlet.config = before
            if changed:
                self._feed.reformat(before.audio_format)
            raise


def _check_labels(config: StreamConfig) -> None:
    labels, count = len(config.channel_labels), config.audio_format.count
    if labels > count:
        raise ConfigError(
            "INVALID_CONFIG",
            f"`channel_labels`: there are {labels} for {count} transcribed channels.",
            "Say `multichannel` and `channels`, or fewer labels.",
        )


def _from_base64(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as exc:  # binascii.Error is one too
        raise VoiceForgeError(
            "MALFORMED_MESSAGE", "`data` is not Base64.", "Encode the bytes by RFC 4648 section 4, with padding."
        ) from exc


def _named(fields: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in fields)
