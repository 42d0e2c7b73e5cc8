"""Where the events of a connection go that may drop: to its client while it is there, and into a log, from which one
that comes back is told what it missed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mediaserver.events import Event, Ready, Resume, Resumed
from mediaserver.session.channels import Channels
from mediaserver.session.dialect import Dialect, Telling
from mediaserver.session.eventlog import Entry, EventLog

Tell = Callable[[Telling], None]
"""Takes a message to the client. Never blocks and never raises."""

REPLAY_LETTERS_MAX = 256 * 1024
"""Told again at once at most; of more, the oldest are left out, and the client is told so. It is a quarter of what
counts as nobody reading, and half an hour of finals, where a client is away for half a minute."""


class Relay:
    """The outlet of a connection.

    Args:
        dialect: what the client is told, and how.
        log: what is kept for a client that comes back, in the native protocol; None where none does.
    """

    def __init__(self, dialect: Dialect, *, log: EventLog | None = None) -> None:
        self._dialect = dialect
        self._log = log
        self._tell: Tell | None = None
        self.resume: Resume | None = None
        """How the client comes back; told to it alone."""

    @property
    def newest(self) -> int:
        """The number of the newest event that is logged; -1 before the first."""
        return -1 if self._log is None else self._log.newest

    @property
    def log(self) -> EventLog | None:
        """What is kept."""
        return self._log

    def begin(self, channels: Channels) -> None:
        """The connection has come about; its first event has not been told."""
        self._dialect.begin(channels)
        if self._log is not None:
            self._log.begin(channels)

    def connect(self, tell: Tell) -> None:
        """From now on the client is told there."""
        self._tell = tell

    def disconnect(self) -> None:
        """The client is not there: what it is to hear waits in the log."""
        self._tell = None

    def replay(self, *, after: int) -> None:
        """Tell a client that is back what it missed: all that is kept behind event `after`, with the numbers it had."""
        if self._log is None or self._tell is None:
            return
        missed, position = list[Entry](), after
        while entries := self._log.after(position):
            missed += entries
            position = entries[-1].seq
        letters, first = 0, len(missed)
        while first and letters + len(missed[first - 1].text) <= REPLAY_LETTERS_MAX:
            first -= 1
            letters += len(missed[first].text)
        is_cut = first > 0
        if is_cut or self._log.lost_after(after) is not None:
            self._tell(_as_telling(self._log.gap(after, until=missed[first - 1].seq if is_cut else None)))
        for entry in missed[first:]:
            self._tell(_as_telling(entry))

    def send(self, event: Event, seq: int, channel: int) -> None:
        """As `Outlet.send`."""
        if self._tell is not None:
            own = replace(event, resume=self.resume) if isinstance(event, Ready | Resumed) else event
            for telling in self._dialect.tell(own, seq, channel):
                self._tell(telling)
        if self._log is not None:
            self._log.send(event, seq, channel)


def _as_telling(entry: Entry) -> Telling:
    return Telling(entry.text, is_precious=True)
