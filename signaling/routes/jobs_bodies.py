"""What the routes of recordings take and give, beyond what webhooks know too (`mediaserver/jobs/bodies.py`)."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from mediaserver.jobs.bodies import JobBody, JobOptions, RequestBody, Url
from mediaserver.text.subtitles import Format

PAGE_MAX = 200
PAGE = 50

BATCH_MAX = 100
"""Recordings of one request; more are a second one."""

ID_MAX_LETTERS = 64

CHANNELS_MAX = 256

ID_PATTERN = r"^[A-Za-z0-9_-]+$"
"""Of what `new_id` makes; databases refuse some letters instead of finding nothing."""

JobId = Annotated[str, Field(max_length=ID_MAX_LETTERS, pattern=ID_PATTERN)]


Place = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,17}$")]
"""Where a page of jobs ended: a job's number, which is still a place in the list when the job is deleted."""


def is_id(text: str) -> bool:
    """Whether this may be the id of a job or an upload."""
    return len(text) <= ID_MAX_LETTERS and re.fullmatch(ID_PATTERN, text) is not None


class SubmitUrl(JobOptions):
    """A recording that is to be fetched, and how it is to be transcribed."""

    url: Url = Field(description="Where the recording is fetched from: http or https, public addresses.")


class SubmitUpload(JobOptions):
    """A recording that was uploaded in pieces, and how it is to be transcribed."""

    upload_id: JobId = Field(description="Of an upload that is complete (`/api/v1/uploads`).")


class SubmitForm(JobOptions):
    """A recording in a form. Each option is a part of its own, or all of them are in `options`."""

    file: Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})] = Field(
        description="The recording: any container and codec that FFmpeg reads."
    )
    options: JobOptions | None = Field(None, description="The options as one JSON object.")


class BatchBody(RequestBody):
    """Several recordings at URLs; all are taken in, or none."""

    items: list[BatchItem] = Field(min_length=1, max_length=BATCH_MAX, description="The recordings.")
    options: JobOptions | None = Field(None, description="For all that do not say otherwise.")


class BatchItem(JobOptions):
    """One of several recordings; what it says wins over what is said for all."""

    url: Url = Field(description="Where the recording is fetched from.")


class ListQuery(BaseModel):
    """Which jobs to list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(PAGE, ge=1, le=PAGE_MAX, description="Most jobs of a page.")
    before: Place | None = Field(None, description="`next` of the page before.")
    state: Literal["queued", "running", "completed", "failed", "cancelled"] | None = Field(
        None, description="Only jobs in this state."
    )
    batch_id: JobId | None = Field(None, description="Only jobs that were submitted together.")


class ResultQuery(BaseModel):
    """How to write a result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Format | None = Field(None, description="Wins over `Accept`; JSON if neither says.")
    channel: int | None = Field(
        None, ge=0, lt=CHANNELS_MAX, description="Only this channel, counted from 0; with `multichannel`."
    )


class NoQuery(BaseModel):
    """Routes without a query refuse one, so that nobody believes in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class JobListBody(BaseModel):
    """A page of jobs, the newest first."""

    jobs: list[JobBody]
    next: str | None = Field(description="`before` of the next page; null at the end.")


class BatchCreatedBody(BaseModel):
    """Jobs that were taken in together."""

    batch_id: str
    jobs: list[JobBody]


BatchBody.model_rebuild()
