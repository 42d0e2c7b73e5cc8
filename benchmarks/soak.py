"""Whether a server that is busy for long stays as it was: sessions come and go, people speak, nothing grows or is lost.

The load is given, or found: speakers are added while the cores that the server uses for each are watched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks import reels
from benchmarks.corpus import Recording
from benchmarks.ending import until_interrupted
from benchmarks.job import Job
from benchmarks.load import recordings_for, served, write_reels
from benchmarks.load_server import look
from benchmarks.offline import Offline
from benchmarks.peers import server as servers
from benchmarks.report import Result
from benchmarks.rtp_drivers import Drivers, driving
from benchmarks.rtp_outcome import Going
from benchmarks.soak_course import Course, Diary, sample_of
from benchmarks.soak_growth import speakers_for
from benchmarks.soak_result import result
from benchmarks.stack import placement_of

MINUTES, SHORT_MINUTES = 30.0, 2.0
LOAD = 0.8
PEERS = 30
"""Sessions at a time: most of them listen."""

ROOM = 3
"""Places of the server for each of them: who is gone for good keeps one until that is noticed and waited for, 45 s."""

STAYS_S = 150.0
"""Mean length of a session: in half an hour every place is taken by twelve, one after another."""

DROPPED = 0.2
"""Share of the sessions whose connection is lost without a word: a laptop is closed, a train enters a tunnel."""

RETURNING = 0.5
"""Share of those that come back: the train leaves the tunnel."""

LOOK_S = 15.0
"""From one look to the next: memory is flat or it is not; finer would only make the files longer."""

PROBE_S = 20.0
"""How long a number of speakers is watched when the load is sought: four to six recordings of one of them."""


async def measure(
    job: Job,
    *,
    minutes: float | None,
    load: float,
    speakers: int | None,
    peers: int,
    stays_s: float,
    dropped: float,
    returning: float,
    processes: int,
    workers: int,
) -> Result:
    """Load a server for long and look whether it stays as it was."""
    goings: Mapping[Going, float] = {
        "leave": 1 - dropped,
        "drop": dropped * (1 - returning),
        "return": dropped * returning,
    }
    length_s = 60 * (minutes or (SHORT_MINUTES if job.short else MINUTES))
    recordings = recordings_for(job)
    job.say(f"{len(recordings)} recordings are transcribed as a whole, and encoded")
    heard = await asyncio.to_thread(_offline, job, recordings)
    spoken = [recording for recording in recordings if heard[recording.path]]  # in the others no one would miss a final
    course = Course(spoken)
    diary = await asyncio.to_thread(Diary, job.out, job.where)
    with TemporaryDirectory() as folder, diary:
        path = Path(folder) / "reels.json"
        await asyncio.to_thread(write_reels, path, spoken)
        started = served(job.settings, peers=ROOM * peers, workers=workers)
        async with (
            servers.serving(started, Path(folder) / "server.log") as server,
            driving(f"http://127.0.0.1:{server.port}", path, processes=processes, query={"language": "en"}) as drivers,
        ):
            job.say(f"the server runs; {peers} sessions begin")
            await drivers.open(peers, per_s=5.0, idle=reels.ROOM)
            at_once = speakers if speakers is not None else await _seek(job, server, drivers, load)
            await drivers.talk(at_once)
            await drivers.churn(peers, stays_s=stays_s, goings=goings, idle=reels.ROOM)
            job.say(
                f"{at_once} speak at once, for {length_s / 60:g} minutes; each look goes to {diary.path or 'no file'}"
            )
            with until_interrupted() as cut:
                await _watch(job, server, drivers, course, diary=diary, length_s=length_s)
            course.cut = cut.is_cut
            job.say(("ended early; " if course.cut else "") + "all finish what they say, and leave")
            course.take(await drivers.close())
            await asyncio.to_thread(diary.write, course.told())
    return result(job, course, heard, at_once=at_once, load=load)


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
        job.say(f"{count} speaking: {busy:.2f} of {left:.2f} cores")
        if busy > load * left / 2:
            break
    return speakers_for(load, watched, cores=left)


async def _watch(
    job: Job, server: servers.Server, drivers: Drivers, course: Course, *, diary: Diary, length_s: float
) -> None:
    """Look again and again, and say how it goes."""
    begun = before = await look(server)
    drivers_s = drivers.cpu_s()
    while (left_s := length_s - (before.at_s - begun.at_s)) > 0:
        await asyncio.sleep(min(LOOK_S, left_s))
        after, report = await look(server), await drivers.report()
        course.take(report)
        newest = sample_of(begun, before, after, report)
        course.samples.append(newest)
        await asyncio.to_thread(diary.write, course.told())
        finals = sum(count for peer in report.left for _, _, count in peer.said)
        job.say(
            f"{newest.at_s / 60:5.1f} min: {newest.guests} sessions, {newest.talking} speaking; media "
            f"{newest.media_mib:.0f} MiB, {newest.media_cores:.2f} cores; engine {newest.engine_mib:.0f} MiB, "
            f"{newest.engine_cores:.2f} cores; {newest.files} files; {len(report.left)} left, with {finals} finals; "
            f"{len(report.returned)} came back"
        )
        before = after
        own_s = drivers.cpu_s() - drivers_s
        used_s = after.media.cpu_s + after.engine.cpu_s - begun.media.cpu_s - begun.engine.cpu_s + own_s
        course.others_cores = max(after.machine_s - begun.machine_s - used_s, 0.0) / (after.at_s - begun.at_s)


def _offline(job: Job, recordings: Sequence[Recording]) -> dict[str, str]:
    """What the same model hears in each recording as a whole. Blocks."""
    offline = Offline(job.models.whisper.directory, placement_of(job.settings))
    return {recording.path: offline.transcribe(recording.read(), "en") for recording in recordings}
