"""Who is there: the processes that hold sessions, as each of them sees the others.

Each tells the state every `BEAT_S` that it lives and how loaded it is, and looks who else does. Asking whom one knows
costs nothing: it is what was seen last.
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from pydantic import TypeAdapter, ValidationError

from signaling.cluster.state import State, StateAwayError

log = structlog.get_logger(__name__)

BEAT_S = 1.0
"""How often a place tells of itself: how old a load that others see may be."""

TTL_S = 4.0
"""After which a place that tells nothing is gone: three beats may be lost, or one answer be slow twice."""

GRACE_S = TTL_S + BEAT_S
"""How long nobody counts as gone once the state is back: it may have forgotten everybody, and all come back to it."""

PLACES_MAX = 1000
"""Places of one deployment. One more serves by itself, and says so."""

GROUP = "places"

PLACE_ID_BYTES = 5
"""40 bits: 8 letters of Base32, unique among all processes that ever ran side by side."""

_PLACE_ID = re.compile(r"[a-z2-7]{8}")


@dataclass(frozen=True, slots=True)
class Place:
    """A process that holds sessions, as others see it.

    Args:
        place_id: new at every start, so that nobody looks for a dead process's sessions in its successor.
        node: the name of its machine; the workers of one node have the same.
        address: where its internal hop listens: `unix:/path/of.sock`, or `http://10.0.0.5:8081`.
        sessions: how many it holds.
        max_sessions: how many it holds at most.
        is_taking: whether it takes new ones: it is ready, and does not drain.
        retry_after_s: seconds after which it may take one again, where it is overloaded.
    """

    place_id: str
    node: str
    address: str
    sessions: int = 0
    max_sessions: int = 0
    is_taking: bool = False
    retry_after_s: int | None = None


_AS_JSON = TypeAdapter(Place)  # fields that a newer version adds are ignored


def new_place_id() -> str:
    """A name for a process that has just started."""
    return base64.b32encode(secrets.token_bytes(PLACE_ID_BYTES)).decode().lower()


def place_id_of(secret: str) -> str:
    """Which place a session's secret names, before the dot; empty where it names none."""
    place_id, dot, _ = secret.partition(".")
    return place_id if dot and _PLACE_ID.fullmatch(place_id) else ""


class Sight:
    """What one place makes of its looks at the group (sans-IO).

    Args:
        own_id: its own name; it is not among the others.
    """

    def __init__(self, own_id: str) -> None:
        self._own_id = own_id
        self._others: dict[str, Place] = {}  # bound: PLACES_MAX
        self._all_are_back_s = float("-inf")
        self._was_there = False
        self.away_since_s: float | None = None
        """When the state was first not reached that still is not; None while it is."""

    @property
    def others(self) -> Mapping[str, Place]:
        """Those that were seen last, by name."""
        return self._others

    def missed(self, now_s: float) -> None:
        """The state was not reached: everybody stays as they were."""
        if self.away_since_s is None:
            self.away_since_s = now_s

    def seen(self, members: Mapping[str, bytes], now_s: float, *, has_joined: bool = True) -> list[Place]:
        """Take in who is there; returns who is gone.

        Args:
            members: of the group, before this place joins it again.
            now_s: by a clock that is never set.
            has_joined: whether it is a member now.
        """
        has_forgotten = self._was_there and self._own_id not in members  # or was not told for too long
        if self.away_since_s is not None or has_forgotten:
            self._all_are_back_s = now_s + GRACE_S
        self.away_since_s, self._was_there = None, has_joined
        there = {place.place_id: place for place in map(_read, members.values()) if place is not None}
        there.pop(self._own_id, None)
        missing = [place for name, place in self._others.items() if name not in there]
        if now_s < self._all_are_back_s:
            there.update((place.place_id, place) for place in missing)
            missing = []
        self._others = there
        return missing


class Places:
    """The place of this process, and the others.

    Args:
        state: what they share.
        own: this one.
        update: its newest load; as it is if None.
        now_s: any clock in seconds that is never set.
    """

    def __init__(
        self,
        state: State,
        own: Place,
        *,
        update: Callable[[Place], Place] | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._own = own
        self._update = update
        self._now_s = now_s
        self._sight = Sight(own.place_id)
        self._has_room = True
        self.on_gone: list[Callable[[str], None]] = []
        """Called with the id of each place that was there and is no more."""

    @property
    def own(self) -> Place:
        """This place, as loaded as it is now."""
        return self._own if self._update is None else self._update(self._own)

    def others(self) -> Sequence[Place]:
        """The other places, as they were seen last."""
        return list(self._sight.others.values())

    def find(self, place_id: str) -> Place | None:
        """A living place by its id, this one too."""
        return self.own if place_id == self._own.place_id else self._sight.others.get(place_id)

    @property
    def is_alone(self) -> bool:
        """Whether no other place is known."""
        return not self._sight.others

    def is_away(self) -> bool:
        """Whether the state was not reached when it was last asked."""
        return self._sight.away_since_s is not None

    def away_s(self) -> float:
        """Since when, in seconds; 0.0 while it is reached."""
        since_s = self._sight.away_since_s
        return 0.0 if since_s is None else self._now_s() - since_s

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await self.beat()
            await asyncio.sleep(BEAT_S)

    async def beat(self) -> None:
        """Look who is there, and tell that this one is. A state that is away leaves everything as it was."""
        was_away = self.is_away()
        try:
            members = await self._state.members(GROUP)
            own = _AS_JSON.dump_json(self.own)
            has_room = await self._state.join(GROUP, self._own.place_id, own, ttl_s=TTL_S, limit=PLACES_MAX)
        except StateAwayError as exc:
            self._sight.missed(self._now_s())
            if not was_away:
                log.warning("state away", code=exc.code, place=self._own.place_id)
            return
        if was_away:
            log.info("state back", place=self._own.place_id)
        if self._has_room and not has_room:
            log.error("no room for this place: it serves by itself", place=self._own.place_id, places_max=PLACES_MAX)
        self._has_room = has_room
        for place in self._sight.seen(members, self._now_s(), has_joined=has_room):
            self._tell_gone(place)

    async def leave(self) -> None:
        """Tell that this place is no more; others see it at their next beat."""
        try:
            await self._state.leave(GROUP, self._own.place_id)
        except StateAwayError:  # then it is forgotten when its time is over
            return

    def _tell_gone(self, place: Place) -> None:
        log.info("place gone", place=place.place_id, node=place.node)
        for callback in self.on_gone:
            try:
                callback(place.place_id)
            except Exception:
                log.exception("a place's end was not taken in", place=place.place_id)


def _read(value: bytes) -> Place | None:
    try:
        return _AS_JSON.validate_json(value)
    except ValidationError:
        log.warning("a place that cannot be read was left out", size_bytes=len(value))
        return None
