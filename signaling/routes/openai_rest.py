"""OpenAI's `/v1/audio/transcriptions` and `/v1/audio/translations`: a recording in, its text out.

The recording is written to a temporary file as it comes and is gone when the answer is. Who waits is watched: a client
that hangs up stops its decode. Recordings give way to live sessions in the engine, so an answer takes longer while
somebody speaks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel

from mediaserver.errors import ConfigError, MediaError, VoiceForgeError
from mediaserver.jobs.recording import Recorder, RecordingOptions, Segment, Task, Transcript
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from mediaserver.text.subtitles import Format, render
from signaling.model_names import require_served
from signaling.openapi.operation import described
from signaling.problems import HttpError
from signaling.recordings import Recordings
from signaling.routes.openai_errors import ParameterError, refusal_of
from signaling.routes.openai_rest_answers import (
    TextDelta,
    TextDone,
    Transcription,
    delta_of,
    logprobs_of,
    text_of,
    usage_of,
    verbose,
)
from signaling.routes.openai_rest_form import SpeechForm, TranscriptionForm, TranslationForm, read_form
from signaling.routes.openai_rest_operations import TRANSCRIBE, TRANSLATE
from signaling.scratch import scratch_folder

PREFIX = "/v1/audio/"

GONE_PERIOD_S = 0.25
"""How often it is looked whether the client is still there: half of what a cancelled recording may take to stop."""

HEARTBEAT_S = 10.0
"""How often a stream with nothing to tell says that it lives: proxies give up at half a minute."""

WRITE_TIMEOUT_S = 30.0
"""A client that takes nothing for so long is gone."""

T = TypeVar("T")


class OpenAIRest:
    """The routes.

    Args:
        recordings: gives the pipeline.
        settings: of the node.
        metrics: refusals by code.
    """

    def __init__(self, *, recordings: Recordings, settings: Settings, metrics: Metrics) -> None:
        self._recordings = recordings
        self._settings = settings
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router; other methods are 405 with `Allow`."""
        return [
            web.post(f"{PREFIX}transcriptions", self.transcribe),
            web.post(f"{PREFIX}translations", self.translate),
        ]

    @described(TRANSCRIBE)
    async def transcribe(self, request: web.Request) -> web.StreamResponse:
        """POST a recording: its text."""
        return await self._answer(request, TranscriptionForm, Task.TRANSCRIBE)

    @described(TRANSLATE)
    async def translate(self, request: web.Request) -> web.StreamResponse:
        """POST a recording: its text in English."""
        return await self._answer(request, TranslationForm, Task.TRANSLATE)

    async def _answer(self, request: web.Request, model: type[SpeechForm], task: Task) -> web.StreamResponse:
        try:
            recorder = self._recordings.recorder()
            recorder.require_room()
            transcribe = partial(self._recordings.transcribe, recorder, door="openai")
            async with scratch_folder() as folder:
                path = folder / "recording"
                form = await read_form(request, model, path, max_bytes=self._settings.upload_max_bytes)
                options = self._checked(form, task, recorder)
                if isinstance(form, TranscriptionForm) and form.stream:
                    return await _stream(request, transcribe, path, options, with_logprobs=bool(form.include))
                transcript = await _while_there(request, transcribe(path, options))
                return _whole(form, task, transcript)
        except MediaError as exc:
            self._metrics.refused_total.labels(exc.code).inc()
            raise ParameterError(exc.code, exc.message, exc.hint, param="file") from exc
        except VoiceForgeError as exc:
            self._metrics.refused_total.labels(exc.code).inc()
            raise

    def _checked(self, form: SpeechForm, task: Task, recorder: Recorder) -> RecordingOptions:
        """What the pipeline is asked for, after what this node does not do is refused.

        Raises:
            HttpError: MODEL_NOT_FOUND.
            ParameterError: INVALID_VALUE, UNKNOWN_LANGUAGE.
        """
        try:
            require_served(form.model, loaded=recorder.model_name, aliases=self._settings.model_aliases)
        except ConfigError as exc:
            raise HttpError(HTTPStatus.NOT_FOUND, "MODEL_NOT_FOUND", exc.message, exc.hint) from exc
        if isinstance(form, TranscriptionForm):
            form.require_consistent()
        options = form.options(task)
        try:
            recorder.check(options)
        except ConfigError as exc:
            param = (
                "model" if exc.code == "TRANSLATION_UNSUPPORTED" else "language" if options.language else "languages"
            )
            raise ParameterError(exc.code, exc.message, exc.hint, param=param) from exc
        return options


def _whole(form: SpeechForm, task: Task, transcript: Transcript) -> web.Response:
    """The answer in one piece."""
    segments = transcript.channels[0].segments
    match form.response_format:
        case "text":
            return _text(text_of(segments) + "\n", "text/plain")
        case "srt":
            return _text(render([segment.final for segment in segments], Format.SRT), "text/plain")
        case "vtt":
            return _text(render([segment.final for segment in segments], Format.VTT), "text/vtt")
        case "verbose_json":
            granularities = form.timestamp_granularities if isinstance(form, TranscriptionForm) else []
            return _json(verbose(transcript, task, granularities or ["segment"]))
        case _:
            with_logprobs = isinstance(form, TranscriptionForm) and bool(form.include)
            return _json(
                Transcription(
                    text=text_of(segments),
                    logprobs=logprobs_of(segments) if with_logprobs else None,
                    usage=usage_of(transcript),
                )
            )


async def _stream(
    request: web.Request,
    transcribe: Callable[..., Coroutine[None, None, Transcript]],
    path: Path,
    options: RecordingOptions,
    *,
    with_logprobs: bool,
) -> web.StreamResponse:
    """The answer as server-sent events. What goes wrong before anything is sent is a refusal like any other."""
    queue: asyncio.Queue[Segment | None] = asyncio.Queue()  # bound: the recording's text; None is the end
    work = asyncio.create_task(
        transcribe(path, options, on_segment=lambda _, segment: queue.put_nowait(segment)),
        name="openai-stream",
    )
    work.add_done_callback(lambda _: queue.put_nowait(None))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **_NOT_KEPT})
    count = 0
    try:
        while True:
            try:
                segment = await _next(request, queue)
            except TimeoutError:
                await _send(request, response, ": still at it\n\n")
                continue
            if segment is None:
                break
            logprobs = logprobs_of([segment]) if with_logprobs else None
            await _event(request, response, TextDelta(delta=delta_of(segment, is_first=not count), logprobs=logprobs))
            count += 1
        try:
            segments = work.result().channels[0].segments
        except VoiceForgeError as exc:
            if not response.prepared:
                raise
            await _event(request, response, refusal_of(exc))
        else:
            logprobs = logprobs_of(segments) if with_logprobs else None
            done = TextDone(text=text_of(segments), logprobs=logprobs, usage=usage_of(work.result()))
            await _event(request, response, done)
        await response.write_eof()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    return response


async def _next(request: web.Request, queue: asyncio.Queue[Segment | None]) -> Segment | None:
    """The next segment, None at the end.

    Raises:
        TimeoutError: there was none for `HEARTBEAT_S`.
        ConnectionResetError: the client has hung up.
    """
    async with asyncio.timeout(HEARTBEAT_S):
        return await _while_there(request, queue.get())


async def _event(request: web.Request, response: web.StreamResponse, event: BaseModel) -> None:
    await _send(request, response, f"data: {event.model_dump_json(exclude_none=True)}\n\n")


async def _send(request: web.Request, response: web.StreamResponse, text: str) -> None:
    try:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            if not response.prepared:
                await response.prepare(request)
            await response.write(text.encode())
    except TimeoutError as exc:
        raise ConnectionResetError("the client takes nothing") from exc


async def _while_there(request: web.Request, work: Coroutine[Any, Any, T]) -> T:
    """What work gives, unless the client hangs up first: then it is cancelled and has cleaned up.

    Raises:
        ConnectionResetError: the client has hung up.
    """
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=GONE_PERIOD_S)
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError("the client has hung up")
        return task.result()
    finally:
        task.cancel()  # does nothing to one that is done
        await asyncio.gather(task, return_exceptions=True)


def _text(text: str, content_type: str) -> web.Response:
    return web.Response(text=text, content_type=content_type, headers=_NOT_KEPT)


def _json(body: BaseModel) -> web.Response:
    return web.Response(
        text=body.model_dump_json(exclude_none=True), content_type="application/json", headers=_NOT_KEPT
    )


_NOT_KEPT = {"Cache-Control": "no-store"}
"""What people said is in no cache."""
