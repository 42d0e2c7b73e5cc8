"""What happens beyond capacity: interims come less often, finals on time, new sessions are told when to come back."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.job import BUSY_CORES, Job, broken_promises, unclean
from benchmarks.latency import Run, pair, run, scripts_for
from benchmarks.report import Cell, Column, Result
from benchmarks.scoring import percentile
from benchmarks.screen import Seen
from benchmarks.stack import CountingDecoder, serving
from mediaserver.decoder.window import Decoder, Hypothesis, Window
from mediaserver.events import Interim

COUNTS, SHORT_COUNTS = (1, 2, 4, 6, 8, 12, 16), (2, 8, 16)
"""Speakers at once, one step after another: to twice of what two cores serve."""

SECONDS_EACH, SHORT_SECONDS_EACH = 25.0, 15.0
"""Audio of a speaker: several utterances, and time for a queue that grows to be seen growing."""

ASK_PERIOD_S = 0.25
"""How often somebody new is at the door: it is asked as signaling asks it, and nobody is let in."""

AFTER_S = 12.0
"""How long the door is still asked after a step, so that those who were told to come back then are seen to."""

FINAL_BOUND_S = 1.0
"""A final is late if it comes later than this after the silence that ends an utterance."""

COLUMNS = (
    Column("speakers"),
    Column("interim period p50 / p95 s"),
    Column("word p50 / p95 s"),
    Column("final p50 / p95 s"),
    Column("wait of finals p50 / p95 s"),
    Column("wait of interims p50 / p95 s"),
    Column("interims replaced %", ".0f"),
    Column("refused %", ".0f"),
    Column("Retry-After told / true p50 s"),
    Column("kept by those who came back %", ".0f"),
    Column("WER %", ".1f"),
    Column("loop late p99 ms", ".0f"),
)


class TimedDecoder(CountingDecoder):
    """A decoder that notes how long windows waited."""

    def __init__(self, inner: Decoder) -> None:
        super().__init__(inner)
        self.queued_s: defaultdict[str, list[float]] = defaultdict(list)
        """Waits by kind, of windows that were decoded."""

    async def decode(self, window: Window) -> Hypothesis:
        """Decode one window; errors as the inner decoder's."""
        hypothesis = await super().decode(window)
        self.queued_s["interim" if window.kind.is_interim else window.kind.name.lower()].append(hypothesis.queued_s)
        return hypothesis


@dataclass(frozen=True, slots=True)
class Answer:
    """What the door said at a time: come in (None), or come back after so many seconds."""

    at_s: float
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class Door:
    """What everybody was told who came during a step and after it.

    Args:
        answers: in order of time.
        until_s: when the step ended.
    """

    answers: Sequence[Answer]
    until_s: float

    @property
    def _during(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.at_s <= self.until_s]

    @property
    def refused_share(self) -> float:
        """Share of those who came during the step that were sent away."""
        during = self._during
        return sum(answer.retry_after_s is not None for answer in during) / len(during) if during else 0.0

    @property
    def told_s(self) -> list[float]:
        """What those who were sent away were told."""
        return [answer.retry_after_s for answer in self._during if answer.retry_after_s is not None]

    @property
    def true_s(self) -> list[float]:
        """After what time each of them would have been let in; nothing of those who never were."""
        found = []
        for answer in self._during:
            if answer.retry_after_s is None:
                continue
            open_s = next((a.at_s for a in self.answers if a.at_s >= answer.at_s and a.retry_after_s is None), None)
            if open_s is not None:
                found.append(open_s - answer.at_s)
        return found

    @property
    def kept_share(self) -> float | None:
        """Share of those sent away that were let in when they came back after what they had been told."""
        kept = []
        for answer in self._during:
            if answer.retry_after_s is None:
                continue
            back_s = answer.at_s + answer.retry_after_s
            then = next((a for a in self.answers if a.at_s >= back_s), None)
            if then is not None:
                kept.append(then.retry_after_s is None)
        return sum(kept) / len(kept) if kept else None


async def ask(door: Callable[[], float | None], *, answers: list[Answer]) -> None:
    """Ask at a fixed rate until cancelled."""
    while True:
        answers.append(Answer(asyncio.get_running_loop().time(), door()))
        await asyncio.sleep(ASK_PERIOD_S)


def periods_s(seen: Sequence[Seen]) -> list[float]:
    """Seconds from each interim of an utterance to its next."""
    times_s: defaultdict[int, list[float]] = defaultdict(list)
    for item in seen:
        if isinstance(item.event, Interim):
            times_s[item.event.utterance_id].append(item.at_s)
    return [after - before for each in times_s.values() for before, after in itertools.pairwise(each)]


@dataclass(frozen=True, slots=True)
class Step:
    """One number of speakers."""

    run: Run
    door: Door
    queued_s: dict[str, list[float]]

    @property
    def periods_s(self) -> list[float]:
        """Seconds between interims, of all speakers."""
        return [period for take in self.run.drive.takes for period in periods_s(take.seen)]

    @property
    def row(self) -> list[Cell]:
        """The table's row."""
        score, windows, door = self.run.score, self.run.windows, self.door
        asked = sum(windows.get(kind, 0) for kind in ("first_interim", "interim", "replaced"))
        told, true = percentile(door.told_s, 50), percentile(door.true_s, 50)
        return [
            self.run.speakers,
            pair(self.periods_s),
            pair(score.word_s),
            pair(score.final_s),
            pair(self.queued_s.get("final", [])),
            pair(self.queued_s.get("interim", [])),
            100 * windows.get("replaced", 0) / asked if asked else None,
            100 * door.refused_share,
            None if told is None else f"{told:.0f} / {'–' if true is None else format(true, '.1f')}",
            None if door.kept_share is None else 100 * door.kept_share,
            100 * self.run.errors.rate,
            1000 * self.run.drive.load.push_late_p99_s,
        ]

    def as_dict(self) -> dict[str, Any]:
        """For the JSON."""
        return {
            **self.run.as_dict(),
            "interim_periods_s": self.periods_s,
            "queued_s": self.queued_s,
            "door": asdict(self.door),
            "refused_share": self.door.refused_share,
            "retry_after_kept_share": self.door.kept_share,
        }


async def measure(job: Job, *, counts: Sequence[int], seconds_each: float | None) -> Result:
    """Run each number of speakers in real time while somebody new asks to come in."""
    length_s = seconds_each if seconds_each is not None else SHORT_SECONDS_EACH if job.short else SECONDS_EACH
    steps = []
    async with serving(job.settings, job.models) as stack:
        for count in counts or (SHORT_COUNTS if job.short else COUNTS):
            decoder = TimedDecoder(stack.engine)
            answers: list[Answer] = []
            asking = asyncio.create_task(ask(stack.engine.overload_retry_after_s, answers=answers))
            try:
                done = await run(job, replace(stack, decoder=decoder), scripts_for(job, count, length_s))
                until_s = asyncio.get_running_loop().time()
                if any(answer.retry_after_s is not None for answer in answers):
                    await asyncio.sleep(AFTER_S)
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            steps.append(Step(done, Door(answers, until_s), dict(decoder.queued_s)))
    return Result(
        name="overload",
        title=f"Beyond capacity: {job.settings.model}",
        columns=COLUMNS,
        rows=[step.row for step in steps],
        notes=[
            f"{length_s:.0f} s a speaker in real time; people pause more. Interim period: between two interims of one "
            f"utterance. Final: from the end of speech, {job.settings.endpointing_ms} ms of silence in it. The door is "
            f"asked {1 / ASK_PERIOD_S:.0f} times a second and lets nobody in. True: until it would have. Kept: who "
            "came back after what was told was let in. Waits are those of decoded windows. Late finals with nobody "
            "refused are a broken promise where no other process was busy.",
            *(note for step in steps for note in unclean(step.run.drive, label=f"{step.run.speakers} speakers")),
        ],
        details={"steps": [step.as_dict() for step in steps]},
        failed=[sentence for step in steps for sentence in _broken(job, step)],
        draw=lambda axes: _draw(axes, steps),
    )


def _broken(job: Job, step: Step) -> list[str]:
    label = f"{step.run.speakers} speakers"
    found = broken_promises(step.run.drive, label=label, normaliser=job.normaliser)
    late_s = percentile(step.run.score.final_s, 95)
    bound_s = job.settings.endpointing_ms / 1000 + FINAL_BOUND_S
    clean = step.run.drive.load.others_cores <= BUSY_CORES
    if clean and late_s is not None and late_s > bound_s and not step.door.told_s:
        found.append(f"{label}: finals were late (p95 {late_s:.1f} s, bound {bound_s:.1f} s), and nobody was refused.")
    return found


def _draw(axes: Any, steps: Sequence[Step]) -> None:
    counts = [step.run.speakers for step in steps]
    axes.plot(counts, [percentile(step.periods_s, 50) for step in steps], "o-", label="interim period p50")
    axes.plot(counts, [percentile(step.run.score.word_s, 95) for step in steps], "o-", label="word p95")
    axes.plot(counts, [percentile(step.run.score.final_s, 95) for step in steps], "o-", label="final p95")
    axes.set_xlabel("speakers at once")
    axes.set_ylabel("s")
    axes.set_ylim(bottom=0)
    shares = axes.twinx()
    shares.plot(counts, [100 * step.door.refused_share for step in steps], "s:", color="grey", label="refused")
    shares.set_ylabel("new sessions refused, %")
    shares.set_ylim(0, 100)
    axes.legend(loc="upper left")
    shares.legend(loc="lower right")
