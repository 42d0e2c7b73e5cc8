"""Streaming finals against the same weights over the whole file: what is lost by not waiting for the end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from benchmarks.corpus import Recording
from benchmarks.drive import Drive, OpenSession, Sink, play, rush
from benchmarks.job import Job, broken_promises, loops_of
from benchmarks.loops import loops
from benchmarks.offline import BEAM_SIZE, Offline
from benchmarks.report import Cell, Column, Result
from benchmarks.scoring import Errors, difference_interval, letter_errors, total, word_errors
from benchmarks.screen import final_text
from benchmarks.scripts import Script, single
from benchmarks.stack import Stack, placement_of, serving
from mediaserver.errors import ConfigError
from mediaserver.session import Session

SHORT_LIMIT = 6
"""Recordings per category of a short run: about 3 minutes of English without the long ones."""

FEWEST_FILES = 5
"""Fewer recordings give no interval worth the name."""

SHORT_MAX_S = 60.0
"""Longest recording of a short run."""

COLUMNS = (
    Column("category"),
    Column("files"),
    Column("min", ".1f"),
    Column("words"),
    Column("WER %", ".1f"),
    Column("offline %", ".1f"),
    Column("diff", "+.1f"),
    Column("95 % interval"),
    Column("CER %", ".1f"),
)


async def measure(
    job: Job,
    *,
    categories: Sequence[str],
    languages: Sequence[str],
    collections: Sequence[str],
    limit: int | None,
    at_once: int,
    paced: bool,
) -> Result:
    """Transcribe each recording in a session of its own and as a whole, and compare both with its reference."""
    recordings = job.corpus.select(
        categories=categories,
        languages=job.heard_languages(languages),
        collections=collections,
        max_s=SHORT_MAX_S if job.short else float("inf"),
        limit=limit if limit is not None else SHORT_LIMIT if job.short else None,
    )
    if not recordings:
        raise ConfigError(
            "NO_SPEECH", "No recording fits the selection.", "Widen --category, --collection or --language."
        )
    async with serving(job.settings, job.models) as stack:
        drive = await _stream(job, stack, recordings, at_once=at_once, paced=paced)
        counts = dict(stack.decoder.decoded)
    texts = await _offline(job, recordings)
    return _result(job, recordings, drive, texts, paced=paced, windows=counts)


async def _stream(job: Job, stack: Stack, recordings: Sequence[Recording], *, at_once: int, paced: bool) -> Drive:
    by_name = {recording.path: recording for recording in recordings}

    def opener(*, interims: bool) -> OpenSession:
        def open_session(name: str, sink: Sink) -> Session:
            return stack.open(name, sink, job.config(by_name[name], interims=interims))

        return open_session

    scripts = [single(recording) for recording in recordings]
    with job.progress(in_seconds=False) as progress:
        task = progress.add_task("streaming", total=len(scripts))
        if not paced:
            return await rush(
                scripts,
                opener(interims=False),
                busy=stack.decoder.busy,
                at_once=at_once,
                on_done=lambda take: progress.advance(task),
            )
        drives = []
        for group in _similar(scripts, at_once):
            drives.append(await play(group, opener(interims=True)))
            progress.advance(task, len(group))
    order = {name: index for index, name in enumerate(by_name)}
    takes = sorted((take for drive in drives for take in drive.takes), key=lambda take: order[take.script.name])
    return Drive(takes, drives[-1].load)


def _similar(scripts: Sequence[Script], size: int) -> list[list[Script]]:
    """Groups of scripts of about the same length, so that few streams end long before their neighbours."""
    ordered = sorted(scripts, key=lambda script: script.duration_s)
    return [list(ordered[start : start + size]) for start in range(0, len(ordered), size)]


async def _offline(job: Job, recordings: Sequence[Recording]) -> list[str]:
    offline = await asyncio.to_thread(Offline, job.models.whisper.directory, placement_of(job.settings))
    texts = []
    with job.progress(in_seconds=False) as progress:
        task = progress.add_task("offline", total=len(recordings))
        for recording in recordings:
            texts.append(await asyncio.to_thread(offline.transcribe, recording.read(), job.config(recording).language))
            progress.advance(task)
    return texts


def _result(
    job: Job,
    recordings: Sequence[Recording],
    drive: Drive,
    texts: Sequence[str],
    *,
    paced: bool,
    windows: dict[str, int],
) -> Result:
    ours: list[Errors] = []
    theirs: list[Errors] = []
    letters: list[Errors] = []
    details: list[dict[str, Any]] = []
    for recording, take, text in zip(recordings, drive.takes, texts, strict=True):
        code, said, streamed = recording.language_code, recording.text or "", final_text(take.seen)
        reference, words = job.normaliser.pair(said, streamed, code)
        ours.append(word_errors(reference, words))
        theirs.append(word_errors(*job.normaliser.pair(said, text, code)))
        letters.append(letter_errors(reference, words))
        details.append(
            {
                "path": recording.path,
                "category": recording.category,
                "words": len(reference),
                "streaming_errors": ours[-1].count,
                "offline_errors": theirs[-1].count,
                "reference": recording.text,
                "streaming": streamed,
                "loops": loops_of(take, job.normaliser),
                "offline": text,
                "offline_loops": loops(text, said, job.normaliser, code),
            }
        )

    def row(label: str, chosen: Sequence[int]) -> list[Cell]:
        a, b = [ours[i] for i in chosen], [theirs[i] for i in chosen]
        low, high = difference_interval(a, b)
        return [
            label,
            len(chosen),
            sum(recordings[i].duration_s for i in chosen) / 60,
            total(a).words,
            100 * total(a).rate,
            100 * total(b).rate,
            100 * (total(a).rate - total(b).rate),
            f"{100 * low:+.1f}…{100 * high:+.1f}" if len(chosen) >= FEWEST_FILES else None,
            100 * total(letters[i] for i in chosen).rate,
        ]

    everything = range(len(recordings))
    categories = sorted({recording.category for recording in recordings})
    rows = [row(name, [i for i in everything if recordings[i].category == name]) for name in categories]
    unseen = [i for i in everything if not recordings[i].seen_in_training]
    if 0 < len(unseen) < len(recordings):
        rows.append(row("unseen sets", unseen))
    rows.append(row("all", everything))
    return Result(
        name="accuracy",
        title=f"Word errors of {job.settings.model}: streaming finals and offline beam {BEAM_SIZE}",
        columns=COLUMNS,
        rows=rows,
        notes=[
            "Played in real time." if paced else "Played faster than real time, without interims.",
            f"Repetition loops that the reference lacks: {sum(len(item['loops']) for item in details)} in finals and "
            f"revisions, {sum(len(item['offline_loops']) for item in details)} offline.",
            f"Offline: faster-whisper over the whole file, beam {BEAM_SIZE}, its defaults. "
            "Whisper's normalisation; 95 % interval of the difference by bootstrap over files. "
            "Unseen: without sets that models are trained on.",
        ],
        details={"recordings": details, "windows": windows, "wall_s": drive.load.wall_s},
        failed=broken_promises(drive, label="accuracy", normaliser=job.normaliser),
        draw=lambda axes: _draw(axes, rows),
    )


def _draw(axes: Any, rows: Sequence[Sequence[Cell]]) -> None:
    places = range(len(rows))
    axes.bar([place - 0.2 for place in places], [row[4] for row in rows], width=0.4, label="streaming")
    axes.bar([place + 0.2 for place in places], [row[5] for row in rows], width=0.4, label="offline")
    axes.set_xticks(list(places), [str(row[0]) for row in rows], rotation=15)
    axes.set_ylabel("word error rate, %")
    axes.legend()
