"""Sessions that move between processes: records kept of those that live here, and those found that lived elsewhere."""

from __future__ import annotations

from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.cluster.membership import Membership
from signaling.cluster.state import State
from signaling.registry import LiveSession, Registry
from signaling.resume.elsewhere import Elsewhere
from signaling.resume.keeper import Keeper


class Moves:
    """Of one process among others. Runs as long as the application.

    Args:
        state: what they share.
        member: which of them this is, and who is there.
        registry: its sessions; may hand them over from now on.
        settings: of the node.
        metrics: what becomes of them.
    """

    def __init__(
        self, state: State, member: Membership, *, registry: Registry, settings: Settings, metrics: Metrics
    ) -> None:
        places, place_id = member.places, member.places.own.place_id
        window_s = settings.resume_window_s
        self.elsewhere = Elsewhere(
            state,
            place_id=place_id,
            knows=lambda other: places.find(other) is not None,
            look=member.tell,
            window_s=window_s,
            metrics=metrics,
        )
        self.keeper = Keeper(
            state,
            place_id=place_id,
            has_others=lambda: not places.is_alone,
            registry=registry,
            window_s=window_s,
            metrics=metrics,
        )
        registry.move = self._move

    async def run(self) -> None:
        """Write records until cancelled."""
        await self.keeper.run()

    async def close(self) -> None:
        """Wait for what is under way."""
        await self.keeper.close()

    async def _move(self, live: LiveSession, deadline_s: float) -> bool:
        return await self.keeper.hand_over(live, deadline_s=deadline_s)
