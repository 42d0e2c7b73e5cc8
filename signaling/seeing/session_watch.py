"""Who watches sessions beside their clients: the audit log and the traces. One place where both hear of a session.

A session is made in two steps, in an order that differs by door: its channels come about, and it gets its place in the
registry. Here they come together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from mediaserver.events import Event, Resumed
from mediaserver.session.channels import Channels
from signaling.auth.principal import Principal
from signaling.registry import LiveSession


@dataclass(slots=True, eq=False, weakref_slot=True)
class Watched:
    """A session as its watchers know it.

    Args:
        session_id: its name.
        model: that it is decoded with.
        door: which protocol it came in by; empty until it has its place in the registry.
        principal: whose it is; likewise.
        channels: None until they are there.
        codec: what its audio comes in; empty where that is not known.
        describe: says how its other end is (`LivePeer.describe`).
    """

    session_id: str
    model: str
    door: str = ""
    principal: Principal | None = None
    channels: Channels | None = None
    codec: str = ""
    describe: Callable[[], Mapping[str, object]] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all of it is known."""
        return self.principal is not None and self.channels is not None


class Watcher:
    """Hears of sessions, on the event loop; by itself it does nothing. Methods never block and never raise."""

    def made(self, session: Watched) -> None:
        """Somebody is about to open a session, in whose request this is called."""

    def opened(self, session: Watched) -> None:
        """All of it is known, and its client is about to be told."""

    def reached(self, session: Watched, stage: str) -> None:
        """A peer has come to a stage of its setup: answered, connected, first_packet."""

    def told(self, session: Watched, event: Event, channel: int) -> None:
        """An event was told, or one of those that no client is told."""

    def resumed(self, session: Watched, details: Mapping[str, object]) -> None:
        """Its client has come back."""

    def ended(self, session: Watched, reason: str) -> None:
        """It is gone; also where it was never whole."""


class SessionWatch:
    """Tells watchers of the sessions of this process.

    Args:
        watchers: who hears.
    """

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = tuple(watchers)
        # Bound: sessions whose doors are not through yet. One that is refused goes with its tap, and all that it had.
        self._waiting: WeakValueDictionary[str, Watched] = WeakValueDictionary()

    def tap(self, session_id: str, *, model: str) -> SessionTap | None:
        """What hears of a new session; None where nobody watches."""
        if not self._watchers:
            return None
        watched = self._waiting[session_id] = Watched(session_id, model)
        for watcher in self._watchers:
            watcher.made(watched)
        return SessionTap(watched, self._watchers)

    def added(self, live: LiveSession) -> None:
        """A session has its place in the registry (`Registry.on_added`)."""
        watched = self._waiting.pop(live.session_id, None)
        if watched is None:
            return
        watched.door, watched.principal, watched.describe = live.door, live.principal, live.peer.describe
        live.on_gone.append(lambda: self._gone(watched, live))
        _tell_if_whole(watched, self._watchers)

    def _gone(self, watched: Watched, live: LiveSession) -> None:
        for watcher in self._watchers:
            watcher.ended(watched, live.reason)


@dataclass(slots=True, eq=False)
class SessionTap:
    """The tap of one session, and where its peer says how far it is.

    Args:
        watched: the session.
        watchers: who hears.
    """

    watched: Watched
    watchers: Sequence[Watcher] = field(default_factory=tuple)

    def begin(self, channels: Channels) -> None:
        """As `Tap.begin`."""
        self.watched.channels = channels
        channels.on_inner.append(self._inner)
        _tell_if_whole(self.watched, self.watchers)

    def send(self, event: Event, seq: int, channel: int) -> None:
        """As `Tap.send`."""
        if isinstance(event, Resumed):
            details = {"is_elsewhere": event.is_elsewhere, "stream_time_s": round(event.stream_time, 3)}
            for watcher in self.watchers:
                watcher.resumed(self.watched, details)
        for watcher in self.watchers:
            watcher.told(self.watched, event, channel)

    def reached(self, stage: str) -> None:
        """A peer has come to a stage of its setup."""
        for watcher in self.watchers:
            watcher.reached(self.watched, stage)

    def _inner(self, event: Event, channel: int) -> None:
        for watcher in self.watchers:
            watcher.told(self.watched, event, channel)


def _tell_if_whole(watched: Watched, watchers: Sequence[Watcher]) -> None:
    if watched.is_whole and watched.describe is not None:
        state = watched.describe()
        watched.codec = str(state.get("codec") or state.get("encoding") or "")
        for watcher in watchers:
            watcher.opened(watched)
