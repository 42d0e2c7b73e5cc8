"""What clients say of jobs and hear of them: the types that requests are checked by, and that webhooks carry."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from yarl import URL

from mediaserver.errors import ErrorBody
from mediaserver.jobs.models import Job, Priority, Stage, State
from mediaserver.settings import MAX_HOTWORDS, MAX_PROMPT_LETTERS, HotWord

KEEP_MIN_S = 60
KEEP_MAX_S = 365 * 86_400

METADATA_FIELDS_MAX = 32
SECRET_MIN_LETTERS = 8
SECRET_MAX_LETTERS = 256
FILE_NAME_MAX_LETTERS = 255

MetadataName = Annotated[str, Field(min_length=1, max_length=64)]
Url = Annotated[str, WithJsonSchema({"type": "string", "format": "uri", "pattern": "^https?://[^@]+$"})]
"""`parse_url` says what is wrong with one, better than a pattern does."""

MetadataValue = Annotated[str, Field(max_length=512)]


class RequestBody(BaseModel):
    """What clients send: unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class JobOptions(RequestBody):
    """How a recording is to be transcribed, and what is to happen with what comes of it."""

    language: str | None = Field(
        None, max_length=16, description="Code such as `en` of what is spoken; detected if left out."
    )
    prompt: str | None = Field(
        None,
        max_length=MAX_PROMPT_LETTERS,
        description="Text before what is heard, in the spelling to go on with.",
    )
    hotwords: list[HotWord] = Field(
        default_factory=list, max_length=MAX_HOTWORDS, description="Words to expect, as they are to be written."
    )
    multichannel: bool = Field(False, description="Each channel its own transcript; else they are mixed to one.")
    task: Literal["transcribe", "translate"] = Field(
        "transcribe", description="`translate` writes English, whatever is spoken; it needs a multilingual model."
    )
    priority: Literal["express", "normal", "low"] = Field(
        "normal", description="Whose turn is next; within one, who came first."
    )
    webhook_url: Url | None = Field(None, description="Who is told when the job has ended, by POST.")
    webhook_secret: str | None = Field(
        None,
        min_length=SECRET_MIN_LETTERS,
        max_length=SECRET_MAX_LETTERS,
        pattern=r"^[^\x00]+$",  # PostgreSQL keeps no such letter
        description="Signs the webhook: `X-VoiceForge-Signature` is an HMAC-SHA256 over timestamp, dot and body.",
    )
    metadata: dict[MetadataName, MetadataValue] = Field(
        default_factory=dict,
        max_length=METADATA_FIELDS_MAX,
        description="Fields of your own, given back with the job and in its webhook.",
    )
    expires_in_s: int | None = Field(
        None,
        ge=KEEP_MIN_S,
        le=KEEP_MAX_S,
        description="Seconds after its end at which the job and its result are deleted; the setting `job_keep_s` if "
        "left out.",
    )

    @property
    def queue_priority(self) -> Priority:
        """The priority as the queue has it."""
        return Priority[self.priority.upper()]

    def for_recorder(self) -> dict[str, Any]:
        """What of it the decoder is told, as plain JSON."""
        return self.model_dump(include={"language", "prompt", "hotwords", "multichannel", "task"})


class SummaryBody(BaseModel):
    """What is known of a completed job's result."""

    duration_s: float = Field(description="Seconds of audio that could be decoded.")
    speech_s: float | None = Field(
        None, description="Seconds of speech in it, all channels together; null for jobs of earlier versions."
    )
    model: str = Field(description="What decoded it.")
    language: str | None = Field(description="Code of the language most was said in.")
    channels: int
    words: int


class JobBody(BaseModel):
    """A job as clients see it."""

    id: str = Field(description="Nobody can guess it: whoever has it may see, cancel and delete the job.")
    batch_id: str | None = Field(description="Jobs that were submitted together have the same.")
    state: Literal["queued", "running", "completed", "failed", "cancelled"]
    stage: Literal["fetching", "transcribing"] | None = Field(description="What a running job does.")
    progress: float = Field(description="How much is done, 0 to 100.")
    priority: Literal["express", "normal", "low"]
    attempts: int = Field(description="Runs that were begun: two where a worker died in the first.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None = Field(description="When the job and its result are deleted; known once it has ended.")
    source: str | None = Field(description="Where it is fetched from, without the query; null where it was uploaded.")
    file_name: str | None
    size_bytes: int | None
    language: str | None
    task: Literal["transcribe", "translate"]
    multichannel: bool
    webhook: str | None = Field(description="Scheme, host and port of who is told of its end.")
    metadata: dict[str, str]
    result: SummaryBody | None = Field(description="Of a completed job.")
    error: ErrorBody | None = Field(description="Of a failed job.")

    @classmethod
    def of(cls, job: Job) -> JobBody:
        """A row as clients see it. Queries of URLs and paths of webhooks may be secrets, and stay here."""
        return cls(
            id=job.id,
            batch_id=job.batch_id,
            state=State(job.state).value,
            stage=None if job.stage is None else Stage(job.stage).value,
            progress=job.progress,
            priority=_PRIORITIES[Priority(job.priority)],
            attempts=job.attempts,
            created_at=_when(job.created_at),
            started_at=_when_or_none(job.started_at),
            finished_at=_when_or_none(job.finished_at),
            expires_at=_when_or_none(job.expires_at),
            source=None if job.url is None else str(URL(job.url).with_query(None)),
            file_name=job.file_name,
            size_bytes=job.size_bytes,
            language=job.options["language"],
            task=job.options["task"],
            multichannel=job.options["multichannel"],
            webhook=None if job.webhook_url is None else str(URL(job.webhook_url).origin()),
            metadata=job.client_metadata,
            result=None if job.summary is None else SummaryBody.model_validate(job.summary),
            error=None if job.error is None else ErrorBody(**job.error),
        )


class WebhookBody(BaseModel):
    """What a webhook carries. The result is to be fetched: it may be large, and it is nobody's but the client's."""

    type: Literal["transcription.completed", "transcription.failed", "transcription.cancelled"]
    job: JobBody

    @classmethod
    def of(cls, event: str, job: Job) -> WebhookBody:
        """The webhook of a job that has ended."""
        return cls.model_validate({"type": event, "job": JobBody.of(job)})


_PRIORITIES: dict[Priority, Literal["express", "normal", "low"]] = {
    Priority.EXPRESS: "express",
    Priority.NORMAL: "normal",
    Priority.LOW: "low",
}


def _when(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _when_or_none(seconds: float | None) -> datetime | None:
    return None if seconds is None else _when(seconds)
