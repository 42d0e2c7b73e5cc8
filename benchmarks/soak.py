"""Whether a server that is busy for long stays as it was: sessions come and go, people speak, nothing grows or is lost.

The load is given, or found: speakers are added while the cores that the server uses for each are watched.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil

from benchmarks import reels
from benchmarks.corpus import Recording
from benchmarks.job import BUSY_CORES, Job
from benchmarks.latency import pair
from benchmarks.load import errors_of, recordings_for, served, unheard_of, write_reels
from benchmarks.load_server import Look, lag_s, look
from benchmarks.offline import Offline
from benchmarks.peers import server as servers
from benchmarks.report import Cell, Column, Result
from benchmarks.rtp_drivers import Drivers, Left, driving
from benchmarks.rtp_peer import SetUp
from benchmarks.scoring import Errors, total, word_errors
from benchmarks.screen import ScreenScore
from benchmarks.soak_growth import Growth, growth, speakers_for
from benchmarks.stack import placement_of

MINUTES, SHORT_MINUTES = 30.0, 2.0
LOAD = 0.8
PEERS = 30
"""Sessions at a time: most of them listen."""

STAYS_S = 150.0
"""Mean length of a session: in half an hour every place is taken by twelve, one after another."""

DROPPED = 0.1
"""Share of the sessions that end without a word: a laptop is closed, a train enters a tunnel."""

LOOK_S = 15.0
"""From one look to the next: memory is flat or it is not; finer would only make the files longer."""

PROBE_S = 20.0
"""How long a number of speakers is watched when the load is sought: four to six recordings of one of them."""

GROWTH_MIB_PER_HOUR = 32.0
"""The promise "flat": of the media process, by a line through the settled looks and by the means of the last third and
the one before. An allocator's step is 1 MiB or two; what is lost once a session shows as 100 a day and more."""

JUDGED_S = 600.0
"""A shorter run is not judged by its memory: what one session more holds is a hundred MiB an hour within a minute."""

FILES_GROWTH = 8
"""So many more open files in the last third than in the one before are a leak: sessions vary by less."""

COLUMNS = (Column("what"), Column("value"), Column("promise"))


@dataclass(slots=True)
class Sample:
    """One look while it runs."""

    at_s: float
    media_mib: float
    engine_mib: float
    files: int
    threads: int
    guests: int
    talking: int
    media_cores: float
    engine_cores: float
    lag_p99_s: float | None


@dataclass(slots=True)
class Course:
    """What was seen over the whole run."""

    samples: list[Sample] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    set_ups: list[SetUp] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    cut: bool = False
    others_cores: float = 0.0


async def measure(
    job: Job,
    *,
    minutes: float | None,
    load: float,
    speakers: int | None,
    peers: int,
    stays_s: float,
    dropped: float,
    processes: int,
    workers: int,
) -> Result:
    """Load a server for long and look whether it stays as it was."""
    length_s = 60 * (minutes or (SHORT_MINUTES if job.short else MINUTES))
    recordings = recordings_for(job)
    heard = await asyncio.to_thread(_offline, job, recordings)
    spoken = [recording for recording in recordings if heard[recording.path]]  # in the others no one would miss a final
    course = Course()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "reels.json"
        await asyncio.to_thread(write_reels, path, spoken)
        started = served(job.settings, peers=2 * peers, workers=workers)
        async with (
            servers.serving(started, Path(folder) / "server.log") as server,
            driving(f"http://127.0.0.1:{server.port}", path, processes=processes, query={"language": "en"}) as drivers,
        ):
            await drivers.open(peers, per_s=5.0, idle=reels.ROOM)
            at_once = speakers if speakers is not None else await _seek(job, server, drivers, load)
            await drivers.talk(at_once)
            await drivers.churn(peers, stays_s=stays_s, dropped=dropped, idle=reels.ROOM)
            with until_interrupted(course):
                await _watch(job, server, drivers, course, length_s)
            last = await drivers.close()
            course.left += last.left
            course.set_ups += last.set_ups
            course.refused, course.dropped = Counter(last.refused), last.dropped
    return _result(job, course, spoken, heard, at_once=at_once, load=load)


async def _seek(job: Job, server: servers.Server, drivers: Drivers, load: float) -> int:
    """The number of speakers for that load: one and two are watched, four where that leaves most of the machine."""
    cores = float(psutil.cpu_count() or 1)
    watched: list[tuple[int, float]] = []
    for count in (1, 2, 4):
        await drivers.talk(count)
        await asyncio.sleep(PROBE_S / 4)
        before, own_s = await look(server), drivers.cpu_s()
        await asyncio.sleep(PROBE_S)
        after = await look(server)
        wall_s = after.at_s - before.at_s
        busy = (after.media.cpu_s + after.engine.cpu_s - before.media.cpu_s - before.engine.cpu_s) / wall_s
        watched.append((count, busy))
        left = cores - (drivers.cpu_s() - own_s) / wall_s
        job.console.print(f"[dim]{count} speaking: {busy:.2f} of {left:.2f} cores[/dim]", highlight=False)
        if busy > load * left / 2:
            break
    return speakers_for(load, watched, cores=left)


@contextlib.contextmanager
def until_interrupted(course: Course) -> Iterator[None]:
    """Ctrl-C ends what runs inside, and what was seen until then is told."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        course.cut = True


async def _watch(job: Job, server: servers.Server, drivers: Drivers, course: Course, length_s: float) -> None:
    """Look again and again, and say how it goes."""
    begun = before = await look(server)
    drivers_s = drivers.cpu_s()
    while (left_s := length_s - (before.at_s - begun.at_s)) > 0:
        await asyncio.sleep(min(LOOK_S, left_s))
        after, report = await look(server), await drivers.report()
        course.left += report.left
        course.set_ups += report.set_ups
        course.samples.append(_sample(begun, before, after, report.guests, report.talking))
        finals = sum(count for peer in report.left for _, _, count in peer.said)
        newest = course.samples[-1]
        job.console.print(
            f"[dim]{newest.at_s / 60:5.1f} min: {newest.guests} sessions, {newest.talking} speaking; media "
            f"{newest.media_mib:.0f} MiB, {newest.media_cores:.2f} cores; engine {newest.engine_mib:.0f} MiB, "
            f"{newest.engine_cores:.2f} cores; {newest.files} files; {len(report.left)} left, with {finals} finals"
            "[/dim]",
            highlight=False,
        )
        before = after
        own_s = drivers.cpu_s() - drivers_s
        used_s = after.media.cpu_s + after.engine.cpu_s - begun.media.cpu_s - begun.engine.cpu_s + own_s
        course.others_cores = max(after.machine_s - begun.machine_s - used_s, 0.0) / (after.at_s - begun.at_s)


def _sample(begun: Look, before: Look, after: Look, guests: int, talking: int) -> Sample:
    wall_s = after.at_s - before.at_s
    return Sample(
        at_s=after.at_s - begun.at_s,
        media_mib=after.media.rss_mib,
        engine_mib=after.engine.rss_mib,
        files=after.media.files,
        threads=after.media.threads,
        guests=guests,
        talking=talking,
        media_cores=(after.media.cpu_s - before.media.cpu_s) / wall_s,
        engine_cores=(after.engine.cpu_s - before.engine.cpu_s) / wall_s,
        lag_p99_s=lag_s(before, after, 0.99),
    )


def _offline(job: Job, recordings: Sequence[Recording]) -> dict[str, str]:
    """What the same model hears in each recording as a whole. Blocks."""
    offline = Offline(job.models.whisper.directory, placement_of(job.settings))
    return {recording.path: offline.transcribe(recording.read(), "en") for recording in recordings}


def _result(
    job: Job,
    course: Course,
    recordings: Sequence[Recording],
    heard: Mapping[str, str],
    *,
    at_once: int,
    load: float,
) -> Result:
    kept = [peer for peer in course.left if peer.reason != "dropped"]
    reasons = Counter(peer.reason or "none" for peer in course.left)
    lost = [peer for peer in kept if peer.reason not in ("client",)]
    unheard = unheard_of(recordings, course.left)
    said = sum(len(peer.said) for peer in course.left)
    score = sum((peer.score for peer in course.left), ScreenScore())
    errors = errors_of(job, recordings, course.left)
    offline = _offline_errors(job, recordings, heard, course.left)
    times_s = [sample.at_s for sample in course.samples]
    media = growth(times_s, [sample.media_mib for sample in course.samples])
    engine = growth(times_s, [sample.engine_mib for sample in course.samples])
    files = growth(times_s, [float(sample.files) for sample in course.samples])
    lags = [sample.lag_p99_s for sample in course.samples if sample.lag_p99_s is not None]
    ready = [item.ready_s for item in course.set_ups]
    last = course.samples[-1] if course.samples else None
    cores = [sample.media_cores + sample.engine_cores for sample in course.samples]
    stray = sum(len(peer.stray) for peer in course.left)
    rows: list[list[Cell]] = [
        ["minutes", f"{times_s[-1] / 60:.1f}" if times_s else None, None],
        ["speakers at once", at_once, f"{100 * load:.0f} % of the machine"],
        ["cores that the server used, mean", f"{np.mean(cores):.2f}" if cores else None, None],
        ["sessions that came and went", len(course.left), None],
        ["… dropped without a word", course.dropped, None],
        ["… lost by the server", len(lost), "0"],
        ["refused", sum(course.refused.values()), None],
        ["recordings spoken", said, None],
        ["… without a final, or text without one", len(unheard), "0"],
        ["WER, offline WER of the same %", f"{100 * errors.rate:.1f}, {100 * offline.rate:.1f}", None],
        ["finals where nobody spoke", stray, None],
        ["word latency p50 / p95 s", pair(score.word_s), None],
        ["final latency p50 / p95 s", pair(score.final_s), None],
        ["ready p50 / p95 s", pair(ready), None],
        ["loop lag p99, worst look ms", f"{1000 * max(lags):.0f}" if lags else None, None],
        ["media MiB at the end", f"{last.media_mib:.0f}" if last else None, None],
        ["… growth per hour, last third less the second", _told(media), f"{GROWTH_MIB_PER_HOUR:.0f} MiB"],
        ["engine MiB at the end", f"{last.engine_mib:.0f}" if last else None, None],
        ["… growth per hour, last third less the second", _told(engine), None],
        ["open files, last third less the second", f"{files.step:+.1f}" if files else None, f"{FILES_GROWTH}"],
        ["threads at the end", last.threads if last else None, None],
    ]
    failed = []
    is_long = bool(times_s) and times_s[-1] >= JUDGED_S
    if is_long and media is not None and media.hourly > GROWTH_MIB_PER_HOUR:
        failed.append(f"The media process grows by {media.per_hour:.0f} MiB an hour.")
    if files is not None and files.step > FILES_GROWTH:
        failed.append(f"{files.step:.0f} files more were open in the last third.")
    if lost:
        failed.append(f"{len(lost)} sessions were lost ({dict(reasons)}).")
    if unheard:
        failed.append(f"{len(unheard)} utterances have no final ({', '.join(unheard[:3])}).")
    if score.stable_broken:
        failed.append(f"Stable text shrank or changed {score.stable_broken} times.")
    notes = [
        "Silent ones send room noise; speakers take turns, each recording followed by 4 s of rest at least. Memory "
        "and files are judged after the first third. A recording counts as lost if the same model hears words in it "
        "offline and its session told no final; sessions that were dropped on purpose are left out of that.",
    ]
    if not is_long:
        notes.append(f"Shorter than {JUDGED_S / 60:.0f} minutes: growth of memory says nothing.")
    if course.cut:
        notes.append("Ended early by hand.")
    if course.others_cores > BUSY_CORES:
        notes.append(f"Other processes kept {course.others_cores:.1f} cores busy; times are not clean.")
    return Result(
        name="soak",
        title=f"{times_s[-1] / 60 if times_s else 0:.0f} minutes at {100 * load:.0f} % load: {at_once} speak at once",
        columns=COLUMNS,
        rows=rows,
        notes=notes,
        details={
            "samples": [asdict(sample) for sample in course.samples],
            "reasons": dict(reasons),
            "refused": dict(course.refused),
            "unheard": unheard,
            "wer": errors.rate,
            "offline_wer": offline.rate,
            "screen": asdict(score),
        },
        failed=failed,
        draw=lambda axes: _draw(axes, course.samples),
    )


def _offline_errors(
    job: Job, recordings: Sequence[Recording], heard: Mapping[str, str], left: Sequence[Left]
) -> Errors:
    return total(
        word_errors(
            job.normaliser.words(recordings[reel].text or ""), job.normaliser.words(heard[recordings[reel].path])
        )
        for peer in left
        for reel, _, _ in peer.said
    )


def _told(found: Growth | None) -> str | None:
    return None if found is None else f"{found.per_hour:+.1f}, {found.step:+.1f}"


def _draw(axes: Any, samples: Sequence[Sample]) -> None:
    minutes = [sample.at_s / 60 for sample in samples]
    axes.plot(minutes, [sample.media_mib for sample in samples], label="media MiB")
    axes.plot(minutes, [sample.engine_mib for sample in samples], label="engine MiB")
    axes.plot(minutes, [sample.files for sample in samples], label="open files")
    axes.set_xlabel("minutes")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")
