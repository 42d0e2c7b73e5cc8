"""The descriptions of the routes of recordings, for the OpenAPI document."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from mediaserver.jobs.bodies import JobBody
from mediaserver.jobs.results import TranscriptBody
from signaling.openapi.operation import (
    JSON,
    Access,
    Answer,
    Body,
    BytesOfFile,
    Operation,
    Refusal,
    RetryAfter,
    ServerSentEvent,
    Tag,
)
from signaling.routes.jobs_bodies import (
    BatchBody,
    BatchCreatedBody,
    JobListBody,
    ListQuery,
    NoQuery,
    ResultQuery,
    SubmitForm,
    SubmitUpload,
    SubmitUrl,
)

Bytes = Annotated[int, Field(ge=0, description="A number of bytes.")]
Location = Annotated[str, Field(description="Where it is.")]
HttpDate = Annotated[str, Field(description="When it is deleted if it has not become a job (RFC 9110 §5.6.7).")]

ONE_JOB = {"id": Annotated[str, Field(description="The job's id.")]}
ONE_UPLOAD = {"id": Annotated[str, Field(description="The upload's id.")]}
ANY = {"id": Annotated[str, Field(description="Of no consequence: the answer is the same for all.")]}
RETRY = {"Retry-After": RetryAfter}

STORE_CODES = ("DATABASE_BUSY", "DATABASE_DOWN")
STORE_DOWN = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, STORE_CODES, headers=RETRY)
TAKES_NONE = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, (*STORE_CODES, "SHUTTING_DOWN", "QUEUE_FULL"), headers=RETRY)
QUEUE_SHARE = Refusal(HTTPStatus.TOO_MANY_REQUESTS, ("QUEUE_SHARE_USED_UP",), headers=RETRY)
DISK_FULL = Refusal(HTTPStatus.INSUFFICIENT_STORAGE, ("DISK_FULL",))
NO_JOB = Refusal(HTTPStatus.NOT_FOUND, ("JOB_NOT_FOUND",))
WRONG_QUERY = Refusal(HTTPStatus.BAD_REQUEST, ("INVALID_CONFIG",))
WRONG_TYPE = Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, ("UNSUPPORTED_MEDIA_TYPE",))
TIMEOUT = Refusal(HTTPStatus.REQUEST_TIMEOUT, ("BODY_TIMEOUT",))
OPTION_CODES = (
    "INVALID_CONFIG",
    "INVALID_JSON",
    "BODY_BROKEN",
    "INVALID_URL",
    "ADDRESS_NOT_ALLOWED",
    "UNKNOWN_LANGUAGE",
    "TRANSLATION_UNSUPPORTED",
)

PREFLIGHT = Operation(
    summary="What pages of other origins may do",
    tag=Tag.RECORDINGS,
    access=Access.OPEN,
    path=ANY,
    answers={HTTPStatus.NO_CONTENT: Answer("In the headers.")},
)

SUBMIT = Operation(
    summary="Transcribe a recording",
    tag=Tag.RECORDINGS,
    access=Access.JOBS,
    audited="recording.submit",
    description="In a form, by its URL, or as an upload that is complete. The job waits for its turn: ask for it, "
    "watch its events, or give a `webhook_url`.",
    query=NoQuery,
    body=Body("The recording and the options.", {"multipart/form-data": SubmitForm, JSON: SubmitUrl | SubmitUpload}),
    answers={HTTPStatus.CREATED: Answer("The job.", {JSON: JobBody}, {"Location": Location})},
    refusals=[
        Refusal(HTTPStatus.BAD_REQUEST, (*OPTION_CODES, "INVALID_FORM", "EMPTY_RECORDING")),
        Refusal(HTTPStatus.NOT_FOUND, ("UPLOAD_NOT_FOUND",)),
        TIMEOUT,
        Refusal(HTTPStatus.CONFLICT, ("UPLOAD_INCOMPLETE",)),
        Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ("TOO_LARGE", "BODY_TOO_LARGE")),
        WRONG_TYPE,
        TAKES_NONE,
        QUEUE_SHARE,
        DISK_FULL,
    ],
)

BATCH = Operation(
    summary="Transcribe several recordings",
    tag=Tag.RECORDINGS,
    access=Access.JOBS,
    audited="recording.submit",
    description="By their URLs; all are taken in, or none.",
    query=NoQuery,
    body=Body("The recordings and the options.", {JSON: BatchBody}),
    answers={HTTPStatus.CREATED: Answer("The jobs, in their order.", {JSON: BatchCreatedBody}, {"Location": Location})},
    refusals=[
        Refusal(HTTPStatus.BAD_REQUEST, OPTION_CODES),
        TIMEOUT,
        Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ("BODY_TOO_LARGE",)),
        WRONG_TYPE,
        TAKES_NONE,
        QUEUE_SHARE,
        DISK_FULL,
    ],
)

JOB_PREFLIGHT = replace(PREFLIGHT, path=ONE_JOB)

LIST = Operation(
    summary="List jobs",
    tag=Tag.RECORDINGS,
    access=Access.JOBS,
    audited="recording.list",
    description="The newest first, by pages.",
    query=ListQuery,
    answers={HTTPStatus.OK: Answer("A page of jobs.", {JSON: JobListBody})},
    refusals=[WRONG_QUERY, STORE_DOWN],
)

SHOW = Operation(
    summary="Look at a job",
    tag=Tag.RECORDINGS,
    access=Access.JOBS,
    audited="recording.read",
    path=ONE_JOB,
    query=NoQuery,
    answers={HTTPStatus.OK: Answer("The job.", {JSON: JobBody})},
    refusals=[WRONG_QUERY, NO_JOB, STORE_DOWN],
)

DELETE = Operation(
    summary="Delete a job",
    tag=Tag.RECORDINGS,
    access=Access.JOBS,
    audited="recording.delete",
    description="With its recording and its result. One that runs is stopped; a webhook that is owed is not sent.",
    path=ONE_JOB,
    answers={HTTPStatus.NO_CONTENT: Answer("It is gone.")},
    refusals=[
        NO_JOB,
        Refusal(HTTPStatus.SERVICE_UNAVAILABLE, (*STORE_CODES, "SHUTTING_DOWN"), headers=RETRY),
        DISK_FULL,
    ],
)

CANCEL = Operation(
    summary="Cancel a job",
    tag=Tag.RECORDINGS,
    access=Access.JOBS,
    audited="recording.cancel",
    path=ONE_JOB,
    answers={
        HTTPStatus.OK: Answer("It waited, and is cancelled.", {JSON: JobBody}),
        HTTPStatus.ACCEPTED: Answer("It runs, and is stopped within half a second.", {JSON: JobBody}),
    },
    refusals=[
        NO_JOB,
        Refusal(HTTPStatus.CONFLICT, ("JOB_ENDED",)),
        Refusal(HTTPStatus.SERVICE_UNAVAILABLE, (*STORE_CODES, "SHUTTING_DOWN"), headers=RETRY),
        DISK_FULL,
    ],
)

RESULT = Operation(
    summary="Fetch a result",
    tag=Tag.RECORDINGS,
    access=Access.JOBS,
    audited="transcript.read",
    description="As JSON with words, as text, as subtitles (SRT, WebVTT) or as a table (TSV).",
    path=ONE_JOB,
    query=ResultQuery,
    answers={
        HTTPStatus.OK: Answer(
            "The result.",
            {
                JSON: TranscriptBody,
                "text/plain": str,
                "application/x-subrip": str,
                "text/vtt": str,
                "text/tab-separated-values": str,
            },
        )
    },
    refusals=[
        Refusal(HTTPStatus.BAD_REQUEST, ("INVALID_CONFIG", "INVALID_CHANNEL")),
        NO_JOB,
        Refusal(HTTPStatus.NOT_ACCEPTABLE, ("NOT_ACCEPTABLE",)),
        Refusal(HTTPStatus.CONFLICT, ("RESULT_NOT_READY", "NO_RESULT")),
        STORE_DOWN,
    ],
)

EVENTS = Operation(
    summary="Watch a job",
    tag=Tag.RECORDINGS,
    access=Access.JOBS,
    audited="recording.watch",
    description="Server-sent events: `progress` with the job at each change, at its end one that is called as its "
    "state is; then the stream ends. A stream that ends without that tells of a job that was deleted, or of a "
    "server that stops: ask again.",
    path=ONE_JOB,
    query=NoQuery,
    answers={HTTPStatus.OK: Answer("The events; `data` is the job.", {"text/event-stream": ServerSentEvent})},
    refusals=[
        WRONG_QUERY,
        NO_JOB,
        Refusal(HTTPStatus.SERVICE_UNAVAILABLE, (*STORE_CODES, "TOO_MANY_WATCHERS"), headers=RETRY),
        Refusal(HTTPStatus.TOO_MANY_REQUESTS, ("WATCHER_SHARE_USED_UP",), headers=RETRY),
    ],
)


class TusHeaders(BaseModel):
    """What every request of tus says."""

    model_config = ConfigDict(extra="ignore")

    tus_resumable: Literal["1.0.0"] | None = Field(None, alias="Tus-Resumable", description="The version of tus.")


class CreateHeaders(TusHeaders):
    """What a new upload needs."""

    upload_length: int = Field(alias="Upload-Length", ge=1, description="Bytes of the whole recording.")
    upload_metadata: str | None = Field(
        None, alias="Upload-Metadata", description="`filename` and the name in base64.", max_length=4096
    )


class AppendHeaders(TusHeaders):
    """Where the bytes of a PATCH belong."""

    upload_offset: Bytes = Field(alias="Upload-Offset", description="How many bytes are there already.")


TUS = {"Tus-Resumable": Literal["1.0.0"]}
NO_UPLOAD = Refusal(HTTPStatus.NOT_FOUND, ("UPLOAD_NOT_FOUND",))
OTHER_TUS = Refusal(HTTPStatus.PRECONDITION_FAILED, ("TUS_VERSION_UNSUPPORTED",), headers={"Tus-Version": str})

UPLOAD_OPTIONS = Operation(
    summary="What of tus is there",
    tag=Tag.RECORDINGS,
    access=Access.OPEN,
    path=ANY,
    answers={
        HTTPStatus.NO_CONTENT: Answer(
            "In the headers.", headers={**TUS, "Tus-Version": str, "Tus-Extension": str, "Tus-Max-Size": Bytes}
        )
    },
)

ONE_UPLOAD_OPTIONS = replace(UPLOAD_OPTIONS, path=ANY)

UPLOAD_CREATE = Operation(
    summary="Begin an upload",
    tag=Tag.RECORDINGS,
    access=Access.JOBS,
    audited="upload.begin",
    description="The tus protocol 1.0.0 (https://tus.io/protocols/resumable-upload): a recording in pieces, which can "
    "be gone on with after a break.",
    headers=CreateHeaders,
    answers={
        HTTPStatus.CREATED: Answer(
            "The upload.", headers={**TUS, "Location": Location, "Upload-Offset": Bytes, "Upload-Expires": HttpDate}
        )
    },
    refusals=[
        Refusal(HTTPStatus.BAD_REQUEST, ("INVALID_HEADER", "EMPTY_RECORDING")),
        OTHER_TUS,
        Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ("TOO_LARGE",)),
        Refusal(HTTPStatus.SERVICE_UNAVAILABLE, (*STORE_CODES, "SHUTTING_DOWN", "TOO_MANY_UPLOADS"), headers=RETRY),
        Refusal(HTTPStatus.TOO_MANY_REQUESTS, ("UPLOAD_SHARE_USED_UP",), headers=RETRY),
        DISK_FULL,
    ],
)

UPLOAD_HEAD = Operation(
    summary="How much of an upload is there",
    tag=Tag.RECORDINGS,
    access=Access.JOBS,
    path=ONE_UPLOAD,
    headers=TusHeaders,
    answers={
        HTTPStatus.OK: Answer(
            "In the headers.",
            headers={**TUS, "Upload-Offset": Bytes, "Upload-Length": Bytes, "Upload-Expires": HttpDate},
        )
    },
    refusals=[NO_UPLOAD, OTHER_TUS, STORE_DOWN],
)

UPLOAD_APPEND = Operation(
    summary="Bring more of an upload",
    tag=Tag.RECORDINGS,
    access=Access.JOBS,
    audited="upload.append",
    path=ONE_UPLOAD,
    headers=AppendHeaders,
    body=Body("Bytes of the recording.", {"application/offset+octet-stream": BytesOfFile}),
    answers={
        HTTPStatus.NO_CONTENT: Answer(
            "They are there.", headers={**TUS, "Upload-Offset": Bytes, "Upload-Expires": HttpDate}
        )
    },
    refusals=[
        Refusal(HTTPStatus.BAD_REQUEST, ("INVALID_HEADER", "BODY_BROKEN")),
        NO_UPLOAD,
        TIMEOUT,
        Refusal(HTTPStatus.CONFLICT, ("UPLOAD_OFFSET_WRONG",), headers={"Upload-Offset": Bytes}),
        OTHER_TUS,
        Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ("UPLOAD_TOO_LONG",)),
        WRONG_TYPE,
        Refusal(HTTPStatus.LOCKED, ("UPLOAD_BUSY",)),
        Refusal(HTTPStatus.SERVICE_UNAVAILABLE, (*STORE_CODES, "SHUTTING_DOWN"), headers=RETRY),
        DISK_FULL,
    ],
)

UPLOAD_DELETE = Operation(
    summary="Delete an upload",
    tag=Tag.RECORDINGS,
    access=Access.JOBS,
    audited="upload.delete",
    path=ONE_UPLOAD,
    headers=TusHeaders,
    answers={HTTPStatus.NO_CONTENT: Answer("It is gone.", headers=TUS)},
    refusals=[NO_UPLOAD, OTHER_TUS, STORE_DOWN, DISK_FULL],
)
