"""`POST /v1/listen`: a recording as the body or by URL, and its transcript as the answer or by callback."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import structlog
from aiohttp import web
from structlog.contextvars import bound_contextvars

from mediaserver.errors import CapacityError, ConfigError, VoiceForgeError
from mediaserver.jobs.recording import Recorder, RecordingOptions
from mediaserver.metrics import Metrics
from mediaserver.outbound.client import parse_url
from mediaserver.outbound.webhooks import Delivery, new_delivery_id
from mediaserver.settings import Settings
from signaling.limits import ServedEngine
from signaling.model_names import require_served
from signaling.openapi.operation import described
from signaling.outbound import Outbound, Source
from signaling.recordings import Recordings
from signaling.routes.deepgram.body import WAV_FORMATS, Raw, fetch, read_url, save_body
from signaling.routes.deepgram.callbacks import EVENT
from signaling.routes.deepgram.door_operations import RECORDED
from signaling.routes.deepgram.query import RecordedQuery
from signaling.routes.deepgram.reading import languages_of, parse_query
from signaling.routes.deepgram.recorded import Accepted, Received, Recorded, recorded
from signaling.routes.deepgram.refusals import REQUEST_ID, refusal_body, refusal_response
from signaling.scratch import Scratch

log = structlog.get_logger(__name__)

T = TypeVar("T")

REQUESTS_MAX = 64
"""Recordings that arrive, wait or are transcribed here at once; further ones are told to come later."""

FULL_RETRY_AFTER_S = 10
"""Recordings end all the time; a short one takes seconds."""

LOOK_S = 0.25
"""How often a client that waits for its transcript is looked after: one that hung up is not decoded for."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that was let in."""

    request_id: str
    created: datetime
    query: RecordedQuery
    options: RecordingOptions
    recorder: Recorder
    raw: Raw | None


class _Later:
    """A recording whose client is told its transcript later, by callback.

    Args:
        source: the request.
        outbound: the way to the callback.
    """

    def __init__(self, source: Source, outbound: Outbound) -> None:
        self.source = source
        self.delivery_id = new_delivery_id()
        self.task: asyncio.Task[None] | None = None
        self._outbound = outbound

    def drop(self) -> int:
        """Its tenant's data is deleted: it is transcribed no further, or told no more; how many were dropped."""
        task, self.task = self.task, None
        if task is not None and not task.done():
            return int(task.cancel())  # it is awaited where it was begun
        return int(self._outbound.webhooks().drop(self.delivery_id))

    def told(self, _delivery: Delivery) -> None:
        """It was told, or could not be; until then it is known to be owed, for this is called."""
        self.task = None


class Rest:
    """The endpoint.

    Args:
        recordings: the pipeline.
        engine: what is loaded, None until then.
        outbound: the way to recordings by URL and to callbacks.
        settings: of the node.
        metrics: refusals by code.
    """

    def __init__(
        self,
        *,
        recordings: Recordings,
        engine: Callable[[], ServedEngine | None],
        outbound: Outbound,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._recordings = recordings
        self._engine = engine
        self._outbound = outbound
        self._settings = settings
        self._metrics = metrics
        self._present = 0
        self._later: set[asyncio.Task[None]] = set()  # bound: REQUESTS_MAX

    async def close(self) -> None:
        """Give up what was to be posted later."""
        tasks = list(self._later)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @described(RECORDED)
    async def transcribe(self, request: web.Request) -> web.Response:
        """POST a recording, or `{"url": …}`."""
        request_id = str(uuid.uuid4())
        with bound_contextvars(session=request_id):
            try:
                asked = self._admitted(request, request_id)
                body = await self._answer(request, asked)
            except VoiceForgeError as exc:
                self._metrics.refused_total.labels(exc.code).inc()
                return refusal_response(exc, request_id)
        return web.Response(text=body, content_type="application/json", headers={REQUEST_ID: request_id})

    def _admitted(self, request: web.Request, request_id: str) -> _Asked:
        query = parse_query(RecordedQuery, request.query)
        if query.callback is not None:
            parse_url(query.callback, self._outbound.policy)
        recorder = self._recordings.recorder()
        recorder.require_room()
        if self._present >= REQUESTS_MAX:
            raise CapacityError(
                "RECORDINGS_FULL",
                f"{self._present} recordings are arriving or being transcribed.",
                f"Try again in {FULL_RETRY_AFTER_S} s, or on another node.",
                retry_after_s=FULL_RETRY_AFTER_S,
            )
        engine = self._engine()
        assert engine is not None  # there is a recorder
        require_served(query.model, loaded=engine.model_name, aliases=self._settings.model_aliases)
        language, languages = languages_of(query, known=engine.languages, node_language=self._settings.language)
        options = RecordingOptions(
            language=language,
            languages=tuple(languages or ()),
            hotwords=tuple(query.hotwords),
            multichannel=query.multichannel,
        )
        recorder.check(options)
        raw = None
        if query.encoding in WAV_FORMATS:
            raw = Raw(encoding=query.encoding, sample_rate=query.sample_rate, channels=query.channels)
        return _Asked(request_id, datetime.now(UTC), query, options, recorder, raw)

    async def _answer(self, request: web.Request, asked: _Asked) -> str:
        """The body of the answer; what is on disk for it is gone when it is there, or when it fails."""
        self._present += 1
        folder = Scratch()
        is_kept = False
        try:
            path = folder.path / "recording"
            fetched: str | None = None
            sha256 = ""
            if request.content_type == "application/json":
                if asked.raw is not None:
                    raise ConfigError(
                        "INVALID_PARAMETER",
                        f"Refused: `encoding`: {asked.raw.encoding} is read from a body; what is fetched must say "
                        "itself what it is.",
                        "Send the samples as the body, or the URL of a container (WAV, FLAC, MP3 …) and no `encoding`.",
                    )
                fetched = await read_url(request, self._outbound.policy)
            else:
                sha256 = await save_body(request, path, raw=asked.raw, max_bytes=self._settings.upload_max_bytes)

            async def work() -> Recorded:
                digest = sha256 if fetched is None else await self._fetch(fetched, path)
                transcript = await self._recordings.transcribe(asked.recorder, path, asked.options, door="deepgram")
                received = Received(asked.request_id, asked.created, digest)
                return await asyncio.to_thread(recorded, transcript, received, asked.query)

            if asked.query.callback is not None:
                self._work_later(asked, work, folder)
                is_kept = True
                return Accepted(request_id=asked.request_id).model_dump_json()
            result = await _while_there(request, work())
            return await asyncio.to_thread(result.model_dump_json, exclude_none=True)
        finally:
            if not is_kept:
                self._done(folder)

    async def _fetch(self, url: str, path: Path) -> str:
        return await fetch(self._outbound.session(), url, path, max_bytes=self._settings.upload_max_bytes)

    def _work_later(self, asked: _Asked, work: Callable[[], Coroutine[None, None, Recorded]], folder: Scratch) -> None:
        later = _Later(Source.now(asked.request_id), self._outbound)
        self._outbound.owes(later)

        async def run() -> None:
            try:
                try:
                    result = await work()
                    body = await asyncio.to_thread(result.model_dump_json, exclude_none=True)
                except VoiceForgeError as exc:
                    body = refusal_body(exc, asked.request_id).model_dump_json()
                except Exception:
                    log.exception("recording failed")
                    failure = VoiceForgeError("INTERNAL_ERROR", "The server failed at this recording.", "Try again.")
                    body = refusal_body(failure, asked.request_id).model_dump_json()
                self._post(asked, body, later)
            finally:
                self._done(folder)

        task = later.task = asyncio.create_task(run(), name=f"deepgram-{asked.request_id}")
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    def _post(self, asked: _Asked, body: str, later: _Later) -> None:
        assert asked.query.callback is not None
        self._outbound.webhooks().post_soon(
            asked.query.callback,
            body.encode(),
            secret=None,
            event=EVENT,
            headers={REQUEST_ID: asked.request_id},
            method=asked.query.callback_method,
            delivery_id=later.delivery_id,
            on_done=later.told,
        )

    def _done(self, folder: Scratch) -> None:
        self._present -= 1
        folder.remove()  # one file: as quick as going to a thread, and it cannot be cancelled


async def _while_there(request: web.Request, work: Coroutine[None, None, T]) -> T:
    """Do it as long as the client waits for it.

    Raises:
        ConnectionResetError: it has hung up.
    """
    task = asyncio.create_task(work)
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=LOOK_S)
            if done:
                return task.result()
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError("the client has hung up")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
