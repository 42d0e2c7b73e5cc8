"""Which workers are taken for gone: those that say nothing, and not those whose clock differs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

from benchmarks.virtual import run_virtually
from mediaserver.jobs.files import Files
from mediaserver.jobs.ledger import LEASE_S, Ledger
from mediaserver.jobs.store import Store
from mediaserver.jobs.upkeep import RECLAIM_PERIOD_S, SILENT_S, Upkeep

SET_BY_S = 3600.0


class FakeLedger:
    """One running job whose worker renews its claim, or does not."""

    def __init__(self) -> None:
        self.lease_until_s = LEASE_S
        self.reclaimed: list[int] = []

    async def overdue(self, *, now_s: float) -> dict[int, float]:
        return {1: self.lease_until_s} if self.lease_until_s < now_s and not self.reclaimed else {}

    async def reclaim(self, overdue: Mapping[int, float], *, now_s: float) -> list[str]:
        self.reclaimed += overdue
        return []


def upkeep_of(ledger: FakeLedger, *, clock_ahead_s: float) -> Upkeep:
    loop = asyncio.get_running_loop()
    return Upkeep(
        ledger=cast(Ledger, ledger),
        store=cast(Store, None),
        files=cast(Files, None),
        on_reclaimed=(),
        wall_s=lambda: loop.time() + clock_ahead_s,
    )


def test_a_worker_whose_clock_is_behind_keeps_its_job() -> None:
    async def main() -> None:
        ledger = FakeLedger()
        upkeep = upkeep_of(ledger, clock_ahead_s=SET_BY_S)
        for _ in range(10):
            ledger.lease_until_s += RECLAIM_PERIOD_S  # it lives, and says so
            await upkeep.reclaim()
            await asyncio.sleep(RECLAIM_PERIOD_S)
        assert ledger.reclaimed == []

    run_virtually(main(), cost_s=lambda: 0.001)


def test_a_worker_that_says_nothing_is_gone_and_one_known_to_be_dead_at_once() -> None:
    async def main() -> None:
        ledger = FakeLedger()
        upkeep = upkeep_of(ledger, clock_ahead_s=SET_BY_S)
        await upkeep.reclaim()
        assert ledger.reclaimed == []
        await asyncio.sleep(SILENT_S)
        await upkeep.reclaim()
        assert ledger.reclaimed == [1]
        ledger.reclaimed, ledger.lease_until_s = [], 0.0
        await upkeep.reclaim()
        assert ledger.reclaimed == [1]

    run_virtually(main(), cost_s=lambda: 0.001)
