"""What a media process keeps of its windows until the engine has answered them (sans-IO).

The audio is in the window, so an engine that dies takes nothing with it: finals and revisions are sent again to the
next one. Interims are given up instead, for a newer one follows. Waiting is bounded: `MAX_KEPT` finals and revisions,
one unsent interim a session, `AWAY_LIMIT_S` without an engine, `MAX_TRIES` engines that died over a window.
"""

from __future__ import annotations

from dataclasses import dataclass

from mediaserver.decoder.remote.wire import MAX_IN_FLIGHT
from mediaserver.decoder.window import Window

MAX_KEPT = 1024
"""Finals and revisions that may be unanswered: one of each for more sessions than a node takes. One more is refused."""

AWAY_LIMIT_S = 30.0
"""How long a final waits for an engine that is away: a restart takes 2–3 s, after half a minute nobody reads it."""

MAX_TRIES = 3
"""A window that was in hand when three engines died may be what kills them; it is given up."""


@dataclass(slots=True, eq=False)
class Entry:
    """A window that is not answered yet."""

    ident: int
    window: Window
    queued_at_s: float
    sent: bool = False
    tries: int = 0


class Outbox:
    """The unanswered windows of one connection. `now_s` never goes back."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._interims: dict[str, Entry] = {}  # the unsent one of each session
        self._in_flight = 0
        self._last_ident = 0
        self._connected = False
        self._away_since_s = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, window: Window, now_s: float) -> tuple[Entry | None, Entry | None]:
        """Take a window.

        Returns:
            Its entry, or None if it is not taken (an interim without an engine, or too many wait); and the older
            interim that it replaces, if there is one.
        """
        interim = window.kind.is_interim
        kept = sum(not entry.window.kind.is_interim for entry in self._entries.values())
        if (interim and not self._connected) or (not interim and kept >= MAX_KEPT):
            return None, None
        self._last_ident += 1
        entry = Entry(self._last_ident, window, now_s)
        self._entries[entry.ident] = entry
        replaced = None
        if interim:
            replaced = self._interims.get(window.session_id)
            if replaced is not None:
                self.remove(replaced.ident)
            self._interims[window.session_id] = entry
        return entry, replaced

    def next_to_send(self) -> Entry | None:
        """The most urgent window that has not been sent; it counts as sent now. None: all are, or enough are out."""
        if not self._connected or self._in_flight >= MAX_IN_FLIGHT:
            return None
        unsent = (entry for entry in self._entries.values() if not entry.sent)
        entry = min(unsent, key=lambda entry: (entry.window.kind, entry.ident), default=None)
        if entry is not None:
            entry.sent = True
            entry.tries += 1
            self._in_flight += 1
            self._forget_interim(entry)
        return entry

    def remove(self, ident: int) -> Entry | None:
        """Forget a window that was answered, or that nobody waits for; None if it is not known."""
        entry = self._entries.pop(ident, None)
        if entry is not None:
            self._in_flight -= entry.sent
            self._forget_interim(entry)
        return entry

    def connected(self) -> None:
        """There is an engine: what waits may be sent."""
        self._connected = True

    def lost(self, now_s: float) -> tuple[list[Entry], list[Entry]]:
        """The engine is gone: what it had counts as unsent again.

        Returns:
            Interims, which give way to newer ones, and windows that were tried too often. Neither is kept.
        """
        if self._connected:
            self._away_since_s = now_s
        self._connected = False
        interims, given_up = [], []
        for entry in list(self._entries.values()):
            if entry.window.kind.is_interim:
                interims.append(entry)
            elif entry.sent and entry.tries >= MAX_TRIES:
                given_up.append(entry)
        for entry in (*interims, *given_up):
            self.remove(entry.ident)
        for entry in self._entries.values():
            entry.sent = False
        self._in_flight = 0
        return interims, given_up

    def expire(self, now_s: float) -> list[Entry]:
        """Windows that have waited too long for an engine that is away; they are not kept."""
        if self._connected:
            return []
        expired = [
            entry
            for entry in self._entries.values()
            if now_s - max(entry.queued_at_s, self._away_since_s) >= AWAY_LIMIT_S
        ]
        for entry in expired:
            self.remove(entry.ident)
        return expired

    def clear(self) -> list[Entry]:
        """All of them, none kept: the end."""
        left = list(self._entries.values())
        for entry in left:
            self.remove(entry.ident)
        return left

    def _forget_interim(self, entry: Entry) -> None:
        if self._interims.get(entry.window.session_id) is entry:
            del self._interims[entry.window.session_id]
