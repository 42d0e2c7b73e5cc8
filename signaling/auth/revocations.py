"""Sessions end with the key that opened them, also where they were opened by a token or a secret that it gave out."""

from __future__ import annotations

import asyncio

import structlog

from mediaserver.errors import VoiceForgeError
from signaling.auth.keys import Keys
from signaling.registry import LiveSession, Registry

log = structlog.get_logger(__name__)

LOOK_PERIOD_S = 2.0
"""How often the database is asked about the keys of live sessions: one question, and none where no session has one."""

FLUSH_S = 3.0
"""How long the last finals may take of what was said while the key was good."""

REASON = "key_ended"


class Revocations:
    """Ends sessions whose keys were revoked, here or by another process, or have expired.

    Args:
        keys: of the node.
        registry: where its sessions live.
    """

    def __init__(self, *, keys: Keys, registry: Registry) -> None:
        self._keys = keys
        self._registry = registry
        keys.on_ended.append(lambda key_id: self._end({key_id}))

    async def run(self) -> None:
        """Look until cancelled. A database that is away ends nobody: sessions go on until it answers."""
        while True:
            await asyncio.sleep(LOOK_PERIOD_S)
            try:
                await self.look()
            except VoiceForgeError as exc:
                log.warning("keys of live sessions cannot be asked for", code=exc.code)

    async def look(self) -> None:
        """End what is to be ended now. Raises what `Database.reading` does."""
        of_sessions = {live.principal.key_id for live in self._registry.sessions()}
        key_ids = {key_id for key_id in of_sessions if key_id is not None}
        if key_ids:
            self._end(await self._keys.ended(key_ids))

    def _end(self, key_ids: set[str]) -> None:
        def is_over(live: LiveSession) -> bool:
            return live.principal.key_id in key_ids

        count = self._registry.end_those(is_over, REASON, deadline_s=FLUSH_S)
        if count:
            log.info("sessions of ended keys are closed", sessions=count)
