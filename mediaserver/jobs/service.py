"""Recordings as one thing: what the front door and the command line talk to. Everything of a server's jobs is here.

The database is opened when it is there, or at the first recording: a server that only hears live speech writes nothing
to disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

import aiohttp
import structlog

from mediaserver.errors import CapacityError, VoiceForgeError
from mediaserver.jobs.celery_queue import CeleryQueue, make_celery
from mediaserver.jobs.deliveries import Deliveries
from mediaserver.jobs.files import Files
from mediaserver.jobs.ledger import Ledger
from mediaserver.jobs.models import NO_TENANT, Job, State, Upload
from mediaserver.jobs.observer import JobObserver
from mediaserver.jobs.outbox import Outbox
from mediaserver.jobs.owners import is_dead, this_process
from mediaserver.jobs.queue import OwnQueue, Queue
from mediaserver.jobs.store import NewJob, Store, new_id
from mediaserver.jobs.upkeep import Upkeep
from mediaserver.jobs.watch import Watch
from mediaserver.jobs.worker import Transcriber, Worker
from mediaserver.metrics import Metrics
from mediaserver.outbound.client import OutboundPolicy, outbound_session
from mediaserver.outbound.webhooks import Webhooks
from mediaserver.settings import Settings
from mediaserver.storage.database import Database

log = structlog.get_logger(__name__)

BEGIN_RETRY_AFTER_S = 5

UPLOAD_KEEP_S = 86_400.0
"""An upload that is not submitted within a day is deleted."""

BEGIN_AGAIN_S = 5.0
"""How often a database is asked that did not answer at the start."""


class Jobs:
    """The recordings of one server. Methods raise what `Database.reading` does.

    Args:
        settings: of the node.
        metrics: jobs and webhooks by outcome.
        transcriber: gives what transcribes, None until a model is loaded.
        wall_s: the time of day in seconds since 1970.
        observer: hears what becomes of jobs.

    Raises:
        ConfigError: DATABASE_URL_INVALID, DATABASE_DRIVER_MISSING, BROKER_URL_INVALID or CELERY_MISSING.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        metrics: Metrics,
        transcriber: Callable[[], Transcriber | None],
        wall_s: Callable[[], float] = time.time,
        observer: JobObserver | None = None,
    ) -> None:
        self._observer = observer or JobObserver()
        self._settings = settings
        self._metrics = metrics
        self._transcriber = transcriber
        self._wall_s = wall_s
        self._database = Database(settings.jobs_database_url)
        self._celery = None if settings.jobs_broker_url is None else make_celery(settings.jobs_broker_url)
        self.files = Files(settings.data_dir)
        self.store = Store(self._database)
        self.ledger = Ledger(self._database, counts_keyless=settings.usage_keyless)
        self._watch = Watch(self.store)
        self._beginning = asyncio.Lock()
        self.on_submitted: list[Callable[[], object]] = []
        """Called when jobs were taken in, for other processes that may be the ones to run them."""
        self._running: _Running | None = None
        self._starting: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Go on with what waits in the database, if there is one; meanwhile the server serves."""
        if self._database.exists:
            self._starting = asyncio.create_task(self._begin_surely(), name="jobs-begin")

    def wake(self) -> None:
        """Another process may have taken something in."""
        if self._running is not None:
            self._running.queue.wake()
        elif self._starting is None and not self._closed and self._database.exists:
            self._starting = asyncio.create_task(self._begin_surely(), name="jobs-begin")

    async def close(self) -> None:
        """Stop; what runs is put back and goes on at the next start."""
        if self._closed:
            return
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self._watch.close()
        async with self._beginning:
            if self._running is not None:
                await self._running.close()
        await self._database.close()

    async def submit(self, jobs: Sequence[NewJob]) -> list[Job]:
        """Take jobs in, all or none.

        Raises:
            CapacityError: QUEUE_FULL or QUEUE_SHARE_USED_UP.
        """
        running = await self._begin()
        rows = await self.store.add(jobs, now_s=self._wall_s())
        await running.queue.added(rows)
        for callback in self.on_submitted:
            callback()
        return rows

    async def submit_upload(self, job: NewJob, upload_id: str) -> Job | None:
        """Make a whole upload a job; if the job cannot be taken in, the upload stays. None: it is gone meanwhile.

        Raises:
            CapacityError: QUEUE_FULL or QUEUE_SHARE_USED_UP.
        """
        if not await self.files.adopt(upload_id, job.id):
            return None
        try:
            (row,) = await self.submit([job])
        except BaseException:
            await asyncio.shield(self.files.give_up(job.id, upload_id))
            raise
        await self.store.delete_upload(upload_id)
        return row

    async def cancel(self, job_id: str) -> Job | None:
        """Cancel a job: at once where it waits or runs here, within half a second elsewhere. None: it has ended."""
        running = await self._begin()
        job = await self.store.cancel(job_id, now_s=self._wall_s())
        if job is not None:
            running.queue.stop_now(job_id, deleted=False)
            running.outbox.wake()
            if State(job.state).ended:
                await self.files.remove(job_id)
        return job

    async def delete(self, job_id: str) -> bool:
        """Forget a job and all that came of it; False: it is not there."""
        running = await self._begin()
        if not await self.store.delete(job_id):
            return False
        running.queue.stop_now(job_id, deleted=True)
        running.outbox.wake()
        await self.files.remove(job_id)
        return True

    def stop_deleted(self, job_ids: Sequence[str]) -> None:
        """Stop those that run here of jobs that are not in the database any more, and their webhooks."""
        if self._running is not None:
            for job_id in job_ids:
                self._running.queue.stop_now(job_id, deleted=True)
            self._running.outbox.wake()

    async def add_upload(self, *, size_bytes: int, file_name: str | None, tenant: str = NO_TENANT) -> Upload:
        """Begin an upload in pieces.

        Raises:
            StorageFullError: DISK_FULL.
            CapacityError: TOO_MANY_UPLOADS or UPLOAD_SHARE_USED_UP.
        """
        await self._begin()
        await self.files.require_room(size_bytes)
        now_s = self._wall_s()
        upload = Upload(
            id=new_id("upl"),
            tenant=tenant,
            size_bytes=size_bytes,
            file_name=file_name,
            created_at=now_s,
            expires_at=now_s + UPLOAD_KEEP_S,
        )
        await self.files.make_upload(upload.id)
        try:
            await self.store.add_upload(upload)
        except BaseException:
            await asyncio.shield(self.files.remove_upload(upload.id))
            raise
        return upload

    async def get_upload(self, upload_id: str) -> tuple[Upload, int] | None:
        """An upload and how many bytes of it are there."""
        upload = await self.store.get_upload(upload_id, now_s=self._wall_s())
        size = None if upload is None else await self.files.upload_size(upload_id)
        return None if upload is None or size is None else (upload, size)

    async def delete_upload(self, upload_id: str) -> bool:
        """Forget an upload; False: it is not there."""
        if not await self.store.delete_upload(upload_id):
            return False
        await self.files.remove_upload(upload_id)
        return True

    def changes(self, job_id: str, *, tenant: str) -> AsyncGenerator[Job | None]:
        """See `Watch.changes`."""
        return self._watch.changes(job_id, tenant=tenant)

    async def _begin_surely(self) -> None:
        while True:
            try:
                await self._begin()
                return
            except VoiceForgeError as exc:
                log.warning("recordings cannot be taken up yet", code=exc.code)
            except Exception:
                log.exception("recordings cannot be taken up yet")
            await asyncio.sleep(BEGIN_AGAIN_S)

    async def _begin(self) -> _Running:
        """Open the database and begin to work, once."""
        async with self._beginning:
            if self._running is None:
                if self._closed:
                    raise CapacityError(
                        "SHUTTING_DOWN",
                        "The server is shutting down.",
                        "Try again: another node, or this one restarted, takes the recording.",
                        retry_after_s=BEGIN_RETRY_AFTER_S,
                    )
                await self._database.open()
                mine = this_process("")
                await self.ledger.forget_dead(lambda owner: is_dead(owner, mine))
                session = outbound_session(OutboundPolicy(allow_private=self._settings.outbound_allow_private))
                outbox = Outbox(
                    Deliveries(self._database),
                    Webhooks(session, metrics=self._metrics),
                    wall_s=self._wall_s,
                    observer=self._observer,
                )
                queue = self._queue(session, outbox)
                upkeep = Upkeep(
                    ledger=self.ledger,
                    store=self.store,
                    files=self.files,
                    on_reclaimed=(queue.wake, outbox.wake),
                    wall_s=self._wall_s,
                )
                self._running = _Running(session, queue, outbox, upkeep)
                queue.start()
                outbox.start()
                upkeep.start()
            return self._running

    def _queue(self, session: aiohttp.ClientSession, outbox: Outbox) -> Queue:
        if self._celery is not None:
            return CeleryQueue(self.ledger, self._celery, wall_s=self._wall_s)
        worker = Worker(
            ledger=self.ledger,
            files=self.files,
            transcriber=self._transcriber,
            session=session,
            metrics=self._metrics,
            max_bytes=self._settings.upload_max_bytes,
            concurrency=self._settings.jobs_concurrency,
            on_ended=outbox.wake,
            wall_s=self._wall_s,
            observer=self._observer,
        )
        return OwnQueue(self.ledger, worker)


@dataclass(frozen=True, slots=True)
class _Running:
    """What works while the database is open."""

    session: aiohttp.ClientSession
    queue: Queue
    outbox: Outbox
    upkeep: Upkeep

    async def close(self) -> None:
        await self.upkeep.close()
        await self.queue.close()
        await self.outbox.close()
        await self.session.close()
