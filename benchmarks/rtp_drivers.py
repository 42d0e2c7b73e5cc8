"""The processes of recorded peers, commanded as one, and what they report put together."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import psutil

from benchmarks.rtp_outcome import Going
from benchmarks.rtp_peer import SetUp
from benchmarks.screen import ScreenScore
from mediaserver.errors import VoiceForgeError

LINE_BYTES = 2**26
"""Longest report: the outcomes of some hundred peers."""


@dataclass(frozen=True, slots=True)
class Left:
    """What became of a peer that has gone, as `benchmarks.rtp_driver.outcome` tells.

    Args:
        said: of each recording that it played: its number, the text of its finals, and how many those were.
        cut: recordings within which the connection was lost; they are not in `said`.
        stray: finals that belong to no recording.
        reason: why its session ended.
        drops: how often its connection was lost, and it was to come back.
        twice: finals that it was told again.
    """

    said: Sequence[tuple[int, str, int]]
    stray: Sequence[str]
    score: ScreenScore
    reason: str | None
    stream_s: float
    events: Mapping[str, int]
    cut: int = 0
    drops: int = 0
    twice: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What happened since the report before, in all processes.

    Counts of refusals, of drops for good and of failures to come back are of the whole run.
    """

    guests: int
    talking: int
    lost: int
    refused: Mapping[str, int]
    dropped: int
    unreturned: Mapping[str, int]
    set_ups: Sequence[SetUp]
    returned: Sequence[SetUp]
    left: Sequence[Left]
    late_p99_s: float
    late_max_s: float
    packets: int


class Drivers:
    """Some processes of peers."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self._processes = processes
        self._owed: Counter[int] = Counter()  # answers by process id: of a command whose waiting was cancelled, too

    async def begin(self, process: asyncio.subprocess.Process, **task: Any) -> None:
        """Give a process its task."""
        await self._ask(process, **task)

    def cpu_s(self) -> float:
        """CPU seconds that they have used."""
        times = [psutil.Process(process.pid).cpu_times() for process in self._processes]
        return float(sum(item.user + item.system for item in times))

    async def open(self, count: int, *, per_s: float, idle: str) -> tuple[list[SetUp], float]:
        """Let so many more peers in, so many a second; how long each took, and all of them together in seconds."""
        shares = [count // len(self._processes) + (n < count % len(self._processes)) for n in range(self._count)]
        answers = await asyncio.gather(
            *(
                self._ask(process, do="open", count=share, per_s=per_s / self._count, idle=idle)
                for process, share in zip(self._processes, shares, strict=True)
            )
        )
        return [SetUp(**item) for answer in answers for item in answer["set_ups"]], max(a["took_s"] for a in answers)

    async def talk(self, at_once: int) -> None:
        """Keep so many talking at a time."""
        await asyncio.gather(
            *(
                self._ask(process, do="talk", at_once=at_once // self._count + (n < at_once % self._count))
                for n, process in enumerate(self._processes)
            )
        )

    async def churn(self, guests: int, *, stays_s: float, goings: Mapping[Going, float], idle: str) -> None:
        """Keep so many peers, each staying for `stays_s` on the average and going in these ways, by their weights."""
        await asyncio.gather(
            *(
                self._ask(
                    process,
                    do="churn",
                    guests=guests // self._count + (n < guests % self._count),
                    stays_s=stays_s,
                    goings=dict(goings),
                    idle=idle,
                )
                for n, process in enumerate(self._processes)
            )
        )

    async def report(self) -> Report:
        """What happened since the last report."""
        return await self._reported("report")

    async def close(self) -> Report:
        """Have all hang up once their finals are told."""
        return await self._reported("close")

    @property
    def _count(self) -> int:
        return len(self._processes)

    async def _reported(self, do: str) -> Report:
        answers = await asyncio.gather(*(self._ask(process, do=do) for process in self._processes))
        return Report(
            guests=sum(item["guests"] for item in answers),
            talking=sum(item["talking"] for item in answers),
            lost=sum(item["lost"] for item in answers),
            refused=sum((Counter(item["refused"]) for item in answers), Counter()),
            dropped=sum(item["dropped"] for item in answers),
            unreturned=sum((Counter(item["unreturned"]) for item in answers), Counter()),
            set_ups=[SetUp(**each) for item in answers for each in item["set_ups"]],
            returned=[SetUp(**each) for item in answers for each in item["returned"]],
            left=[_left(each) for item in answers for each in item["left"]],
            late_p99_s=max(item["late_p99_s"] for item in answers),
            late_max_s=max(item["late_max_s"] for item in answers),
            packets=sum(item["packets"] for item in answers),
        )

    async def _ask(self, process: asyncio.subprocess.Process, **command: Any) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(command).encode() + b"\n")
        self._owed[process.pid] += 1
        line = b""
        while self._owed[process.pid]:
            line = await process.stdout.readline()
            if not line:
                raise VoiceForgeError("DRIVER_FAILED", "A process of peers has ended.", "See what it wrote above.")
            self._owed[process.pid] -= 1
        answer: dict[str, Any] = json.loads(line)
        return answer


def driver_cpus() -> list[int]:
    """The cores that peers keep to: the last fourth of this machine's, at least one; none where there is but one."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[-max(1, len(cores) // 4) :] if len(cores) > 1 else []


@asynccontextmanager
async def driving(url: str, reels: Path, *, processes: int, query: Mapping[str, str]) -> AsyncIterator[Drivers]:
    """Start the processes; they are gone afterwards. One that is left by an error or a signal ends them at once."""
    started: list[asyncio.subprocess.Process] = []
    drivers = Drivers(started)
    try:
        for number in range(processes):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.rtp_driver"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_BYTES,
                start_new_session=True,  # Ctrl-C is for the benchmark, which still asks for the last report
            )
            started.append(process)
            await drivers.begin(process, url=url, reels=str(reels), query=dict(query), seed=number, cpus=driver_cpus())
        yield drivers
    except BaseException:
        for process in started:
            with suppress(ProcessLookupError):
                process.kill()
        raise
    finally:
        for process in started:
            if process.stdin is not None:
                process.stdin.close()
        for process in started:
            try:
                async with asyncio.timeout(30.0):
                    await process.wait()
            except TimeoutError:
                process.kill()


def _left(body: Mapping[str, Any]) -> Left:
    score = ScreenScore(**{item.name: body["score"][item.name] for item in fields(ScreenScore)})
    said = [(int(reel), str(text), int(finals)) for reel, text, finals in body["said"]]
    return Left(**{**body, "said": said, "score": score})
