"""What a media process keeps of its windows until the engine has answered them (sans-IO).

The audio is in the window, so an engine that dies takes nothing with it: finals and revisions are sent again to the
next one. Replaceable windows are given up instead: another follows. Waiting is bounded: `MAX_KEPT` finals and
revisions, `MAX_RECORDED` windows of recordings, one unsent replaceable window a session, `AWAY_LIMIT_S` without an
engine, `MAX_TRIES` engines that died over a window.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from mediaserver.decoder.remote.wire import MAX_IN_FLIGHT
from mediaserver.decoder.window import Kind, Window

MAX_KEPT = 1024
"""Finals and revisions that may be unanswered: one of each for more sessions than a node takes. One more is refused."""

MAX_RECORDED = 512
"""Windows of recordings that may be unanswered, beside those: as many as an engine lets wait. One more is refused."""

AWAY_LIMIT_S = 30.0
"""How long a final waits for an engine that is away: a restart takes 2–3 s, after half a minute nobody reads it."""

REFRESH_S = 0.2
"""How often an interim that the engine has not answered is followed by a newer one. Sessions offer their newest audio
ten times a second: to send it all would cost 2 % of a core a speaker, this way 0.3 % while the engine is quick."""

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
    """The unanswered windows of one connection. `now_s` never goes back.

    Args:
        interim_period_s: least time between two interims of a session, which the engine keeps, too: until then the
            newest waits here.
    """

    def __init__(self, *, interim_period_s: float) -> None:
        self._interim_period_s = interim_period_s
        self._sent_at_s: dict[str, float] = {}  # last interim of a session; forgotten after a period
        self._entries: dict[int, Entry] = {}
        self._replaceable: dict[str, Entry] = {}  # the unsent one of each session
        self._sent_replaceable: Counter[str] = Counter()  # unanswered ones of each session
        self._in_flight = 0
        self._last_ident = 0
        self._connected = False
        self._away_since_s = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, window: Window, now_s: float) -> tuple[Entry | None, Entry | None]:
        """Take a window.

        Returns:
            Its entry, or None if it is not taken (a replaceable one without an engine, or too many wait); and the older
            one that it replaces, if there is one.
        """
        is_replaceable = window.kind.is_replaceable
        if (is_replaceable and not self._connected) or (not is_replaceable and not self._has_room(window.kind)):
            return None, None
        self._last_ident += 1
        entry = Entry(self._last_ident, window, now_s)
        self._entries[entry.ident] = entry
        replaced = None
        if is_replaceable:
            replaced = self.withdraw(window.session_id)
            self._replaceable[window.session_id] = entry
        return entry, replaced

    def next_to_send(self, now_s: float) -> Entry | None:
        """The most urgent window that is due; it counts as sent now. None: all are, or enough are out."""
        if not self._connected or self._in_flight >= MAX_IN_FLIGHT:
            return None
        unsent = (entry for entry in self._entries.values() if not entry.sent and self._due_s(entry) <= now_s)
        entry = min(unsent, key=lambda entry: (entry.window.kind, entry.ident), default=None)
        if entry is None:
            return None
        entry.sent = True
        entry.tries += 1
        self._in_flight += 1
        self._count_replaceable(entry, 1)
        self._forget_unsent(entry)
        if entry.window.kind.is_interim:
            self._sent_at_s[entry.window.session_id] = now_s
        return entry

    def next_due_s(self, now_s: float) -> float | None:
        """When an unsent window falls due by itself, if one does."""
        for session_id in [s for s, sent_s in self._sent_at_s.items() if sent_s + self._interim_period_s <= now_s]:
            del self._sent_at_s[session_id]
        if not self._connected or self._in_flight >= MAX_IN_FLIGHT:
            return None
        return min((self._due_s(entry) for entry in self._replaceable.values()), default=None)

    def remove(self, ident: int) -> Entry | None:
        """Forget a window that was answered, or that nobody waits for; None if it is not known."""
        entry = self._entries.pop(ident, None)
        if entry is not None:
            if entry.sent:
                self._in_flight -= 1
                self._count_replaceable(entry, -1)
            self._forget_unsent(entry)
        return entry

    def withdraw(self, session_id: str) -> Entry | None:
        """Forget the unsent replaceable window of a session; returns it, if there is one."""
        entry = self._replaceable.get(session_id)
        return self.remove(entry.ident) if entry is not None else None

    def has_sent(self, session_id: str) -> bool:
        """Whether the engine has a replaceable window of a session that is not answered."""
        return session_id in self._sent_replaceable

    def connected(self) -> None:
        """There is an engine: what waits may be sent."""
        self._connected = True

    def lost(self, now_s: float) -> tuple[list[Entry], list[Entry]]:
        """The engine is gone: what it had counts as unsent again.

        Returns:
            Replaceable windows, which others follow, and windows that were tried too often. Neither is kept.
        """
        if self._connected:
            self._away_since_s = now_s
        self._connected = False
        replaceable, given_up = [], []
        for entry in list(self._entries.values()):
            if entry.window.kind.is_replaceable:
                replaceable.append(entry)
            elif entry.sent and entry.tries >= MAX_TRIES:
                given_up.append(entry)
        for entry in (*replaceable, *given_up):
            self.remove(entry.ident)
        for entry in self._entries.values():
            entry.sent = False
        self._in_flight = 0
        return replaceable, given_up

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

    def _has_room(self, kind: Kind) -> bool:
        """Whether one more window of a kind that is kept may wait."""
        is_recorded = kind is Kind.RECORDING
        kept = sum(
            (other is Kind.RECORDING) == is_recorded
            for other in (entry.window.kind for entry in self._entries.values())
            if not other.is_replaceable
        )
        return kept < (MAX_RECORDED if is_recorded else MAX_KEPT)

    def _due_s(self, entry: Entry) -> float:
        sent_at_s = self._sent_at_s.get(entry.window.session_id)
        if sent_at_s is None or not entry.window.kind.is_interim:
            return entry.queued_at_s
        is_pressing = entry.window.kind is Kind.FIRST_INTERIM or self.has_sent(entry.window.session_id)
        return sent_at_s + (min(REFRESH_S, self._interim_period_s) if is_pressing else self._interim_period_s)

    def _count_replaceable(self, entry: Entry, change: int) -> None:
        if not entry.window.kind.is_replaceable:
            return
        session_id = entry.window.session_id
        self._sent_replaceable[session_id] += change
        if not self._sent_replaceable[session_id]:
            del self._sent_replaceable[session_id]

    def _forget_unsent(self, entry: Entry) -> None:
        if self._replaceable.get(entry.window.session_id) is entry:
            del self._replaceable[entry.window.session_id]
