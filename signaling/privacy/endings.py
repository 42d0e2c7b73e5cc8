"""Ends the sessions that ran when all of a tenant's data was asked to be deleted: what they know goes with them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from mediaserver.storage.tenants import Erasure
from signaling.registry import CUT_GRACE_S, LiveSession, Registry

log = structlog.get_logger(__name__)

FLUSH_S = 3.0
"""How long the last finals may take of what was said until then: the client hears them, and nobody keeps them."""

ENDED_S = FLUSH_S + CUT_GRACE_S
"""After so long every session that was to be ended is gone."""

REASON = "data_deleted"


class Endings:
    """Ends sessions of one process.

    Args:
        registry: where they live.
        flush: writes down what sessions have used, those too that have just ended.
    """

    def __init__(self, *, registry: Registry, flush: Callable[[], Awaitable[None]]) -> None:
        self._registry = registry
        self._flush = flush

    async def end(self, erasure: Erasure) -> int:
        """End those of its tenant that are older than it, and wait until they are gone; how many. What they used is
        written down then, and can be deleted.

        Raises:
            VoiceForgeError: what they used cannot be written down yet.
        """

        def is_meant(live: LiveSession) -> bool:
            return live.principal.tenant == erasure.tenant and live.began_at <= erasure.requested_at

        ending = [live for live in self._registry.sessions() if is_meant(live)]
        if not ending:
            return 0
        log.info("sessions of a tenant are closed whose data is deleted", sessions=len(ending), erasure=erasure.id)
        await asyncio.gather(*(self._registry.close(live, REASON, deadline_s=FLUSH_S) for live in ending))
        await self._flush()
        return len(ending)
