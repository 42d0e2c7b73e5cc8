"""Sessions that another process had and this one goes on with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import ceil

import structlog
from pydantic import ValidationError

from mediaserver.errors import CapacityError
from mediaserver.metrics import Metrics
from mediaserver.session.resumption import GoingOn, Position
from signaling.cluster.places import TTL_S, place_id_of
from signaling.cluster.state import State, StateAwayError
from signaling.registry import LiveSession
from signaling.resume.keeper import GRACE_S
from signaling.resume.record import FORMER_MAX, Claim, Resumption, name_of

log = structlog.get_logger(__name__)

SETUP_FAILED = "setup_failed"
"""Why a session has left the registry whose client never got to it."""

SOON_S = 1
"""When to come again where a process is just going on with a session: it is there, or given back, in a moment."""

SEEN_GONE_S = ceil(TTL_S)
"""When to come again where the process that has a session does not answer: by then it does, or counts as gone."""

LEAST_TTL_S = 1.0
"""A record that is given back stands for so long at least: its client tries again."""


@dataclass(frozen=True, slots=True)
class Found:
    """A session that waits for its client, with nobody to hold it.

    Args:
        record: how far it had come.
        name: of the record.
        value: as it stands in the state.
        written_s: when it was written, by the clock of this process's event loop.
        longest_s: how old a record may be.
    """

    record: Resumption
    name: str
    value: bytes
    written_s: float
    longest_s: float

    @property
    def away_s(self) -> float:
        """How old the record is now."""
        return min(max(0.0, asyncio.get_running_loop().time() - self.written_s), self.longest_s)

    @property
    def newest(self) -> int:
        """The number of the newest event that its client may know of."""
        return self.record.next_seq - 1

    @property
    def former(self) -> tuple[str, ...]:
        """Names of the records of all URLs that lead to it."""
        return (*self.record.former, self.name)[-FORMER_MAX:]

    def going_on(self, positions: tuple[Position, ...]) -> GoingOn:
        """The session from these positions on."""
        return GoingOn(self.record.next_seq, positions, age_s=self.record.age_s + self.away_s)

    def going_on_live(self) -> GoingOn:
        """The session where what was sent since is lost, and the clock has gone on."""
        return self.going_on(self.record.live(self.away_s))


class Elsewhere:
    """Finds and claims records.

    Args:
        state: what processes share.
        place_id: which of them this is.
        knows: whether another place was there when it was last looked.
        look: looks once more who is there.
        window_s: for how long a client may be away.
        metrics: sessions that were gone on with.
    """

    def __init__(
        self,
        state: State,
        *,
        place_id: str,
        knows: Callable[[str], bool],
        look: Callable[[], Awaitable[None]],
        window_s: float,
        metrics: Metrics,
    ) -> None:
        self._state = state
        self._place_id = place_id
        self._knows = knows
        self._look = look
        self._metrics = metrics
        self.longest_s = window_s + GRACE_S
        """How old a record may be."""
        self._moved: dict[str, LiveSession] = {}  # by record's name; bound: FORMER_MAX for each of the registry's
        self._claiming: set[str] = set()  # bound: the requests that are being answered

    def here(self, secret: str) -> LiveSession | None:
        """The session of a URL that it had elsewhere, where this process goes on with it already."""
        live = self._moved.get(name_of(secret)) if self._moved else None
        return live if live is not None and live.closing is None else None

    def is_ending(self, secret: str) -> bool:
        """Whether the session of a URL that it had elsewhere is here, and about to go."""
        live = self._moved.get(name_of(secret)) if self._moved else None
        return live is not None and live.closing is not None

    async def goes_on_at(self, secret: str) -> str:
        """The place that has taken up the session of a URL; empty where none has, or it cannot be told."""
        try:
            _, _, claim = await self._followed(name_of(secret))
        except StateAwayError:
            return ""
        return "" if claim is None else claim.place_id

    async def look(self, secret: str) -> Found | None:
        """A session that nobody holds any more, by any URL that it had; None where there is none.

        Raises:
            StateAwayError: it cannot be told.
            CapacityError: SESSION_MOVING: it cannot be told yet, for somebody may have it who does not answer here.
        """
        name, value, claim = await self._followed(name_of(secret))
        if name in self._claiming:
            raise moving(SOON_S)
        if claim is not None and claim.place_id != self._place_id:
            raise moving(SEEN_GONE_S)
        if claim is not None:  # it has ended here
            return None
        if value is None:
            place_id = place_id_of(secret)
            if place_id != self._place_id and self._knows(place_id):
                raise moving(SEEN_GONE_S)
            return None
        return await self._read(name, value)

    async def claim(self, found: Found) -> bool:
        """Go on with a session; of several that try at once one gets True. Then `taken` or `give_back` is to follow.

        Raises:
            StateAwayError: as `look`; the session may be lost then.
        """
        if found.name in self._claiming:
            return False
        self._claiming.add(found.name)
        is_ours = False
        try:
            is_ours = await self._state.swap(found.name, found.value, self._mark, ttl_s=self.longest_s)
        finally:
            if not is_ours:
                self._claiming.discard(found.name)
        return is_ours

    async def give_back(self, found: Found) -> None:
        """It did not come about: the next one may try, for as long as it could have before."""
        try:
            ttl_s = max(LEAST_TTL_S, found.record.ttl_s - found.away_s)
            await self._state.swap(found.name, self._mark, found.value, ttl_s=ttl_s)
        finally:
            self._claiming.discard(found.name)

    def taken(self, found: Found, live: LiveSession) -> None:
        """It lives here now, and its former URLs lead to it."""
        live.former = found.former
        self._moved.update(dict.fromkeys(live.former, live))
        self._claiming.discard(found.name)
        live.on_gone.append(lambda: self._forget(found, live))
        self._metrics.resumes_total.labels(live.door, "elsewhere").inc()
        self._metrics.away_seconds.labels(live.door).observe(found.away_s)
        log.info("session goes on here", session=live.session_id, door=live.door, was_at=found.record.place_id)

    def ended(self, found: Found) -> None:
        """Its client wants it no more: what was claimed is left to nobody."""
        self._claiming.discard(found.name)
        log.info("session ended unheld", session=found.record.session_id, was_at=found.record.place_id)

    def _forget(self, found: Found, live: LiveSession) -> None:
        for name in live.former:
            self._moved.pop(name, None)
        if live.reason == SETUP_FAILED:  # it is about to be given back
            self._claiming.add(found.name)

    async def _read(self, name: str, value: bytes) -> Found | None:
        left_s = await self._state.left_s(name)
        try:
            record = Resumption.model_validate_json(value)
        except ValidationError:  # of another version, for example
            log.warning("a record that cannot be read was left", size_bytes=len(value))
            return None
        written_s = asyncio.get_running_loop().time() - (record.ttl_s - left_s)
        return Found(record, name, value, written_s, self.longest_s)

    async def _followed(self, name: str) -> tuple[str, bytes | None, Claim | None]:
        """Where a record's name leads to: the name of the last one, what stands there, and who has the session.

        A claim leads on to the record that was written by it where its place is gone, or where it is this one's: those
        that live here are found before.
        """
        for _ in range(FORMER_MAX):
            value = await self._state.get(name)
            claim = Claim.of(value)
            if claim is None:
                return name, value, None
            if claim.place_id != self._place_id and await self._is_there(claim.place_id):
                return name, value, claim
            if not claim.name:
                return name, None, claim if claim.place_id == self._place_id else None
            name = claim.name
        return name, None, None

    async def _is_there(self, place_id: str) -> bool:
        if not self._knows(place_id):
            await self._look()  # it may have come since
        return self._knows(place_id)

    @property
    def _mark(self) -> bytes:
        return Claim(self._place_id).written()


def moving(retry_after_s: int) -> CapacityError:
    """The refusal of a session of which it is not known yet who goes on with it."""
    return CapacityError(
        "SESSION_MOVING",
        "The process that has this session does not answer, or another one is just going on with it.",
        f"Try again in {retry_after_s} s.",
        retry_after_s=retry_after_s,
    )
