"""Which other processes have sessions, and whether they have done what a request to delete asks of them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from signaling.cluster.places import Places
from signaling.cluster.state import State, StateAwayError

DONE_KEPT_S = 3600.0
"""For so long it stands that a process has done its part: longer than a request waits for its turn."""

LOOK_AGAIN_S = 0.25
"""How often it is looked who is done yet."""


class Others:
    """The other processes, as this one sees them.

    Args:
        state: what all of them share.
        places: who is there.
    """

    def __init__(self, state: State, places: Places) -> None:
        self._state = state
        self._places = places

    async def tell_done(self, erasure_id: str) -> bool:
        """Tell that this process has ended its sessions, and that they are counted; False: nobody can hear it now."""
        try:
            return await self._state.join(_group(erasure_id), self._places.own.place_id, b"", ttl_s=DONE_KEPT_S)
        except StateAwayError:
            return False

    async def unheard(self, erasure_id: str, *, limit_s: float) -> int | None:
        """Wait until all others that are there now have told so, for so long at most.

        Returns:
            How many have not; None: it is not known whether there are any.
        """
        missing = {place.place_id for place in self._places.others()}
        if not missing:
            return None if self._places.is_away() else 0  # there may be some that it never saw
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + limit_s
        while missing and loop.time() < ends_s:
            with suppress(StateAwayError):  # it may come back in time
                missing -= (await self._state.members(_group(erasure_id))).keys()
            if missing:
                await asyncio.sleep(LOOK_AGAIN_S)
        return len(missing)


def _group(erasure_id: str) -> str:
    return f"erased:{erasure_id}"
