"""Which place a new session goes to (sans-IO): the least loaded, unless this one is about as good.

To pass on an offer costs a few milliseconds once, for media goes straight to where the session is. A WebSocket that is
passed on goes through this process for as long as it lasts, and ends with it; so that is done where this place has no
room, and where it is far fuller than another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from signaling.cluster.places import Place

MARGIN = 0.1
"""By how much of its room this place must be fuller than another before an offer is passed on. Loads of others are up
to a second old: with less, two idle places would send each other what comes."""

MARGIN_SESSIONS = 2
"""And by at least so many sessions, where there is little room."""

PROXIED_MARGIN = 0.5
"""The same for a WebSocket, which stays on this place's hands."""

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


def place_for(
    own: Place,
    others: Sequence[Place],
    *,
    sent: Mapping[str, int],
    refuses: bool,
    is_proxied: bool,
    sample: Sample = random.sample,
) -> Place | None:
    """Where a new session goes; None: it stays here, be it to be refused.

    Args:
        own: this place.
        others: those that can be reached from here.
        sent: by place, sessions passed on to it since it was seen last.
        refuses: whether this place would refuse it.
        is_proxied: whether the session's media would go through this place.
        sample: picks so many of a sequence.
    """
    taking = [place for place in others if has_room(place, sent.get(place.place_id, 0))]
    if not taking:
        return None
    picked = taking if len(taking) <= CHOICES else sample(taking, CHOICES)
    best = min(picked, key=lambda place: load_of(place, sent.get(place.place_id, 0)))
    if refuses:
        return best
    credit = sent.get(best.place_id, 0)
    fuller_by = load_of(own) - load_of(best, credit)
    more = own.sessions - (best.sessions + credit) * own.max_sessions / best.max_sessions
    margin = PROXIED_MARGIN if is_proxied else MARGIN
    return best if fuller_by >= margin and more >= MARGIN_SESSIONS else None
