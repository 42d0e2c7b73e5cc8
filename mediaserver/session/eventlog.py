"""The events of one connection, kept for whoever reads them elsewhere: as they happen, again, or after the end.

A listener is a place in the log, not a queue: one that is slow finds the newest interim where it left off, costs no
memory, and holds nobody up. What is dropped first, where the log is full: what is about the course of the speech
(`speech_started`, `utterance_end` …), oldest first, then the oldest finals. Interims are never kept beyond the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from types import TracebackType
from typing import Self

from mediaserver.errors import CapacityError, VoiceForgeError
from mediaserver.events import Closed, Event, Final, Interim, Metadata, Revision, Warned, to_json
from mediaserver.session.channels import Channels
from mediaserver.session.dialect import NativeDialect

LISTENERS_MAX = 16
"""Of one connection: an agent's screen, a supervisor's, some programs. Each costs a task and a socket."""

LISTENERS_RETRY_AFTER_S = 15
"""A listener that is gone without a word is noticed by its next heartbeat."""

BATCH_ENTRIES = 64
"""Read at once: some 100 kB of finals."""

_PRECIOUS = (Final, Revision, Metadata, Closed)
"""Dropped last: what was said, and that it is all."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as text.

    Args:
        seq: counts the connection's events.
        text: a JSON object of the native protocol.
        is_event: it is one of those; otherwise one listener alone is told, and `seq` says where it stood.
    """

    seq: int
    text: str
    is_event: bool = True


@dataclass(slots=True)
class _Newest:
    """An event that may be left out: written out when somebody reads it before the next one comes."""

    event: Event
    seq: int
    channel: int
    entry: Entry | None = None


class EventLog:
    """What a connection was told, and those who read along (a `Tap`).

    Args:
        session_id: for the events; not a secret.
        kept_letters: of text that is kept.
    """

    def __init__(self, session_id: str, *, kept_letters: int) -> None:
        self.session_id = session_id
        self.on_final: Callable[[], None] | None = None
        """Called once a final has been told."""
        self._kept_letters = kept_letters
        self._dialect = NativeDialect(session_id)
        self._channels: Channels | None = None
        self._minor: deque[Entry] = deque()  # bound, with `_major`: kept_letters; this one is dropped first
        self._major: deque[Entry] = deque()
        self._newest_of: dict[tuple[str, int], _Newest] = {}  # of what may be left out, one a channel
        self._letters = 0
        self._newest = self._lost = self._lost_major = -1
        self._is_over = False
        self._listeners: set[Listener] = set()

    @property
    def newest(self) -> int:
        """The number of the newest event; -1 before the first."""
        return self._newest

    @property
    def is_over(self) -> bool:
        """Whether no more events come."""
        return self._is_over

    @property
    def letters(self) -> int:
        """Letters of text that are kept."""
        return self._letters

    @property
    def listeners(self) -> int:
        """How many read along."""
        return len(self._listeners)

    def begin(self, channels: Channels) -> None:
        """Events carry the metadata and labels of its configuration."""
        self._channels = channels
        self._dialect.begin(channels)

    def send(self, event: Event, seq: int, channel: int) -> None:
        """Keep an event, and wake who waits for one."""
        if self._is_over:
            return
        self._newest = seq
        if event.droppable:
            self._newest_of[event.type, channel] = _Newest(event, seq, channel)
        else:
            if isinstance(event, Final):
                self._settle(event, channel)
            self._keep(self._written(event, seq, channel), is_precious=isinstance(event, _PRECIOUS))
        if isinstance(event, Closed):
            self.end()
        self._wake()
        if isinstance(event, Final) and self.on_final is not None:
            self.on_final()

    def end(self) -> None:
        """No more events come, also where `closed` was never told (a connection that was cut)."""
        self._is_over = True
        self._newest_of.clear()
        self._channels = None  # the log may be kept for longer than the audio that its sessions remember
        self._dialect = NativeDialect(self.session_id)
        self._wake()

    def hear(self, message: str | bytes) -> None:
        """Act on a listener's message as on the client's own; the answers are events, which all hear. Never raises."""
        if self._channels is not None and self._channels.is_open:
            self._dialect.hear(message, self._channels)

    def refuse(self, error: VoiceForgeError) -> str:
        """What one listener alone is told of a message that was not taken."""
        return self._dialect.refuse(error)

    def listen(self, *, after: int = -1) -> Listener:
        """Read along, from the first event that is kept behind number `after`.

        Raises:
            CapacityError: TOO_MANY_LISTENERS.
        """
        if len(self._listeners) >= LISTENERS_MAX:
            raise CapacityError(
                "TOO_MANY_LISTENERS",
                f"{LISTENERS_MAX} listeners read this session's events; one more is not served.",
                "Close one of the others, or pass the events on from one of them.",
                retry_after_s=LISTENERS_RETRY_AFTER_S,
            )
        listener = Listener(self, after)
        self._listeners.add(listener)
        return listener

    def after(self, position: int) -> list[Entry]:
        """The next events behind a number, `BATCH_ENTRIES` at most, in order."""
        found = [*_newer(self._minor, position), *_newer(self._major, position)]
        found += [self._newest_entry(newest) for newest in self._newest_of.values() if newest.seq > position]
        found.sort(key=lambda entry: entry.seq)
        return found[:BATCH_ENTRIES]

    def lost_after(self, position: int) -> int | None:
        """The number of the last event behind `position` that is kept no more; None where all are."""
        return self._lost if self._lost > position else None

    def gap(self, position: int, *, until: int | None = None) -> Entry:
        """What a listener is told who asks for more than is kept, or, with `until`, than is told again at once."""
        lost = self._lost if until is None else until
        is_major = self._lost_major > position or any(position < entry.seq <= (until or -1) for entry in self._major)
        what = "finals among them" if is_major else "no finals among them"
        error = VoiceForgeError(
            "EVENTS_LOST",
            f"Of the events {position + 1} to {lost} some are kept no more, {what}.",
            "Read along from the start, or set `event_log_kib` higher.",
        )
        warned = Warned(error=error.as_dict())
        seq = max(position, 0)
        return Entry(seq, to_json(warned, session_id=self.session_id, seq=seq), is_event=False)

    def tail(self, *, letters: int) -> list[Entry]:
        """The newest events, in order, but for those that may be left out; of so much text at most."""
        kept = sorted((*self._minor, *self._major), key=lambda entry: entry.seq)
        first = len(kept)
        while first and (letters := letters - len(kept[first - 1].text)) >= 0:
            first -= 1
        return kept[first:]

    def restore(self, entries: Sequence[Entry], *, newest: int) -> None:
        """Take in what was told elsewhere, before the first event here; what lies before it is lost here.

        Args:
            entries: in order.
            newest: the number of the last event that was told there.
        """
        self._lost = self._lost_major = entries[0].seq - 1 if entries else newest
        self._newest = newest
        for entry in entries:
            self._keep(entry, is_precious=True)

    def forget(self, listener: Listener) -> None:
        """One who reads no more."""
        self._listeners.discard(listener)

    def _settle(self, final: Final, channel: int) -> None:
        running = self._newest_of.get((Interim.type, channel))
        event = None if running is None else running.event
        if isinstance(event, Interim) and event.utterance_id <= final.utterance_id:
            del self._newest_of[Interim.type, channel]

    def _keep(self, entry: Entry, *, is_precious: bool) -> None:
        (self._major if is_precious else self._minor).append(entry)
        self._letters += len(entry.text)
        while self._letters > self._kept_letters and len(self._minor) + len(self._major) > 1:
            is_minor = bool(self._minor)
            victim = (self._minor if is_minor else self._major).popleft()
            self._letters -= len(victim.text)
            self._lost = max(self._lost, victim.seq)
            if not is_minor:
                self._lost_major = max(self._lost_major, victim.seq)

    def _newest_entry(self, newest: _Newest) -> Entry:
        if newest.entry is None:
            newest.entry = self._written(newest.event, newest.seq, newest.channel)
        return newest.entry

    def _written(self, event: Event, seq: int, channel: int) -> Entry:
        return Entry(seq, "".join(telling.text for telling in self._dialect.tell(event, seq, channel)))

    def _wake(self) -> None:
        for listener in self._listeners:
            listener.wake()


class Listener:
    """Somebody who reads along. Use it as a context: at its end the place is free for another.

    Args:
        log: what is read.
        after: the number of the last event that is known already.
    """

    def __init__(self, log: EventLog, after: int) -> None:
        self._log = log
        self._position = after
        self._told_lost = -1
        self._news = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._log.forget(self)

    @property
    def is_over(self) -> bool:
        """Whether all has been read, and no more comes."""
        return self._log.is_over and not self._log.after(self._position)

    def wake(self) -> None:
        """There is something to read, or nothing more comes."""
        self._news.set()

    async def read(self, *, timeout_s: float) -> list[Entry]:
        """The next events, as soon as there are some; none after `timeout_s`, and none at the end."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (found := self._next()) and not self._log.is_over:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return []
        return found

    def _next(self) -> list[Entry]:
        found = self._log.after(self._position)
        lost = self._log.lost_after(self._position)
        if lost is not None and lost > self._told_lost:
            self._told_lost = lost
            found = [self._log.gap(self._position), *found]
        if found:
            self._position = max(self._position, found[-1].seq)
        return found


def _newer(kept: deque[Entry], position: int) -> list[Entry]:
    """Those behind a number; looked for from the end, where most readers are."""
    return list(takewhile(lambda item: item.seq > position, reversed(kept)))[::-1]
