"""What a connected stream costs while nobody speaks in it: the VAD and the session, without a decode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.drive import Drive, OpenSession, Sink, play
from benchmarks.job import Job, broken_promises, unclean
from benchmarks.noises import COMFORT_DBFS
from benchmarks.report import Column, Result
from benchmarks.scripts import Script, room
from mediaserver.audio.clock import Samples, samples_in
from mediaserver.audio.vad import VadPool
from mediaserver.decoder.window import Hypothesis, Window
from mediaserver.metrics import Metrics
from mediaserver.session import Session
from mediaserver.session_config import SessionConfig

SECONDS, SHORT_SECONDS = 20.0, 8.0
"""Long enough for CPU time, which the kernel counts in 10 ms steps, to be exact to a percent at one stream's cost."""

COLUMNS = (
    Column("silent streams"),
    Column("cores, all", ".3f"),
    Column("cores, driver alone", ".3f"),
    Column("% of a core per stream", ".2f"),
    Column("loop late p99 ms", ".1f"),
    Column("loop late max ms", ".0f"),
    Column("RSS MiB", ".0f"),
    Column("decodes"),
)


class NoDecoder:
    """Counts what it is asked, and says nothing: a silent stream should never ask."""

    model_name = "none"
    languages = ("en",)

    def __init__(self) -> None:
        self.asked = 0

    async def decode(self, window: Window) -> Hypothesis:
        """Count."""
        self.asked += 1
        return Hypothesis()

    def withdraw(self, session_id: str) -> None:
        """Do nothing: nothing waits."""


class NoSession:
    """Takes samples and does nothing: what remains is the driver."""

    def start(self) -> None:
        """Do nothing."""

    def push(self, samples: Samples, *, concealed: int = 0) -> None:
        """Do nothing."""

    async def close(self, reason: str, *, deadline_s: float = 0.0) -> None:
        """Do nothing."""


async def measure(job: Job, *, counts: Sequence[int], seconds_each: float | None) -> Result:
    """Connect each number of streams of comfort noise and look at the CPU."""
    length_s = seconds_each if seconds_each is not None else SHORT_SECONDS if job.short else SECONDS
    noise = room(samples_in(s=length_s), np.random.default_rng(3), dbfs=COMFORT_DBFS)
    rows, details, notes, failed = [], [], [], []
    for count in counts:
        scripts = [Script(f"silent {index}", noise) for index in range(count)]
        alone = await _play(job, scripts, lambda name, sink: NoSession(), f"driver alone, {count}")
        metrics, decoder = Metrics(), NoDecoder()
        vad = VadPool(job.models.vad, metrics=metrics)

        def open_session(
            name: str, sink: Sink, *, vad: VadPool = vad, decoder: NoDecoder = decoder, metrics: Metrics = metrics
        ) -> Session:
            return Session(
                session_id=name,
                config=SessionConfig.model_validate({}),
                settings=job.settings,
                decoder=decoder,
                vad=vad,
                metrics=metrics,
                sink=sink,
            )

        try:
            drive = await _play(job, scripts, open_session, f"{count} silent streams")
        finally:
            await vad.close()
        cores, base = drive.load.cpu_s / drive.load.wall_s, alone.load.cpu_s / alone.load.wall_s
        rows.append(
            [
                count,
                cores,
                base,
                100 * max(cores - base, 0.0) / count,
                1000 * drive.load.push_late_p99_s,
                1000 * drive.load.push_late_max_s,
                drive.load.rss_peak_mib,
                decoder.asked,
            ]
        )
        details.append({"streams": count, "load": asdict(drive.load), "driver": asdict(alone.load)})
        notes += unclean(drive, label=f"{count} streams")
        failed += broken_promises(drive, label=f"{count} streams")
        if decoder.asked:
            failed.append(f"{count} streams: {decoder.asked} windows of silence were to be decoded.")
    return Result(
        name="silent",
        title="CPU of connected streams in which nobody speaks",
        columns=COLUMNS,
        rows=rows,
        notes=[f"{length_s:.0f} s of comfort noise at {COMFORT_DBFS:.0f} dBFS a stream, no model loaded.", *notes],
        details={"runs": details},
        failed=failed,
        draw=lambda axes: _draw(axes, rows),
    )


async def _play(job: Job, scripts: Sequence[Script], open_session: OpenSession, label: str) -> Drive:
    with job.progress(in_seconds=True) as progress:
        task = progress.add_task(label, total=scripts[0].duration_s)
        return await play(scripts, open_session, on_progress=lambda played_s: progress.update(task, completed=played_s))


def _draw(axes: Any, rows: Sequence[Sequence[Any]]) -> None:
    axes.plot([row[0] for row in rows], [row[3] for row in rows], "o-")
    axes.set_xlabel("silent streams")
    axes.set_ylabel("% of a core per stream")
    axes.set_ylim(bottom=0)
