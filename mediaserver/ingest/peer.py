"""One client over WebRTC: what it says is heard by one session, over one peer connection after another.

A peer always ends: by the client, by the server, or by one of the deadlines of `Watchdog`. Whoever ends it, the way
out is one: the jitter buffer is emptied, the session says its last finals, the client has acknowledged them, the
connection is closed, and nothing of it is left.

A connection that is lost (no consent any more, ICE failed) ends nothing at once: the peer waits for its client to offer
another one. What was said by then is final; what lies between is silence, in step with wall time. A client that closes
its peer connection, which DTLS tells, or its data channel has said goodbye; so a page that is reloaded has in browsers
that close what it had open, and nothing on the wire tells the two apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from mediaserver.events import Event, Final, Interim, Reconnect, Resume, Resumed
from mediaserver.ingest.hearing import Hearing
from mediaserver.ingest.ice import listens_on_loopback
from mediaserver.ingest.link import LOST, Link, LinkEvents, attempt
from mediaserver.ingest.peer_errors import (
    no_media,
    peer_closed,
    too_many_labels,
    tracks_refused,
)
from mediaserver.ingest.peer_state import PeerState, State
from mediaserver.ingest.sdp import Offer, parse_offer
from mediaserver.ingest.watchdog import Alarm
from mediaserver.metrics import Metrics
from mediaserver.pace import Pace
from mediaserver.session.channels import Channels, MakeSession
from mediaserver.session.dialect import Dialect, NativeDialect
from mediaserver.session.eventlog import EventLog
from mediaserver.session.holding import Holding
from mediaserver.session.relay import Relay
from mediaserver.session.resumption import GoingOn
from mediaserver.session.tap import Tap, Tee
from mediaserver.settings import Settings

DRAIN_SHARE = 0.2
"""The share of a closing peer's time that is kept for its last events to reach the client."""

CLOSINGS_EACH_TURN = 2
"""Steps of closing that begin in one turn of the event loop: for each peer its session's, and its connection's. Both
together are 2 ms of work: fifty that closed side by side held the event loop for 25 ms at once, two hundred for 107."""


def new_closings() -> Pace:
    """For all peers of a process."""
    return Pace(CLOSINGS_EACH_TURN)


class Peer:
    """One client, from its offer to its end. It lives on one event loop.

    Args:
        session_id: for logs and events; not a secret.
        settings: of the node.
        metrics: shared by all peers.
        dialect: what is said over the data channel, and how; the native protocol if None.
        taps: who hears the events beside the client.
        log: what is told, for others and for the client when it comes back; None where nobody reads it.
        door: its protocol, for the metrics of coming back.
        window_s: for how long the client is waited for when its connection is lost; 0 does not wait. Needs a `log`.
        is_stereo: whether the two channels of a track are two people, each a channel of the session.
        on_stage: told each stage of the setup that it has come to: answered, connected, first_packet.
        going_on: where its session goes on, which another process had.
        closings: shared by all that may close at once; its own if None.
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
        log: EventLog | None = None,
        door: str = "",
        window_s: float = 0.0,
        is_stereo: bool = False,
        on_stage: Callable[[str], None] | None = None,
        going_on: GoingOn | None = None,
        closings: Pace | None = None,
    ) -> None:
        self.on_ended: Callable[[str], None] | None = None
        self._session_id = session_id
        self._settings = settings
        self._metrics = metrics
        self._make_session = make_session
        self._dialect: Dialect = NativeDialect(session_id) if dialect is None else dialect
        self._relay = Relay(self._dialect, log=log)
        self._tee = Tee(self, taps)
        self._is_stereo = is_stereo
        self._on_stage = on_stage
        self._going_on = going_on
        self._closings = new_closings() if closings is None else closings
        self._log = structlog.get_logger(__name__).bind(session=session_id)
        self._holding = Holding(
            window_s=0.0 if log is None else window_s,
            door=door,
            metrics=metrics,
            on_expired=lambda: self._end(LOST),
        )
        self._state = State.NEW
        self._offer: Offer | None = None
        self._link: Link | None = None
        self._links = 0
        self._leaving: set[asyncio.Task[None]] = set()  # bound: one for each connection that was lost or replaced
        self._began_s: float | None = None
        # A drop takes so long to be noticed, and is waited for.
        self._hearing = Hearing(settings, longest_gap_s=settings.ping_timeout_s + window_s)
        self._has_told_text = False
        self._closing: asyncio.Task[None] | None = None

    @property
    def channels(self) -> Channels | None:
        """Its sessions; None before they are there."""
        return self._hearing.channels

    @property
    def log(self) -> EventLog | None:
        """What it was told."""
        return self._relay.log

    @property
    def age_s(self) -> float:
        """For how long it has lasted, also where another process had it."""
        return 0.0 if self._began_s is None else asyncio.get_running_loop().time() - self._began_s

    def chosen(self) -> dict[str, Any]:
        """What its client chose, by the URL and since."""
        return {} if self.channels is None else self.channels.config.model_dump(mode="json", exclude_unset=True)

    async def prepare_move(self, *, deadline_s: float) -> None:
        """Have said what was said: it could not be heard again elsewhere."""
        if self.channels is not None:
            self.channels.finalize()
            await self.channels.settle(deadline_s=deadline_s)

    def move(self) -> None:
        """Tell the client to come back. Whoever calls it closes the peer then."""
        if self.channels is not None:
            self.channels.say_goodbye(Reconnect("draining"))

    @property
    def can_resume(self) -> bool:
        """Whether its client may come back after a drop."""
        return self._holding.window_s > 0

    @property
    def newest(self) -> int:
        """The number of the newest event; -1 before the first."""
        return self._relay.newest

    def resumes_at(self, path: str) -> None:
        """Say where the client comes back to; a secret, told to it alone."""
        if self.can_resume:
            self._relay.resume = Resume(path, self._holding.window_s)

    async def accept(self, offer_sdp: str, *, after: int = -1) -> str:
        """Answer an offer; the answer has all candidates in it.

        Args:
            offer_sdp: of the client.
            after: the last event that it knows, where another process had its session.

        When this raises, nothing of the peer is left and `on_ended` is not called.

        Raises:
            MediaError: the offer cannot be served: `INVALID_SDP` for one that is none, and the codes of
                `mediaserver.ingest.sdp.parse_offer`.
            CapacityError: no UDP port is free (`NO_UDP_PORT`).
            VoiceForgeError: what `make_session` raises.
        """
        if self._state is not State.NEW:
            raise RuntimeError("a peer accepts one offer")
        offer = self._parsed(offer_sdp)
        age_s = 0.0 if self._going_on is None else self._going_on.age_s
        self._began_s = asyncio.get_running_loop().time() - age_s
        link = self._link = self._new_link(offer)
        try:
            await link.negotiate()
            if self._closing is not None:
                raise peer_closed()
            return self._open(link, after)  # it waits for nothing: no packet arrives before the session is there
        except BaseException:
            self.on_ended = None
            await self.close("error")
            await link.close()  # closed by somebody else meanwhile, it may have gathered on
            raise

    async def resume(self, offer_sdp: str, *, after: int) -> str:
        """Answer the offer of a client that is back: its session goes on, whatever became of the connection before.

        Args:
            offer_sdp: of a new peer connection.
            after: the last event that the client knows; what came after it is told again, then `resumed`.

        Raises:
            MediaError: as `accept`, PEER_CLOSED, or CHANNELS_DIFFER where it does not offer what it did before. The
                session goes on waiting.
            CapacityError: as `accept`.
        """
        offer, channels = self._parsed(offer_sdp), self.channels
        if channels is None or self._closing is not None:
            raise peer_closed()
        self._hearing.require_as_before(offer.channel_names)
        link = self._new_link(offer)
        try:
            await link.negotiate()
            self._unlink()
            await self._hearing.catch_up()
            if self._closing is not None:
                raise peer_closed()
            self._unlink()  # of two that came back at once, the later one stays
        except BaseException:
            await link.close()
            if self._link is None and not self._holding.lost():
                self._end(LOST)
            raise
        self._link, self._offer = link, offer
        answer = link.answer()
        self._holding.back()
        self._relay.connect(link.sink.send)
        self._relay.replay(after=after)
        channels.tell(Resumed(stream_time=channels.stream_time_s))
        return answer

    async def add_candidates(self, sdpfrag: str) -> None:
        """Take candidates that the client found after its offer (RFC 8840); those of no use any more are let be.

        Raises:
            MediaError: `INVALID_SDP`, or `ICE_RESTART_UNSUPPORTED` for other ICE credentials than the offer's.
        """
        if self._offer is None:
            raise RuntimeError("a peer takes candidates after its offer")
        if self._closing is None and self._link is not None:
            await self._link.add_candidates(sdpfrag)

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
            state=self._present(),
            data_channel="none" if self._link is None else self._link.sink.state,
            offer=self._offer,
            statuses=[] if self._link is None else self._link.statuses(),
            channels=self.channels,
        ).model_dump()

    def send(self, event: Event, seq: int, channel: int) -> None:
        """Where the events go (`Outlet`): to the data channel; the first text is timed."""
        if not self._has_told_text and isinstance(event, Interim | Final):
            self._has_told_text = True
            self._metrics.setup_seconds.labels("first_text").observe(self.age_s)
        self._relay.send(event, seq, channel)

    # --- setting up

    def _parsed(self, offer_sdp: str) -> Offer:
        return parse_offer(offer_sdp, allow_loopback=listens_on_loopback(self._settings), is_stereo=self._is_stereo)

    def _new_link(self, offer: Offer) -> Link:
        self._links += 1
        is_first = self._links == 1
        if is_first:
            self._offer, self._state = offer, State.CONNECTING
        link = Link(
            session_id=self._session_id,
            offer=offer,
            settings=self._settings,
            metrics=self._metrics,
            dialect=self._dialect,
            closings=self._closings,
            session_s=self._began_s,
            events=LinkEvents(
                on_samples=self._hearing.samples,
                on_still=self._hearing.still,
                on_paused=self._hearing.paused,
                on_message=self._on_message,
                on_error=self._hearing.failed,
                on_stage=self._reached if is_first else lambda _stage, _age_s: None,
                on_over=lambda reason: self._on_over(link, reason),
            ),
        )
        return link

    def _open(self, link: Link, after: int) -> str:
        offer, going_on = link.offer, self._going_on
        channels = self._hearing.open(
            self._make_session, outlet=self._tee, tracks=offer.channel_names, going_on=going_on
        )
        self._relay.begin(channels)
        self._tee.begin(channels)
        if (chosen := len(channels.config.channel_labels)) > channels.count:
            raise too_many_labels(chosen, channels.count)
        channels.on_close_stream = lambda: self._end("client")
        if channels.count > 1:
            channels.name(offer.channel_names)
        self._relay.connect(link.sink.send)
        answer = link.answer()
        if going_on is None:
            channels.start()
        else:
            assert self._began_s is not None
            self._hearing.goes_on_since(self._began_s + going_on.age_s)  # not now: candidates were gathered meanwhile
            self._relay.replay(after=after)
            channels.go_on(after=after)
            channels.tell(Resumed(stream_time=channels.stream_time_s, is_elsewhere=True))
        if offer.unheard:
            channels.warn(tracks_refused(len(offer.unheard)))
        return answer

    # --- while it lives

    def _on_message(self, message: str | bytes) -> None:
        if self.channels is not None and self._link is not None and self._closing is None:
            for telling in self._dialect.hear(message, self.channels):
                self._link.sink.send(telling)

    def _reached(self, stage: str, age_s: float) -> None:
        self._metrics.setup_seconds.labels(stage).observe(age_s)
        if self._on_stage is not None:
            self._on_stage(stage)

    def _present(self) -> State:
        if self._state in (State.NEW, State.CLOSING, State.CLOSED):
            return self._state
        return State.HELD if self._link is None else self._link.state

    # --- when a connection is lost

    def _on_over(self, link: Link, reason: str) -> None:
        if link is not self._link or self._closing is not None:
            return
        if reason == Alarm.NO_MEDIA:
            self._hearing.failed(no_media(self._settings))
        never_came_back = self._links > 1 and not link.has_connected
        if (reason == LOST or never_came_back) and self.channels is not None and self._holding.lost():
            self._unlink()
        else:
            self._end(reason)

    def _unlink(self) -> None:
        """Let the connection go; what was said over it is final. Nothing where there is none."""
        link = self._link
        if link is None or self.channels is None:
            return
        self._link = None
        last_packet_s = link.last_packet_s
        link.stop()  # what it held back is heard now
        self._relay.disconnect()
        self._hearing.silent_since(last_packet_s)
        task = asyncio.create_task(link.close(), name=f"peer-unlink-{self._session_id}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    # --- the end

    def _end(self, reason: str) -> None:
        """End the peer without waiting for it."""
        self._begin_close(str(reason), None)

    def _begin_close(self, reason: str, deadline_s: float | None) -> asyncio.Task[None]:
        if self._closing is None:
            self._state = State.CLOSING
            self._holding.close()
            total_s = self._settings.shutdown_deadline_s if deadline_s is None else deadline_s
            self._closing = asyncio.create_task(self._close(reason, total_s), name=f"peer-close-{self._session_id}")
        return self._closing

    async def _close(self, reason: str, total_s: float) -> None:
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + total_s
        await self._closings.turn()
        left_s = max(0.0, ends_s - loop.time())
        link = self._link
        if link is not None:
            link.stop()  # what it holds back reaches the session before that closes
        if self.channels is not None:
            self.channels.on_close_stream = None
            flush = self.channels.close(reason, deadline_s=left_s * (1.0 - DRAIN_SHARE))
            await attempt(self._log, "session", flush, total_s)
            if reason != LOST and link is not None:
                await link.sink.drained(ends_s - loop.time())
        if link is not None:
            await link.close()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        self._relay.disconnect()
        self._tee.let_go()
        self._state = State.CLOSED
        self._log.info("peer ended", reason=reason)
        on_ended, self.on_ended = self.on_ended, None
        if on_ended is not None:
            on_ended(reason)
