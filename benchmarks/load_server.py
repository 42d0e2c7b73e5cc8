"""The server that peers load: its processes by what they do, and what it counts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp
import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.peers.server import Server

LAG = "voiceforge_loop_lag_seconds"
PACKETS = "voiceforge_rtp_packets"


@dataclass(frozen=True, slots=True)
class Part:
    """What the processes of one kind have used since their start, and what they hold now."""

    cpu_s: float = 0.0
    rss_mib: float = 0.0
    files: int = 0
    threads: int = 0

    def __add__(self, other: Part) -> Part:
        return Part(
            self.cpu_s + other.cpu_s,
            self.rss_mib + other.rss_mib,
            self.files + other.files,
            self.threads + other.threads,
        )


@dataclass(frozen=True, slots=True)
class Look:
    """The server at a moment (`at_s`, of the event loop's clock).

    Args:
        media: the processes that hold sessions, with their supervisor if they have one.
        engine: the one that decodes.
        lag: of the event loops, cumulative counts by upper bound in seconds.
        packets: RTP packets so far, by fate.
        machine_s: CPU seconds of all processes of the machine.
    """

    at_s: float
    media: Part
    engine: Part
    lag: Mapping[float, float]
    packets: Mapping[str, float]
    machine_s: float


async def look(server: Server) -> Look:
    """Look at it once.

    Raises:
        VoiceForgeError: SERVER_FAILED: it is gone.
    """
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{server.port}/metrics") as response:
        text = await response.text()
    lag: dict[float, float] = {}
    packets: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"{LAG}_bucket":
                bound = float(sample.labels["le"])
                lag[bound] = lag.get(bound, 0.0) + sample.value  # of several workers: all of them
            elif sample.name == f"{PACKETS}_total":
                fate = sample.labels["fate"]
                packets[fate] = packets.get(fate, 0.0) + sample.value
    media, engine = parts(server.processes())
    return Look(asyncio.get_running_loop().time(), media, engine, lag, packets, machine_s())


def parts(processes: Sequence[psutil.Process]) -> tuple[Part, Part]:
    """Media and engine, of the processes that are still there."""
    media, engine = Part(), Part()
    for process in processes:
        try:
            with process.oneshot():
                times = process.cpu_times()
                part = Part(
                    times.user + times.system,
                    process.memory_info().rss / 2**20,
                    process.num_fds(),
                    process.num_threads(),
                )
                is_engine = "engine" in process.cmdline()
        except psutil.Error:
            continue  # it ended meanwhile
        if is_engine:
            engine += part
        else:
            media += part
    return media, engine


def machine_s() -> float:
    """CPU seconds that all processes of the machine have used, and what the hypervisor gave to other machines."""
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in ("user", "system", "nice", "irq", "softirq", "steal")))


def lag_s(before: Look, after: Look, share: float) -> float | None:
    """How late the event loops woke between two looks, at a quantile: linear within a bucket, as Prometheus has it.

    Beyond the last bound it is that bound; None where nothing was measured.
    """
    counts = sorted((bound, after.lag[bound] - before.lag.get(bound, 0.0)) for bound in after.lag)
    total = counts[-1][1] if counts else 0.0
    if total <= 0:
        return None
    below_bound = below_count = 0.0
    for bound, count in counts:
        if count >= share * total:
            if bound == float("inf"):
                return below_bound
            within = (share * total - below_count) / (count - below_count) if count > below_count else 1.0
            return below_bound + (bound - below_bound) * within
        below_bound, below_count = bound, count
    return below_bound
