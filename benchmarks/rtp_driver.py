"""Recorded peers in a process of their own: what they cost is not the server's.

The first line of its input is the task, each further line a command, each answered by one line of JSON.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.reels import ROOM, Reel, read
from benchmarks.rtp_outcome import Away, Going, Guest, Said, outcome
from benchmarks.rtp_pacer import Pacer
from benchmarks.rtp_peer import PeerError, RecordedPeer, SetUp
from benchmarks.scoring import percentile
from benchmarks.tether import tie

REST_S = 4.0
"""Least pause of a peer between two recordings: its final is told by then, and belongs to one of them."""

TURN_S = (0.2, 1.0)
"""From the end of one peer's recording to the start of another's: people take turns."""

AWAY_S = (1.0, 5.0)
"""How long a peer is gone that comes back: a tunnel, another network. Longer than that says no more of the server."""

LATE_PACKETS_KEPT = 20_000
"""Lateness is remembered of so many rounds of packets: 400 s."""

HTTP_TIMEOUT = aiohttp.ClientTimeout(total=30.0)


class Driver:
    """All peers of this process.

    Args:
        url: of the server.
        reels: file of what is played.
        query: configuration of the sessions.
        seed: of what is left to chance.
    """

    def __init__(self, url: str, reels: str, query: Mapping[str, str], seed: int) -> None:
        self._url = url
        self._query = query
        self._idle, self._spoken = read(Path(reels))
        self._chance = random.Random(seed)
        self._order = self._chance.sample(range(len(self._spoken)), len(self._spoken))
        self._pacer = Pacer()
        self._guests: list[Guest] = []
        self._at_once = 0
        self._refused: Counter[str] = Counter()
        self._left: list[dict[str, Any]] = []
        self._set_ups: list[SetUp] = []
        self._dropped = 0
        self._returned: list[SetUp] = []
        self._unreturned: Counter[str] = Counter()
        self._churning: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._returning: set[asyncio.Task[None]] = set()
        self._http = aiohttp.ClientSession(timeout=HTTP_TIMEOUT, connector=aiohttp.TCPConnector(limit=0))

    @property
    def _talking(self) -> int:
        return sum(guest.peer.is_talking and not guest.peer.closed.is_set() for guest in self._guests)

    async def serve(self) -> None:
        """Carry out commands until the input ends."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._pacer.run()), group.create_task(self._conduct())]
            try:
                while line := await reader.readline():
                    command = json.loads(line)
                    answer = await getattr(self, f"do_{command.pop('do')}")(**command)
                    print(json.dumps(answer), flush=True)
            finally:
                if self._churning is not None:
                    self._churning.cancel()
                for task in (*tasks, *self._returning):
                    task.cancel()
                await asyncio.gather(*self._returning, return_exceptions=True)
                await asyncio.gather(*(guest.peer.abandon() for guest in self._guests), return_exceptions=True)
                await self._http.close()

    async def do_open(self, count: int, per_s: float, idle: str) -> dict[str, Any]:
        """Let so many peers in, so many a second, and wait until they are there."""
        begun_s, before = time.perf_counter(), sum(self._refused.values())
        first = len(self._set_ups)
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await asyncio.sleep(max(begun_s + number / per_s - time.perf_counter(), 0.0))
                group.create_task(self._enter(self._idle[idle]))
        return {
            "took_s": time.perf_counter() - begun_s,
            "set_ups": [dataclasses.asdict(item) for item in self._set_ups[first:]],
            "refused": sum(self._refused.values()) - before,
        }

    async def do_talk(self, at_once: int) -> dict[str, Any]:
        """Keep so many peers talking at a time."""
        self._at_once = at_once
        return {}

    async def do_churn(self, guests: int, stays_s: float, goings: Mapping[Going, float], idle: str) -> dict[str, Any]:
        """Keep so many peers, each staying for an exponential time, and going in these ways, by their weights."""
        self._churning = asyncio.create_task(self._churn(guests, stays_s, goings, self._idle[idle]))
        return {}

    async def do_report(self) -> dict[str, Any]:
        """What happened since the last report."""
        left, self._left = self._left, []
        set_ups, self._set_ups = self._set_ups, []
        returned, self._returned = self._returned, []
        late, self._pacer.late_s = self._pacer.late_s, []
        return {
            "guests": len(self._guests),
            "talking": self._talking,
            "lost": sum(guest.peer.closed.is_set() for guest in self._guests),
            "refused": dict(self._refused),
            "dropped": self._dropped,
            "unreturned": dict(self._unreturned),
            "set_ups": [dataclasses.asdict(item) for item in set_ups],
            "returned": [dataclasses.asdict(item) for item in returned],
            "left": left,
            "late_p99_s": percentile(late[-LATE_PACKETS_KEPT:], 99) or 0.0,
            "late_max_s": max(late, default=0.0),
            "packets": sum(guest.peer.packets for guest in self._guests),
        }

    async def do_close(self) -> dict[str, Any]:
        """Let every peer finish its recording and hear its finals, and hang up; then a last report."""
        self._at_once = 0
        if self._churning is not None:
            self._churning.cancel()
            await asyncio.gather(self._churning, return_exceptions=True)
        await asyncio.gather(*self._returning)
        while self._talking:  # noqa: ASYNC110 - a recording's end is told to the conductor alone
            await asyncio.sleep(0.1)
        lost = sum(guest.peer.closed.is_set() for guest in self._guests)
        await asyncio.gather(*(self._part(guest, drop=False) for guest in list(self._guests)), *self._leaving)
        return {**await self.do_report(), "lost": lost}

    async def _enter(self, idle: Reel) -> Guest | None:
        events: list[tuple[float, Mapping[str, Any]]] = []
        peer = RecordedPeer(
            self._url, idle=idle, on_event=lambda body, at_s: events.append((at_s, body)), query=self._query
        )
        try:
            set_up = await peer.connect(self._http)
        except PeerError as error:
            self._refused[error.code] += 1
            return None
        self._set_ups.append(set_up)
        guest = Guest(peer, set_up, events)
        self._guests.append(guest)
        self._pacer.add(peer)
        return guest

    async def _part(self, guest: Guest, *, drop: bool) -> None:
        if guest in self._guests:
            self._guests.remove(guest)
        if drop:
            self._dropped += 1
            await guest.peer.abandon()
            guest.peer.reason = "dropped"
        else:
            await guest.peer.hang_up()
        self._pacer.remove(guest.peer)
        self._left.append(outcome(guest))

    async def _return(self, guest: Guest) -> None:
        """Lose the connection, and come back; who cannot is closed, and leaves as others do."""
        away = Away(time.perf_counter())
        guest.aways.append(away)
        await guest.peer.drop()
        await asyncio.sleep(self._chance.uniform(*AWAY_S))
        try:
            set_up = await guest.peer.resume(self._http)
        except PeerError as error:
            self._unreturned[error.code] += 1
            return
        self._returned.append(set_up)
        away.until_s = time.perf_counter()
        guest.leaves_at_s = float("inf")  # it stays for another time

    async def _conduct(self) -> None:
        """Have as many talk as are wanted."""
        while True:
            await asyncio.sleep(self._chance.uniform(*TURN_S) / max(self._at_once, 1))
            if self._talking >= self._at_once or not self._spoken:
                continue
            now_s = time.perf_counter()
            rested = [
                guest
                for guest in self._guests
                if guest.rests_until_s <= now_s
                and not guest.peer.closed.is_set()
                and not guest.peer.is_away
                and not guest.peer.is_talking
                and guest.peer.began_at_s is not None
            ]
            if rested:
                self._talk(self._chance.choice(rested))

    def _talk(self, guest: Guest) -> None:
        number = self._order[0]
        self._order = self._order[1:] + self._order[:1]
        reel, start_s = self._spoken[number], guest.peer.stream_s
        guest.rests_until_s = float("inf")

        def on_played() -> None:
            guest.said.append(Said(number, start_s, guest.peer.stream_s))
            guest.rests_until_s = time.perf_counter() + REST_S

        guest.peer.play(reel, on_played)

    async def _churn(self, guests: int, stays_s: float, goings: Mapping[Going, float], idle: Reel) -> None:
        """Fill the place of everybody who leaves.

        Nobody leaves within a recording or before its final was due, but those who come back.
        """
        while True:
            await asyncio.sleep(0.25)
            now_s = time.perf_counter()
            for guest in list(self._guests):
                if guest.leaves_at_s == float("inf"):
                    guest.leaves_at_s = now_s + self._chance.expovariate(1 / stays_s)
                    (guest.going,) = self._chance.choices(list(goings), list(goings.values()))
                is_due = guest.leaves_at_s <= now_s and guest.peer.began_at_s is not None and not guest.peer.is_away
                if guest.peer.closed.is_set() or (is_due and guest.going != "return" and guest.rests_until_s <= now_s):
                    self._guests.remove(guest)
                    drop = guest.going == "drop" and not guest.peer.closed.is_set()
                    self._begin(self._leaving, self._part(guest, drop=drop))
                elif is_due and guest.going == "return":
                    guest.peer.is_away = True
                    self._begin(self._returning, self._return(guest))
            if len(self._guests) < guests:
                await self._enter(idle)

    @staticmethod
    def _begin(those: set[asyncio.Task[None]], doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(doing)
        those.add(task)
        task.add_done_callback(those.discard)


async def main() -> None:
    """Read the task, then serve."""
    task = json.loads(sys.stdin.readline())
    cpus = task.pop("cpus")
    if cpus:
        os.sched_setaffinity(0, cpus)
    driver = Driver(**task)
    print(json.dumps({"ready": True, "idle": ROOM}), flush=True)
    await driver.serve()


if __name__ == "__main__":
    tie(signal.SIGKILL)  # it has nothing to put in order
    asyncio.run(main())
