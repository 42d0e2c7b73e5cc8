"""Playing scripts to sessions, in real time or faster, and recording what comes back and what it costs.

No network: samples go straight into `Session.push`. What WebRTC adds (jitter buffer, Opus, packet times) is measured
apart. Real time is the truth; the faster way is for finals only, for interims come at other places there.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import psutil

from benchmarks.scoring import percentile
from benchmarks.screen import Seen
from benchmarks.scripts import Script
from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.events import Event, Metadata

PUSH_MS = 20
"""What a push carries: one Opus packet, as a browser sends them."""

PUSH_SAMPLES = SAMPLE_RATE * PUSH_MS // 1000

STAGGER_S = 0.618
"""Speaker k starts k × this, modulo one second, after the first: spread evenly for any number of speakers, so that
their interims do not fall due at the same instant."""

RSS_PERIOD_S = 0.5
"""Memory is looked at this often: /proc is read in 30 µs, and growth is slower."""

CLOSE_DEADLINE_S = 60.0
"""Longest wait for the last finals. Beyond every latency bound here; it only keeps a stuck run from hanging."""

RUSH_SPEED = 16.0
"""Times real time without pacing: the VAD alone keeps up with 100 × on one core, and the session's ring is bounded."""

RUSH_WAIT_S = 0.01
"""How often a stream of the fast mode looks whether its final is done: finer than any decode."""


class Sink(Protocol):
    """Where a session's events go."""

    def send(self, event: Event, seq: int) -> None:
        """Take an event; never blocks."""
        ...


class Pushable(Protocol):
    """A session as the driver sees it."""

    def start(self) -> None:
        """Begin."""
        ...

    def push(self, samples: Samples, *, concealed: int = 0) -> None:
        """Take samples, in stream order."""
        ...

    async def close(self, reason: str, *, deadline_s: float = ...) -> None:
        """Flush finals and end."""
        ...


OpenSession = Callable[[str, Sink], Pushable]
"""Makes a session by name, not yet started."""


@dataclass(slots=True)
class Take:
    """What came back for one script."""

    script: Script
    seen: list[Seen] = field(default_factory=list)

    @property
    def received_s(self) -> float | None:
        """Seconds of audio that the session says it received; None if it never said. Less than the script: it lost."""
        return next((item.event.duration for item in self.seen if isinstance(item.event, Metadata)), None)


@dataclass(frozen=True, slots=True)
class Load:
    """What a run cost: this process with the engine, the sessions and the driver in it.

    Args:
        wall_s: from the first sample to the last close.
        audio_s: audio played, all streams together, pauses included.
        cpu_s: user and system time of all threads.
        others_cores: cores that the rest of the machine kept busy meanwhile; above 0.1 the figures are not clean.
        push_late_p99_s, push_late_max_s: how late pushes came: the lag of the event loop.
        rss_start_mib, rss_peak_mib: resident memory.
    """

    wall_s: float
    audio_s: float
    cpu_s: float
    others_cores: float
    push_late_p99_s: float
    push_late_max_s: float
    rss_start_mib: float
    rss_peak_mib: float

    @property
    def cores_per_stream(self) -> float:
        """CPU seconds per second of audio of one stream."""
        return self.cpu_s / self.audio_s if self.audio_s else 0.0


@dataclass(frozen=True, slots=True)
class Drive:
    """A run: what came back, and what it cost."""

    takes: list[Take]
    load: Load


class Recorder:
    """A sink that notes when each event came, in seconds after `spoken_at_s` (loop time), when sample 0 is spoken."""

    def __init__(self, take: Take, *, spoken_at_s: float) -> None:
        self._take = take
        self._spoken_at_s = spoken_at_s

    def send(self, event: Event, seq: int) -> None:
        """Note the event."""
        self._take.seen.append(Seen(asyncio.get_running_loop().time() - self._spoken_at_s, event))


class Gauge:
    """CPU, memory and lateness of a run, from construction to `read`."""

    def __init__(self) -> None:
        self._process = psutil.Process(os.getpid())
        self._started_s = time.perf_counter()
        self._cpu_s = self._own_cpu_s()
        self._machine_s = _busy_s()
        self._rss_start_mib = self._rss_mib()
        self._rss_peak_mib = self._rss_start_mib
        self.late_s: list[float] = []

    def _own_cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def _rss_mib(self) -> float:
        return float(self._process.memory_info().rss) / 2**20

    async def watch(self) -> None:
        """Follow memory until cancelled."""
        while True:
            self._rss_peak_mib = max(self._rss_peak_mib, self._rss_mib())
            await asyncio.sleep(RSS_PERIOD_S)

    def read(self, *, audio_s: float) -> Load:
        """What the run cost until now."""
        wall_s = time.perf_counter() - self._started_s
        cpu_s = self._own_cpu_s() - self._cpu_s
        others_s = max(_busy_s() - self._machine_s - cpu_s, 0.0)
        return Load(
            wall_s=wall_s,
            audio_s=audio_s,
            cpu_s=cpu_s,
            others_cores=others_s / wall_s,
            push_late_p99_s=percentile(self.late_s, 99) or 0.0,
            push_late_max_s=max(self.late_s, default=0.0),
            rss_start_mib=self._rss_start_mib,
            rss_peak_mib=max(self._rss_peak_mib, self._rss_mib()),
        )


def _busy_s() -> float:
    """CPU seconds that all processes of the machine have used, and what the hypervisor gave to other machines."""
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in ("user", "system", "nice", "irq", "softirq", "steal")))


async def play(
    scripts: Sequence[Script],
    open_session: OpenSession,
    *,
    on_progress: Callable[[float], None] = lambda played_s: None,
) -> Drive:
    """Play all scripts at once in real time, one session each.

    Push k of a stream is due when its last sample has been spoken, at an absolute time: a late push does not delay the
    next, and its lateness counts against the server. `on_progress` hears the seconds played of the first script that
    is still playing.
    """
    takes = [Take(script) for script in scripts]
    gauge = Gauge()
    begin_s = asyncio.get_running_loop().time() + 0.05
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(gauge.watch())
        streams = [
            group.create_task(
                _play_one(take, open_session, begin_s + (index * STAGGER_S) % 1.0, gauge.late_s, on_progress)
            )
            for index, take in enumerate(takes)
        ]
        await asyncio.gather(*streams)
        watch.cancel()
    return Drive(takes, gauge.read(audio_s=sum(script.duration_s for script in scripts)))


async def _play_one(
    take: Take,
    open_session: OpenSession,
    spoken_at_s: float,
    late_s: list[float],
    on_progress: Callable[[float], None],
) -> None:
    clock = asyncio.get_running_loop().time
    await asyncio.sleep(spoken_at_s - clock())
    session = open_session(take.script.name, Recorder(take, spoken_at_s=spoken_at_s))
    session.start()
    for block in itertools.count():
        samples = take.script.samples[block * PUSH_SAMPLES : (block + 1) * PUSH_SAMPLES]
        if not len(samples):
            break
        due_s = spoken_at_s + (block + 1) * PUSH_MS / 1000
        # Never sleep(0) past due: a driver that is behind must still let the server's callbacks run.
        await asyncio.sleep(max(due_s - clock(), 0.0))
        late_s.append(max(clock() - due_s, 0.0))
        session.push(samples)
        if block % (1000 // PUSH_MS) == 0:
            on_progress(block * PUSH_MS / 1000)
    await session.close("client", deadline_s=CLOSE_DEADLINE_S)


async def rush(
    scripts: Sequence[Script],
    open_session: OpenSession,
    *,
    busy: Callable[[str], bool],
    at_once: int,
    speed: float = RUSH_SPEED,
    on_done: Callable[[Take], None] = lambda take: None,
) -> Drive:
    """Play scripts faster than real time, `at_once` at a time, for their finals.

    `busy` says whether a final of the session of that name is being decoded; its stream then waits, so the session's
    bounded ring never drops audio whose turn has not come.
    """
    takes = [Take(script) for script in scripts]
    waiting = iter(takes)
    gauge = Gauge()

    async def work() -> None:
        for take in waiting:
            await _rush_one(take, open_session, busy, speed)
            on_done(take)

    async with asyncio.TaskGroup() as group:
        watch = group.create_task(gauge.watch())
        await asyncio.gather(*[group.create_task(work()) for _ in range(at_once)])
        watch.cancel()
    return Drive(takes, gauge.read(audio_s=sum(script.duration_s for script in scripts)))


async def _rush_one(take: Take, open_session: OpenSession, busy: Callable[[str], bool], speed: float) -> None:
    name = take.script.name
    session = open_session(name, Recorder(take, spoken_at_s=asyncio.get_running_loop().time()))
    session.start()
    for start in range(0, len(take.script.samples), PUSH_SAMPLES):
        session.push(take.script.samples[start : start + PUSH_SAMPLES])
        await asyncio.sleep(PUSH_MS / 1000 / speed)
        while busy(name):  # noqa: ASYNC110 - the decoder's interface tells nobody when it is done
            await asyncio.sleep(RUSH_WAIT_S)
    await session.close("client", deadline_s=CLOSE_DEADLINE_S)
