"""One WebRTC peer: its connection, its audio, its session and its data channel, and the watch over all of them.

A peer always ends: by the client, by the server, or by one of the deadlines of `Watchdog`. Whoever ends it, the way
out is one: the jitter buffer is emptied, the session says its last finals, the client has acknowledged them, the
connection is closed, and nothing of it is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from aiortc import InvalidStateError, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import OperationError

from mediaserver.audio.clock import Samples
from mediaserver.errors import MediaError, VoiceForgeError
from mediaserver.events import Event, Final, Interim
from mediaserver.ingest.answer import client_answer, engine_offer, ice_candidate
from mediaserver.ingest.channel import ChannelEvents, ChannelSink
from mediaserver.ingest.ice import (
    IceOptions,
    close_peer_connection,
    configure_ice,
    listens_on_loopback,
    new_peer_connection,
)
from mediaserver.ingest.peer_errors import media_paused, no_media, too_many_labels, tracks_refused
from mediaserver.ingest.peer_state import PeerState, State
from mediaserver.ingest.sdp import Offer, parse_offer
from mediaserver.ingest.sdp_fragment import parse_fragment
from mediaserver.ingest.sdp_parts import CANDIDATES_MAX
from mediaserver.ingest.tracks import TrackEvents, Tracks
from mediaserver.ingest.watchdog import Alarm, Due, Watchdog
from mediaserver.metrics import Metrics
from mediaserver.session.channels import Channels, MakeSession
from mediaserver.session.dialect import Dialect, NativeDialect
from mediaserver.session.tap import Tap, Tee
from mediaserver.settings import Settings

log = structlog.get_logger(__name__)

CHANNEL_GRACE_S = 0.5
"""How long a connected client may take to open its data channel before the server opens one. Channels made before the
offer open with the association, one or two round trips after it; a slower client's own channel still wins."""

CLOSE_CONNECTION_S = 2.0
"""Closing sockets takes milliseconds; what has not ended after this long is cut."""

DRAIN_SHARE = 0.2
"""The share of a closing peer's time that is kept for its last events to reach the client."""


class Peer:
    """One client's peer connection, from its offer to its end. It lives on one event loop.

    Args:
        session_id: for logs and events; not a secret.
        settings: of the node.
        metrics: shared by all peers.
        dialect: what is said over the data channel, and how; the native protocol if None.
        taps: who hears the events beside the client.
        is_stereo: whether the two channels of a track are two people, each a channel of the session.
        on_stage: told each stage of the setup that it has come to: answered, connected, first_packet.
        make_session: makes the session that hears this peer, given the sink for its events. Called once an offer has
            been accepted; what it raises, `accept` raises.
    """

    def __init__(
        self,
        *,
        session_id: str,
        settings: Settings,
        metrics: Metrics,
        make_session: MakeSession,
        dialect: Dialect | None = None,
        taps: Sequence[Tap] = (),
        is_stereo: bool = False,
        on_stage: Callable[[str], None] | None = None,
    ) -> None:
        self.on_ended: Callable[[str], None] | None = None
        self._session_id = session_id
        self._settings = settings
        self._metrics = metrics
        self._make_session = make_session
        self._tee = Tee(self, taps)
        self._is_stereo = is_stereo
        self._on_stage = on_stage
        self._log = log.bind(session=session_id)
        self._state = State.NEW
        self._offer: Offer | None = None
        self._candidates = 0
        self._pc: RTCPeerConnection | None = None
        self._channels: Channels | None = None
        self._tracks: Tracks | None = None
        self._dialect: Dialect = NativeDialect(session_id) if dialect is None else dialect
        self._sink = ChannelSink(
            session_id=session_id,
            label=self._dialect.label,
            refuse=self._dialect.refuse,
            metrics=metrics,
            events=ChannelEvents(on_message=self._on_message, on_error=self._on_error, on_gone=self._end),
        )
        self._watchdog: Watchdog | None = None
        self._has_told_text = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._closing: asyncio.Task[None] | None = None

    async def accept(self, offer_sdp: str) -> str:
        """Answer an offer; the answer has all candidates in it.

        When this raises, nothing of the peer is left and `on_ended` is not called.

        Raises:
            MediaError: the offer cannot be served: `INVALID_SDP` for one that is none, and the codes of
                `mediaserver.ingest.sdp.parse_offer`.
            CapacityError: no UDP port is free (`NO_UDP_PORT`).
            VoiceForgeError: what `make_session` raises.
        """
        if self._state is not State.NEW:
            raise RuntimeError("a peer accepts one offer")
        loopback = listens_on_loopback(self._settings)
        offer = parse_offer(offer_sdp, allow_loopback=loopback, is_stereo=self._is_stereo)
        self._state = State.CONNECTING
        self._offer = offer
        self._candidates = len(offer.transport.candidates)
        self._watchdog = Watchdog(self._settings, asyncio.get_running_loop().time(), tracks=len(offer.tracks))
        try:
            answer = await self._negotiate(offer)
        except BaseException:
            self.on_ended = None
            await self.close("error")
            if self._pc is not None:  # closed by somebody else meanwhile, it may have gathered on
                await self._attempt("connection", close_peer_connection(self._pc), CLOSE_CONNECTION_S)
            raise
        self._reached("answered")
        self._rearm()
        return answer

    async def add_candidates(self, sdpfrag: str) -> None:
        """Take candidates that the client found after its offer (RFC 8840). Those beyond `CANDIDATES_MAX` are dropped.

        Raises:
            MediaError: `INVALID_SDP`, or `ICE_RESTART_UNSUPPORTED` for other ICE credentials than the offer's.
        """
        if self._pc is None or self._offer is None:
            raise RuntimeError("a peer takes candidates after its offer")
        if self._closing is not None:
            return  # too late to be of use
        fragment = parse_fragment(sdpfrag, allow_loopback=listens_on_loopback(self._settings))
        if self._offer.is_restart(fragment):
            what = "ICE is not restarted within a session."
            raise MediaError("ICE_RESTART_UNSUPPORTED", what, "Open a new peer connection.")
        found = fragment.candidates[: max(0, CANDIDATES_MAX - self._candidates)]
        self._candidates += len(found)
        for mid, candidate in found:
            await self._pc.addIceCandidate(ice_candidate(candidate, self._offer.transport_mid(mid)))

    async def close(self, reason: str, *, deadline_s: float | None = None) -> None:
        """End the peer: finals, metadata and `closed` reach the client if they can, then everything is freed.

        Further calls wait for the first. Being cancelled cancels the wait, not the closing.

        Args:
            reason: one word, told to the client and to `on_ended`.
            deadline_s: how long it may take; unset it is the node's `shutdown_deadline_s`.
        """
        await asyncio.shield(self._begin_close(reason, deadline_s))

    def describe(self) -> dict[str, object]:
        """What an operator or the client may know of it: state, codec, stream time in seconds, packet counts."""
        return PeerState.of(
            session_id=self._session_id,
            state=self._state,
            data_channel=self._sink.state,
            offer=self._offer,
            statuses=[] if self._tracks is None else self._tracks.statuses(),
            channels=self._channels,
        ).model_dump()

    def send(self, event: Event, seq: int, channel: int) -> None:
        """Where the events go (`Outlet`): to the data channel; the first text is timed."""
        if not self._has_told_text and isinstance(event, Interim | Final):
            self._has_told_text = True
            self._metrics.setup_seconds.labels("first_text").observe(self._age_s())
        for telling in self._dialect.tell(event, seq, channel):
            self._sink.send(telling)

    # --- setting up

    async def _negotiate(self, offer: Offer) -> str:
        pc = self._pc = new_peer_connection()
        pc.on("connectionstatechange", self._on_connection_state)
        pc.on("datachannel", self._sink.accept)
        try:
            await pc.setRemoteDescription(RTCSessionDescription(engine_offer(offer), "offer"))
        except (ValueError, AssertionError, KeyError, InvalidStateError, OperationError) as exc:
            self._log.warning("engine refused an offer", error=repr(exc))
            raise MediaError("INVALID_SDP", "The offer cannot be applied.", "Send a WebRTC offer unchanged.") from exc
        events = TrackEvents(on_samples=self._on_samples, on_silence=self._on_silence, on_bye=self._finalize)
        self._tracks = Tracks(pc, offer, events=events, settings=self._settings, metrics=self._metrics)
        options = IceOptions.from_settings(self._settings)
        configure_ice(pc, options, on_lost=lambda: self._end("peer_lost"))
        await pc.setLocalDescription()
        if self._closing is not None:
            raise MediaError("PEER_CLOSED", "The peer was closed while it was set up.", "Send a new offer.")
        # From here to the return nothing waits: no packet arrives before the session is there.
        channels = self._channels = Channels(self._make_session, outlet=self._tee, count=len(offer.channel_names))
        self._dialect.begin(channels)
        self._tee.begin(channels)
        if (chosen := len(channels.config.channel_labels)) > channels.count:
            raise too_many_labels(chosen, channels.count)
        channels.on_close_stream = lambda: self._end("client")
        if channels.count > 1:
            channels.name(offer.channel_names)
        answer = client_answer(offer, pc.localDescription.sdp)
        channels.start()
        if offer.unheard:
            channels.warn(tracks_refused(len(offer.unheard)))
        return answer

    def _on_connection_state(self) -> None:
        if self._pc is None or self._watchdog is None or self._closing is not None:
            return
        connected_before = self._watchdog.connected_s is not None
        match self._pc.connectionState:
            case "connected" if not connected_before:
                loop = asyncio.get_running_loop()
                self._state = State.CONNECTED
                self._watchdog.connected(loop.time())
                self._reached("connected")
                self._rearm()
                if self._offer is not None and self._offer.application is not None:
                    create = self._pc.createDataChannel
                    self._timers["channel"] = loop.call_later(CHANNEL_GRACE_S, self._sink.open_own, create)
            case "failed":
                self._end("peer_lost" if connected_before else "error")
            case "closed":  # the client said so over DTLS
                self._end("client")

    # --- while it lives

    def _on_samples(self, channel: int, samples: Samples, concealed: int) -> None:
        if self._channels is None or self._watchdog is None or self._offer is None:
            return
        track = channel // self._offer.channels_each
        if self._watchdog.is_still(track):
            if self._watchdog.media_s is None:
                self._reached("first_packet")
            self._watchdog.media(asyncio.get_running_loop().time(), track)
            self._rearm()  # the next standstill may be due before anything else
        self._channels.push_to(channel, samples, concealed=concealed)

    def _on_silence(self, channel: int, samples: Samples) -> None:
        if self._channels is not None:
            self._channels.push_to(channel, samples)

    def _finalize(self, track: int) -> None:
        """A sender stopped, or said goodbye (RFC 3550 §6.6): its last words need no silence after them to be final."""
        if self._channels is not None and self._offer is not None and self._closing is None:
            for channel in self._offer.channels_of(track):
                self._channels.finalize_channel(channel)

    def _on_message(self, message: str | bytes) -> None:
        if self._channels is None or self._closing is not None:
            return
        try:
            for telling in self._dialect.hear(message, self._channels):
                self._sink.send(telling)
        except Exception:  # an exception here would end aiortc's receiving, and with it the call
            self._log.exception("message failed")
            self._end("error")

    def _on_error(self, error: VoiceForgeError) -> None:
        if self._channels is not None:
            self._channels.fail(error)

    def _rearm(self) -> None:
        if self._watchdog is None or self._closing is not None:
            return
        if (timer := self._timers.pop("watchdog", None)) is not None:
            timer.cancel()
        self._timers["watchdog"] = asyncio.get_running_loop().call_at(self._watchdog.deadline()[0], self._look)

    def _look(self) -> None:
        """Look once at the next deadline whether it has moved: packets set no timers."""
        if self._watchdog is None or self._channels is None:
            return
        for track, last_packet_s in enumerate([] if self._tracks is None else self._tracks.last_packets_s()):
            if last_packet_s is not None:
                self._watchdog.media(last_packet_s, track)
        match self._watchdog.check(asyncio.get_running_loop().time()):
            case None:
                pass
            case Due(Alarm.MEDIA_STILL, track):
                self._finalize(track)
            case Due(Alarm.MEDIA_PAUSED):
                self._channels.warn(media_paused(self._settings))
            case Due(Alarm.NO_MEDIA):
                self._channels.fail(no_media(self._settings))
                self._end(Alarm.NO_MEDIA)
            case Due(alarm):
                self._end(alarm)
        self._rearm()

    def _reached(self, stage: str) -> None:
        self._metrics.setup_seconds.labels(stage).observe(self._age_s())
        if self._on_stage is not None:
            self._on_stage(stage)

    def _age_s(self) -> float:
        return 0.0 if self._watchdog is None else asyncio.get_running_loop().time() - self._watchdog.started_s

    # --- the end

    def _end(self, reason: str) -> None:
        """End the peer without waiting for it."""
        self._begin_close(str(reason), None)

    def _begin_close(self, reason: str, deadline_s: float | None) -> asyncio.Task[None]:
        if self._closing is None:
            self._state = State.CLOSING
            for timer in self._timers.values():
                timer.cancel()
            total_s = self._settings.shutdown_deadline_s if deadline_s is None else deadline_s
            self._closing = asyncio.create_task(self._close(reason, total_s), name=f"peer-close-{self._session_id}")
        return self._closing

    async def _close(self, reason: str, total_s: float) -> None:
        ends_s = asyncio.get_running_loop().time() + total_s
        if self._tracks is not None:
            self._tracks.stop()  # what they hold back reaches the session before that closes
        if self._channels is not None:
            self._channels.on_close_stream = None
            flush = self._channels.close(reason, deadline_s=total_s * (1.0 - DRAIN_SHARE))
            await self._attempt("session", flush, total_s)
            if reason != "peer_lost":
                await self._sink.drained(ends_s - asyncio.get_running_loop().time())
        self._sink.discard()
        if self._pc is not None:
            await self._attempt("connection", close_peer_connection(self._pc), CLOSE_CONNECTION_S)
        self._state = State.CLOSED
        self._log.info("peer ended", reason=reason)
        on_ended, self.on_ended = self.on_ended, None
        if on_ended is not None:
            on_ended(reason)

    async def _attempt(self, what: str, step: Awaitable[None], limit_s: float) -> None:
        """One step of the end; whatever happens in it, the next ones are taken."""
        try:
            async with asyncio.timeout(limit_s):
                await step
        except TimeoutError:
            self._log.warning("step of closing cut short", step=what, limit_s=limit_s)
        except Exception:
            self._log.exception("step of closing failed", step=what)
