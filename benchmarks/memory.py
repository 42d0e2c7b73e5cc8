"""What a session keeps in memory after an hour: no more than after five minutes."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psutil

from benchmarks.job import Job
from benchmarks.latency import scripts_for
from benchmarks.march import BLOCK_SAMPLES, blocks_of, pour
from benchmarks.report import Cell, Column, Result
from benchmarks.scripts import room
from benchmarks.stack import CountingDecoder, Stack, serving
from mediaserver.audio.clock import SAMPLE_RATE, Samples, samples_in
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Window
from mediaserver.events import Event
from mediaserver.session import Session
from mediaserver.session_config import SessionConfig

MARKS_MIN, SHORT_MARKS_MIN = (1, 5, 15, 30, 60), (1, 5, 10)
"""Minutes of stream at which memory is looked at."""

DECODED_MARKS_MIN, SHORT_DECODED_MARKS_MIN = (1, 2, 3), (1,)
"""The same where everything is decoded by the model."""

SESSIONS, DECODED_SESSIONS = 4, 2
"""At once. Memory comes from the system in steps: of four sessions a step is a quarter."""

TALK_S = 60.0
"""Speech with pauses, played again and again …"""

REST_S = 20.0
"""… with so much silence between: somebody who listens."""

MOST_MIB = 5.0
"""The promise: of a session, after an hour."""

GROWTH_MIB = 1.0
"""A session that grows by more than this after its fifth minute is not flat: kept events alone would be 2 MiB an hour.
The allocator takes a step of about 1 MiB for all sessions together now and then."""

SETTLED_MIN = 5
"""From this minute on memory must be flat: rings are full and every buffer has had its longest utterance."""

WORD_S = 0.4
"""A word of the decoder that says the same everywhere: 150 a minute."""

COLUMNS = (
    Column("decoder"),
    Column("sessions"),
    Column("stream min"),
    Column("RSS MiB", ".1f"),
    Column("MiB per session", ".2f"),
    Column("since minute 5", "+.2f"),
    Column("events per session"),
    Column("finals"),
)


class ReadyAnswers:
    """A decoder that answers at once: word k of the stream lies at 0.4 k seconds and is called so."""

    model_name = "ready answers"
    languages = ("en",)

    async def decode(self, window: Window) -> Hypothesis:
        """The words whose time lies in the window."""
        start_s = window.start_sample / SAMPLE_RATE
        first, last = int(start_s / WORD_S) + 1, int((start_s + window.duration_s) / WORD_S)
        return Hypothesis(
            words=[HypothesisWord(f" word{k}", k * WORD_S, (k + 0.9) * WORD_S, 0.9) for k in range(first, last)],
            mean_log_probability=-0.1,
        )

    def withdraw(self, session_id: str) -> None:
        """Do nothing: nothing waits."""


class Counted:
    """A sink that keeps nothing but numbers."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()

    def send(self, event: Event, seq: int) -> None:
        """Count."""
        self.events[type(event).__name__] += 1


@dataclass(frozen=True, slots=True)
class Look:
    """Memory of all sessions together at a minute of their streams."""

    decoder: str
    sessions: int
    minute: int
    before_mib: float
    rss_mib: float
    events: int
    finals: int

    @property
    def each_mib(self) -> float:
        """What a session added."""
        return (self.rss_mib - self.before_mib) / self.sessions


def grown_mib(looks: Sequence[Look], look: Look) -> float | None:
    """What a session has added since its fifth minute; None before that, and where there was none."""
    settled = next((item for item in looks if item.decoder == look.decoder and item.minute >= SETTLED_MIN), None)
    return None if settled is None or look.minute <= settled.minute else look.each_mib - settled.each_mib


def broken(looks: Sequence[Look]) -> list[str]:
    """What the promise says and the figures do not."""
    found = []
    for look in looks:
        label = f"{look.decoder}, minute {look.minute}"
        grown = grown_mib(looks, look)
        if look.each_mib > MOST_MIB:
            found.append(f"{label}: a session takes {look.each_mib:.1f} MiB; {MOST_MIB:.0f} are allowed.")
        if grown is not None and grown > GROWTH_MIB:
            found.append(f"{label}: a session has grown by {grown:.1f} MiB since minute {SETTLED_MIN}.")
    return found


async def measure(job: Job, *, sessions: int, minutes: Sequence[int], without_model: bool) -> Result:
    """Play an hour to some sessions with ready answers, and some minutes with the model's."""
    talk = scripts_for(job, 1, TALK_S)[0].samples
    blocks = [*blocks_of(np.concatenate([talk, room(samples_in(s=REST_S), np.random.default_rng(5))]))]
    marks = sorted(minutes) or (SHORT_MARKS_MIN if job.short else MARKS_MIN)
    looks: list[Look] = []
    async with serving(job.settings, job.models, faster=True) as stack:
        ready = replace(stack, decoder=CountingDecoder(ReadyAnswers()))
        looks += await _play(job, ready, blocks, "ready answers", sessions=sessions, marks=marks)
        if not without_model:
            few = SHORT_DECODED_MARKS_MIN if job.short else DECODED_MARKS_MIN
            looks += await _play(
                job, stack, blocks, job.settings.model, sessions=min(sessions, DECODED_SESSIONS), marks=few
            )
    rows: list[list[Cell]] = [
        [
            look.decoder,
            look.sessions,
            look.minute,
            look.rss_mib,
            look.each_mib,
            grown_mib(looks, look),
            look.events // look.sessions,
            look.finals,
        ]
        for look in looks
    ]
    return Result(
        name="memory",
        title="Memory of a session over an hour of stream",
        columns=COLUMNS,
        rows=rows,
        notes=[
            f"{TALK_S:.0f} s of read speech and {REST_S:.0f} s of silence in turn, faster than real time, each session "
            "from another place. What the process had before the sessions is taken off, after one more was there and "
            "went. Ready answers: a decoder that says a word every 0.4 s at once, so that an hour takes two minutes; "
            "VAD, rings, stable words, finals and revisions are real. With the model its own workspace grows too.",
        ],
        details={
            "looks": [{**{f: getattr(look, f) for f in Look.__slots__}, "each_mib": look.each_mib} for look in looks]
        },
        failed=broken(looks),
        draw=lambda axes: _draw(axes, looks),
    )


async def _play(
    job: Job, stack: Stack, blocks: Sequence[Samples], label: str, *, sessions: int, marks: Sequence[int]
) -> list[Look]:
    config = SessionConfig.model_validate({})
    # One session that comes and goes: what is loaded and cached for all is there before the others are counted.
    first = stack.open(f"{label} first", Counted(), config)
    await _pour(stack, f"{label} first", first, _endless(blocks, 0), seconds_each=TALK_S)
    await first.close("client")
    del first
    gc.collect()
    before_mib = _rss_mib()
    sinks = [Counted() for _ in range(sessions)]
    names = [f"{label} {index}" for index in range(sessions)]
    open_ = [stack.open(name, sink, config) for name, sink in zip(names, sinks, strict=True)]
    streams = [_endless(blocks, index * len(blocks) // sessions) for index in range(sessions)]
    looks = []
    with job.progress(in_seconds=True) as progress:
        task = progress.add_task(f"{sessions} streams, {label}", total=60 * marks[-1])
        for before_min, mark in itertools.pairwise((0, *marks)):
            await asyncio.gather(
                *(
                    _pour(stack, name, session, stream, seconds_each=60 * (mark - before_min))
                    for name, session, stream in zip(names, open_, streams, strict=True)
                )
            )
            progress.update(task, completed=60 * mark)
            events = sum((sink.events for sink in sinks), Counter[str]())
            looks.append(Look(label, sessions, mark, before_mib, _rss_mib(), events.total(), events["Final"]))
    await asyncio.gather(*(session.close("client") for session in open_))
    return looks


async def _pour(stack: Stack, name: str, session: Session, stream: Iterator[Samples], *, seconds_each: float) -> None:
    blocks = itertools.islice(stream, round(seconds_each * SAMPLE_RATE / BLOCK_SAMPLES))
    await pour(name, session, blocks, stack.held)


def _endless(blocks: Sequence[Samples], start: int) -> Iterator[Samples]:
    """Blocks from `start` on, again and again; all sessions share the samples."""
    return (blocks[index % len(blocks)] for index in itertools.count(start))


def _rss_mib() -> float:
    return float(psutil.Process(os.getpid()).memory_info().rss) / 2**20


def _draw(axes: Any, looks: Sequence[Look]) -> None:
    for label in dict.fromkeys(look.decoder for look in looks):
        own = [look for look in looks if look.decoder == label]
        axes.plot([look.minute for look in own], [look.each_mib for look in own], "o-", label=label)
    axes.axhline(MOST_MIB, color="red", linewidth=0.8, label="bound")
    axes.set_xlabel("minutes of stream")
    axes.set_ylabel("MiB per session")
    axes.set_ylim(bottom=0)
    axes.legend()
