"""When recorded peers send."""

from __future__ import annotations

import asyncio

from benchmarks.reels import PACKET_MS
from benchmarks.rtp_peer import RecordedPeer

SLOTS = 10
"""Peers send in turn, a tenth of them every 2 ms: packets of a real crowd do not come all at once either."""


class Pacer:
    """Sends for all peers of a process, on one task: a tenth of them every 2 ms.

    A tick is due at an absolute time: one that is late does not delay the next, and its lateness is told.
    """

    def __init__(self) -> None:
        self._slots: list[list[RecordedPeer]] = [[] for _ in range(SLOTS)]
        self.late_s: list[float] = []

    def add(self, peer: RecordedPeer) -> None:
        """Send for a peer from now on."""
        min(self._slots, key=len).append(peer)

    def remove(self, peer: RecordedPeer) -> None:
        """Send for it no more."""
        for slot in self._slots:
            if peer in slot:
                slot.remove(peer)

    async def run(self) -> None:
        """Send until cancelled."""
        clock = asyncio.get_running_loop().time
        due_s, step_s, number = clock(), PACKET_MS / 1000 / SLOTS, 0
        while True:
            await asyncio.sleep(max(due_s - clock(), 0.0))
            if number == 0:
                self.late_s.append(max(clock() - due_s, 0.0))
            for peer in list(self._slots[number]):
                peer.tick()
            number = (number + 1) % SLOTS
            due_s += step_s
