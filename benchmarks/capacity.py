"""The most speakers at once whose words still come in time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.job import Job, broken_promises, unclean
from benchmarks.latency import COLUMNS, Run, run, scripts_for
from benchmarks.report import Result
from benchmarks.scoring import percentile
from benchmarks.stack import placement_of, serving

BOUND_S = 1.5
"""p95 of the word latency up to which a stream counts as served (design: "what the numbers are called")."""

SECONDS_EACH, SHORT_SECONDS_EACH = 40.0, 20.0
"""Audio of a speaker: long enough for a queue that grows to be seen growing."""


async def search(holds: Callable[[int], Awaitable[bool]], *, start: int, most: int) -> int:
    """The largest count that holds: doubled from `start` until one does not, then halved in between. 0 if none does.

    A count is tried once; that holding ends somewhere and does not begin again is assumed.
    """
    good, bad = 0, most + 1
    count = min(start, most)
    while count < bad:
        if await holds(count):
            good = count
            count = min(count * 2, most) if bad > most else (good + bad) // 2
            if count <= good:
                break
        else:
            bad = count
            count = (good + bad) // 2
            if count <= good:
                break
    return good


async def measure(job: Job, *, start: int, most: int, seconds_each: float | None, bound_s: float) -> Result:
    """Look for the most speakers under the bound."""
    length_s = seconds_each if seconds_each is not None else SHORT_SECONDS_EACH if job.short else SECONDS_EACH
    runs: list[Run] = []
    async with serving(job.settings, job.models) as stack:

        async def holds(count: int) -> bool:
            runs.append(await run(job, stack, scripts_for(job, count, length_s)))
            p95_s = percentile(runs[-1].score.word_s, 95)
            return p95_s is not None and p95_s < bound_s and not broken_promises(runs[-1].drive, label="")

        best = await search(holds, start=start, most=most)
    placement = placement_of(job.settings)
    cores = placement.slots * placement.threads
    per = f"{best / cores:.2f} per core" if placement.device == "cpu" else "on one GPU"
    runs.sort(key=lambda item: item.speakers)
    return Result(
        name="capacity",
        title=f"Speakers at once of {job.settings.model} with p95 word latency under {bound_s} s: {best} ({per})",
        columns=COLUMNS,
        rows=[item.row for item in runs],
        notes=[
            f"{length_s:.0f} s a speaker, who pauses only 0.6–1.2 s between utterances: people pause more.",
            *(note for item in runs for note in unclean(item.drive, label=f"{item.speakers} speakers")),
        ],
        details={"speakers": best, "bound_s": bound_s, "cores": cores, "runs": [item.as_dict() for item in runs]},
        draw=lambda axes: _draw(axes, runs, bound_s),
    )


def _draw(axes: Any, runs: list[Run], bound_s: float) -> None:
    counts = [item.speakers for item in runs]
    for percent in (50, 95):
        axes.plot(counts, [percentile(item.score.word_s, percent) for item in runs], "o-", label=f"word p{percent}")
    axes.plot(counts, [percentile(item.score.final_s, 95) for item in runs], "o--", label="final p95")
    axes.axhline(bound_s, color="red", linewidth=0.8, label="bound")
    axes.set_xlabel("speakers at once")
    axes.set_ylabel("s")
    axes.legend()
