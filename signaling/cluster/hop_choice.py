"""Which place a new session goes to (sans-IO): the least loaded, unless this one is about as good.

To pass on an offer costs a few milliseconds once, for media goes straight to where the session is. A WebSocket that is
passed on goes through this process for as long as it lasts, and ends with it; so that is done where this place has no
room, and where it is far fuller than another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from signaling.cluster.places import Place

MARGIN = 0.1
"""By how much of its room this place must be fuller than another before an offer is passed on. Loads of others are up
to a second old: with less, two idle places would send each other what comes."""

MARGIN_SESSIONS = 2
"""And by at least so many sessions, where there is little room."""

PROXIED_MARGIN = 0.5
"""The same for a WebSocket, which stays on this place's hands: 0.25 % of a core at 50 messages a second each way, a
quarter of what a whole session may cost, and it ends when either process does."""

CHOICES = 2
"""Of so many at random the emptier one is taken: whoever sees the same loads does not send everybody to one place."""

Sample = Callable[[Sequence[Place], int], Sequence[Place]]


def load_of(place: Place, sent: int = 0) -> float:
    """How full a place is: 0 empty, 1 full.

    Args:
        place: as it was seen last.
        sent: sessions passed on to it since.
    """
    return (place.sessions + sent) / place.max_sessions if place.max_sessions else 1.0


def has_room(place: Place, sent: int = 0) -> bool:
    """Whether it would take a session."""
    return place.is_taking and place.retry_after_s is None and place.sessions + sent < place.max_sessions


@dataclass(slots=True)
class _Sent:
    """Sessions passed on to a place: since it was seen last, and a second before, which may not be told of yet."""

    seen: Place
    fresh: int = 0
    older: int = 0
    seen_before: Place | None = None


class Choice:
    """Where new sessions go.

    Args:
        sample: picks so many of a sequence.
    """

    def __init__(self, *, sample: Sample = random.sample) -> None:
        self._sample = sample
        self._sent: dict[str, _Sent] = {}  # by place; bound: those that live

    def place_for(self, own: Place, others: Sequence[Place], *, is_proxied: bool) -> Place | None:
        """Where the next one goes; None: it stays here, be it to be refused.

        Args:
            own: this place, as it is now.
            others: those that can be reached from here, as they were seen last.
            is_proxied: whether the session's media would go through this place.
        """
        sent = {place.place_id: self._sent_to(place) for place in others}
        taking = [place for place in others if has_room(place, sent[place.place_id])]
        if not taking:
            return None
        picked = taking if len(taking) <= CHOICES else self._sample(taking, CHOICES)
        best = min(picked, key=lambda place: load_of(place, sent[place.place_id]))
        if has_room(own) and not _is_fuller(own, best, sent[best.place_id], PROXIED_MARGIN if is_proxied else MARGIN):
            return None
        self._sent[best.place_id].fresh += 1
        return best

    def take_back(self, place: Place) -> None:
        """No session came of it: whoever asked was not let in, or there was no place. Without this, anybody could make
        places look full that are not, by asking without a key.

        Args:
            place: as `place_for` returned it.
        """
        sent = self._sent.get(place.place_id)
        if sent is None:
            return
        if sent.seen is place:
            sent.fresh -= 1
        elif sent.seen_before is place:
            sent.older -= 1

    def forget(self, place_id: str) -> None:
        """A place is gone."""
        self._sent.pop(place_id, None)

    def _sent_to(self, place: Place) -> int:
        sent = self._sent.get(place.place_id)
        if sent is None:
            sent = self._sent[place.place_id] = _Sent(place)
        elif sent.seen is not place:
            sent.seen_before, sent.seen, sent.older, sent.fresh = sent.seen, place, sent.fresh, 0
        return sent.fresh + sent.older


def _is_fuller(own: Place, other: Place, sent: int, margin: float) -> bool:
    more = own.sessions - (other.sessions + sent) * own.max_sessions / other.max_sessions
    return load_of(own) - load_of(other, sent) >= margin and more >= MARGIN_SESSIONS
