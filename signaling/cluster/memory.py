"""The state of one process, in its memory (sans-IO, but that listeners wait)."""

from __future__ import annotations

import heapq
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from signaling.cluster.listening import Listeners
from signaling.cluster.state import StateAwayError, StateFullError, require_small

MINUTE_S = 60.0

ITEMS_MAX = 500_000
"""Values, members and buckets at once, some 300 bytes each beside what they hold."""

BYTES_MAX = 512 * 1024 * 1024
"""Of all values together: those of 2000 sessions whose resumptions are as large as they may be."""

STALE_PER_ITEM = 4
STALE_MIN = 1024
"""Times in the heap that no longer hold, for each that does, before they are swept out: whatever is renewed leaves
one behind until it has passed."""

SLACK_S = 1e-6
"""What sums of floats may be off: without it the last one of a full bucket could be refused."""

VALUE, BUCKET, MEMBER = "value", "bucket", "member"
_Key = tuple[str, str, str]
"""What it is; a member's group, else empty; its name."""


@dataclass(frozen=True, slots=True)
class _Item:
    value: bytes
    until_s: float


class MemoryState:
    """Values, groups, buckets and topics in memory. What has expired goes first; nothing else is dropped, and what
    does not fit is refused.

    Args:
        now_s: any clock in seconds that is never set.
        items_max: most values, members and buckets.
        bytes_max: most bytes of values.
    """

    def __init__(
        self, *, now_s: Callable[[], float] = time.monotonic, items_max: int = ITEMS_MAX, bytes_max: int = BYTES_MAX
    ) -> None:
        self._now_s = now_s
        self._items_max, self._bytes_max = items_max, bytes_max
        self._items: dict[_Key, _Item] = {}  # bound: items_max, bytes_max
        self._groups: dict[str, set[str]] = {}  # members of the same
        self._bytes = 0
        self._expiries: list[tuple[float, _Key]] = []  # a heap; bound: STALE_PER_ITEM for each item
        self._listeners = Listeners()
        self._is_closed = False

    @property
    def size(self) -> int:
        """How many values, members and buckets there are, as of the last call."""
        return len(self._items)

    async def put(self, name: str, value: bytes, *, ttl_s: float) -> None:
        """Set a value. Raises StateFullError."""
        now_s = self._tidied()
        self._set((VALUE, "", name), value, now_s + ttl_s)

    async def get(self, name: str) -> bytes | None:
        """A value."""
        self._tidied()
        return self._value(name)

    async def left_s(self, name: str) -> float:
        """How long a value will stand."""
        now_s = self._tidied()
        item = self._items.get((VALUE, "", name))
        return 0.0 if item is None else item.until_s - now_s

    async def add(self, name: str, value: bytes, *, ttl_s: float) -> bool:
        """Set a value where there is none. Raises StateFullError."""
        now_s = self._tidied()
        if self._value(name) is not None:
            return False
        self._set((VALUE, "", name), value, now_s + ttl_s)
        return True

    async def swap(self, name: str, expected: bytes, value: bytes, *, ttl_s: float) -> bool:
        """Set a value where there is just this one. Raises StateFullError."""
        now_s = self._tidied()
        if self._value(name) != expected:
            return False
        self._set((VALUE, "", name), value, now_s + ttl_s)
        return True

    async def delete(self, name: str) -> None:
        """Forget a value."""
        self._tidied()
        self._drop((VALUE, "", name))

    async def join(self, group: str, member: str, value: bytes, *, ttl_s: float, limit: int | None = None) -> bool:
        """Make or keep somebody a member. Raises StateFullError."""
        now_s = self._tidied()
        members = self._groups.get(group, set())
        if limit is not None and member not in members and len(members) >= limit:
            return False
        self._set((MEMBER, group, member), value, now_s + ttl_s)
        self._groups.setdefault(group, members).add(member)
        return True

    async def leave(self, group: str, member: str) -> None:
        """No longer be a member."""
        self._tidied()
        self._drop((MEMBER, group, member))

    async def members(self, group: str) -> Mapping[str, bytes]:
        """The values of all members."""
        self._tidied()
        return {member: self._items[MEMBER, group, member].value for member in self._groups.get(group, ())}

    async def draw(self, bucket: str, *, per_minute: int) -> float:
        """Take one of a minute's share. Raises StateFullError."""
        now_s = self._tidied()
        # What is kept is when the bucket will be full again, and that is when it may be forgotten.
        item = self._items.get((BUCKET, "", bucket))
        full_s = now_s if item is None else item.until_s
        one_s = MINUTE_S / per_minute
        wait_s = full_s + one_s - MINUTE_S - now_s
        if wait_s > SLACK_S:
            return wait_s
        self._set((BUCKET, "", bucket), b"", full_s + one_s)
        return 0.0

    async def put_back(self, bucket: str, *, per_minute: int) -> None:
        """Give back what was drawn and not used."""
        self._tidied()
        item = self._items.get((BUCKET, "", bucket))
        if item is not None:  # else it is full
            self._set((BUCKET, "", bucket), b"", item.until_s - MINUTE_S / per_minute)

    async def publish(self, topic: str, message: bytes) -> None:
        """Tell everybody who listens now."""
        self._tidied()
        self._listeners.tell(topic, message)

    @asynccontextmanager
    async def listen(self, topic: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """What is published from now on."""
        self._tidied()
        with self._listeners.one(topic) as listener:
            yield listener.messages()

    async def close(self) -> None:
        """Forget everything; listeners end."""
        self._is_closed = True
        self._items.clear()
        self._groups.clear()
        self._expiries.clear()
        self._listeners.end_all()

    def _value(self, name: str) -> bytes | None:
        item = self._items.get((VALUE, "", name))
        return None if item is None else item.value

    def _set(self, key: _Key, value: bytes, until_s: float) -> None:
        require_small(value)
        old = self._items.get(key)
        grown = len(value) - (0 if old is None else len(old.value))
        if (old is None and len(self._items) >= self._items_max) or self._bytes + grown > self._bytes_max:
            raise StateFullError
        self._bytes += grown
        self._items[key] = _Item(value, until_s)
        heapq.heappush(self._expiries, (until_s, key))

    def _drop(self, key: _Key) -> None:
        item = self._items.pop(key, None)
        if item is None:
            return
        self._bytes -= len(item.value)
        kind, group, member = key
        if kind == MEMBER:
            self._groups[group].discard(member)
            if not self._groups[group]:
                del self._groups[group]

    def _tidied(self) -> float:
        """Forget what has expired; returns the time. Raises StateAwayError after `close`."""
        if self._is_closed:
            raise StateAwayError
        now_s = self._now_s()
        while self._expiries and self._expiries[0][0] <= now_s:
            until_s, key = heapq.heappop(self._expiries)
            item = self._items.get(key)
            if item is not None and item.until_s == until_s:  # else it was renewed
                self._drop(key)
        if len(self._expiries) > STALE_MIN + STALE_PER_ITEM * len(self._items):
            self._expiries = [(item.until_s, key) for key, item in self._items.items()]
            heapq.heapify(self._expiries)
        return now_s
