"""How many speakers each server serves within a bound on word latency, all in one run over the same audio."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.capacity import search
from benchmarks.drive import Take
from benchmarks.job import Job
from benchmarks.latency import scripts_for
from benchmarks.peers import whisperlivekit
from benchmarks.peers.contenders import OWN, Contender, own, own_cores, plans, rivals, write_wav
from benchmarks.peers.install import environment
from benchmarks.peers.outcome import result
from benchmarks.peers.perform import Cost, Part, perform
from benchmarks.peers.server import serving
from benchmarks.peers.shown import as_seen
from benchmarks.peers.spoken import Spoken
from benchmarks.peers.trial import Standing, Trial
from benchmarks.report import Result
from benchmarks.screen import ScreenScore, final_text, score_stream
from benchmarks.scripts import Script, room
from benchmarks.stack import placement_of
from mediaserver.audio.clock import samples_in
from mediaserver.errors import VoiceForgeError
from mediaserver.events import Word

BOUND_S = 3.0
"""p95 of the word latency up to which a speaker counts as served: twice our own bound, for no rival keeps that one."""

SECONDS_EACH, SHORT_SECONDS_EACH = 40.0, 20.0
"""Audio of a speaker: long enough for a queue that grows to be seen growing."""

MOST, OWN_START = 64, 8
"""Largest number to try, and the first one for VoiceForge: what it holds easily need not be tried."""

REHEARSAL_S = 4.0
"""What a server hears before it is measured, so that no model is loaded and no thread is made meanwhile."""


def level(scripts: Sequence[Script]) -> list[Script]:
    """The scripts as long as the longest one, with room noise after their last word: none leaves before the others."""
    longest = max(len(script.samples) for script in scripts)
    return [
        replace(
            script,
            samples=np.concatenate(
                [script.samples, room(longest - len(script.samples), np.random.default_rng(1000 + index))]
            ),
        )
        for index, script in enumerate(scripts)
    ]


class Bench:
    """One run: the job, the yardstick, and where logs and warm-up audio lie."""

    def __init__(self, job: Job, spoken: Spoken, folder: Path, *, seconds_each: float) -> None:
        self._job = job
        self._spoken = spoken
        self._folder = folder
        self._seconds_each = seconds_each

    async def stand(
        self, contender: Contender, *, bound_s: float, counts: Sequence[int], start: int, most: int
    ) -> Standing:
        """Raise the number of speakers until the bound breaks: through `counts`, or doubled and then narrowed down.

        A number at which the server refuses a client, loses one or ends does not hold, whatever its words' latency.

        Raises:
            VoiceForgeError: VoiceForge does so at every number.
        """
        trials: list[Trial] = []
        failures: list[VoiceForgeError] = []
        notes: list[str] = []

        async def holds(count: int) -> bool:
            try:
                trials.append(await self.trial(contender, count))
            except VoiceForgeError as error:
                failures.append(error)
                notes.append(f"{contender.name}, {count}: {error.message} {error.hint}")
                return False
            return trials[-1].p95_s < bound_s

        best = 0
        if counts:
            for count in sorted(set(counts)):
                if not await holds(count):
                    break
                best = count
        else:
            best = await search(holds, start=start, most=most)
        if contender.server == OWN and not trials:
            raise failures[0]
        return Standing(contender, best, tuple(sorted(trials, key=lambda trial: trial.speakers)), tuple(notes))

    async def trial(self, contender: Contender, count: int) -> Trial:
        """A new server, a rehearsal, and the scripts.

        Raises:
            VoiceForgeError: the server does not come up, refuses a client or ends.
        """
        scripts = level(scripts_for(self._job, count, self._seconds_each))
        words = [await asyncio.to_thread(self._spoken.words, script) for script in scripts]
        log = self._folder / f"{contender.name.replace(', ', '-').replace(' ', '-').lower()}-{count}.log"
        with self._job.progress(in_seconds=True) as progress:
            task = progress.add_task(f"{contender.name}: starting", total=scripts[0].duration_s)
            async with serving(contender.launch(count), log) as server:
                short = replace(scripts[0], samples=scripts[0].samples[: samples_in(s=REHEARSAL_S)])
                await perform(server, [contender.client(short, server.port)], rehearsal=True)
                progress.update(task, description=f"{contender.name}: {count} speaker(s)")
                clients = [contender.client(script, server.port) for script in scripts]
                done = await perform(
                    server, clients, on_progress=lambda played_s: progress.update(task, completed=played_s)
                )
        return await asyncio.to_thread(self._score, contender, done.parts, words, done.cost)

    def _score(self, contender: Contender, parts: Sequence[Part], words: Sequence[Sequence[Word]], cost: Cost) -> Trial:
        score = settled = ScreenScore()
        takes: list[Take] = []
        for part, said in zip(parts, words, strict=True):
            shown = [(item.at_s - part.spoken_at_s, item.text) for item in part.client.shown]
            ended_at_s = part.ended_at_s - part.spoken_at_s
            seen = as_seen([(at_s, text.shown) for at_s, text in shown], words=said, ended_at_s=ended_at_s)
            final = as_seen([(at_s, text.settled) for at_s, text in shown], words=said, ended_at_s=ended_at_s)
            score += score_stream(seen)
            settled += score_stream(final)
            takes.append(Take(part.client.script, seen))
        return Trial(
            contender=contender.name,
            server=contender.server,
            speakers=len(parts),
            score=score,
            settled=settled,
            errors=self._job.set_errors(takes),
            words=sum(len(said) for said in words),
            cost=cost,
            texts=tuple(final_text(take.seen) for take in takes),
        )


async def measure(
    job: Job,
    *,
    names: Sequence[str],
    home: Path,
    counts: Sequence[int],
    seconds_each: float | None,
    bound_s: float,
    most: int,
) -> Result:
    """Install what is missing, and let VoiceForge and the rivals named stand the same test."""
    length_s = seconds_each if seconds_each is not None else SHORT_SECONDS_EACH if job.short else SECONDS_EACH
    pythons = await _installed(job, names, home)
    spoken = await asyncio.to_thread(Spoken, job.models.whisper.directory, placement_of(job.settings))
    with tempfile.TemporaryDirectory(prefix="voiceforge-peers-") as scratch:
        warm_up = Path(scratch) / "warm_up.wav"
        write_wav(warm_up, scripts_for(job, 1, length_s)[0].samples[: samples_in(s=REHEARSAL_S)])
        decoder, without = await _checkpoint(job, pythons, Path(scratch))
        bench = Bench(job, spoken, home / "logs", seconds_each=length_s)
        field = [
            own(job.settings),
            *rivals(
                pythons,
                job.models.whisper.directory,
                decoder=decoder,
                warm_up=warm_up,
                cores=own_cores(),
                first_only=job.short,
            ),
        ]
        standings = [
            await bench.stand(
                contender,
                bound_s=bound_s,
                counts=counts,
                start=OWN_START if contender.server == OWN else 1,
                most=most,
            )
            for contender in field
        ]
    return result(standings, bound_s=bound_s, length_s=length_s, without=without)


async def _checkpoint(job: Job, pythons: dict[str, Path], folder: Path) -> tuple[Path | None, str | None]:
    """Weights for WhisperLiveKit's AlignAtt, or why it goes without; neither in a short run, which leaves it out."""
    name = whisperlivekit.PLAN.name
    if job.short or name not in pythons:
        return None, None
    try:
        return await whisperlivekit.checkpoint(pythons[name], job.models.whisper.directory, folder), None
    except VoiceForgeError as error:
        return None, f"WhisperLiveKit's AlignAtt was not run: {error.message}"


async def _installed(job: Job, names: Sequence[str], home: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    with job.progress(in_seconds=False) as progress:
        wanted = plans(names)
        task = progress.add_task("installing", total=len(wanted))
        for plan in wanted:

            def on_step(line: str, name: str = plan.name) -> None:
                progress.update(task, description=f"{name}: {line[:60]}")

            found[plan.name] = await environment(plan, home, on_step=on_step)
            progress.advance(task)
    return found
