"""Who hears a connection's events beside its client: a log that others read, a webhook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mediaserver.events import Event
from mediaserver.session.channels import Channels, Nobody, Outlet


class Tap(Protocol):
    """Hears all events of one connection, in order, on the event loop."""

    def begin(self, channels: Channels) -> None:
        """The connection has come about; its first event has not been told."""
        ...

    def send(self, event: Event, seq: int, channel: int) -> None:
        """Take an event of a channel. Never blocks and never raises."""
        ...


class Tee:
    """An outlet that tells the client, then everybody who listens in.

    Args:
        outlet: the client's.
        taps: the others.
    """

    def __init__(self, outlet: Outlet, taps: Sequence[Tap]) -> None:
        self._outlet = outlet
        self._taps = tuple(taps)

    def let_go(self) -> None:
        """The client is gone; those who listen in are still told."""
        self._outlet = Nobody()

    def begin(self, channels: Channels) -> None:
        """Tell those who listen in what they listen to."""
        for tap in self._taps:
            tap.begin(channels)

    def send(self, event: Event, seq: int, channel: int) -> None:
        """An event of a channel."""
        self._outlet.send(event, seq, channel)
        for tap in self._taps:
            tap.send(event, seq, channel)
