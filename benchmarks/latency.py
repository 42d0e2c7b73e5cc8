"""How long a reader waits, how restless the text is and what it costs, at some numbers of speakers in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.corpus import SYNTHETIC
from benchmarks.drive import Drive, Sink, play
from benchmarks.job import Job, broken_promises, screen_score, unclean
from benchmarks.offline import Offline
from benchmarks.report import Cell, Column, Result
from benchmarks.scoring import Errors, percentile, total, word_errors
from benchmarks.screen import ScreenScore, final_text
from benchmarks.scripts import GAP_MAX_S, GAP_MIN_S, Script, speakers
from benchmarks.stack import Stack, placement_of, serving
from mediaserver.session import Session

CATEGORIES = ("english-read", SYNTHETIC)
"""Read sentences: their words are certain, so that errors do not blur the latencies."""

MIN_UTTERANCE_S, MAX_UTTERANCE_S = 3.0, 20.0
"""Shorter recordings are single words and commands; longer ones are cut by length, which is another question."""

MIN_DBFS = -45.0
"""Quieter recordings drown in the room noise of the pauses; browsers raise the level of a microphone far above this."""

SECONDS_EACH, SHORT_SECONDS_EACH = 60.0, 30.0
"""Audio of a speaker: about 150 and 75 words, so that a p95 rests on 8 and 4 words of one speaker."""

COLUMNS = (
    Column("speakers"),
    Column("first text p50 / p95 s"),
    Column("word p50 / p95 s"),
    Column("stable word p50 / p95 s"),
    Column("final p50 / p95 s"),
    Column("final from last word p50 / p95 s"),
    Column("flicker %", ".1f"),
    Column("stable corrected %", ".1f"),
    Column("WER %", ".1f"),
    Column("cores per stream", ".2f"),
    Column("loop late p99 ms", ".0f"),
    Column("RSS MiB", ".0f"),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One number of speakers."""

    drive: Drive
    score: ScreenScore
    errors: Errors
    windows: dict[str, int]

    @property
    def speakers(self) -> int:
        """How many spoke at once."""
        return len(self.drive.takes)

    @property
    def row(self) -> list[Cell]:
        """The table's row."""
        score, load = self.score, self.drive.load
        return [
            self.speakers,
            pair(score.first_text_s),
            pair(score.word_s),
            pair(score.stable_word_s),
            pair(score.final_s),
            pair(score.final_from_word_s),
            100 * score.flicker,
            100 * score.stable_corrected_share,
            100 * self.errors.rate,
            load.cores_per_stream,
            1000 * load.push_late_p99_s,
            load.rss_peak_mib,
        ]

    def as_dict(self) -> dict[str, Any]:
        """For the JSON: every figure, and every latency behind it."""
        return {
            "speakers": self.speakers,
            "p95_word_s": percentile(self.score.word_s, 95),
            "flicker": self.score.flicker,
            "wer": self.errors.rate,
            "load": asdict(self.drive.load),
            "windows": self.windows,
            "screen": asdict(self.score),
            "streams": [
                {
                    "said": [item.recording.path for item in take.script.said],
                    "reference": " ".join(item.recording.text or "" for item in take.script.said),
                    "text": final_text(take.seen),
                }
                for take in self.drive.takes
            ],
        }


def pair(values: Sequence[float]) -> str:
    """Median and 95th percentile in one cell."""
    middle, late = percentile(values, 50), percentile(values, 95)
    return "–" if middle is None or late is None else f"{middle:.2f} / {late:.2f}"


def scripts_for(job: Job, count: int, seconds_each: float) -> list[Script]:
    """What `count` speakers say: the same for every run of that length."""
    recordings = job.corpus.select(
        categories=CATEGORIES,
        languages=job.heard_languages(["en"]),
        min_s=MIN_UTTERANCE_S,
        max_s=MAX_UTTERANCE_S,
        min_dbfs=MIN_DBFS,
    )
    return speakers(recordings, count, seconds_each=seconds_each)


async def run(job: Job, stack: Stack, scripts: Sequence[Script]) -> Run:
    """Play scripts at once in real time and score them."""

    def open_session(name: str, sink: Sink) -> Session:
        return stack.open(name, sink, job.config(scripts[0].said[0].recording))

    before = dict(stack.decoder.decoded)
    with job.progress(in_seconds=True) as progress:
        task = progress.add_task(f"{len(scripts)} speaker(s)", total=max(script.duration_s for script in scripts))
        drive = await play(
            scripts, open_session, on_progress=lambda played_s: progress.update(task, completed=played_s)
        )
    windows = {kind: count - before.get(kind, 0) for kind, count in stack.decoder.decoded.items()}
    return Run(drive, screen_score(drive.takes), job.set_errors(drive.takes), windows)


async def measure(job: Job, *, counts: Sequence[int], seconds_each: float | None) -> Result:
    """Run each number of speakers, and the yardstick over the same recordings."""
    length_s = seconds_each if seconds_each is not None else SHORT_SECONDS_EACH if job.short else SECONDS_EACH
    runs = []
    async with serving(job.settings, job.models) as stack:
        for count in counts:
            runs.append(await run(job, stack, scripts_for(job, count, length_s)))
    offline = await _offline_errors(job, runs[-1])
    return Result(
        name="latency",
        title=f"Latency of {job.settings.model} in real time",
        columns=COLUMNS,
        rows=[item.row for item in runs],
        notes=[
            f"{length_s:.0f} s of read utterances a speaker with {GAP_MIN_S}–{GAP_MAX_S} s of room noise (−65 dBFS) "
            "between them; pushed in 20 ms blocks without a network. Cores include the driver.",
            f"Offline beam 5 over the recordings of the largest run: WER {100 * offline.rate:.1f} %.",
            *(note for item in runs for note in unclean(item.drive, label=f"{item.speakers} speakers")),
        ],
        details={"runs": [item.as_dict() for item in runs], "offline_wer": offline.rate},
        failed=[
            sentence
            for item in runs
            for sentence in broken_promises(item.drive, label=f"{item.speakers} speakers", normaliser=job.normaliser)
        ],
        draw=lambda axes: _draw(axes, runs),
    )


async def _offline_errors(job: Job, largest: Run) -> Errors:
    offline = await asyncio.to_thread(Offline, job.models.whisper.directory, placement_of(job.settings))
    recordings = list(
        {said.recording.path: said.recording for take in largest.drive.takes for said in take.script.said}.values()
    )
    found = []
    with job.progress(in_seconds=False) as progress:
        task = progress.add_task("offline", total=len(recordings))
        for recording in recordings:
            text = await asyncio.to_thread(offline.transcribe, recording.read(), job.config(recording).language)
            code = recording.language_code
            found.append(
                word_errors(job.normaliser.words(recording.text or "", code), job.normaliser.words(text, code))
            )
            progress.advance(task)
    return total(found)


def _draw(axes: Any, runs: Sequence[Run]) -> None:
    for item in runs:
        values = np.sort(item.score.word_s)
        axes.plot(values, np.arange(1, len(values) + 1) / max(len(values), 1), label=f"{item.speakers} speaker(s)")
    axes.set_xlabel("word latency, s")
    axes.set_ylabel("share of words")
    axes.axhline(0.95, color="grey", linewidth=0.5)
    axes.legend()
