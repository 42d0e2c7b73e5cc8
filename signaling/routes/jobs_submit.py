"""How recordings come in: in a form, from a URL, as an upload that is complete, and several at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

from aiohttp import web

from mediaserver.decoder.window import Task
from mediaserver.errors import ConfigError, MediaError, VoiceForgeError
from mediaserver.jobs.bodies import JobBody, JobOptions
from mediaserver.jobs.recording import Recorder
from mediaserver.jobs.service import Jobs
from mediaserver.jobs.store import NewJob, new_id
from mediaserver.jobs.transcript import RecordingOptions
from mediaserver.metrics import Metrics
from mediaserver.outbound.client import OutboundPolicy, parse_url
from mediaserver.settings import Settings
from signaling.auth.principal import current_principal
from signaling.body import read_json, read_value, validated
from signaling.forms import recording_too_large
from signaling.limits import Admission, shutting_down
from signaling.openapi.operation import described
from signaling.problems import HttpError
from signaling.query import read_query
from signaling.routes import jobs_described as api
from signaling.routes.jobs import PATH, json_response
from signaling.routes.jobs_bodies import BatchBody, BatchCreatedBody, BatchItem, NoQuery, SubmitUpload, SubmitUrl
from signaling.routes.jobs_reading import read_form
from signaling.seeing.audit_door import concerning


class Submissions:
    """Takes recordings in.

    Args:
        jobs: of this server.
        admission: whether the server is on its way out.
        recorder: what transcribes, None until a model is loaded: then it refuses what it cannot do.
        settings: of the node.
        metrics: refusals by code.
    """

    def __init__(
        self,
        *,
        jobs: Jobs,
        admission: Admission,
        recorder: Callable[[], Recorder | None],
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._jobs = jobs
        self._admission = admission
        self._recorder = recorder
        self._keep_s = settings.job_keep_s
        self._max_bytes = settings.upload_max_bytes
        self._policy = OutboundPolicy(allow_private=settings.outbound_allow_private)
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        return [web.post(PATH, self.submit), web.post(f"{PATH}/batch", self.submit_batch)]

    @described(api.SUBMIT)
    async def submit(self, request: web.Request) -> web.Response:
        """POST a recording: 201 with the job and where it is."""
        try:
            self._require_serving()
            read_query(NoQuery, request.query)
            if request.content_type == "multipart/form-data":
                body = await self._from_form(request)
            elif request.content_type == "application/json":
                body = await self._from_json(request)
            else:
                raise HttpError(
                    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                    "UNSUPPORTED_MEDIA_TYPE",
                    "The body is neither a form nor JSON.",
                    "Send multipart/form-data with a `file`, or JSON with a `url` or an `upload_id`.",
                    headers={"Accept-Post": "multipart/form-data, application/json"},
                )
        except VoiceForgeError as exc:
            self._metrics.refused_total.labels(exc.code).inc()
            raise
        concerning(request, job=body.id)
        return json_response(body.model_dump_json(), status=HTTPStatus.CREATED, location=f"{PATH}/{body.id}")

    @described(api.BATCH)
    async def submit_batch(self, request: web.Request) -> web.Response:
        """POST several recordings at URLs: 201 with all their jobs, or none is taken in."""
        self._require_serving()
        read_query(NoQuery, request.query)
        batch = await read_json(request, BatchBody)
        shared = {} if batch.options is None else batch.options.model_dump(exclude_unset=True)
        batch_id = new_id("bat")
        new = []
        for item in batch.items:
            merged = validated({**shared, **item.model_dump(exclude_unset=True)}, BatchItem)
            self._check(merged)
            url = str(parse_url(merged.url, self._policy))
            new.append(self._new_job(merged, new_id("job"), url=url, batch_id=batch_id))
        jobs = await self._jobs.submit(new)
        concerning(request, batch=batch_id, jobs=[job.id for job in jobs])
        body = BatchCreatedBody(batch_id=batch_id, jobs=[JobBody.of(job) for job in jobs])
        return json_response(body.model_dump_json(), status=HTTPStatus.CREATED, location=f"{PATH}?batch_id={batch_id}")

    async def _from_form(self, request: web.Request) -> JobBody:
        job_id = new_id("job")
        await self._jobs.files.require_room(request.content_length or 0)

        async def save(pieces: AsyncIterator[bytes]) -> int:
            try:
                return await self._jobs.files.save(job_id, pieces, max_bytes=self._max_bytes)
            except MediaError as exc:
                raise recording_too_large(self._max_bytes) from exc

        try:
            form = await read_form(request, save, max_bytes=self._max_bytes)
            if form.size_bytes == 0:
                raise empty_recording()
            self._check(form.options)
            new = self._new_job(form.options, job_id, file_name=form.file_name, size_bytes=form.size_bytes)
            (job,) = await self._jobs.submit([new])
        except BaseException:
            await asyncio.shield(self._jobs.files.remove(job_id))
            raise
        return JobBody.of(job)

    async def _from_json(self, request: web.Request) -> JobBody:
        value = await read_value(request)
        if isinstance(value, dict) and ("url" in value) == ("upload_id" in value):
            raise ConfigError(
                "INVALID_CONFIG",
                "Configuration refused: one of `url` and `upload_id` is needed, and not both.",
                "Or send the recording itself as multipart/form-data.",
            )
        if not isinstance(value, dict) or "url" in value:
            at_url = validated(value, SubmitUrl)
            self._check(at_url)
            url = str(parse_url(at_url.url, self._policy))
            (job,) = await self._jobs.submit([self._new_job(at_url, new_id("job"), url=url)])
            return JobBody.of(job)
        body = validated(value, SubmitUpload)
        self._check(body)
        found = await self._jobs.get_upload(body.upload_id)
        if found is None or not current_principal().may_see(found[0].tenant):
            raise upload_not_found()
        upload, size_bytes = found
        if size_bytes < upload.size_bytes:
            raise HttpError(
                HTTPStatus.CONFLICT,
                "UPLOAD_INCOMPLETE",
                f"{size_bytes} of {upload.size_bytes} bytes of the upload are there.",
                "PATCH the rest to it first.",
            )
        new = self._new_job(body, new_id("job"), file_name=upload.file_name, size_bytes=size_bytes)
        job_of_it = await self._jobs.submit_upload(new, upload.id)
        if job_of_it is None:
            raise upload_not_found()
        return JobBody.of(job_of_it)

    def _require_serving(self) -> None:
        if self._admission.stopping:
            raise shutting_down()

    def _check(self, options: JobOptions) -> None:
        """Refuse what cannot be done, as far as that is known now.

        Raises:
            ConfigError: INVALID_CONFIG, INVALID_URL, ADDRESS_NOT_ALLOWED, UNKNOWN_LANGUAGE, TRANSLATION_UNSUPPORTED.
        """
        if options.webhook_url is not None:
            parse_url(options.webhook_url, self._policy)
        elif options.webhook_secret is not None:
            raise ConfigError(
                "INVALID_CONFIG",
                "Configuration refused: `webhook_secret`: there is no `webhook_url` that it would sign for.",
                "Give both, or neither.",
            )
        recorder = self._recorder()
        if recorder is not None:
            recorder.check(
                RecordingOptions(language=options.language, multichannel=options.multichannel, task=Task(options.task))
            )

    def _new_job(
        self,
        options: JobOptions,
        job_id: str,
        *,
        url: str | None = None,
        file_name: str | None = None,
        size_bytes: int | None = None,
        batch_id: str | None = None,
    ) -> NewJob:
        return NewJob(
            id=job_id,
            options=options.for_recorder(),
            keep_s=float(self._keep_s if options.expires_in_s is None else options.expires_in_s),
            is_keep_asked=options.expires_in_s is not None,
            priority=options.queue_priority,
            url=url,
            file_name=file_name,
            size_bytes=size_bytes,
            metadata=options.metadata,
            webhook_url=None if options.webhook_url is None else str(parse_url(options.webhook_url)),
            webhook_secret=options.webhook_secret,
            batch_id=batch_id,
            tenant=current_principal().tenant,
            key_id=current_principal().key_id,
        )


def upload_not_found() -> HttpError:
    """The refusal of an id that no upload has."""
    return HttpError(
        HTTPStatus.NOT_FOUND,
        "UPLOAD_NOT_FOUND",
        "There is no such upload, or it has expired or became a job.",
        "POST to /api/v1/uploads for a new one.",
    )


def empty_recording() -> HttpError:
    """The refusal of a recording without a byte."""
    return HttpError(HTTPStatus.BAD_REQUEST, "EMPTY_RECORDING", "The recording is empty.", "Send the file's bytes.")
