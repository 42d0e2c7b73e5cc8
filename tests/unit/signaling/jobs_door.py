"""A front door for recordings alone, with a transcriber that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from aiohttp import FormData, web
from aiohttp.test_utils import TestClient, TestServer

from mediaserver.errors import ConfigError, MediaError
from mediaserver.events import Final, Word
from mediaserver.jobs.service import Jobs
from mediaserver.jobs.transcript import ChannelTranscript, RecordingOptions, Segment, Transcript
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.auth.principal import LOCAL, set_principal
from signaling.limits import SDP_MAX_BYTES, Admission, Gate
from signaling.problems import Handler, problems_middleware
from signaling.routes.jobs import Transcriptions
from signaling.routes.jobs_submit import Submissions
from signaling.routes.jobs_uploads import Uploads


def said(text: str, *, start: float = 0.0, number: int = 0) -> Segment:
    """A segment of words, half a second each."""
    words = [Word(word, start + 0.5 * n, start + 0.5 * n + 0.4, 0.9) for n, word in enumerate(text.split())]
    duration = 0.5 * len(words)
    final = Final(number, text, 0.9, start, duration, start + duration, "en", 0.99, words)
    return Segment(final, -0.2, 0.01, 1.1)


class FakeTranscriber:
    """Writes down what the file says in bytes; a file that begins with `wait` is held until it is let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.running = 0
        self.most_at_once = 0
        self.go = asyncio.Event()
        self.began = asyncio.Event()
        self.progress = 0.5

    async def transcribe(
        self, path: Path, options: RecordingOptions, *, on_progress: Callable[[float], None] | None = None
    ) -> Transcript:
        text = path.read_text()
        self.begun.append(text)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        self.began.set()
        try:
            if on_progress is not None:
                on_progress(self.progress)
            if text.startswith("wait"):
                await self.go.wait()
            if text.startswith("noise"):
                raise MediaError("NOT_AUDIO", "This is no audio.", "Send audio.")
            if text.startswith("crash"):
                raise RuntimeError("a bug")
            one = ChannelTranscript((said(text),), "en", 0.99)
            two = ChannelTranscript((said("the other side", start=1.0),), "en", 0.98)
            return Transcript((one, two) if options.multichannel else (one,), 3.0, "fake")
        finally:
            self.running -= 1


class FakeRecorder:
    """A loaded model that knows English alone."""

    def check(self, options: RecordingOptions) -> None:
        if options.language not in (None, "en"):
            raise ConfigError("UNKNOWN_LANGUAGE", "It is not known.", "Say another.")


class Door:
    """The door, and a client of it."""

    def __init__(
        self,
        client: TestClient[Any, Any],
        *,
        jobs: Jobs,
        transcriber: FakeTranscriber,
        uploads: Uploads,
        admission: Admission,
        loaded: list[Any],
    ) -> None:
        self.uploads = uploads
        self.admission = admission
        self.loaded = loaded
        self.client = client
        self.jobs = jobs
        self.transcriber = transcriber

    async def ask(self, method: str, path: str, **given: Any) -> tuple[int, Any]:
        if isinstance(given.get("data"), dict):
            given["data"] = form_of(given["data"])
        async with self.client.request(method, f"/api/v1{path}", **given) as response:
            is_json = response.content_type == "application/json"
            return response.status, await response.json() if is_json else await response.text()

    async def submit(self, text: str, **fields: str) -> dict[str, Any]:
        status, body = await self.ask("POST", "/transcriptions", data={"file": text.encode(), **fields})
        assert status == 201, body
        return dict(body)

    async def ended(self, job_id: str) -> dict[str, Any]:
        """The job once it has ended."""
        while True:
            _, body = await self.ask("GET", f"/transcriptions/{job_id}")
            if body["state"] not in ("queued", "running"):
                return dict(body)
            await asyncio.sleep(0.02)


def form_of(fields: dict[str, Any]) -> FormData:
    form = FormData(default_to_multipart=True)
    for name, value in fields.items():
        if isinstance(value, bytes):
            form.add_field(name, value, filename="call.wav")
        else:
            form.add_field(name, value)
    return form


@web.middleware
async def of_this_machine(request: web.Request, handler: Handler) -> web.StreamResponse:
    """In place of the guard, which has tests of its own."""
    set_principal(request, LOCAL)
    return await handler(request)


async def open_door(settings: Settings, transcriber: FakeTranscriber) -> AsyncIterator[Door]:
    """One for the time of a test."""
    metrics = Metrics()
    jobs = Jobs(settings, metrics=metrics, transcriber=lambda: transcriber)
    admission = Admission(engine=lambda: None, require_room=lambda: None)
    gate = Gate(bound_host="127.0.0.1", cors_origins=["https://page.example"])
    app = web.Application(
        middlewares=[problems_middleware, of_this_machine, gate.middleware], client_max_size=SDP_MAX_BYTES
    )
    app.on_response_prepare.append(gate.on_response)
    uploads = Uploads(jobs=jobs, admission=admission, settings=settings)
    loaded: list[Any] = []
    doors = (
        Submissions(
            jobs=jobs,
            admission=admission,
            recorder=lambda: loaded[0] if loaded else None,
            settings=settings,
            metrics=metrics,
        ),
        Transcriptions(jobs=jobs),
        uploads,
    )
    for door in doors:
        app.add_routes(door.routes())
    await jobs.start()
    async with TestClient(TestServer(app, auto_decompress=False)) as client:
        yield Door(client, jobs=jobs, transcriber=transcriber, uploads=uploads, admission=admission, loaded=loaded)
        await jobs.close()
