"""What `voiceforge bench soak` tells of a run, and what that says of the promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.corpus import Recording
from benchmarks.job import BUSY_CORES, Job
from benchmarks.latency import pair
from benchmarks.load import errors_of
from benchmarks.report import Cell, Column, Result
from benchmarks.rtp_drivers import Left
from benchmarks.scoring import Errors, total, word_errors
from benchmarks.screen import ScreenScore
from benchmarks.soak_course import Course, Sample
from benchmarks.soak_growth import Growth, growth

GROWTH_MIB_PER_HOUR = 32.0
"""The promise "flat": of the media process, by a line through the settled looks and by the means of the last third and
the one before. An allocator's step is 1 MiB or two; what is lost once a session shows as 100 a day and more."""

JUDGED_S = 600.0
"""A shorter run is not judged by its memory: what one session more holds is a hundred MiB an hour within a minute."""

FILES_GROWTH = 8
"""So many more open files in the last third than in the one before are a leak: sessions vary by less."""

COLUMNS = (Column("what"), Column("value"), Column("promise"))


def result(job: Job, course: Course, heard: Mapping[str, str], *, at_once: int, load: float) -> Result:
    """The table of a run.

    Args:
        heard: what the same model hears in each recording as a whole, by its path.
        at_once: how many spoke.
        load: share of the machine that they were to keep busy.
    """
    recordings, unheard = course.recordings, course.unheard
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
        ["… dropped for good, without a word", course.dropped, None],
        ["… lost by the server", course.lost, "0"],
        ["drops after which the client came back", len(course.returned), None],
        ["… and could not resume", course.unreturned.total(), "0"],
        ["… finals told twice", course.told_twice, "0"],
        ["… recordings before and after without a final", len(course.unheard_over_drops), "0"],
        ["back again p50 / p95 s", pair([item.ready_s for item in course.returned]), None],
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
    if course.lost:
        failed.append(f"{course.lost} sessions were lost ({dict(course.reasons)}).")
    if course.unreturned:
        failed.append(f"{course.unreturned.total()} clients could not come back ({dict(course.unreturned)}).")
    if course.told_twice:
        failed.append(f"{course.told_twice} finals were told twice.")
    if unheard:
        failed.append(f"{len(unheard)} utterances have no final ({', '.join(unheard[:3])}).")
    if score.stable_broken:
        failed.append(f"Stable text shrank or changed {score.stable_broken} times.")
    notes = [
        "Silent ones send room noise; speakers take turns, each recording followed by 4 s of rest at least. Memory "
        "and files are judged after the first third. A recording counts as lost if the same model hears words in it "
        "offline and its session told no final; sessions that were dropped for good are left out of that. Who comes "
        "back does so after 1 to 5 s, over another connection; a recording within which the first one was lost was not "
        f"heard whole and is left out ({sum(peer.cut for peer in course.left)} of them). Back again: from the new "
        "offer's sending to `resumed`.",
    ]
    if not is_long:
        notes.append(f"Shorter than {JUDGED_S / 60:.0f} minutes: growth of memory says nothing.")
    if course.cut:
        notes.append("Ended early, by hand or by a signal.")
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
            **{key: value for key, value in course.told().items() if key != "sample"},
            "back_s": [item.ready_s for item in course.returned],
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
