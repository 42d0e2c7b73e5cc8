"""A long recording through the pipeline of jobs, beside faster-whisper: batched, and one pass after another."""

from __future__ import annotations

import asyncio
import tempfile
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel

from benchmarks.corpus import Recording
from benchmarks.drive import Gauge, Load
from benchmarks.job import BUSY_CORES, Job
from benchmarks.offline import BEAM_SIZE
from benchmarks.report import Cell, Column, Result
from benchmarks.scoring import Errors, word_errors
from benchmarks.scripts import room
from benchmarks.stack import placement_of, serving
from mediaserver.audio.clock import SAMPLE_RATE, samples_in
from mediaserver.errors import ConfigError
from mediaserver.jobs.recording import Recorder, RecordingOptions

SHORT_MINUTES = 5.0

LONG_S = 30.0
"""Recordings from here on are long enough to be cut: what is shorter says nothing about cutting."""

GAP_S = 1.5
"""Room noise between two recordings of the long one."""

BATCH = 8
"""faster-whisper's own default."""

OURS, OURS_AGAIN = "VoiceForge", "VoiceForge, again"
BATCHED, BATCHED_WORDS, ONE_PASS = (
    "faster-whisper batched",
    "faster-whisper batched, word times",
    "faster-whisper one pass",
)
CONTENDERS = (OURS, BATCHED, BATCHED_WORDS, ONE_PASS, OURS_AGAIN)
"""In this order, one after the other; ours first and last, so that a machine that warms up or slows down shows."""

COLUMNS = (
    Column("pipeline"),
    Column("x real time", ".1f"),
    Column("wall s", ".0f"),
    Column("CPU s", ".0f"),
    Column("others, cores", ".2f"),
    Column("WER %", ".2f"),
    Column("ins", "d"),
    Column("del", "d"),
    Column("RSS MiB", ".0f"),
)


@dataclass(frozen=True, slots=True)
class LongFile:
    """A file and what is said in it."""

    path: Path
    text: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pipeline made of the file, and what it cost."""

    text: str
    load: Load
    errors: Errors


async def measure(job: Job, *, minutes: float | None, names: Sequence[str]) -> Result:
    """Make a long file of the corpus and have each pipeline transcribe it, one after the other."""
    wanted_s = 60 * (minutes if minutes is not None else SHORT_MINUTES if job.short else 60.0)
    long = [item for item in job.corpus.select(languages=("en",)) if item.duration_s >= LONG_S]
    if not long:
        raise ConfigError(
            "NO_SPEECH", f"The corpus has no English recording of {LONG_S:g} s.", "Name another one by --data."
        )
    with tempfile.TemporaryDirectory(prefix="voiceforge-bench-") as folder:
        file = await asyncio.to_thread(_write, long, Path(folder) / "long.wav", wanted_s)
        outcomes: dict[str, Outcome] = {}
        for name in names or CONTENDERS:
            job.console.print(f"{name} …", highlight=False)
            outcomes[name] = await _run(job, file, name)
    return _result(job, file, len(long), outcomes)


Pipeline = Callable[[Path], Awaitable[str]]
"""Makes a text of a file."""


@asynccontextmanager
async def _opened(job: Job, name: str) -> AsyncIterator[Pipeline]:
    """A pipeline with its model loaded: that is done once, however many files come."""
    if name in (OURS, OURS_AGAIN):
        async with serving(job.settings, job.models) as stack:
            recorder = Recorder(decoder=stack.decoder, vad=stack.vad, settings=job.settings, metrics=stack.metrics)
            yield lambda path: _ours(recorder, path)
        return
    placement = placement_of(job.settings)
    model = await asyncio.to_thread(
        WhisperModel,
        str(job.models.whisper.directory),
        device=placement.device,
        compute_type=placement.compute_type,
        cpu_threads=placement.slots * placement.threads,
        local_files_only=True,
    )
    yield lambda path: asyncio.to_thread(_theirs, model, path, name)


async def _ours(recorder: Recorder, path: Path) -> str:
    transcript = await recorder.transcribe(path, RecordingOptions(language="en"))
    return " ".join(segment.final.transcript for segment in transcript.channels[0].segments)


def _theirs(model: WhisperModel, path: Path, name: str) -> str:
    if name == ONE_PASS:
        segments, _ = model.transcribe(str(path), beam_size=BEAM_SIZE, language="en")
    else:
        segments, _ = BatchedInferencePipeline(model).transcribe(
            str(path), beam_size=BEAM_SIZE, batch_size=BATCH, language="en", word_timestamps=name == BATCHED_WORDS
        )
    return " ".join(segment.text.strip() for segment in segments)


async def _run(job: Job, file: LongFile, name: str) -> Outcome:
    async with _opened(job, name) as transcribe:
        gauge = Gauge()
        watch = asyncio.create_task(gauge.watch())
        try:
            text = await transcribe(file.path)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        load = gauge.read(audio_s=file.duration_s)
    return Outcome(text, load, word_errors(*job.normaliser.pair(file.text, text, "en")))


def _write(recordings: Sequence[Recording], path: Path, wanted_s: float) -> LongFile:
    """The recordings one after another, again and again, until the file is long enough; whole ones only."""
    gap = room(samples_in(s=GAP_S), np.random.default_rng(0))
    texts: list[str] = []
    written = 0
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        for recording in cycle(recordings):
            if written >= samples_in(s=wanted_s):
                break
            samples = np.concatenate((recording.read(), gap))
            file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
            texts.append(recording.text or "")
            written += len(samples)
    return LongFile(path, " ".join(texts), written / SAMPLE_RATE)


def _result(job: Job, file: LongFile, recordings: int, outcomes: dict[str, Outcome]) -> Result:
    rows: list[list[Cell]] = [
        [
            name,
            file.duration_s / outcome.load.wall_s,
            outcome.load.wall_s,
            outcome.load.cpu_s,
            outcome.load.others_cores,
            100 * outcome.errors.rate,
            outcome.errors.insertions,
            outcome.errors.deletions,
            outcome.load.rss_peak_mib,
        ]
        for name, outcome in outcomes.items()
    ]
    notes = [
        f"{file.duration_s / 60:.1f} minutes: {recordings} English recordings of {LONG_S:g} s or more, one after "
        f"another with {GAP_S:g} s between them, again and again; from a WAV of 16 kHz to the text, model loaded "
        "before.",
        f"All: the same weights and threads, beam {BEAM_SIZE}; faster-whisper's batches are of {BATCH}. Ours has times "
        "for all words. Memory is that of this process, with what earlier rows left.",
    ]
    busy = {name: outcome.load.others_cores for name, outcome in outcomes.items()}
    if max(busy.values()) > BUSY_CORES:
        notes.append(f"Others kept up to {max(busy.values()):.1f} cores busy: compare CPU seconds, not times.")
    return Result(
        name="recordings",
        title=f"A recording of {file.duration_s / 60:.0f} minutes with {job.settings.model}",
        columns=COLUMNS,
        rows=rows,
        notes=notes,
        details={"duration_s": file.duration_s, "texts": {name: outcome.text for name, outcome in outcomes.items()}},
        draw=lambda axes: _draw(axes, rows),
    )


def _draw(axes: Any, rows: Sequence[Sequence[Cell]]) -> None:
    axes.barh([str(row[0]) for row in rows][::-1], [row[1] for row in rows][::-1])
    axes.set_xlabel("times real time")
