"""How many sessions a key may have in this process, at once and in a minute (sans-IO).

Over all processes they are counted by leases (`signaling.cluster.leases`); this is what holds while those cannot be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from signaling.auth.principal import Principal
from signaling.problems import LimitError

MINUTE_S = 60.0

KEPT_KEYS = 10_000
"""Buckets kept at once. One that is full again says nothing, and goes first."""

BUSY_RETRY_AFTER_S = 5
"""When a session of a key ends, nobody knows. This soon it may be asked again without harm."""


def too_many_sessions(limit: int) -> LimitError:
    """The refusal of a session more than a key may have at once."""
    return LimitError(
        "TOO_MANY_SESSIONS",
        f"The key's {limit} sessions are taken.",
        "End one of them, or ask for more.",
        retry_after_s=BUSY_RETRY_AFTER_S,
    )


def too_many_new_sessions(per_minute: int, wait_s: float) -> LimitError:
    """The refusal of a session more than a key may open in a minute; `wait_s`: until there is one, in seconds."""
    after_s = max(1, math.ceil(wait_s))
    return LimitError(
        "TOO_MANY_NEW_SESSIONS",
        f"The key may open {per_minute} sessions in a minute.",
        f"Try again in {after_s} s.",
        retry_after_s=after_s,
    )


@dataclass(slots=True)
class _Bucket:
    """What is left of a minute's sessions: filled evenly, never more than a minute's."""

    left: float
    at_s: float


class Limiter:
    """Counts sessions by key. Who has no key is not limited, but by the node."""

    def __init__(self) -> None:
        self._live: dict[str, int] = {}  # bound: the node's sessions
        self._buckets: dict[str, _Bucket] = {}  # bound: KEPT_KEYS

    def check(self, principal: Principal, *, now_s: float) -> None:
        """Refuse one more session; nothing is counted yet.

        Raises:
            LimitError: TOO_MANY_SESSIONS or TOO_MANY_NEW_SESSIONS.
        """
        key, limits = principal.key_id, principal.limits
        if key is None:
            return
        if limits.sessions is not None and self._live.get(key, 0) >= limits.sessions:
            raise too_many_sessions(limits.sessions)
        per_minute = limits.sessions_per_minute
        if per_minute is not None and (left := self._left(key, per_minute, now_s)) < 1.0:
            raise too_many_new_sessions(per_minute, (1.0 - left) * MINUTE_S / per_minute)

    def opened(self, principal: Principal, *, now_s: float, is_new: bool = True) -> None:
        """A session has been opened; not `is_new`: it is one that another process had, which counted it."""
        key, per_minute = principal.key_id, principal.limits.sessions_per_minute
        if key is None:
            return
        self._live[key] = self._live.get(key, 0) + 1
        if per_minute is not None and is_new:
            left = self._left(key, per_minute, now_s)
            self._make_room(now_s)
            self._buckets[key] = _Bucket(left - 1.0, now_s)

    def closed(self, principal: Principal) -> None:
        """It has ended."""
        key = principal.key_id
        if key is not None:
            self._live[key] -= 1
            if not self._live[key]:
                del self._live[key]

    def _left(self, key: str, per_minute: int, now_s: float) -> float:
        bucket = self._buckets.get(key)
        if bucket is None:
            return float(per_minute)
        return min(float(per_minute), bucket.left + (now_s - bucket.at_s) * per_minute / MINUTE_S)

    def _make_room(self, now_s: float) -> None:
        if len(self._buckets) < KEPT_KEYS:
            return
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if now_s - bucket.at_s < MINUTE_S}
        while len(self._buckets) >= KEPT_KEYS:  # that many keys in a minute: the oldest gets a new minute
            del self._buckets[next(iter(self._buckets))]
