"""Ends the sessions that ran when all of a tenant's data was asked to be deleted: what they know goes with them, and
what their receivers were still to be told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from mediaserver.storage.tenants import Erasure
from signaling.outbound import Outbound
from signaling.registry import CUT_GRACE_S, LiveSession, Registry

log = structlog.get_logger(__name__)

FLUSH_S = 3.0
"""How long the last finals may take of what was said until then: the client hears them, and nobody keeps them."""

ENDED_S = FLUSH_S + CUT_GRACE_S
"""After so long every session that was to be ended is gone, unless it was closing already, with more time for that."""

REASON = "data_deleted"


@dataclass(frozen=True, slots=True)
class Ended:
    """How many sessions have ended, and how much that was said in any was not told to its receiver."""

    sessions: int
    untold: int


class Endings:
    """Ends sessions of one process.

    Args:
        registry: where they live.
        outbound: what is still to be told of them.
        flush: writes down what sessions have used, those too that have just ended; raises VoiceForgeError where that
            cannot be done yet.
    """

    def __init__(self, *, registry: Registry, outbound: Outbound, flush: Callable[[], Awaitable[None]]) -> None:
        self._registry = registry
        self._outbound = outbound
        self.flush = flush

    async def end(self, erasure: Erasure) -> Ended:
        """End those of its tenant that are older than it, and wait until they are gone, those too that were closing.

        Their receivers, and those of sessions that have ended, are told nothing more. Raises nothing.
        """

        def is_meant(live: LiveSession) -> bool:
            return live.principal.tenant == erasure.tenant and live.began_at <= erasure.requested_at

        lives = self._registry.sessions(with_closing=True)  # what they say last, and what they used, is still to come
        ending = [live for live in lives if is_meant(live)]
        untold = self._outbound.drop(
            erasure.tenant,
            until_s=erasure.requested_at,
            also={live.session_id for live in ending},
            spared={live.session_id for live in lives if not is_meant(live)},
        )
        if ending:
            log.info("sessions of a tenant are closed whose data is deleted", sessions=len(ending), erasure=erasure.id)
            await asyncio.gather(*(self._registry.close(live, REASON, deadline_s=FLUSH_S) for live in ending))
        return Ended(len(ending), untold)
