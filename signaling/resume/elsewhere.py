"""Sessions that another process had and this one goes on with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from pydantic import ValidationError

from mediaserver.metrics import Metrics
from mediaserver.session.resumption import GoingOn, Position
from signaling.cluster.state import State, StateAwayError
from signaling.registry import LiveSession
from signaling.resume.keeper import GRACE_S
from signaling.resume.record import CLAIMED, Resumption, name_of

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A session that waits for its client, with nobody to hold it.

    Args:
        record: how far it had come.
        name: of the record.
        value: as it stands in the state.
        away_s: how old it is.
    """

    record: Resumption
    name: str
    value: bytes
    away_s: float

    @property
    def newest(self) -> int:
        """The number of the newest event that its client may know of."""
        return self.record.next_seq - 1

    def going_on(self, positions: tuple[Position, ...]) -> GoingOn:
        """The session from these positions on."""
        record = self.record
        return GoingOn(record.next_seq, positions, age_s=record.written_at - record.began_at + self.away_s)


class Elsewhere:
    """Finds and claims records.

    Args:
        state: what processes share.
        place_id: which of them this is.
        window_s: for how long a client may be away.
        metrics: sessions that were gone on with.
        wall_s: seconds since 1970.
    """

    def __init__(
        self,
        state: State,
        *,
        place_id: str,
        window_s: float,
        metrics: Metrics,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._place_id = place_id
        self._window_s = window_s
        self._metrics = metrics
        self._wall_s = wall_s
        self._moved: dict[str, LiveSession] = {}  # by the record's name; bound: the registry's sessions

    @property
    def longest_s(self) -> float:
        """How old a record may be."""
        return self._window_s + GRACE_S

    def here(self, secret: str) -> LiveSession | None:
        """The session of a URL that it had elsewhere, where this process goes on with it already."""
        live = self._moved.get(name_of(secret)) if self._moved else None
        return live if live is not None and live.closing is None else None

    async def goes_on_at(self, secret: str) -> str:
        """The place that has taken up the session of a URL; empty where none has, or it cannot be told."""
        try:
            value = await self._state.get(name_of(secret))
        except StateAwayError:
            return ""
        is_claimed = value is not None and value.startswith(CLAIMED)
        return value.removeprefix(CLAIMED).decode() if value is not None and is_claimed else ""

    async def look(self, secret: str) -> Found | None:
        """A session that nobody holds any more, by its URL; None where there is none, or it has been claimed.

        Raises:
            StateAwayError: it cannot be told.
        """
        name = name_of(secret)
        value = await self._state.get(name)
        if value is None or value.startswith(CLAIMED):
            return None
        try:
            record = Resumption.model_validate_json(value)
        except ValidationError:  # of another version, for example
            log.warning("a record that cannot be read was left", size_bytes=len(value))
            return None
        away_s = max(0.0, self._wall_s() - record.written_at)
        return Found(record, name, value, away_s) if away_s <= self.longest_s else None

    async def claim(self, found: Found) -> bool:
        """Go on with a session; of several that try at once one gets True.

        Raises:
            StateAwayError: as `look`; the session may be lost then.
        """
        return await self._state.swap(found.name, found.value, self._mark, ttl_s=self.longest_s)

    async def give_back(self, found: Found) -> None:
        """It did not come about: the next one may try."""
        await self._state.swap(found.name, self._mark, found.value, ttl_s=self.longest_s)

    def taken(self, found: Found, live: LiveSession) -> None:
        """It lives here now."""
        self._moved[found.name] = live
        live.on_gone.append(lambda: self._forget(found.name))
        self._metrics.resumes_total.labels(live.door, "elsewhere").inc()
        self._metrics.away_seconds.labels(live.door).observe(found.away_s)
        log.info("session goes on here", session=live.session_id, door=live.door, was_at=found.record.place_id)

    def _forget(self, name: str) -> None:
        self._moved.pop(name, None)

    @property
    def _mark(self) -> bytes:
        return CLAIMED + self._place_id.encode()
