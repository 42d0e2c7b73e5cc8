"""The queue and its worker in virtual time: whose turn it is, how many at once, and how soon a cancellation acts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import aiohttp
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.virtual import run_virtually
from mediaserver.errors import CapacityError
from mediaserver.jobs.files import Files
from mediaserver.jobs.ledger import LEASE_S, Ledger
from mediaserver.jobs.models import Job, Stage
from mediaserver.jobs.queue import OwnQueue
from mediaserver.jobs.transcript import ChannelTranscript, RecordingOptions, Transcript
from mediaserver.jobs.worker import Worker
from mediaserver.metrics import Metrics

OPTIONS = {"language": None, "prompt": None, "hotwords": [], "multichannel": False, "task": "transcribe"}


class FakeLedger:
    """The database as a list."""

    def __init__(self) -> None:
        self.waiting: list[Job] = []
        self.owned: dict[int, bool] = {}
        self.ended: dict[int, tuple[str, float]] = {}
        self.renewed_s: list[float] = []
        self.down = False

    def add(self, priority: int = 1, *, takes_s: float) -> int:
        number = len(self.waiting) + len(self.owned) + len(self.ended) + 1
        job = Job(id=f"job {number}", number=number, priority=priority, options=OPTIONS, attempts=0, url=None)
        job.size_bytes = int(takes_s * 1000)
        self.waiting.append(job)
        return number

    async def has_waiting(self) -> bool:
        self._answer()
        return bool(self.waiting)

    async def claim(self, owner: str, *, now_s: float, job_id: str | None = None) -> Job | None:
        self._answer()
        if not self.waiting:
            return None
        job = min(self.waiting, key=lambda one: (one.priority, one.number))
        self.waiting.remove(job)
        self.owned[job.number] = False
        return job

    async def renew(self, owner: str, progress: dict[int, tuple[Stage, float]], *, now_s: float) -> None:
        self._answer()
        self.renewed_s.append(now_s)

    async def held(self, owner: str) -> dict[int, bool]:
        self._answer()
        return dict(self.owned)

    async def complete(self, job: Job, owner: str, *, now_s: float, **_given: object) -> bool:
        return self._end(job, "completed", now_s)

    async def fail(self, job: Job, owner: str, error: dict[str, object], *, now_s: float) -> bool:
        return self._end(job, "failed", now_s)

    async def cancelled(self, job: Job, owner: str, *, now_s: float) -> bool:
        return self._end(job, "cancelled", now_s)

    async def release(self, job: Job, owner: str, *, now_s: float) -> bool:
        del self.owned[job.number]
        self.waiting.append(job)
        return True

    def _end(self, job: Job, how: str, now_s: float) -> bool:
        self._answer()
        if self.owned.pop(job.number, None) is None:
            return False
        self.ended[job.number] = (how, now_s)
        return True

    def _answer(self) -> None:
        if self.down:
            raise CapacityError("DATABASE_DOWN", "It is away.", "Wait.", retry_after_s=1)


class FakeFiles:
    """Recordings that say how long they take by their names."""

    def recording(self, job_id: str) -> Path:
        return Path(job_id)

    async def remove(self, job_id: str) -> None:
        pass


class Bench:
    """A queue over these."""

    def __init__(self, concurrency: int) -> None:
        self.ledger = FakeLedger()
        self.begun: list[int] = []
        self.running = 0
        self.most_at_once = 0
        self.loaded = True
        self.durations_s: dict[str, float] = {}
        self.worker = Worker(
            ledger=cast(Ledger, self.ledger),
            files=cast(Files, FakeFiles()),
            transcriber=lambda: self if self.loaded else None,
            session=cast(aiohttp.ClientSession, None),
            metrics=Metrics(),
            max_bytes=1,
            concurrency=concurrency,
            wall_s=asyncio.get_running_loop().time,
        )
        self.queue = OwnQueue(cast(Ledger, self.ledger), self.worker)

    def add(self, priority: int = 1, *, takes_s: float = 1.0) -> int:
        number = self.ledger.add(priority, takes_s=takes_s)
        self.durations_s[f"job {number}"] = takes_s
        self.queue.wake()
        return number

    async def transcribe(
        self, path: Path, options: RecordingOptions, *, on_progress: Callable[[float], None] | None = None
    ) -> Transcript:
        self.begun.append(int(path.name.removeprefix("job ")))
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            await asyncio.sleep(self.durations_s[path.name])
        finally:
            self.running -= 1
        return Transcript((ChannelTranscript((), None, None),), 0.0, "fake")

    async def until_done(self) -> None:
        while self.ledger.waiting or self.ledger.owned:
            await asyncio.sleep(0.1)


def virtually(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run_virtually(main(), cost_s=lambda: 0.001)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0.1, 5.0)), max_size=20), st.integers(1, 4))
def test_all_jobs_are_run_in_turn_and_never_more_at_once(wanted: list[tuple[int, float]], concurrency: int) -> None:
    async def main() -> None:
        bench = Bench(concurrency)
        priorities = {bench.add(priority, takes_s=takes_s): priority for priority, takes_s in wanted}
        bench.queue.start()
        await bench.until_done()
        assert bench.begun == sorted(priorities, key=lambda number: (priorities[number], number))
        assert bench.most_at_once <= concurrency
        assert {how for how, _ in bench.ledger.ended.values()} <= {"completed"}
        await bench.queue.close()

    virtually(main)


def test_who_comes_later_but_is_more_urgent_goes_before_who_waits() -> None:
    async def main() -> None:
        bench = Bench(1)
        first = bench.add(takes_s=10.0)
        bench.queue.start()
        await asyncio.sleep(1.0)
        low, normal, express = bench.add(2), bench.add(1), bench.add(0)
        await bench.until_done()
        assert bench.begun == [first, express, normal, low]
        await bench.queue.close()

    virtually(main)


def test_a_worker_that_takes_its_own_job_again_goes_on_with_it() -> None:
    async def main() -> None:
        bench = Bench(2)
        bench.add(takes_s=10.0)
        (job,) = bench.ledger.waiting
        bench.queue.start()
        await asyncio.sleep(1.0)
        del bench.ledger.owned[job.number]  # another server thought this one dead
        bench.ledger.waiting.append(job)
        bench.queue.wake()
        await bench.until_done()
        assert bench.most_at_once == 1
        assert [how for how, _ in bench.ledger.ended.values()] == ["completed"]
        await bench.queue.close()

    virtually(main)


def test_a_job_that_is_being_claimed_while_the_queue_closes_is_put_back() -> None:
    async def main() -> None:
        bench = Bench(1)
        bench.add()
        claim = bench.ledger.claim

        async def slowly(owner: str, *, now_s: float, job_id: str | None = None) -> Job | None:
            job = await claim(owner, now_s=now_s, job_id=job_id)
            await asyncio.sleep(1.0)  # it is written, and the answer is on its way
            return job

        bench.ledger.claim = slowly  # type: ignore[method-assign]
        bench.queue.start()
        await asyncio.sleep(0.5)
        await bench.queue.close()
        assert not bench.ledger.owned
        assert len(bench.ledger.waiting) == 1

    virtually(main)


def test_a_free_place_is_filled_at_once() -> None:
    async def main() -> None:
        bench = Bench(2)
        for takes_s in (1.0, 5.0, 1.0):
            bench.add(takes_s=takes_s)
        bench.queue.start()
        await bench.until_done()
        assert [round(at_s, 1) for _, at_s in bench.ledger.ended.values()] == [1.0, 2.0, 5.0]
        await bench.queue.close()

    virtually(main)


def test_a_cancellation_elsewhere_acts_within_half_a_second() -> None:
    async def main() -> None:
        bench = Bench(1)
        number = bench.add(takes_s=1000.0)
        bench.queue.start()
        await asyncio.sleep(3.33)
        bench.ledger.owned[number] = True
        await bench.until_done()
        how, at_s = bench.ledger.ended[number]
        assert how == "cancelled"
        assert at_s <= 3.33 + 0.5
        assert bench.running == 0
        await bench.queue.close()

    virtually(main)


def test_a_cancellation_here_acts_at_once() -> None:
    async def main() -> None:
        bench = Bench(1)
        number = bench.add(takes_s=1000.0)
        bench.queue.start()
        await asyncio.sleep(3.0)
        bench.queue.stop_now(f"job {number}", deleted=False)
        await asyncio.sleep(0.05)
        assert bench.ledger.ended[number][0] == "cancelled"
        await bench.queue.close()

    virtually(main)


def test_a_job_that_is_not_this_workers_any_more_is_left() -> None:
    async def main() -> None:
        bench = Bench(1)
        number = bench.add(takes_s=1000.0)
        bench.queue.start()
        await asyncio.sleep(3.0)
        del bench.ledger.owned[number]
        await asyncio.sleep(0.5)
        assert bench.running == 0
        assert bench.ledger.ended == {}
        await bench.queue.close()

    virtually(main)


def test_life_is_told_many_times_a_lease() -> None:
    async def main() -> None:
        bench = Bench(1)
        bench.add(takes_s=100.0)
        bench.queue.start()
        await bench.until_done()
        gaps_s = [b - a for a, b in zip(bench.ledger.renewed_s, bench.ledger.renewed_s[1:], strict=False)]
        assert max(gaps_s) < LEASE_S / 5
        told = len(bench.ledger.renewed_s)
        await asyncio.sleep(100.0)
        assert len(bench.ledger.renewed_s) <= told + 1  # nothing runs: nothing is written
        await bench.queue.close()

    virtually(main)


def test_a_database_that_is_away_for_a_while_loses_nothing() -> None:
    async def main() -> None:
        bench = Bench(1)
        first = bench.add(takes_s=10.0)
        second = bench.add(takes_s=1.0)
        bench.queue.start()
        await asyncio.sleep(5.0)
        bench.ledger.down = True
        await asyncio.sleep(30.0)
        bench.ledger.down = False
        await bench.until_done()
        assert bench.ledger.ended[first][0] == bench.ledger.ended[second][0] == "completed"
        await bench.queue.close()

    virtually(main)


def test_nothing_is_claimed_before_a_model_is_loaded_or_after_a_stop() -> None:
    async def main() -> None:
        bench = Bench(1)
        bench.loaded = False
        number = bench.add(takes_s=1000.0)
        bench.queue.start()
        await asyncio.sleep(10.0)
        assert bench.begun == []
        bench.loaded = True
        await asyncio.sleep(2.0)
        assert bench.begun == [number]
        await bench.queue.close()
        assert [job.number for job in bench.ledger.waiting] == [number]  # put back
        assert await bench.worker.claim() is None
        assert [job.number for job in bench.ledger.waiting] == [number]

    virtually(main)


def test_a_worker_without_room_for_any_takes_none() -> None:
    async def main() -> None:
        bench = Bench(0)
        bench.add()
        bench.queue.start()
        await asyncio.sleep(10.0)
        assert bench.begun == []
        await bench.queue.close()

    virtually(main)
