"""What a WebSocket costs: the time until `ready`, connections that say nothing, and audio by it or without it.

The server runs in this process, whose CPU time is looked at; its clients run in another one.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
from aiohttp import web

from benchmarks.drive import Drive, Load, OpenSession, Sink, play
from benchmarks.job import Job
from benchmarks.latency import scripts_for
from benchmarks.memory import ReadyAnswers
from benchmarks.report import Cell, Column, Result
from benchmarks.scoring import percentile
from benchmarks.scripts import Script
from benchmarks.silent import NoSession
from benchmarks.stack import StreamPacedDecoder, serving
from mediaserver.audio.vad import VadPool
from mediaserver.metrics import Metrics
from mediaserver.session import Session
from signaling.app import REGISTRY, make_app
from signaling.routes.native_stream import PATH

CONNECTS, SHORT_CONNECTS = 300, 100
"""How often a client connects: the 95th percentile has 15 above it."""

IDLE = 200
IDLE_S, SHORT_IDLE_S = 60.0, 20.0
"""Three rounds of pings, or one."""

STREAMS = 12
"""That speak at once while no model decodes: so many that a stream's share of the process' CPU is exact."""

MODEL_STREAMS = 2
"""That speak at once while the model decodes: what two cores carry with ease."""

SECONDS, SHORT_SECONDS = 40.0, 15.0
"""Of audio of each."""

READY_P95_MS = 100.0
IDLE_PERCENT = 2.0
OVERHEAD_PERCENT = 5.0
"""The promises."""

COLUMNS = (Column("what"), Column("value", ".2f"), Column("unit"), Column("at most", ".0f"))


class Answers(StreamPacedDecoder):
    """An engine that is always ready and answers at once, with interims as often as a real one."""

    ready = True

    def __init__(self, period_ms: int) -> None:
        super().__init__(ReadyAnswers(), period_ms=period_ms)

    @property
    def languages(self) -> tuple[str, ...]:
        """English."""
        return ("en",)

    def overload_retry_after_s(self) -> int | None:
        """Never overloaded."""
        return None


class Clients:
    """The other process, with one task."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> dict[str, Any]:
        """The next that it says."""
        assert self._process.stdout is not None
        said: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return said

    def go_on(self) -> None:
        """End its waiting."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")


@asynccontextmanager
async def clients(**task: Any) -> AsyncIterator[Clients]:
    """Run `benchmarks.socket_clients`; it is gone afterwards."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.socket_clients"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**22,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(task).encode() + b"\n")
    try:
        yield Clients(process)
    finally:
        process.stdin.close()
        if process.returncode is None and sys.exc_info()[0] is not None:
            process.kill()
        await process.wait()


def cpu_s() -> float:
    """User and system time of this process."""
    times = psutil.Process(os.getpid()).cpu_times()
    return float(times.user + times.system)


async def measure(job: Job, *, idle: int, streams: int) -> Result:
    """Everything, one after another."""
    seconds_each = SHORT_SECONDS if job.short else SECONDS
    scripts = scripts_for(job, streams, seconds_each)
    settings = job.settings.model_copy(update={"max_sessions": max(idle, streams) + 1})
    metrics, engine = Metrics(), Answers(settings.interim_period_ms)
    vad = VadPool(job.models.vad, metrics=metrics)
    app = make_app(settings, metrics=metrics, engine=engine, vad=vad)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"ws://127.0.0.1:{runner.addresses[0][1]}{PATH}"
        async with clients(do="connect", url=url, times=SHORT_CONNECTS if job.short else CONNECTS) as child:
            took_ms = (await child.line())["took_ms"]
        idle_s = SHORT_IDLE_S if job.short else IDLE_S
        idle_cores, empty_cores, lost = await _idle(url, idle, idle_s)

        def open_session(name: str, sink: Sink) -> Session:
            return Session(
                session_id=name,
                config=job.config(scripts[0].said[0].recording),
                settings=settings,
                decoder=engine,
                vad=vad,
                metrics=metrics,
                sink=sink,
            )

        driver = await _play(job, scripts, lambda name, sink: NoSession(), "driver alone")
        direct = await _play(job, scripts, open_session, f"{streams} speakers, without sockets")
        by_socket_s, events = await _speak(url, scripts)
        left = len(app[REGISTRY])
    finally:
        await runner.cleanup()
        await vad.close()
    model_scripts = scripts_for(job, MODEL_STREAMS, seconds_each)
    async with serving(job.settings, job.models) as stack:
        config = job.config(model_scripts[0].said[0].recording)
        real = await _play(
            job, model_scripts, lambda name, sink: stack.open(name, sink, config), f"{MODEL_STREAMS} speakers, model"
        )
    audio_s = sum(script.duration_s for script in scripts)
    own = driver.load.cpu_s / audio_s
    each = direct.load.cpu_s / audio_s - own
    door = max(by_socket_s / audio_s - each, 0.0)
    whole = real.load.cores_per_stream - own
    ready_ms = [percentile(took_ms, share) or 0.0 for share in (50, 95)]
    idle_percent, overhead_percent = 100 * idle_cores, 100 * door / whole
    rows: list[list[Cell]] = [
        ["connect to `ready`, p50", ready_ms[0], "ms", None],
        ["connect to `ready`, p95", ready_ms[1], "ms", READY_P95_MS],
        [f"{idle} idle connections", idle_percent, "% of a core", IDLE_PERCENT],
        ["the server without any", 100 * empty_cores, "% of a core", None],
        ["a speaker by WebSocket beyond the session", 100 * door, "% of a core", None],
        ["a speaker's session without decodes", 100 * each, "% of a core", None],
        ["a speaker's session with the model", 100 * whole, "% of a core", None],
        ["the WebSocket's share of that", overhead_percent, "%", OVERHEAD_PERCENT],
    ]
    failed = []
    if ready_ms[1] > READY_P95_MS:
        failed.append(f"`ready` came after {ready_ms[1]:.0f} ms (p95).")
    if idle_percent > IDLE_PERCENT:
        failed.append(f"{idle} idle connections took {idle_percent:.1f} % of a core.")
    if overhead_percent > OVERHEAD_PERCENT:
        failed.append(f"The WebSocket took {overhead_percent:.1f} % on top of a session.")
    if lost or left:
        failed.append(f"{lost} idle connections were lost, {left} sessions were left behind.")
    return Result(
        name="sockets",
        title="The native WebSocket: time to `ready`, and CPU",
        columns=COLUMNS,
        rows=rows,
        notes=[
            f"Clients in a process of their own. Audio: linear16 in messages of 20 ms, {streams} speakers of "
            f"{seconds_each:.0f} s; a decoder that answers at once, so that differences are not those of decodes.",
            f"Other processes kept {_others(direct, real):.1f} cores busy.",
        ],
        details={"took_ms": took_ms, "events": events, "seconds_each": seconds_each, "idle_s": idle_s},
        failed=failed,
        draw=lambda axes: _draw(axes, took_ms),
    )


async def _idle(url: str, count: int, seconds: float) -> tuple[float, float, int]:
    """Cores of the server with that many idle connections beyond those of an empty one, these, and how many broke."""
    begun_s = cpu_s()
    await asyncio.sleep(seconds)
    empty = (cpu_s() - begun_s) / seconds
    async with clients(do="idle", url=url, count=count) as child:
        await child.line()
        begun_s = cpu_s()
        await asyncio.sleep(seconds)
        cores = (cpu_s() - begun_s) / seconds
        child.go_on()
        lost: int = (await child.line())["lost"]
    return max(cores - empty, 0.0), empty, lost


async def _speak(url: str, scripts: Sequence[Script]) -> tuple[float, list[dict[str, int]]]:
    """CPU seconds of the server while the scripts are played to it by WebSocket, and the events that came back."""
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.raw" for index in range(len(scripts))]
        for path, script in zip(paths, scripts, strict=True):
            path.write_bytes((np.clip(script.samples, -1, 1) * 32767).astype("<i2").tobytes())
        begun_s = cpu_s()
        async with clients(do="speak", url=url, paths=[str(path) for path in paths]) as child:
            events: list[dict[str, int]] = (await child.line())["events"]
            return cpu_s() - begun_s, events


async def _play(job: Job, scripts: Sequence[Script], open_session: OpenSession, label: str) -> Drive:
    with job.progress(in_seconds=True) as progress:
        task = progress.add_task(label, total=max(script.duration_s for script in scripts))
        return await play(scripts, open_session, on_progress=lambda played_s: progress.update(task, completed=played_s))


def _others(*drives: Drive) -> float:
    loads: list[Load] = [drive.load for drive in drives]
    return max(load.others_cores for load in loads)


def _draw(axes: Any, took_ms: Sequence[float]) -> None:
    axes.hist(took_ms, bins=40)
    axes.set_xlabel("connect to ready, ms")
    axes.set_ylabel("connections")
