"""Playing streams faster than real time, each held back by its own VAD and decodes: nothing is skipped.

A stream gets its next block when the VAD has judged the last one and nothing of the stream waits for its decode. So
every interim that falls due is decoded, as on an idle machine, and silence goes by as fast as the VAD judges it. What
comes back has no latencies worth a name: the clock of arrival is the wall's, that of the stream runs ahead.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence

from benchmarks.drive import CLOSE_DEADLINE_S, Drive, Gauge, OpenSession, Pushable, Recorder, Take
from benchmarks.scripts import Script
from mediaserver.audio.clock import FRAME_SAMPLES, Samples, seconds

BLOCK_SAMPLES = 5 * FRAME_SAMPLES
"""160 ms a push: one frame more than up to which the VAD waits 20 ms for other streams."""

POLL_S = 0.001
"""How often a stream that is held back looks again: far less than a decode."""

CALM_LOOKS = 3
"""A verdict starts a task, which asks the decoder in its first step: so many turns of the event loop pass before a
stream that looks idle counts as idle."""

Held = Callable[[str], bool]
"""Whether something of the session of that name still waits for the VAD or a decode."""


def blocks_of(samples: Samples) -> Iterator[Samples]:
    """[n] samples in blocks of 160 ms; the last is shorter."""
    return (samples[start : start + BLOCK_SAMPLES] for start in range(0, len(samples), BLOCK_SAMPLES))


async def idle(name: str, held: Held) -> None:
    """Wait until nothing of that session is outstanding."""
    calm = 0
    while calm < CALM_LOOKS:
        if held(name):
            calm = 0
            await asyncio.sleep(POLL_S)
        else:
            calm += 1
            await asyncio.sleep(0)


async def pour(name: str, session: Pushable, blocks: Iterator[Samples], held: Held) -> None:
    """Push blocks one after another, each when nothing of the one before it is outstanding."""
    for block in blocks:
        session.push(block)
        await idle(name, held)


async def march(
    scripts: Sequence[Script],
    open_session: OpenSession,
    *,
    held: Held,
    at_once: int,
    on_progress: Callable[[float], None] = lambda played_s: None,
) -> Drive:
    """Play scripts, `at_once` at a time, one session each. `on_progress` hears the seconds played of all together."""
    takes = [Take(script) for script in scripts]
    waiting = iter(takes)
    gauge = Gauge()
    played_s = itertools.accumulate(itertools.repeat(seconds(BLOCK_SAMPLES)))

    def told(blocks: Iterator[Samples]) -> Iterator[Samples]:
        for block in blocks:
            yield block
            on_progress(next(played_s))

    async def work() -> None:
        for take in waiting:
            name = take.script.name
            session = open_session(name, Recorder(take, spoken_at_s=asyncio.get_running_loop().time()))
            session.start()
            await pour(name, session, told(blocks_of(take.script.samples)), held)
            await session.close("client", deadline_s=CLOSE_DEADLINE_S)

    async with asyncio.TaskGroup() as group:
        watch = group.create_task(gauge.watch())
        await asyncio.gather(*[group.create_task(work()) for _ in range(at_once)])
        watch.cancel()
    return Drive(takes, gauge.read(audio_s=sum(script.duration_s for script in scripts)))
