"""What connected peers cost: real ICE, DTLS, SRTP and data channels against a real server, by recorded RTP.

Peers run in processes of their own, the server in one, its engine in another, so that each cost is told by the kernel's
count for its process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import reels
from benchmarks.corpus import Recording
from benchmarks.ending import until_interrupted
from benchmarks.job import Job
from benchmarks.latency import CATEGORIES, MIN_DBFS
from benchmarks.load_server import Look, lag_s, look
from benchmarks.load_step import COLUMNS, MEDIA_PERCENT, NAMES, Step, broken, unclean
from benchmarks.peers import server as servers
from benchmarks.peers.voiceforge import launch
from benchmarks.report import Result
from benchmarks.rtp_drivers import Drivers, Left, Report, driver_cpus, driving
from benchmarks.rtp_peer import SetUp
from benchmarks.scoring import Errors, total, word_errors
from benchmarks.screen import ScreenScore
from mediaserver.settings import Settings

COUNTS, SHORT_COUNTS = (20, 50, 100), (10, 20)
"""Peers at once, one step after another."""

SECONDS, SHORT_SECONDS = 30.0, 8.0
"""Of each step. The kernel counts CPU in 10 ms: of 20 peers at 1 % of a core, 30 s are exact to a third of a per cent
of that."""

SETTLE_S = 5.0
"""From the last set-up to the first look: what a silent session keeps is full after three."""

WARM_UP = 3
"""Peers that come before the first look at memory, and stay: what a first peer loads is no other's cost."""

RATE_PER_S = 10.0
"""Set-ups a second in a step. A node for 1000 sessions of five minutes sees three."""

BURST, SHORT_BURST = 50, 10
"""Peers that come all at once in the end: how fast they are let in is the most that the server does."""

RECORDINGS = 24
"""Different recordings that are played."""

MIN_S, MAX_S = 3.0, 12.0
"""Length of recordings: turns in a conversation."""


def recordings_for(job: Job) -> list[Recording]:
    """What is said."""
    return job.corpus.select(
        categories=CATEGORIES,
        languages=job.heard_languages(["en"]),
        min_s=MIN_S,
        max_s=MAX_S,
        min_dbfs=MIN_DBFS,
        limit=RECORDINGS,
    )


def served(settings: Settings, *, peers: int, workers: int) -> servers.Launch:
    """How the server is started: its engine in a process of its own, and room for all."""
    own = settings.model_copy(update={"engine_process": True, "workers": workers})
    return launch(own, name="VoiceForge", sessions=peers)


def write_reels(path: Path, recordings: Sequence[Recording]) -> None:
    """Encode everything that will be played. Blocks for seconds."""
    spoken = [reels.spoken_reel(recording, seed=number) for number, recording in enumerate(recordings)]
    reels.write(path, reels.idle_reels(), spoken)


def errors_of(job: Job, recordings: Sequence[Recording], left: Sequence[Left]) -> Errors:
    """Word errors of everything that was said by peers that have left."""
    return total(
        word_errors(job.normaliser.words(recordings[reel].text or ""), job.normaliser.words(text))
        for peer in left
        for reel, text, _ in peer.said
    )


def unheard_of(recordings: Sequence[Recording], left: Sequence[Left]) -> list[str]:
    """The recordings that were played and got no final, and utterances that showed text and got none."""
    found = [
        recordings[reel].path
        for peer in left
        if peer.reason != "dropped"
        for reel, _, finals in peer.said
        if not finals
    ]
    return found + ["an utterance without its final" for peer in left for _ in range(peer.score.unfinished)]


@dataclass(frozen=True, slots=True)
class _Span:
    """What was seen at both ends of a step, and what the peers used in between."""

    before: Look
    after: Look
    drivers_s: float
    report: Report


class Bench:
    """A server and its peers during a benchmark.

    Args:
        recordings: what is said, by number.
        steps: where each step goes once it is over.
    """

    def __init__(
        self,
        job: Job,
        server: servers.Server,
        drivers: Drivers,
        recordings: Sequence[Recording],
        steps: list[Step],
    ) -> None:
        self._job = job
        self._server = server
        self._drivers = drivers
        self._recordings = recordings
        self._steps = steps
        self._refused = 0
        self._peers = 0
        self._before: Look | None = None

    async def warm_up(self, idle: str) -> None:
        """Let the first peers in, and look at what the server holds then."""
        self._job.say(f"a server runs; {WARM_UP} peers warm it up")
        await self._drivers.open(WARM_UP, per_s=RATE_PER_S, idle=idle)
        self._peers = WARM_UP
        await asyncio.sleep(SETTLE_S)
        self._before = await look(self._server)
        self._refused = sum((await self._drivers.report()).refused.values())

    async def silent(self, what: str, idle: str, count: int, seconds: float) -> None:
        """Let peers in until there are `count`, and look at what they cost while nobody speaks."""
        set_ups, took_s = await self._drivers.open(max(0, count - self._peers), per_s=RATE_PER_S, idle=idle)
        self._peers = count
        await asyncio.sleep(SETTLE_S)
        self._add(
            await self._measured(what, seconds, set_ups=set_ups, set_ups_s=took_s, is_sent_whole=idle != reels.DTX)
        )

    async def speaking(self, at_once: int, seconds: float) -> None:
        """Have some speak at a time, look at the costs, then let everybody go with all finals."""
        await self._drivers.talk(at_once)
        await asyncio.sleep(SETTLE_S)
        step = await self._measured(f"{at_once} of them speak", seconds, is_sent_whole=True)
        last = await self._drivers.close()
        self._peers = 0
        score = sum((peer.score for peer in last.left), ScreenScore())
        errors = errors_of(self._job, self._recordings, last.left)
        self._add(replace(step, score=score, errors=errors, unheard=unheard_of(self._recordings, last.left)))

    async def burst(self, count: int, idle: str) -> None:
        """Have peers come all at once, and go."""
        self._job.say(f"{count} peers come all at once")
        before = await look(self._server)
        began_s = self._drivers.cpu_s()
        set_ups, took_s = await self._drivers.open(count, per_s=1000.0 * count, idle=idle)
        after = await look(self._server)
        report = await self._drivers.close()
        self._peers = 0
        span = _Span(before, after, self._drivers.cpu_s() - began_s, report)
        self._add(self._step("all at once", count, span, set_ups=set_ups, set_ups_s=took_s))

    async def leave(self) -> Report:
        """Everybody goes."""
        self._peers = 0
        return await self._drivers.close()

    def _add(self, step: Step) -> None:
        self._steps.append(step)
        self._job.say(step.summary)

    async def _measured(
        self, what: str, seconds: float, *, is_sent_whole: bool, set_ups: Sequence[SetUp] = (), set_ups_s: float = 0.0
    ) -> Step:
        sent = (await self._drivers.report()).packets
        before, began_s = await look(self._server), self._drivers.cpu_s()
        self._job.say(f"{self._peers} peers, {what}: {seconds:.0f} s")
        with self._job.progress(in_seconds=True) as progress:
            task = progress.add_task(f"{self._peers} peers, {what}", total=seconds)
            for _ in range(round(seconds)):
                await asyncio.sleep(seconds / round(seconds))
                progress.advance(task, seconds / round(seconds))
        after = await look(self._server)
        report = await self._drivers.report()
        span = _Span(before, after, self._drivers.cpu_s() - began_s, report)
        step = self._step(what, self._peers, span, set_ups=set_ups, set_ups_s=set_ups_s)
        received = after.packets.get("received", 0.0) - before.packets.get("received", 0.0)
        share = received / (report.packets - sent) if is_sent_whole and report.packets > sent else None
        return replace(step, heard_share=share, mib_each=self._mib_each(after))

    def _mib_each(self, after: Look) -> float | None:
        if self._before is None or self._peers <= WARM_UP:
            return None
        return (after.media.rss_mib - self._before.media.rss_mib) / (self._peers - WARM_UP)

    def _step(self, what: str, peers: int, span: _Span, *, set_ups: Sequence[SetUp], set_ups_s: float) -> Step:
        before, after, report = span.before, span.after, span.report
        wall_s = after.at_s - before.at_s
        media_s = after.media.cpu_s - before.media.cpu_s
        engine_s = after.engine.cpu_s - before.engine.cpu_s
        refused = sum(report.refused.values())
        refused, self._refused = refused - self._refused, refused
        others_s = after.machine_s - before.machine_s - media_s - engine_s - span.drivers_s
        return Step(
            what=what,
            peers=peers,
            seconds=wall_s,
            set_ups=set_ups,
            set_ups_s=set_ups_s,
            media_cores=media_s / wall_s,
            engine_cores=engine_s / wall_s,
            drivers_cores=span.drivers_s / wall_s,
            others_cores=max(others_s, 0.0) / wall_s,
            mib_each=None,
            lag_p99_s=lag_s(before, after, 0.99),
            lag_max_s=lag_s(before, after, 1.0),
            heard_share=None,
            refused=refused,
            lost=report.lost,
        )


async def measure(
    job: Job,
    *,
    counts: Sequence[int],
    silences: Sequence[str],
    seconds_each: float | None,
    speakers: int,
    processes: int,
    workers: int,
) -> Result:
    """Connect each number of silent peers, have some speak, and let a crowd in."""
    length_s = seconds_each or (SHORT_SECONDS if job.short else SECONDS)
    counts = sorted(counts or (SHORT_COUNTS if job.short else COUNTS))
    burst = SHORT_BURST if job.short else BURST
    recordings = recordings_for(job)
    steps: list[Step] = []
    job.say(f"{len(recordings)} recordings are encoded")
    with TemporaryDirectory() as folder, until_interrupted() as cut:
        path = Path(folder) / "reels.json"
        await asyncio.to_thread(write_reels, path, recordings)
        for number, silence in enumerate(silences):
            own = counts if number == 0 else counts[-1:]
            started = served(job.settings, peers=max(own[-1], burst) + WARM_UP, workers=workers)
            async with (
                servers.serving(started, Path(folder) / "server.log") as server,
                driving(
                    f"http://127.0.0.1:{server.port}", path, processes=processes, query={"language": "en"}
                ) as drivers,
            ):
                bench = Bench(job, server, drivers, recordings, steps)
                await bench.warm_up(silence)
                for count in own:
                    await bench.silent(NAMES[silence], silence, count, length_s)
                if number == 0:
                    if speakers:
                        await bench.speaking(speakers, length_s)
                    else:
                        await bench.leave()
                    await bench.burst(burst, silence)
    if cut.is_cut:
        job.say("ended early")
        if not steps:
            raise asyncio.CancelledError
    full = max((step for step in steps if step.what == NAMES[silences[0]]), key=lambda step: step.peers)
    per_core = 100 / full.media_percent if full.media_percent else float("inf")
    return Result(
        name="load",
        title=f"Connected peers: {full.media_percent:.2f} % of a core each of {full.peers}, {per_core:.0f} a core",
        columns=COLUMNS,
        rows=[step.row for step in steps],
        notes=[
            f"{length_s:.0f} s a step; {RATE_PER_S:.0f} set-ups a second but where all come at once; Opus, 20 ms a "
            f"packet. {processes} process(es) of peers, on core(s) {driver_cpus() or 'any'}. Ready: from the offer's "
            "sending to the first event on the data channel. Media: all of the server but the engine's process, VAD "
            f"included. Memory: growth since the first {WARM_UP} peers. Heard: packets that the server took, of those "
            "sent. Loop lag is told by a histogram whose first bound is 10 ms.",
            *(note for step in steps for note in unclean(step)),
            *([f"Media is {workers} workers and their supervisor."] if workers > 1 else []),
            *(["Ended early, by hand or by a signal."] if cut.is_cut else []),
        ],
        details={"steps": [asdict(step) for step in steps], "peers_per_core": per_core},
        failed=[sentence for step in steps for sentence in broken(step, is_largest=step is full)],
        draw=lambda axes: _draw(axes, steps),
    )


def _draw(axes: Any, steps: Sequence[Step]) -> None:
    for what in dict.fromkeys(step.what for step in steps if step.what in NAMES.values()):
        own = [step for step in steps if step.what == what]
        axes.plot([step.peers for step in own], [step.media_percent for step in own], "o-", label=what)
    axes.axhline(MEDIA_PERCENT, color="red", linewidth=0.8, label="promise")
    axes.set_xlabel("connected peers")
    axes.set_ylabel("media, % of a core per peer")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right")
