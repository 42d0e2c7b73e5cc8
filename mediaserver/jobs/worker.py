"""Runs claimed jobs: fetches a recording where it must, has it transcribed, and writes down how it ended.

One loop keeps all jobs of a worker alive in the database and hears what became of them there: cancelled by their
clients, or deleted, or taken away because this worker was thought dead.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

import aiohttp
import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from mediaserver.decoder.window import Task as DecodeTask
from mediaserver.errors import CapacityError, VoiceForgeError
from mediaserver.jobs.files import RESERVE_BYTES, Files
from mediaserver.jobs.ledger import Ledger
from mediaserver.jobs.models import Job, Stage
from mediaserver.jobs.observer import JobObserver
from mediaserver.jobs.owners import this_process
from mediaserver.jobs.results import written_down
from mediaserver.jobs.transcript import RecordingOptions, Transcript
from mediaserver.metrics import Metrics
from mediaserver.outbound.client import fetch_to_file
from mediaserver.storage.database import StorageFullError, is_full

log = structlog.get_logger(__name__)

LOOK_PERIOD_S = 0.2
"""How often a worker looks whether its jobs are still wanted: a cancellation acts within half a second."""

RENEW_PERIOD_S = 1.0
"""How often progress and life are written; a lease lasts many times as long."""

FETCHED_SHARE = 10.0
"""Of the progress of a recording that is fetched, in per cent; the rest is for its decoding, which takes longer."""

FETCH_TIMEOUT_S = 3600.0
"""A gigabyte at 2.5 Mbit/s."""

WRITE_DOWN_S = 60.0
"""How long a worker tries to write down how a job ended; then the job is run again by whoever can."""


class Transcriber(Protocol):
    """What makes transcripts of files: `Recorder`."""

    async def transcribe(
        self, path: Path, options: RecordingOptions, *, on_progress: Callable[[float], None] | None = None
    ) -> Transcript:
        """See `Recorder.transcribe`."""
        ...


class _Stop(Enum):
    """Why a run is stopped."""

    CANCELLED = "its client asked"
    LOST = "it is deleted, or another worker's"
    SHUTDOWN = "the worker stops"


@dataclass(slots=True)
class _Run:
    """A job under way."""

    job: Job
    task: asyncio.Task[None] | None = None
    stage: Stage = Stage.TRANSCRIBING
    progress: float = 0.0
    decoding_s: float | None = None  # since when its recording is there
    begun: bool = False
    sealed: bool = False  # its end is being written down: it is too late to stop it
    stop: _Stop | None = None

    def end(self, reason: _Stop) -> None:
        if self.stop is not None or self.sealed:
            return
        self.stop = reason
        if self.begun and self.task is not None:
            self.task.cancel()  # a task that has not begun would end without a word


class Worker:
    """Runs jobs, several at once, each in a task of its own.

    Args:
        ledger: where jobs are claimed and ended.
        files: where recordings are.
        transcriber: gives what transcribes, None until a model is loaded; asked at each job.
        session: of `outbound_session`, for recordings that are fetched.
        metrics: jobs by how they ended.
        max_bytes: of a fetched recording.
        concurrency: jobs at once.
        on_ended: told that a job has ended, and may owe a webhook.
        observer: hears of runs that are over.
        wall_s: the time of day in seconds since 1970.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        files: Files,
        transcriber: Callable[[], Transcriber | None],
        session: aiohttp.ClientSession,
        metrics: Metrics,
        max_bytes: int,
        concurrency: int,
        on_ended: Callable[[], None] = lambda: None,
        observer: JobObserver | None = None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.owner = this_process(secrets.token_hex(4))
        self._ledger = ledger
        self._files = files
        self._transcriber = transcriber
        self._session = session
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._concurrency = concurrency
        self._on_ended = on_ended
        self._observer = observer or JobObserver()
        self._wall_s = wall_s
        self._runs: dict[str, _Run] = {}
        self._idle = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def has_room(self) -> bool:
        """Whether it may run one more job, and can."""
        return not self._closed and len(self._runs) < self._concurrency and self._transcriber() is not None

    async def claim(self, job_id: str | None = None) -> asyncio.Task[None] | None:
        """Take the job whose turn is next, or a certain one, and begin it; None where there is none to take.

        Raises:
            VoiceForgeError: the database fails.
        """
        job = await self._ledger.claim(self.owner, now_s=self._wall_s(), job_id=job_id)
        if job is None:
            return None
        before = self._runs.get(job.id)
        if before is not None and before.stop is None:
            return before.task  # it was thought dead and takes its own job: two runs could not be told apart
        if self._closed or before is not None:
            await self._ledger.release(job, self.owner, now_s=self._wall_s())
            return None
        run = _Run(job)
        run.task = asyncio.create_task(self._run(run), name=f"job-{job.number}")
        self._runs[job.id] = run
        self._idle.clear()
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), name="jobs-watch")
        return run.task

    def cancel(self, job_id: str) -> None:
        """Stop a job of this worker now; one of another is stopped by that one."""
        if (run := self._runs.get(job_id)) is not None:
            run.end(_Stop.CANCELLED)

    def drop(self, job_id: str) -> None:
        """Stop a job of this worker that is not in the database any more."""
        if (run := self._runs.get(job_id)) is not None:
            run.end(_Stop.LOST)

    async def close(self) -> None:
        """Stop all jobs and put them back where they were; another worker, or this one restarted, takes them."""
        self._closed = True
        runs = list(self._runs.values())
        for run in runs:
            run.end(_Stop.SHUTDOWN)
        await asyncio.gather(*(run.task for run in runs if run.task is not None), return_exceptions=True)
        if self._watching is not None:
            await self._watching  # it ends with the last job; cancelled, it might leave a connection in disorder

    async def _run(self, run: _Run) -> None:
        job = run.job
        began_s = self._wall_s()
        log.info("job begun", job=job.number, attempt=job.attempts)
        run.begun = True
        try:
            if run.stop is not None:
                raise asyncio.CancelledError
            outcome = await self._attempt(run)
        except asyncio.CancelledError:
            if run.stop is None:
                raise  # the loop itself is going down
            outcome = await self._stopped(run)
        finally:
            self._runs.pop(job.id, None)
            if not self._runs:
                self._idle.set()
        self._on_ended()
        ended_s = self._wall_s()
        self._observer.ran(job, outcome, began_s=began_s, decoding_s=run.decoding_s, ended_s=ended_s)
        self._metrics.jobs_total.labels(outcome).inc()
        log.info("job ended", job=job.number, outcome=outcome, took_s=round(ended_s - began_s, 2))

    async def _attempt(self, run: _Run) -> str:
        """The job from its recording to its end in the database; how it ended."""
        job = run.job
        try:
            path, size_bytes = await self._recording(run)
            transcriber = self._transcriber()
            if transcriber is None:
                raise RuntimeError("a job was claimed before a model was loaded")
            run.stage, run.decoding_s = Stage.TRANSCRIBING, self._wall_s()
            from_percent = run.progress

            def on_progress(share: float) -> None:
                run.progress = from_percent + (100.0 - from_percent) * share

            transcript = await transcriber.transcribe(path, _options_of(job), on_progress=on_progress)
            packed, summary = await asyncio.to_thread(written_down, transcript)
        except VoiceForgeError as exc:
            return await self._failed(run, exc.as_dict())
        except OSError as exc:
            if not is_full(exc):
                log.exception("job failed", job=job.number)
            return await self._failed(run, (StorageFullError() if is_full(exc) else _internal()).as_dict())
        except Exception:
            log.exception("job failed", job=job.number)
            return await self._failed(run, _internal().as_dict())
        return await self._end(
            run,
            "completed",
            lambda: self._ledger.complete(
                job, self.owner, body=packed, summary=summary, size_bytes=size_bytes, now_s=self._wall_s()
            ),
        )

    async def _recording(self, run: _Run) -> tuple[Path, int | None]:
        job = run.job
        if job.url is None:
            return self._files.recording(job.id), job.size_bytes
        run.stage = Stage.FETCHING

        def on_fetched(done: int, total: int | None) -> None:
            if total:
                run.progress = FETCHED_SHARE * min(1.0, done / total)

        await self._files.require_room(0)
        path = await self._files.make_folder(job.id)
        fetched = await fetch_to_file(
            self._session,
            job.url,
            path,
            max_bytes=self._max_bytes,
            timeout_s=FETCH_TIMEOUT_S,
            reserve_bytes=RESERVE_BYTES,
            on_progress=on_fetched,
        )
        run.progress = FETCHED_SHARE
        return path, fetched.size_bytes

    async def _failed(self, run: _Run, error: dict[str, object]) -> str:
        if self._closed:
            return await self._put_back(run)  # it failed because everything is being closed
        job = run.job
        log.warning("job failed", job=job.number, code=error["code"])
        return await self._end(run, "failed", lambda: self._ledger.fail(job, self.owner, error, now_s=self._wall_s()))

    async def _stopped(self, run: _Run) -> str:
        if run.stop is _Stop.SHUTDOWN:
            return await self._put_back(run)
        if run.stop is _Stop.LOST:
            return "lost"
        return await self._end(
            run, "cancelled", lambda: self._ledger.cancelled(run.job, self.owner, now_s=self._wall_s())
        )

    async def _end(self, run: _Run, outcome: str, write_down: Callable[[], Awaitable[bool]]) -> str:
        """Write down how a job ended, and forget its recording; "lost" where the job was not this worker's any more."""
        run.sealed = True
        if not await self._surely(write_down):
            return "lost"
        await self._files.remove(run.job.id)
        return outcome

    async def _put_back(self, run: _Run) -> str:
        try:
            released = await self._ledger.release(run.job, self.owner, now_s=self._wall_s())
        except VoiceForgeError:
            return "lost"  # its lease ends by itself
        return "released" if released else "lost"

    async def _surely(self, act: Callable[[], Awaitable[bool]]) -> bool:
        """Write something down, if the database is away also a little later. False: it could not be."""

        async def attempt() -> bool:  # tenacity awaits what says itself that it is asynchronous
            return await act()

        try:
            return await AsyncRetrying(
                retry=retry_if_exception_type((CapacityError, StorageFullError)),
                wait=wait_exponential_jitter(multiplier=0.2, max=5.0),
                stop=stop_after_delay(WRITE_DOWN_S),
                reraise=True,
            )(attempt)
        except VoiceForgeError as exc:
            log.error("a job's end could not be written down", code=exc.code)
            return False

    async def _watch(self) -> None:
        """Keep the jobs that run, and stop those that are not wanted here any more."""
        renewed_s, loop = float("-inf"), asyncio.get_running_loop()
        while self._runs:
            try:
                if loop.time() - renewed_s >= RENEW_PERIOD_S:
                    told = {run.job.number: (run.stage, round(run.progress, 1)) for run in self._runs.values()}
                    await self._ledger.renew(self.owner, told, now_s=self._wall_s())
                    renewed_s = loop.time()
                here = list(self._runs.values())
                held = await self._ledger.held(self.owner)
            except VoiceForgeError as exc:
                log.warning("jobs cannot be kept", code=exc.code)
            else:
                for run in here:
                    if run.job.number not in held:
                        run.end(_Stop.LOST)
                    elif held[run.job.number]:
                        run.end(_Stop.CANCELLED)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_PERIOD_S):
                    await self._idle.wait()


def _options_of(job: Job) -> RecordingOptions:
    options = job.options
    return RecordingOptions(
        language=options["language"],
        prompt=options["prompt"],
        hotwords=tuple(options["hotwords"]),
        multichannel=options["multichannel"],
        task=DecodeTask(options["task"]),
    )


def _internal() -> VoiceForgeError:
    return VoiceForgeError(
        "INTERNAL_ERROR",
        "The server failed at this recording.",
        "Try again; if it stays, the server's log says what happened.",
        retryable=True,
    )
