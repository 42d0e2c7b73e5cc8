"""Plays scripts to a server, one client each, in real time."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from benchmarks.drive import RSS_PERIOD_S, STAGGER_S
from benchmarks.peers.client import Client
from benchmarks.peers.server import Server, Usage
from benchmarks.scoring import percentile

LEAD_S = 0.3
"""From the last client's connecting to the first sample: what connecting left to do is done by then."""

FIRST_TEXT_S = 30.0
"""Longest wait for a rehearsal's first text: none may come, for it is a few words that are cut off."""

POLL_S = 0.1

OnProgress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run cost, from its first sample to its last one.

    Args:
        audio_s: audio played, all clients together, pauses included.
        server_cpu_s: CPU seconds of the server and its children.
        clients_cpu_s: of this process, which plays to all clients.
        others_cores: cores that the rest of the machine kept busy meanwhile; above 0.1 the figures are not clean.
        late_p99_s: how late blocks left.
        rss_peak_mib: resident memory of the server and its children, at most.
    """

    audio_s: float
    server_cpu_s: float
    clients_cpu_s: float
    others_cores: float
    late_p99_s: float
    rss_peak_mib: float

    @property
    def cores_per_stream(self) -> float:
        """CPU seconds of the server per second of audio."""
        return self.server_cpu_s / self.audio_s if self.audio_s else 0.0


@dataclass(frozen=True, slots=True)
class Part:
    """One client's part: when sample 0 was spoken and when it stopped listening (`perf_counter` seconds)."""

    client: Client
    spoken_at_s: float
    ended_at_s: float


@dataclass(frozen=True, slots=True)
class Performance:
    """A run: what each client saw, and what it cost."""

    parts: list[Part]
    cost: Cost


class _Gauge:
    """Costs between its construction and the moment when the last client has played everything."""

    def __init__(self, server: Server, clients: int) -> None:
        self.late_s: list[float] = []
        self._server = server
        self._playing = clients
        self._process = psutil.Process(os.getpid())
        self._started_s = time.perf_counter()
        self._before = self._now()
        self._after = self._before
        self._rss_peak_mib = self._before[0].rss_mib
        self._wall_s = 0.0

    def _now(self) -> tuple[Usage, float, float]:
        own = self._process.cpu_times()
        machine = psutil.cpu_times()
        names = ("user", "system", "nice", "irq", "softirq", "steal")
        return self._server.usage(), own.user + own.system, sum(getattr(machine, name, 0.0) for name in names)

    async def watch(self) -> None:
        """Follow memory until cancelled."""
        while True:
            self._rss_peak_mib = max(self._rss_peak_mib, self._server.usage().rss_mib)
            await asyncio.sleep(RSS_PERIOD_S)

    def played(self) -> None:
        """A client has played everything."""
        self._playing -= 1
        if self._playing == 0:
            self._after = self._now()
            self._wall_s = time.perf_counter() - self._started_s

    def read(self, audio_s: float) -> Cost:
        server_s, own_s, machine_s = (
            self._after[0].cpu_s - self._before[0].cpu_s,
            self._after[1] - self._before[1],
            self._after[2] - self._before[2],
        )
        return Cost(
            audio_s=audio_s,
            server_cpu_s=server_s,
            clients_cpu_s=own_s,
            others_cores=max(machine_s - server_s - own_s, 0.0) / max(self._wall_s, 1e-9),
            late_p99_s=percentile(self.late_s, 99) or 0.0,
            rss_peak_mib=self._rss_peak_mib,
        )


async def perform(
    server: Server,
    clients: Sequence[Client],
    *,
    rehearsal: bool = False,
    on_progress: OnProgress = lambda played_s: None,
) -> Performance:
    """Connect the clients one after another, then play to all at once; each hears until its last word.

    In a rehearsal it hears until its first: models are loaded and threads are made by then.

    A block leaves when its last sample has been spoken, at an absolute time: one that is late does not delay the next,
    and its lateness counts against the server.

    Raises:
        VoiceForgeError: a client is refused or loses its connection; the server is gone.
    """
    try:
        for client in clients:
            await client.connect()
        gauge = _Gauge(server, len(clients))
        begin_s = time.perf_counter() + LEAD_S
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(gauge.watch())
            playing = [
                group.create_task(_play(client, begin_s + (index * STAGGER_S) % 1.0, gauge, rehearsal, on_progress))
                for index, client in enumerate(clients)
            ]
            parts = await asyncio.gather(*playing)
            watch.cancel()
    except ExceptionGroup as failures:
        raise _first(failures) from failures
    finally:
        for client in clients:
            with suppress(Exception):  # one that cannot be closed must not keep the others open
                await client.close()
    return Performance(parts, gauge.read(sum(client.script.duration_s for client in clients)))


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _play(client: Client, spoken_at_s: float, gauge: _Gauge, rehearsal: bool, on_progress: OnProgress) -> Part:
    for index in range(client.blocks):
        spoken_s = (index + 1) * client.block_ms / 1000
        due_s = spoken_at_s + spoken_s
        # Never sleep(0) past due: a driver that is behind must still hear what the server says.
        await asyncio.sleep(max(due_s - time.perf_counter(), 0.0))
        gauge.late_s.append(max(time.perf_counter() - due_s, 0.0))
        await client.send(index)
        if index % (1000 // client.block_ms) == 0:
            on_progress(spoken_s)
    gauge.played()
    if rehearsal:
        with suppress(TimeoutError):
            await asyncio.wait_for(_first_text(client), FIRST_TEXT_S)
    else:
        await client.finish()
    return Part(client, spoken_at_s, time.perf_counter())


async def _first_text(client: Client) -> None:
    while not client.shown:  # noqa: ASYNC110 - a client tells nobody what it shows
        await asyncio.sleep(POLL_S)
