"""A worker as a whole program: `voiceforge worker`, which takes jobs from Redis and has an engine of its own.

Celery runs in the main thread, as it wants to; everything of ours runs on an event loop in another one.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import click
import structlog

from mediaserver.errors import ConfigError, VoiceForgeError
from mediaserver.jobs.celery_queue import QUEUE, TASK, make_celery
from mediaserver.jobs.files import Files
from mediaserver.jobs.ledger import Ledger
from mediaserver.jobs.recording import Recorder
from mediaserver.jobs.worker import Worker
from mediaserver.metrics import Metrics
from mediaserver.outbound.client import OutboundPolicy, outbound_session
from mediaserver.settings import Settings
from mediaserver.storage.database import Database
from signaling.loading import load_models
from signaling.seeing.telemetry import configure_logging
from signaling.seeing.trace_setup import open_traces

log = structlog.get_logger(__name__)

EXIT_FAILED = 1

CLAIM_TRIES = 30
CLAIM_AGAIN_S = 2.0
"""A database that is away for a minute costs no job its turn; after that the job is announced again, a little later."""


def run(settings: Settings) -> int:
    """Work until a signal asks to stop; returns the exit code. Jobs under way are then put back for others."""
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    try:
        if settings.jobs_broker_url is None:
            raise ConfigError(
                "BROKER_MISSING",
                "A worker gets its jobs from Redis, and `jobs_broker_url` names none.",
                "Give it to this worker and to the server; without it the server runs jobs itself.",
            )
        celery = make_celery(settings.jobs_broker_url)
        node = _Node(settings)
        try:
            node.start()
            _work(celery, node, settings)
        finally:
            node.close()
    except VoiceForgeError as exc:
        click.echo(f"{exc.message}\n{exc.hint}", err=True)
        return EXIT_FAILED
    return 0


def _work(celery: Any, node: _Node, settings: Settings) -> None:
    """Run Celery's worker until a signal stops it."""
    from celery import signals  # noqa: PLC0415 - an extra

    def keep_logging(**_given: object) -> None:
        """Celery sets up logging of its own unless somebody listens here."""

    def put_back(**_given: object) -> None:
        node.stop()

    def say_ready(**_given: object) -> None:
        click.echo(f"The worker has {node.model_name} loaded and takes jobs.")

    celery.task(node.run_job, name=TASK)
    # Held by these names: Celery's signals hold their receivers weakly.
    signals.setup_logging.connect(keep_logging)
    signals.worker_shutting_down.connect(put_back)
    signals.worker_ready.connect(say_ready)
    concurrency = max(1, settings.jobs_concurrency)
    options = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    try:
        celery.worker_main(
            ["--quiet", "worker", "--pool=threads", f"--concurrency={concurrency}", f"--queues={QUEUE}", *options]
        )
    except SystemExit as exc:
        if exc.code:
            raise


class _Node:
    """The event loop, the engine and the worker."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="worker-loop", daemon=True)
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[Worker] = self._loop.create_future()
        self._serving: asyncio.Task[None] | None = None
        self.model_name = ""

    def start(self) -> None:
        """Load the models and open the database. Blocks.

        Raises:
            VoiceForgeError: why it cannot.
        """
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._begin(), self._loop).result()

    def run_job(self, job_id: str) -> None:
        """Run a job, if it still waits. Blocks, in one of Celery's threads."""
        asyncio.run_coroutine_threadsafe(self._run_job(job_id), self._loop).result()

    def stop(self) -> None:
        """Put jobs under way back, so that their threads end."""
        self._loop.call_soon_threadsafe(self._stop.set)

    def close(self) -> None:
        """Let everything go. Blocks."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    async def _begin(self) -> None:
        self._serving = asyncio.create_task(self._serve(), name="worker-serve")
        either: set[asyncio.Future[Any]] = {self._serving, self._ready}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            self._serving.result()

    async def _end(self) -> None:
        self._stop.set()
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)

    async def _serve(self) -> None:
        """Own what a worker needs, from the loading of the models to their end."""
        settings, metrics = self._settings, Metrics()
        database = Database(settings.jobs_database_url)
        traces = open_traces(settings, metrics)
        try:
            await database.open()
            loaded = await load_models(settings, metrics)
            try:
                recorder = Recorder(decoder=loaded.engine, vad=loaded.vad, settings=settings, metrics=metrics)
                self.model_name = recorder.model_name
                policy = OutboundPolicy(allow_private=settings.outbound_allow_private)
                async with outbound_session(policy) as session:
                    worker = Worker(
                        ledger=Ledger(database, counts_keyless=settings.usage_keyless),
                        files=Files(settings.data_dir),
                        transcriber=lambda: recorder,
                        session=session,
                        metrics=metrics,
                        max_bytes=settings.upload_max_bytes,
                        concurrency=max(1, settings.jobs_concurrency),
                        observer=None if traces is None else traces.of_jobs,
                    )
                    self._ready.set_result(worker)
                    await self._stop.wait()
                    await worker.close()
            finally:
                await loaded.close()
        finally:
            await database.close()
            if traces is not None:
                await traces.close()

    async def _run_job(self, job_id: str) -> None:
        worker = await self._ready
        for _ in range(CLAIM_TRIES):
            try:
                task = await worker.claim(job_id)
            except VoiceForgeError as exc:
                log.warning("a job cannot be claimed", code=exc.code)
                await asyncio.sleep(CLAIM_AGAIN_S)
            else:
                if task is not None:
                    await asyncio.wait({task})
                return
