"""Sessions end when their key has used up its month: a key with a minute left does not speak for a day."""

from __future__ import annotations

import asyncio

import structlog

from mediaserver.errors import VoiceForgeError
from signaling.problems import LimitError
from signaling.registry import Registry
from signaling.usage.meter import Meter

log = structlog.get_logger(__name__)

LOOK_PERIOD_S = 5.0
"""How often the database is asked, one question for each key that is limited and has sessions here. With the 3 s after
which usage is written down this is how far beyond its minutes each session of a key may go."""

FLUSH_S = 3.0
"""How long the last finals may take of what was said until then."""

REASON = "minutes_used_up"


class Quota:
    """Ends sessions whose keys have no minutes left, wherever these were used.

    Args:
        meter: knows how much that is.
        registry: where the sessions live.
    """

    def __init__(self, *, meter: Meter, registry: Registry) -> None:
        self._meter = meter
        self._registry = registry

    async def run(self) -> None:
        """Look until cancelled. A database that is away ends nobody."""
        while True:
            await asyncio.sleep(LOOK_PERIOD_S)
            try:
                await self.look()
            except VoiceForgeError as exc:
                log.warning("minutes of live sessions cannot be asked for", code=exc.code)

    async def look(self) -> None:
        """End what is to be ended now. Raises what `Database.reading` does."""
        limited = {
            live.principal.key_id: live.principal
            for live in self._registry.sessions()
            if live.principal.key_id is not None and live.principal.limits.minutes_per_month is not None
        }
        used_up: set[str | None] = set()
        for key_id, principal in limited.items():
            try:
                await self._meter.require_minutes(principal)
            except LimitError:
                used_up.add(key_id)
        if used_up:
            count = self._registry.end_those(lambda live: live.principal.key_id in used_up, REASON, deadline_s=FLUSH_S)
            log.info("sessions without minutes are closed", sessions=count)
