"""Which session lives where. Here: in this process, in memory.

A session has two names. Its secret is its URL, and whoever knows it may end the session; its id is for logs and
events, and gives no power. Rooms are counted from the offer until the last final is out, so a session that is still
closing is not counted away early.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import structlog
from structlog.contextvars import get_contextvars

from mediaserver.errors import CapacityError
from mediaserver.metrics import Metrics
from mediaserver.pace import Pace
from mediaserver.session.resumption import MOVED
from signaling.auth.limiter import Limiter
from signaling.auth.principal import LOCAL, Principal, current_principal
from signaling.cluster.leases import Lease, current_lease

log = structlog.get_logger(__name__)

SECRET_BYTES = 24
"""192 bits: not guessable, however many sessions live and however fast one asks."""

SESSION_ID_BYTES = 6
"""48 bits: unique among the sessions of a log's lifetime, short enough to read."""

FULL_RETRY_AFTER_S = 10
"""Sessions last minutes, so one of a full node's ends within seconds."""

FLUSH_S = 10.0
"""How long the last finals of a session may take that has lasted as long as its key may: the longest decodes."""

MOVE_SHARE = 0.9
"""Of the time to hand a session over; the rest is for closing it where nobody takes it."""

MOVED_S = 1.0
"""How long a session that was handed over may take to let go: nobody is told anything more."""

CUT_GRACE_S = 2.5
"""What a peer may take beyond its deadline to close its sockets before it is left behind."""

CLOSINGS_EACH_TURN = 2
"""Sessions that begin to close in one turn of the event loop, of those that are closed at once: fifty WebSockets held
it for 12 ms. A peer connection's end has a pace of its own, for many end by themselves (`mediaserver.ingest.peer`)."""


def new_secret(place_id: str = "") -> str:
    """The last part of a session's URL; it says which place the session lives at, where there are several."""
    token = secrets.token_urlsafe(SECRET_BYTES)
    return f"{place_id}.{token}" if place_id else token


def new_etag() -> str:
    """A strong entity-tag of an ICE session."""
    return f'"{secrets.token_hex(8)}"'


class LivePeer(Protocol):
    """The server's end of a connection, of whatever protocol."""

    on_ended: Callable[[str], None] | None

    async def close(self, reason: str, *, deadline_s: float | None = None) -> None:
        """Flush finals, say `closed` and let go of everything."""
        ...

    def describe(self) -> dict[str, object]:
        """Its state, without secrets."""
        ...


@runtime_checkable
class WebRtcPeer(LivePeer, Protocol):
    """The server's end of a peer connection."""

    async def accept(self, offer_sdp: str) -> str:
        """Answer an offer. One whose session another process had takes `after` too, the last event that is known."""
        ...

    async def add_candidates(self, sdpfrag: str) -> None:
        """Add trickled candidates."""
        ...


@runtime_checkable
class ReturningPeer(WebRtcPeer, Protocol):
    """One whose client may come back with another peer connection."""

    @property
    def can_resume(self) -> bool:
        """Whether it waits for its client when a connection is lost."""
        ...

    @property
    def newest(self) -> int:
        """The number of the newest event."""
        ...

    def resumes_at(self, path: str) -> None:
        """Say where the client comes back to."""
        ...

    async def resume(self, offer_sdp: str, *, after: int) -> str:
        """Answer the offer of a client that is back."""
        ...


@dataclass(eq=False, slots=True)
class LiveSession:
    """A session in the registry.

    Args:
        session_id: its name in logs and events.
        door: which protocol it came in by.
        peer: its other end.
        principal: whose it is.
        secret: the last part of its URL.
        etag: strong entity-tag of its ICE session (RFC 9725 §4.3); as ICE never restarts here, it changes only where
            the client comes back with another peer connection.
        closing: the task that closes it, once that has begun.
        reason: why it left the registry, one word; empty while it has not.
        trace_id: of its trace, for the log; empty where there is none.
        channels: how many are heard in it: each costs what a session of one channel does.
        asked: what its door wants to know again where another process goes on with it; may hold secrets.
        former: names, in the state that processes share, of the URLs that it had at other ones.
        began_at: when it was opened, wherever that was; in seconds since 1970.
        on_gone: called once each, when it has left the registry.
    """

    session_id: str
    door: str
    peer: LivePeer
    principal: Principal = LOCAL
    secret: str = field(default_factory=new_secret, repr=False)
    etag: str = field(default_factory=new_etag)
    closing: asyncio.Task[None] | None = None
    reason: str = ""
    channels: int = 1
    trace_id: str = field(default_factory=lambda: str(get_contextvars().get("trace_id", "")))
    asked: dict[str, str] = field(default_factory=dict, repr=False)
    former: tuple[str, ...] = ()
    began_at: float = field(default_factory=time.time)
    on_gone: list[Callable[[], None]] = field(default_factory=list)


class Registry:
    """The sessions of this node.

    Args:
        max_sessions: most sessions at once, each as many as it has channels; one more is refused, none is ever ended
            for another.
        metrics: how many live, by door, and how they ended.
        place_id: which of several processes this is, written before the dot of its sessions' secrets, so that a
            request that reaches another one is passed on; empty where there is only one.
    """

    def __init__(self, *, max_sessions: int, metrics: Metrics, place_id: str = "") -> None:
        self._max_sessions = max_sessions
        self._metrics = metrics
        self._place_id = place_id
        self._limiter = Limiter()
        self.on_added: list[Callable[[LiveSession], None]] = []
        """Called with each session that has got its place."""
        self.lease_of: Callable[[Principal], Lease | None] = lambda _: None
        """Counts over all processes a session that comes without a lease: one that goes on here, or that began while
        the others could not be asked."""
        self.move: Callable[[LiveSession, float], Awaitable[bool]] | None = None
        """Has another process go on with a session, within so many seconds; whether it does. None: there is none."""
        self._closings = Pace(CLOSINGS_EACH_TURN)
        self._by_secret: dict[str, LiveSession] = {}  # bounded by max_sessions

    def __len__(self) -> int:
        return len(self._by_secret)

    @property
    def channels(self) -> int:
        """How many channels are heard here, in all sessions."""
        return sum(live.channels for live in self._by_secret.values())

    def require_room(self, channels: int = 1) -> None:
        """Refuse a session that does not fit.

        Args:
            channels: how many it has.

        Raises:
            CapacityError: SERVER_FULL.
            LimitError: TOO_MANY_SESSIONS or TOO_MANY_NEW_SESSIONS of who asks.
        """
        if current_lease() is None:  # else they are counted already, over all processes
            self._limiter.check(current_principal(), now_s=time.monotonic())
        self._require_place(channels)

    def _require_place(self, channels: int) -> None:
        left = self._max_sessions - self.channels
        if left < channels and left > 0:
            raise CapacityError(
                "SERVER_FULL",
                f"The connection has {channels} channels, and {left} of this server's {self._max_sessions} are left.",
                f"Try again in {FULL_RETRY_AFTER_S} s, or raise `max_sessions`.",
                retry_after_s=FULL_RETRY_AFTER_S,
            )
        if left < channels:
            raise CapacityError(
                "SERVER_FULL",
                f"All {self._max_sessions} sessions of this server are taken.",
                f"Try again in {FULL_RETRY_AFTER_S} s, or raise `max_sessions`.",
                retry_after_s=FULL_RETRY_AFTER_S,
            )

    def add(
        self, session_id: str, peer: LivePeer, *, door: str, age_s: float | None = None, channels: int = 1
    ) -> LiveSession:
        """Take a session in; it leaves when its peer ends or when it is closed here.

        Args:
            session_id: its name.
            peer: its server's end.
            door: its protocol.
            age_s: for how long another process had it; None where it is new. It is no new one to its key's limits.
            channels: how many are heard in it.

        Raises:
            CapacityError: as `require_room`.
        """
        if age_s is None:
            self.require_room(channels)
        else:
            self._require_place(channels)
        live = LiveSession(session_id, door, peer, current_principal(), new_secret(self._place_id), channels=channels)
        live.began_at -= age_s or 0.0
        self._limiter.opened(live.principal, now_s=time.monotonic(), is_new=age_s is None)
        self._by_secret[live.secret] = live
        self._metrics.sessions.labels(door).inc()
        peer.on_ended = lambda reason: self._ended(live, reason)
        if (lease := current_lease() or self.lease_of(live.principal)) is not None:
            lease.hold()
            live.on_gone.append(lease.release)
        limit_s = live.principal.limits.session_s
        if limit_s is not None:
            left_s = max(0.0, limit_s - (age_s or 0.0))
            timer = asyncio.get_running_loop().call_later(left_s, self._time_is_up, live)
            live.on_gone.append(timer.cancel)
        for callback in self.on_added:
            callback(live)
        return live

    def find(self, secret: str) -> LiveSession | None:
        """The session of a URL; None if there is none or it is closing."""
        live = self._by_secret.get(secret)
        return live if live is not None and live.closing is None else None

    def is_ending(self, secret: str) -> bool:
        """Whether the session of a URL is there, and about to go: it ends, or another process has it."""
        live = self._by_secret.get(secret)
        return live is not None and live.closing is not None

    async def close(self, live: LiveSession, reason: str, *, deadline_s: float) -> None:
        """Close a session and wait until it is closed; finals that are out within `deadline_s` are sent.

        The work is a task of its own: a client that hangs up on its DELETE does not stop it, and a second caller
        waits for the same end.
        """
        await asyncio.shield(self._begin_close(live, reason, deadline_s))

    async def hand_over_all(self, *, deadline_s: float) -> None:
        """Have other processes go on with the sessions that can be moved; the others are closed, all at once."""
        lives = list(self._by_secret.values())
        if lives:
            await asyncio.gather(*(self._hand_over(live, deadline_s) for live in lives))

    async def _hand_over(self, live: LiveSession, deadline_s: float) -> None:
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + deadline_s
        if self.move is not None and live.closing is None and await self.move(live, deadline_s * MOVE_SHARE):
            await self.close(live, MOVED, deadline_s=MOVED_S)
        else:
            await self.close(live, "shutdown", deadline_s=max(0.0, ends_s - loop.time()))

    async def close_all(self, reason: str, *, deadline_s: float) -> None:
        """Close all sessions at once, each within `deadline_s`."""
        tasks = [self._begin_close(live, reason, deadline_s) for live in list(self._by_secret.values())]
        if tasks:
            await asyncio.shield(asyncio.gather(*tasks))

    def sessions(self, *, with_closing: bool = False) -> list[LiveSession]:
        """Those that are not closing, or all."""
        return [live for live in self._by_secret.values() if with_closing or live.closing is None]

    def end_those(self, which: Callable[[LiveSession], bool], reason: str, *, deadline_s: float) -> int:
        """Begin to close some sessions, each within `deadline_s`; how many. Nobody waits for their end."""
        ending = [live for live in self.sessions() if which(live)]
        for live in ending:
            self._begin_close(live, reason, deadline_s)
        return len(ending)

    def _begin_close(self, live: LiveSession, reason: str, deadline_s: float) -> asyncio.Task[None]:
        if live.closing is None:
            live.closing = asyncio.create_task(self._close(live, reason, deadline_s), name=f"close-{live.session_id}")
        return live.closing

    async def _close(self, live: LiveSession, reason: str, deadline_s: float) -> None:
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + deadline_s
        try:
            async with asyncio.timeout(deadline_s + CUT_GRACE_S):
                await self._closings.turn()
                await live.peer.close(reason, deadline_s=max(0.0, ends_s - loop.time()))
        except TimeoutError:
            log.warning("session cut", session=live.session_id, reason=reason, deadline_s=deadline_s)
        except Exception:
            log.exception("session did not close cleanly", session=live.session_id, reason=reason)
        finally:
            self._forget(live, reason)

    def _time_is_up(self, live: LiveSession) -> None:
        """The key's own limit; the node's is each peer's own matter."""
        self._begin_close(live, "session_max", FLUSH_S)

    def _ended(self, live: LiveSession, reason: str) -> None:
        if live.closing is None:
            self._forget(live, reason)

    def _forget(self, live: LiveSession, reason: str) -> None:
        if self._by_secret.pop(live.secret, None) is not None:
            live.reason = reason
            self._limiter.closed(live.principal)
            self._metrics.sessions.labels(live.door).dec()
            self._metrics.sessions_ended_total.labels(live.door, reason).inc()
            traced = {"trace_id": live.trace_id} if live.trace_id else {}
            log.info("session closed", **traced, session=live.session_id, reason=reason, live=len(self))
            for callback in live.on_gone:
                callback()
            live.on_gone.clear()  # what they hold of the session may go with it


def new_session_id() -> str:
    """A name for a new session, for logs and events."""
    return f"s_{secrets.token_hex(SESSION_ID_BYTES)}"
