"""A session of the native WebSocket. It outlives its connections: one that drops may be followed by another.

A connection dropped unless its client said goodbye: `close_stream`, or a close frame with 1000 or without a code. 1001,
which a browser sends for a page that is reloaded or left, is a drop, as is everything that is no close frame.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aiohttp import WSCloseCode, WSMessage, WSMsgType

from mediaserver.errors import ConfigError, MediaError, VoiceForgeError
from mediaserver.events import Event, Ready, Reconnect, Resume, Resumed
from mediaserver.ingest.bytestream import byte_at
from mediaserver.ingest.feed import Feed
from mediaserver.metrics import Metrics
from mediaserver.session.channels import Channels, Outlet
from mediaserver.session.dialect import NativeDialect
from mediaserver.session.eventlog import EventLog
from mediaserver.session.holding import Holding
from mediaserver.session.relay import Relay
from signaling.limits import load_denoiser
from signaling.registry import LiveSession
from signaling.resume.elsewhere import Found
from signaling.routes.native_messages import Audio, CloseStream, Configure, Finalize, KeepAlive, parse_message
from signaling.socket import OnMessage, Outgoing, Visit
from signaling.stream_config import StreamConfig

DOOR = "websocket"
PATH = "/ws/v1/transcribe"

FORMAT_FIELDS = ("encoding", "sample_rate", "channels", "multichannel")
"""What of the configuration is about the bytes."""

LOG_KIB_MAX = 512
"""Of a session's log, whatever `event_log_kib` says: here only the session's own client reads it."""

REPLACED = 4001
"""Of the close frame of a connection that another one has taken the place of."""


class NativeStream:
    """What stands in the registry for a session of the native WebSocket.

    Args:
        session_id: for logs and events; not a secret.
        config: what the client asked for.
        open_feed: makes what its audio goes to, given where events go.
        window_s: for how long a client is waited for whose connection dropped.
        log: what it is told again then; None where nobody is waited for.
        metrics: drops, and what became of them.
        found: the session as another process had it; None: a new one.
    """

    def __init__(
        self,
        *,
        session_id: str,
        config: StreamConfig,
        open_feed: Callable[[Outlet], Feed],
        window_s: float,
        log: EventLog | None,
        metrics: Metrics,
        found: Found | None = None,
    ) -> None:
        self.on_ended: Callable[[str], None] | None = None
        self.on_registered: Callable[[LiveSession], None] | None = None
        self.config = config
        self.relay = Relay(NativeDialect(session_id), log=log)
        self._visit: Visit | None = None
        self._connections = 0
        self._has_said_all = False
        self._holding = Holding(window_s=window_s, door=DOOR, metrics=metrics, on_expired=self._expired)
        if found is not None and log is not None:
            log.restore(found.record.entries(), newest=found.record.seq - 1)
        self.feed = open_feed(self)
        self.feed.on_ended = self._ended
        self.relay.begin(self.feed.channels)

    @property
    def can_resume(self) -> bool:
        """Whether it waits for a client whose connection drops."""
        return self._holding.window_s > 0

    @property
    def is_open(self) -> bool:
        """Whether a client could come back: it has neither ended nor said that it will."""
        return self.feed.is_open and not self._has_said_all

    @property
    def newest(self) -> int:
        """The number of the newest event; -1 before the first."""
        return self.relay.newest

    def send(self, event: Event, seq: int, channel: int) -> None:
        """As `Outlet.send`."""
        if isinstance(event, Ready):
            of_audio = self.config.model_dump(mode="json", include=set(FORMAT_FIELDS))
            event = replace(event, config={**event.config, **of_audio})
        self.relay.send(event, seq, channel)

    async def close(self, reason: str, *, deadline_s: float | None = None) -> None:
        """As `LivePeer.close`."""
        self._holding.close()
        await self.feed.close(reason, deadline_s=deadline_s)

    def describe(self) -> dict[str, object]:
        """What an operator may know of it."""
        return {**self.feed.describe(), "is_held": self._holding.is_held}

    # --- its connections

    def registered(self, live: LiveSession) -> None:
        """As `Guest.registered`."""
        if self.on_registered is not None:
            self.on_registered(live)
        if self.can_resume:
            self.relay.resume = Resume(f"{PATH}/{live.secret}", self._holding.window_s)

    def begin(self, outgoing: Outgoing) -> OnMessage:
        """The first connection is there."""
        self.relay.connect(outgoing.send)
        self.feed.channels.start()
        return self._talk()

    def begin_again(self, outgoing: Outgoing, *, after: int) -> OnMessage:
        """The first connection here of a session that another process had, which a client comes back to."""
        channels = self.feed.channels
        self.relay.connect(outgoing.send)
        self.relay.replay(after=after)
        channels.go_on(after=after)
        is_raw = byte_at(self.config.audio_format, 0) is not None
        channels.tell(
            Resumed(
                stream_time=channels.stream_time_s,
                received_bytes=self.feed.received_bytes if is_raw else None,
                is_elsewhere=True,
            )
        )
        return self._talk()

    def resume(self, outgoing: Outgoing, *, after: int) -> OnMessage:
        """The client is back. It is told what it missed behind event `after`, and where to go on."""
        if self._visit is not None:
            self._visit.end(REPLACED, "Resumed by another connection.")
            self.feed.detach()
        self.relay.connect(outgoing.send)
        self.relay.replay(after=after)
        if self.feed.is_open:  # else it is told the end, while its handshake was answered or since
            self._holding.back()
            self.feed.attach()
            channels = self.feed.channels
            channels.tell(Resumed(stream_time=channels.stream_time_s, received_bytes=self.feed.received_bytes))
        return self._talk()

    def hears(self, connection: int) -> bool:
        """Whether a connection is still its client's: what another one brings has been sent again."""
        return connection == self._connections

    def _talk(self) -> OnMessage:
        self._connections += 1
        return _Conversation(self, self._connections).hear

    def visited(self, visit: Visit) -> None:
        """As `Guest.visited`."""
        self._visit = visit

    def lost(self, visit: Visit) -> None:
        """As `Guest.lost`."""
        if visit is not self._visit:
            return
        self._visit = None
        if not self.feed.is_open:
            return
        self.relay.disconnect()
        self.feed.detach()
        if not self._holding.lost():
            self.feed.begin_close("peer_lost")

    # --- another process may go on with it

    @property
    def channels(self) -> Channels | None:
        """As `MovablePeer.channels`."""
        return self.feed.channels

    @property
    def log(self) -> EventLog | None:
        """As `MovablePeer.log`."""
        return self.relay.log

    @property
    def age_s(self) -> float:
        """As `MovablePeer.age_s`."""
        return self.feed.age_s

    def chosen(self) -> dict[str, Any]:
        """As `MovablePeer.chosen`."""
        return self.config.model_dump(mode="json", exclude_unset=True, include=set(StreamConfig.model_fields))

    async def prepare_move(self, *, deadline_s: float) -> None:
        """As `MovablePeer.prepare_move`. What is sent again is heard again: only the rest needs an end."""
        if byte_at(self.config.audio_format, 0) is None:
            self.feed.channels.finalize()
        await self.feed.channels.settle(deadline_s=deadline_s)

    def move(self) -> None:
        """As `MovablePeer.move`."""
        self.feed.channels.say_goodbye(Reconnect("draining"))
        if self._visit is not None:
            self._visit.end(WSCloseCode.SERVICE_RESTART, "Come back: another process goes on with the session.")

    def said_all(self) -> None:
        """The client has said that no more comes."""
        self._has_said_all = True

    def _expired(self) -> None:
        self.feed.begin_close("peer_lost")

    def _ended(self, reason: str) -> None:
        self._holding.close()
        self._visit = None  # it knows this session
        on_ended, self.on_ended = self.on_ended, None
        if on_ended is not None:
            on_ended(reason)


class _Conversation:
    """What one connection says, and what comes of it."""

    def __init__(self, stream: NativeStream, connection: int) -> None:
        self._stream = stream
        self._connection = connection
        self._feed = stream.feed

    async def hear(self, message: WSMessage) -> bool:
        """Act on a text or binary message; False: the client has said all. Never raises for what is in it."""
        if not self._stream.hears(self._connection):
            return True
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
                self._stream.said_all()
                return False
        return True

    async def _configure(self, changes: dict[str, object]) -> None:
        """All of the changes, or none and why."""
        stream = self._stream
        before, config = stream.config, stream.config.merged(changes)
        check_labels(config)
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
        stream.config = config
        try:
            self._feed.channels.configure({name: value for name, value in changes.items() if name not in FORMAT_FIELDS})
        except VoiceForgeError:
            stream.config = before
            if changed:
                self._feed.reformat(before.audio_format)
            raise


def check_labels(config: StreamConfig) -> None:
    """Refuse more labels than there are transcripts.

    Raises:
        ConfigError: INVALID_CONFIG.
    """
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
