"""Recordings as jobs (`/api/v1/transcriptions`): looked at, listed, watched, cancelled, deleted, and their results.

How they come in is in `jobs_submit.py` and `jobs_uploads.py`. A job's id is its key: whoever has it may do all of this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from http import HTTPStatus

from aiohttp import web

from mediaserver.jobs.bodies import JobBody
from mediaserver.jobs.models import Job, State
from mediaserver.jobs.results import rendered, unpack
from mediaserver.jobs.service import Jobs
from mediaserver.text.subtitles import Format
from signaling.auth.principal import principal_of
from signaling.openapi.operation import described
from signaling.preflight import allowed
from signaling.problems import HttpError
from signaling.query import read_query
from signaling.routes import jobs_described as api
from signaling.routes.jobs_bodies import JobListBody, ListQuery, NoQuery, ResultQuery, is_id

PATH = "/api/v1/transcriptions"

SSE_ALIVE_PERIOD_S = 15.0
"""A comment in a stream without news: proxies close what is silent for 30 to 60 s."""

TYPES: Mapping[Format, str] = {
    Format.JSON: "application/json",
    Format.TXT: "text/plain",
    Format.SRT: "application/x-subrip",
    Format.VTT: "text/vtt",
    Format.TSV: "text/tab-separated-values",
}
"""By the order in which `Accept: */*` takes them."""

NOT_KEPT = {"Cache-Control": "no-store"}
"""What is a secret or changes by the second is in no cache."""


class Transcriptions:
    """Jobs that are there.

    Args:
        jobs: of this server.
    """

    def __init__(self, *, jobs: Jobs) -> None:
        self._jobs = jobs

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        one = f"{PATH}/{{id}}"
        return [
            web.get(PATH, self.list, allow_head=False),
            web.get(one, self.show, allow_head=False),
            web.delete(one, self.delete),
            web.get(f"{one}/result", self.result, allow_head=False),
            web.get(f"{one}/events", self.events, allow_head=False),
            web.post(f"{one}/cancel", self.cancel),
            *(web.options(path, self.preflight) for path in (PATH, f"{PATH}/batch")),
            *(web.options(path, self.job_preflight) for path in (one, f"{one}/cancel")),
        ]

    @described(api.PREFLIGHT)
    async def preflight(self, _request: web.Request) -> web.Response:
        """OPTIONS: what a page of another origin may do (CORS)."""
        return allowed("GET, POST, DELETE, OPTIONS", ("Content-Type", "Authorization", "Accept"))

    @described(api.JOB_PREFLIGHT)
    async def job_preflight(self, request: web.Request) -> web.Response:
        """OPTIONS of a job: the same, whether or not there is one."""
        return await self.preflight(request)

    @described(api.LIST)
    async def list(self, request: web.Request) -> web.Response:
        """GET the jobs, by pages."""
        query = read_query(ListQuery, request.query)
        jobs = await self._jobs.store.listed(
            limit=query.limit + 1,
            before=None if query.before is None else int(query.before),
            state=None if query.state is None else State(query.state),
            batch_id=query.batch_id,
            tenant=principal_of(request).own_tenant,
        )
        page = jobs[: query.limit]
        body = JobListBody(
            jobs=[JobBody.of(job) for job in page], next=str(page[-1].number) if len(jobs) > query.limit else None
        )
        return json_response(body.model_dump_json())

    @described(api.SHOW)
    async def show(self, request: web.Request) -> web.Response:
        """GET a job."""
        read_query(NoQuery, request.query)
        return json_response(JobBody.of(await self._find(request)).model_dump_json())

    @described(api.DELETE)
    async def delete(self, request: web.Request) -> web.Response:
        """DELETE a job with all that came of it; one that runs is stopped."""
        await self._find(request)
        if not await self._jobs.delete(_id_of(request)):
            raise not_found()
        return web.Response(status=HTTPStatus.NO_CONTENT)

    @described(api.CANCEL)
    async def cancel(self, request: web.Request) -> web.Response:
        """POST: a job that waits is cancelled, 200; one that runs will be within half a second, 202."""
        await self._find(request)
        job = await self._jobs.cancel(_id_of(request))
        if job is None:
            ended = await self._find(request)
            raise HttpError(
                HTTPStatus.CONFLICT, "JOB_ENDED", f"The job is {ended.state} already.", "DELETE it to forget it."
            )
        status = HTTPStatus.OK if State(job.state).ended else HTTPStatus.ACCEPTED
        return json_response(JobBody.of(job).model_dump_json(), status=status)

    @described(api.RESULT)
    async def result(self, request: web.Request) -> web.Response:
        """GET what came of a completed job, in the format of the query or of `Accept`."""
        query = read_query(ResultQuery, request.query)
        form = query.format or _accepted(request.headers.get("Accept", ""))
        job = await self._find(request)
        packed = await self._jobs.store.result(job.id)
        if packed is None:
            raise _no_result(job)
        text = await asyncio.to_thread(lambda: rendered(unpack(packed), form, query.channel))
        return web.Response(
            body=text.encode(), content_type=TYPES[form], charset="utf-8", headers={**NOT_KEPT, "Vary": "Accept"}
        )

    @described(api.EVENTS)
    async def events(self, request: web.Request) -> web.StreamResponse:
        """GET the progress of a job as server-sent events, to its end."""
        read_query(NoQuery, request.query)
        job = await self._find(request)
        async with aclosing(self._jobs.changes(job.id, tenant=principal_of(request).tenant)) as changes:
            news = asyncio.ensure_future(anext(changes, None))
            try:
                # The first news come at once, or a refusal does: both before the stream has begun.
                await asyncio.wait({news}, timeout=SSE_ALIVE_PERIOD_S)
                if news.done():
                    news.result()
                response = web.StreamResponse(headers={**NOT_KEPT, "X-Accel-Buffering": "no"})
                response.content_type = "text/event-stream"
                await response.prepare(request)
                while True:
                    done, _ = await asyncio.wait({news}, timeout=SSE_ALIVE_PERIOD_S)
                    if not done:
                        await response.write(b": still there\n\n")
                        continue
                    changed = news.result()
                    if changed is None:
                        break
                    await response.write(_event(changed))
                    news = asyncio.ensure_future(anext(changes, None))
            finally:
                news.cancel()
                await asyncio.gather(news, return_exceptions=True)
        await response.write_eof()
        return response

    async def _find(self, request: web.Request) -> Job:
        job = await self._jobs.store.get(_id_of(request))
        if job is None or not principal_of(request).may_see(job.tenant):
            raise not_found()
        return job


def json_response(text: str, *, status: HTTPStatus = HTTPStatus.OK, location: str | None = None) -> web.Response:
    """A body that pydantic wrote."""
    headers = NOT_KEPT if location is None else {**NOT_KEPT, "Location": location}
    return web.Response(text=text, status=status, content_type="application/json", headers=headers)


def not_found() -> HttpError:
    """The refusal of an id that no job has."""
    return HttpError(
        HTTPStatus.NOT_FOUND,
        "JOB_NOT_FOUND",
        "There is no such job, or it has expired or was deleted.",
        f"POST a recording to {PATH} for a new one.",
    )


def _id_of(request: web.Request) -> str:
    """The id in the path.

    Raises:
        HttpError: JOB_NOT_FOUND: no job has such an id.
    """
    job_id = request.match_info["id"]
    if not is_id(job_id):
        raise not_found()
    return job_id


def _event(job: Job) -> bytes:
    name = job.state if State(job.state).ended else "progress"
    return f"event: {name}\ndata: {JobBody.of(job).model_dump_json()}\n\n".encode()


def _accepted(header: str) -> Format:
    """The format that a client likes best (RFC 9110 §12.5.1); of those it likes the same, the first of `TYPES`.

    Raises:
        HttpError: NOT_ACCEPTABLE.
    """
    if not header.strip():
        return Format.JSON
    wanted: dict[str, float] = {}
    for part in header.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        try:
            wanted[name] = float(weight)
        except ValueError:
            wanted[name] = 0.0

    def weight_of(content_type: str) -> float:
        group = f"{content_type.partition('/')[0]}/*"
        return next((wanted[name] for name in (content_type, group, "*/*") if name in wanted), 0.0)

    best = max(TYPES, key=lambda form: weight_of(TYPES[form]))  # the first of equals
    if weight_of(TYPES[best]) <= 0:
        raise HttpError(
            HTTPStatus.NOT_ACCEPTABLE,
            "NOT_ACCEPTABLE",
            "The result cannot be written as `Accept` wants it.",
            f"It can be {', '.join(TYPES.values())}, or say `format` in the query.",
        )
    return best


def _no_result(job: Job) -> HttpError:
    state = State(job.state)
    if state.ended:
        return HttpError(
            HTTPStatus.CONFLICT,
            "NO_RESULT",
            f"The job is {state}: nothing came of it.",
            "GET the job: `error` says why, where it failed.",
        )
    return HttpError(
        HTTPStatus.CONFLICT,
        "RESULT_NOT_READY",
        f"The job is {state}.",
        "GET the job or its events until it is completed.",
        retryable=True,
    )
