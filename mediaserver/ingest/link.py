"""One peer connection: from an offer to its end, with its tracks, its data channel and the watch over them.

A session may have several, one after another (`mediaserver.ingest.peer`). What is heard and told is
none of its business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from aiortc import InvalidStateError, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import OperationError

from mediaserver.audio.clock import Samples
from mediaserver.errors import MediaError, VoiceForgeError
from mediaserver.ingest.answer import client_answer, engine_offer, ice_candidate
from mediaserver.ingest.channel import ChannelEvents, ChannelSink
from mediaserver.ingest.ice import (
    IceOptions,
    close_peer_connection,
    configure_ice,
    listens_on_loopback,
    new_peer_connection,
)
from mediaserver.ingest.peer_state import State
from mediaserver.ingest.receiver import ReceiverStatus
from mediaserver.ingest.sdp import Offer
from mediaserver.ingest.sdp_fragment import parse_fragment
from mediaserver.ingest.sdp_parts import CANDIDATES_MAX
from mediaserver.ingest.tracks import TrackEvents, Tracks
from mediaserver.ingest.watchdog import Alarm, Due, Watchdog
from mediaserver.metrics import Metrics
from mediaserver.pace import Pace
from mediaserver.session.dialect import Dialect
from mediaserver.settings import Settings

log = structlog.get_logger(__name__)

CHANNEL_GRACE_S = 0.5
"""How long a connected client may take to open its data channel before the server opens one. Channels made before the
offer open with the association, one or two round trips after it; a slower client's own channel still wins."""

CLOSE_CONNECTION_S = 2.0
"""Closing sockets takes milliseconds; what has not ended after this long is cut."""

LOST = "peer_lost"
"""Why a connection is over whose client did not say so."""


@dataclass(frozen=True, slots=True)
class LinkEvents:
    """Whom a link tells, always on the event loop.

    Args:
        on_samples: gets a channel's samples, [n] float32 16 kHz mono, and how many of them were made up.
        on_still: nothing more comes of a track for now: its channels' last words need no silence to be final.
        on_paused: nothing has come of any track for a while.
        on_message: a message of the client.
        on_error: a message that was not taken.
        on_stage: a stage of the setup is reached, in seconds since the offer: answered, connected, first_packet.
        on_over: it is of no more use, and why, one word; `LOST` where the client did not say so. Its owner closes it.
    """

    on_samples: Callable[[int, Samples, int], None]
    on_still: Callable[[range], None]
    on_paused: Callable[[], None]
    on_message: Callable[[str | bytes], None]
    on_error: Callable[[VoiceForgeError], None]
    on_stage: Callable[[str, float], None]
    on_over: Callable[[str], None]


NOBODY = LinkEvents(
    on_samples=lambda _channel, _samples, _concealed: None,
    on_still=lambda _channels: None,
    on_paused=lambda: None,
    on_message=lambda _message: None,
    on_error=lambda _error: None,
    on_stage=lambda _stage, _age_s: None,
    on_over=lambda _reason: None,
)
"""Told after the end: who was told before is let go of, and is freed without a search."""


class Link:
    """One peer connection. It lives on one event loop.

    Args:
        session_id: for the log.
        offer: of the client.
        settings: of the node.
        metrics: shared by all.
        dialect: names the data channel.
        events: whom it tells, until `stop`.
        closings: shared by all whose connections may close at once.
        session_s: when its session began, on the event loop's clock; None: now.
    """

    def __init__(
        self,
        *,
        session_id: str,
        offer: Offer,
        settings: Settings,
        metrics: Metrics,
        dialect: Dialect,
        events: LinkEvents,
        closings: Pace,
        session_s: float | None = None,
    ) -> None:
        self.offer = offer
        self.state = State.CONNECTING
        self._settings = settings
        self._metrics = metrics
        self._events = events
        self._closings = closings
        self._log = log.bind(session=session_id)
        self._loop = asyncio.get_running_loop()
        self._candidates = len(offer.transport.candidates)
        self._pc: RTCPeerConnection | None = None
        self._tracks: Tracks | None = None
        self._watchdog = Watchdog(settings, self._loop.time(), tracks=len(offer.tracks), session_s=session_s)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._is_over = False
        self.sink = ChannelSink(
            session_id=session_id,
            label=dialect.label,
            refuse=dialect.refuse,
            metrics=metrics,
            events=ChannelEvents(on_message=self._on_message, on_error=events.on_error, on_gone=self._over),
        )

    @property
    def age_s(self) -> float:
        """Seconds since the offer."""
        return self._loop.time() - self._watchdog.started_s

    @property
    def has_connected(self) -> bool:
        """Whether it ever was."""
        return self._watchdog.connected_s is not None

    @property
    def last_packet_s(self) -> float | None:
        """When the last packet of any track came, on the event loop's clock; None before the first."""
        known = [] if self._tracks is None else [at_s for at_s in self._tracks.last_packets_s() if at_s is not None]
        return max(known, default=None)

    def statuses(self) -> list[ReceiverStatus]:
        """A look at each track."""
        return [] if self._tracks is None else self._tracks.statuses()

    async def negotiate(self) -> None:
        """Apply the offer and gather; after it, `answer` is there.

        Raises:
            MediaError: `INVALID_SDP`.
            CapacityError: no UDP port is free (`NO_UDP_PORT`).
        """
        pc = self._pc = new_peer_connection()
        pc.on("connectionstatechange", self._on_connection_state)
        pc.on("datachannel", self.sink.accept)
        try:
            await pc.setRemoteDescription(RTCSessionDescription(engine_offer(self.offer), "offer"))
        except (ValueError, AssertionError, KeyError, InvalidStateError, OperationError) as exc:
            self._log.warning("engine refused an offer", error=repr(exc))
            raise MediaError("INVALID_SDP", "The offer cannot be applied.", "Send a WebRTC offer unchanged.") from exc
        events = TrackEvents(
            on_samples=self._on_samples,
            on_silence=lambda channel, samples: self._events.on_samples(channel, samples, 0),
            on_bye=self._still,
        )
        self._tracks = Tracks(pc, self.offer, events=events, settings=self._settings, metrics=self._metrics)
        configure_ice(pc, IceOptions.from_settings(self._settings), on_lost=lambda: self._over(LOST))
        await pc.setLocalDescription()

    def answer(self) -> str:
        """The answer, with all candidates in it; from now on it is watched."""
        assert self._pc is not None
        self._events.on_stage("answered", self.age_s)
        self._rearm()
        return client_answer(self.offer, self._pc.localDescription.sdp)

    async def add_candidates(self, sdpfrag: str) -> None:
        """Take candidates that the client found after its offer (RFC 8840). Those beyond `CANDIDATES_MAX` are dropped.

        Raises:
            MediaError: `INVALID_SDP`, or `ICE_RESTART_UNSUPPORTED` for other ICE credentials than the offer's.
        """
        if self._pc is None:
            raise RuntimeError("a link takes candidates after its offer")
        if self._is_over:
            return  # too late to be of use
        fragment = parse_fragment(sdpfrag, allow_loopback=listens_on_loopback(self._settings))
        if self.offer.is_restart(fragment):
            what = "ICE is not restarted within a connection."
            raise MediaError("ICE_RESTART_UNSUPPORTED", what, "Open a new peer connection.")
        found = fragment.candidates[: max(0, CANDIDATES_MAX - self._candidates)]
        self._candidates += len(found)
        for mid, candidate in found:
            await self._pc.addIceCandidate(ice_candidate(candidate, self.offer.transport_mid(mid)))

    def stop(self) -> None:
        """Hand on the audio that is held back, take no more, and tell nobody anything; idempotent."""
        if self._tracks is not None:
            self._tracks.stop()
        self._is_over = True
        for timer in self._timers.values():
            timer.cancel()

    async def close(self) -> None:
        """Let go of everything. Events that have not been sent are lost: `sink.drained` before, where they matter."""
        self.stop()
        self.sink.close()
        if self._pc is not None:
            await self._closings.turn()
            await attempt(self._log, "connection", close_peer_connection(self._pc), CLOSE_CONNECTION_S)
        self.state = State.CLOSED
        self._events = NOBODY

    # --- while it lives

    def _over(self, reason: str) -> None:
        if not self._is_over:
            self._events.on_over(reason)

    def _on_connection_state(self) -> None:
        if self._pc is None or self._is_over:
            return
        match self._pc.connectionState:
            case "connected" if not self.has_connected:
                self.state = State.CONNECTED
                self._watchdog.connected(self._loop.time())
                self._events.on_stage("connected", self.age_s)
                self._rearm()
                if self.offer.application is not None:
                    create = self._pc.createDataChannel
                    self._timers["channel"] = self._loop.call_later(CHANNEL_GRACE_S, self.sink.open_own, create)
            case "failed":
                self._over(LOST if self.has_connected else "error")
            case "closed":  # the client said so over DTLS
                self._over("client")

    def _on_samples(self, channel: int, samples: Samples, concealed: int) -> None:
        track = channel // self.offer.channels_each
        if self._watchdog.is_still(track) and not self._is_over:
            if self._watchdog.media_s is None:
                self._events.on_stage("first_packet", self.age_s)
            self._watchdog.media(self._loop.time(), track)
            self._rearm()  # the next standstill may be due before anything else
        self._events.on_samples(channel, samples, concealed)

    def _still(self, track: int) -> None:
        """A sender stopped, or said goodbye (RFC 3550 §6.6)."""
        if not self._is_over:
            self._events.on_still(self.offer.channels_of(track))

    def _on_message(self, message: str | bytes) -> None:
        try:
            self._events.on_message(message)
        except Exception:  # an exception here would end aiortc's receiving, and with it the call
            self._log.exception("message failed")
            self._over("error")

    def _rearm(self) -> None:
        if self._is_over:
            return
        if (timer := self._timers.pop("watchdog", None)) is not None:
            timer.cancel()
        self._timers["watchdog"] = self._loop.call_at(self._watchdog.deadline()[0], self._look)

    def _look(self) -> None:
        """Look once at the next deadline whether it has moved: packets set no timers."""
        for track, last_packet_s in enumerate([] if self._tracks is None else self._tracks.last_packets_s()):
            if last_packet_s is not None:
                self._watchdog.media(last_packet_s, track)
        match self._watchdog.check(self._loop.time()):
            case None:
                pass
            case Due(Alarm.MEDIA_STILL, track):
                self._still(track)
            case Due(Alarm.MEDIA_PAUSED):
                self._events.on_paused()
            case Due(alarm):
                self._over(str(alarm))
        self._rearm()


async def attempt(logger: structlog.stdlib.BoundLogger, what: str, step: Awaitable[None], limit_s: float) -> None:
    """One step of the end; whatever happens in it, the next ones are taken."""
    try:
        async with asyncio.timeout(limit_s):
            await step
    except TimeoutError:
        logger.warning("step of closing cut short", step=what, limit_s=limit_s)
    except Exception:
        logger.exception("step of closing failed", step=what)
