"""Where utterances end: cuts within what somebody says, against the wait after they have finished.

The VAD judges each recording once; then every way of ending utterances is played over the same probabilities, frame by
frame, with the server's own endpointer and the end-of-turn model's own answers. Nothing is decoded: what a final costs
beyond this wait is in `latency`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus import Recording, Turn
from benchmarks.job import Job
from benchmarks.report import Cell, Column, Result
from benchmarks.scripts import LEAD_S, room
from benchmarks.turn_ends import ANSWER_MS, Heard, Policy, Tally, TimedModel, play_policy, turns_of
from mediaserver.audio.clock import FRAME_SAMPLES, Samples, samples_in
from mediaserver.audio.endpoint import EndpointerConfig, TurnWaits
from mediaserver.audio.turn import TurnModel
from mediaserver.audio.vad import VadPool, Verdict
from mediaserver.decoder import catalogue
from mediaserver.errors import ConfigError

SETS = {
    "read": "english-read",
    "conversation": "conversation",
    "telephone": "telephone",
    "languages": "multilingual",
}
"""Columns of the table and the corpus's categories."""

SHORT_LIMIT = 12
"""Recordings of each category with --short."""

TAIL_S = 4.0
"""Room after the last word: longer than the longest wait."""

PUSHED_S = 8.0
"""Given to the VAD at once: a quarter of what it lets wait."""

SILENCES_MS = (200, 300, 400, 500, 650, 800, 1000, 1200, 1500)
INCOMPLETE_MS = (1000, 1500, 2500)

QUANTILES = (50, 95)


async def measure(job: Job, *, limit: int | None) -> Result:
    """Play every policy over every recording."""
    if limit is None and job.short:
        limit = SHORT_LIMIT
    chosen = {
        name: job.corpus.select(categories=[category], with_text=False, limit=limit) for name, category in SETS.items()
    }
    # Without a reference of who speaks when, a conversation says nothing of ends.
    chosen["conversation"] = [recording for recording in chosen["conversation"] if recording.segments]
    if not any(chosen.values()):
        raise ConfigError("NO_SPEECH", "The corpus has no recording of a kind that fits.", "Give one with --data.")
    model = TimedModel(
        TurnModel(catalogue.turn_model(model_dir=job.settings.model_dir, fetch=job.settings.model_fetch))
    )
    policies = _policies(job)
    tallies: dict[tuple[str, str], Tally] = {}
    vad = VadPool(job.models.vad)
    with job.progress(in_seconds=False) as progress:
        task = progress.add_task("recordings", total=sum(map(len, chosen.values())))
        try:
            for name, recordings in chosen.items():
                for recording in recordings:
                    heard = await _hear(vad, recording)
                    for policy in policies:
                        tally = await asyncio.to_thread(play_policy, policy, heard, model)
                        tallies[policy.name, name] = tallies.get((policy.name, name), Tally()) + tally
                    progress.advance(task)
        finally:
            await vad.close()
    return _result(policies, [name for name in SETS if chosen[name]], tallies, model)


async def _hear(vad: VadPool, recording: Recording) -> Heard:
    """A recording with room around it, and what the VAD makes of it."""
    generator = np.random.default_rng(0)
    pieces = (room(samples_in(s=LEAD_S), generator), recording.read(), room(samples_in(s=TAIL_S), generator))
    samples = np.concatenate(pieces)
    probabilities = await _judged(vad, samples)
    turns = [
        Turn(start=turn.start + LEAD_S, end=turn.end + LEAD_S, speaker=turn.speaker) for turn in turns_of(recording)
    ]
    return Heard(recording, samples, probabilities, turns)


async def _judged(vad: VadPool, samples: Samples) -> NDArray[np.float32]:
    """The speech probability of each whole frame."""
    verdicts: list[NDArray[np.float32]] = []
    is_heard = asyncio.Event()

    def take(verdict: Verdict) -> None:
        verdicts.append(verdict.probabilities)
        is_heard.set()

    stream = vad.open(take)
    step = samples_in(s=PUSHED_S)
    for start in range(0, len(samples), step):
        pushed = samples[start : start + step]
        stream.push(pushed)
        while sum(map(len, verdicts)) < (start + len(pushed)) // FRAME_SAMPLES:
            is_heard.clear()
            await is_heard.wait()
    stream.close()
    return np.concatenate(verdicts)


def _policies(job: Job) -> list[Policy]:
    settings = job.settings
    plain = EndpointerConfig(
        threshold=settings.vad_threshold,
        pre_roll_ms=settings.pre_roll_ms,
        min_speech_ms=settings.min_speech_ms,
        max_utterance_s=settings.max_utterance_s,
    )
    silent = [Policy(f"silence {wait}", replace(plain, endpointing_ms=wait)) for wait in SILENCES_MS]
    semantic = [
        Policy(
            f"semantic {settings.turn_complete_ms}/{wait}",
            replace(
                plain,
                endpointing_ms=settings.endpointing_ms,
                turn_waits=TurnWaits(complete_ms=settings.turn_complete_ms, incomplete_ms=wait),
            ),
        )
        for wait in sorted({*INCOMPLETE_MS, settings.turn_incomplete_ms})
    ]
    return [*silent, *semantic]


def _result(
    policies: Sequence[Policy], names: Sequence[str], tallies: dict[tuple[str, str], Tally], model: TimedModel
) -> Result:
    totals = {policy.name: sum((tallies[policy.name, name] for name in names), Tally()) for policy in policies}
    rows: list[list[Cell]] = [
        [
            policy.name,
            *(tallies[policy.name, name].cuts_per_minute for name in names),
            totals[policy.name].mean_wait_ms,
            *(totals[policy.name].wait_ms(quantile) for quantile in QUANTILES),
            100 * totals[policy.name].run_together / _ends_of(totals[policy.name]),
        ]
        for policy in policies
    ]
    asked = totals[next(policy.name for policy in policies if policy.is_semantic)]
    cpu_ms = float(np.mean(model.cpu_ms)) if model.cpu_ms else float("nan")
    asked_per_minute = asked.asked * 60 / asked.said_s if asked.said_s else 0.0
    return Result(
        name="turns",
        title="Cuts per minute within turns, and the wait after their end",
        columns=[
            Column("ended by (ms)"),
            *(Column(f"cuts/min, {name}", ".1f") for name in names),
            Column("wait ms, mean", ".0f"),
            *(Column(f"p{quantile}", ".0f") for quantile in QUANTILES),
            Column("run together %", ".0f"),
        ],
        rows=rows,
        notes=[
            "A recording, or what one speaker of a conversation says without another in between, is one turn; a cut "
            "between two sentences of it counts. Semantic: finished/unfinished waits. Run together: ends that were not "
            "noticed, for another spoke at once, or because less was said than an utterance has.",
            f"Of {asked.at_ends[0]} pauses at ends the model said {_percent(asked.at_ends)} finished, of "
            f"{asked.inside[0]} within turns {_percent(asked.inside)}. A question takes {cpu_ms:.0f} ms of CPU, and "
            f"there are {asked_per_minute:.0f} a minute of speech: {asked_per_minute * cpu_ms / 600:.1f} % of a core.",
        ],
        details={
            "answer_ms": ANSWER_MS,
            "cpu_ms": {"mean": cpu_ms, "p95": float(np.percentile(model.cpu_ms, 95)) if model.cpu_ms else None},
            "by_set": {
                f"{policy.name} · {name}": _details(tallies[policy.name, name])
                for policy, name in itertools.product(policies, names)
            },
        },
        draw=lambda axes: _draw(axes, policies, totals),
    )


def _ends_of(tally: Tally) -> int:
    return max(1, len(tally.waits_ms) + tally.run_together)


def _percent(counted: tuple[int, int]) -> str:
    return f"{100 * counted[1] / counted[0]:.0f} %" if counted[0] else "–"


def _details(tally: Tally) -> dict[str, object]:
    return {
        "cuts": tally.cuts,
        "said_s": tally.said_s,
        "ends": len(tally.waits_ms),
        "run_together": tally.run_together,
        "wait_mean_ms": tally.mean_wait_ms,
        **{f"wait_p{quantile}_ms": tally.wait_ms(quantile) for quantile in QUANTILES},
        "asked": tally.asked,
        "asked_at_ends_and_finished": tally.at_ends,
        "asked_inside_and_finished": tally.inside,
    }


def _draw(axes: Any, policies: Sequence[Policy], totals: dict[str, Tally]) -> None:
    for is_semantic, style in ((False, "o-"), (True, "s")):
        points = [
            (totals[policy.name].mean_wait_ms, totals[policy.name].cuts_per_minute, policy.name)
            for policy in policies
            if policy.is_semantic is is_semantic
        ]
        axes.plot(
            [point[0] for point in points],
            [point[1] for point in points],
            style,
            label="semantic" if is_semantic else "silence alone",
        )
        for x, y, name in points:
            axes.annotate(name.partition(" ")[2], (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
    # Of waits of two lengths, as the model makes them, the median tells only the more frequent one.
    axes.set_xlabel("mean wait after the end, ms")
    axes.set_ylabel("cuts within turns, per minute")
    axes.set_ylim(bottom=0)
    axes.legend()
