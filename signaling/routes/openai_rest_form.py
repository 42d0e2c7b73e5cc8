"""What clients of OpenAI's `/v1/audio` send: a form with a recording and parameters, checked and written to disk."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeVar

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from mediaserver.decoder.window import Task
from mediaserver.jobs.recording import RecordingOptions
from mediaserver.settings import MAX_HOTWORDS, MAX_PROMPT_LETTERS, HotWord
from mediaserver.text.languages import code_of
from signaling.openapi.operation import BytesOfFile
from signaling.problems import HttpError
from signaling.routes.openai_errors import ParameterError, invalid

WRITE_BYTES = 1 << 20
"""Written at once: few trips to a thread."""

FIELD_MAX_BYTES = 64 << 10
FIELDS_MAX = 200

FORM_OVERHEAD_BYTES = 1 << 20
"""What a form may be larger than the recording in it."""

IDLE_TIMEOUT_S = 30.0
"""A client that sends nothing for so long in the middle of a body is gone."""

UPLOAD_TIMEOUT_S = 3600.0
"""2 GB at 5 Mbit/s."""

DIARIZATION = "this server does not tell speakers apart yet"

_LIST_NAME = re.compile(r"^([a-z_]+)\[\d*\]$")
_PART_NAME = re.compile(r"^(chunking_strategy)\[([a-z_]+)\]$")

Language = Annotated[str, StringConstraints(max_length=40)]


class ServerVad(BaseModel):
    """How speech is found in the recording."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["server_vad"]
    threshold: float | None = Field(None, gt=0, lt=1, description="Speech probability that counts as speech.")
    prefix_padding_ms: int | None = Field(None, ge=0, le=2000, description="Audio in ms kept before speech.")
    silence_duration_ms: int | None = Field(
        None, ge=100, le=10_000, description="Silence in ms between two utterances; the recording is cut there."
    )


class SpeechForm(BaseModel):
    """Parameters of both routes."""

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        protected_namespaces=(),
        json_schema_extra={"required": ["file", "model"]},  # the file is not held in memory, but is to be there
    )
    file: BytesOfFile = Field(b"", description="The recording: anything that FFmpeg reads, such as WAV, MP3 or M4A.")
    model: str = Field(description="The loaded model, or a name that the setting `model_aliases` lets stand for it.")
    prompt: str | None = Field(
        None,
        max_length=MAX_PROMPT_LETTERS,
        description="Text before what is heard, in the spelling to go on with; told to every piece of the recording.",
    )
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = Field(
        "json", description="`diarized_json` is refused: this server does not tell speakers apart yet."
    )
    temperature: float | None = Field(None, description="0 or left out: the engine searches and does not sample.")

    @field_validator("temperature")
    @classmethod
    def _is_zero(cls, value: float | None) -> float | None:
        if value:
            raise ValueError("only 0 is possible: the engine searches for the best text and does not sample")
        return value

    @field_validator("response_format", mode="before")
    @classmethod
    def _is_not_diarized(cls, value: object) -> object:
        if value == "diarized_json":
            raise ValueError(f"`diarized_json` is not possible: {DIARIZATION}")
        return value

    def options(self, task: Task) -> RecordingOptions:
        """What the pipeline is asked for."""
        return RecordingOptions(
            prompt=self.prompt or None, task=task, with_tokens=self.response_format == "verbose_json"
        )


class TranslationForm(SpeechForm):
    """A recording to be translated into English."""


class TranscriptionForm(SpeechForm):
    """A recording to be written down."""

    language: Language | None = Field(None, description="Code (`en`) or English name of what is spoken.")
    languages: list[Language] = Field([], alias="languages[]", description="Languages that detection chooses from.")
    keywords: list[HotWord] = Field(
        [], alias="keywords[]", max_length=MAX_HOTWORDS, description="Words to expect, as they are to be written."
    )
    timestamp_granularities: list[Literal["word", "segment"]] = Field(
        [], alias="timestamp_granularities[]", description="What `verbose_json` has times for; segments if left out."
    )
    include: list[Literal["logprobs"]] = Field(
        [], alias="include[]", description="`logprobs`: tokens with their log-probability; with `json` only."
    )
    chunking_strategy: Literal["auto"] | ServerVad | None = Field(
        None, description="A recording is always cut at pauses; `server_vad` says what a pause is."
    )
    stream: bool = Field(False, description="Server-sent events: text as it becomes sure; with `json` or `text`.")
    known_speaker_names: list[str] = Field(
        [], alias="known_speaker_names[]", description="Refused: this server does not tell speakers apart yet."
    )
    known_speaker_references: list[str] = Field(
        [], alias="known_speaker_references[]", description="Refused: this server does not tell speakers apart yet."
    )

    @field_validator("known_speaker_names", "known_speaker_references")
    @classmethod
    def _is_empty(cls, value: list[str]) -> list[str]:
        if value:
            raise ValueError(DIARIZATION)
        return value

    def require_consistent(self) -> None:
        """Refuse parameters that mean nothing beside each other.

        Raises:
            ParameterError: INVALID_VALUE.
        """
        if self.timestamp_granularities and self.response_format != "verbose_json":
            raise _conflict("timestamp_granularities", "has times only with `response_format` `verbose_json`")
        if self.include and self.response_format != "json":
            raise _conflict("include", "`logprobs` come only with `response_format` `json`")
        if self.stream and self.response_format not in ("json", "text"):
            raise _conflict("stream", f"`{self.response_format}` is written as a whole and cannot be streamed")
        if self.language and self.languages:
            raise _conflict("languages", "is what detection chooses from, and `language` says that nothing is detected")

    def options(self, task: Task) -> RecordingOptions:
        """What the pipeline is asked for."""
        vad = self.chunking_strategy if isinstance(self.chunking_strategy, ServerVad) else None
        return RecordingOptions(
            language=code_of(self.language) if self.language else None,
            languages=tuple(code_of(language) for language in self.languages if language),
            prompt=self.prompt or None,
            hotwords=tuple(self.keywords),
            task=task,
            with_tokens=self.response_format == "verbose_json" or bool(self.include),
            vad_threshold=vad.threshold if vad else None,
            pre_roll_ms=vad.prefix_padding_ms if vad else None,
            pause_ms=vad.silence_duration_ms if vad else None,
        )


Form = TypeVar("Form", bound=SpeechForm)


async def read_form(request: web.Request, model: type[Form], path: Path, *, max_bytes: int) -> Form:
    """Read a form; its recording is written to `path`.

    Raises:
        HttpError: UNSUPPORTED_MEDIA_TYPE, TOO_LARGE, BODY_TIMEOUT, BODY_BROKEN or INVALID_FORM.
        ParameterError: MISSING_REQUIRED_PARAMETER, UNKNOWN_PARAMETER or INVALID_VALUE, with its `param`.
    """
    if request.content_type != "multipart/form-data":
        raise HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            "The body is not a form.",
            "Send `Content-Type: multipart/form-data` with `file` and `model`.",
        )
    if (request.content_length or 0) > max_bytes + FORM_OVERHEAD_BYTES:
        raise _too_large(max_bytes)
    try:
        async with asyncio.timeout(UPLOAD_TIMEOUT_S):
            fields, has_file = await _read_parts(request, path, max_bytes)
    except TimeoutError as exc:
        raise _timeout(UPLOAD_TIMEOUT_S) from exc
    if not has_file:
        raise ParameterError(
            "MISSING_REQUIRED_PARAMETER", "`file` is missing.", "Send the recording as a file.", param="file"
        )
    try:
        return model.model_validate(fields)
    except ValidationError as exc:
        raise invalid(exc) from exc


async def _read_parts(request: web.Request, path: Path, max_bytes: int) -> tuple[dict[str, Any], bool]:
    fields: dict[str, Any] = {}
    has_file = False
    count = 0
    try:
        reader = await request.multipart()
        while (part := await _next(reader.next)) is not None:
            count += 1
            if count > FIELDS_MAX or not isinstance(part, BodyPartReader) or not part.name:
                raise _invalid_form(f"has more than {FIELDS_MAX} fields, or one without a name")
            if part.name != "file":
                _put(fields, part.name, await _text(part))
            elif has_file:
                raise _invalid_form("has more than one `file`")
            else:
                has_file = True
                await _save(part, path, max_bytes)
    except (ValueError, AssertionError, LookupError, HttpProcessingError) as exc:  # what aiohttp raises at nonsense
        raise _invalid_form("cannot be read") from exc
    return fields, has_file


def _put(fields: dict[str, Any], name: str, text: str) -> None:
    """A field of a form into the object that it stands for: `a[]=1`, `a[0]=1` and `a[b]=1` are lists and objects."""
    if inner := _PART_NAME.match(name):
        parent = fields.setdefault(inner[1], {})
        if not isinstance(parent, dict) or inner[2] in parent:
            raise _twice(inner[1])
        parent[inner[2]] = text
        return
    listed = _LIST_NAME.match(name)
    plain = listed[1] if listed else name
    annotation = TranscriptionForm.model_fields.get(plain)
    if annotation is not None and annotation.alias is not None:
        fields.setdefault(plain, []).append(text)
    elif plain in fields:
        raise _twice(plain)
    elif text or plain not in (
        "language",
        "prompt",
        "temperature",
        "chunking_strategy",
    ):  # empty says the same as absent
        fields[plain] = _parsed(plain, text)


def _parsed(name: str, text: str) -> Any:
    """A field's value; an object may also come as JSON in one field."""
    if name == "chunking_strategy" and text.startswith("{"):
        with suppress(ValueError, RecursionError):  # refused as the text that it then is
            return json.loads(text)
    return text


async def _save(part: BodyPartReader, path: Path, max_bytes: int) -> None:
    size = 0
    pending = bytearray()
    file = await asyncio.to_thread(path.open, "wb")
    try:
        while piece := await _next(lambda: part.read_chunk(WRITE_BYTES)):
            size += len(piece)
            if size > max_bytes:
                raise _too_large(max_bytes)
            pending += piece
            if len(pending) >= WRITE_BYTES:
                await _write(file, pending)
                pending = bytearray()
        await _write(file, pending)
    finally:
        await asyncio.to_thread(file.close)


async def _write(file: BinaryIO, data: bytearray) -> None:
    try:
        await asyncio.to_thread(file.write, data)
    except OSError as exc:
        raise HttpError(
            HTTPStatus.INSUFFICIENT_STORAGE,
            "DISK_FULL",
            "The recording cannot be stored for its transcription.",
            "Try again later, or send a smaller one.",
            retryable=True,
        ) from exc


async def _text(part: BodyPartReader) -> str:
    body = bytearray()
    while piece := await _next(lambda: part.read_chunk(FIELD_MAX_BYTES)):
        body += piece
        if len(body) > FIELD_MAX_BYTES:
            raise _invalid_form(f"has a field of more than {FIELD_MAX_BYTES >> 10} KiB")
    try:
        return body.decode()
    except UnicodeDecodeError as exc:
        raise _invalid_form("has a field that is not UTF-8") from exc


T = TypeVar("T")


async def _next(get: Callable[[], Awaitable[T]]) -> T:
    """The next piece of a body.

    Raises:
        HttpError: BODY_TIMEOUT or BODY_BROKEN.
    """
    try:
        async with asyncio.timeout(IDLE_TIMEOUT_S):
            return await get()
    except TimeoutError as exc:
        raise _timeout(IDLE_TIMEOUT_S) from exc
    except web.RequestPayloadError as exc:
        raise HttpError(
            HTTPStatus.BAD_REQUEST, "BODY_BROKEN", "The body is broken off or garbled.", "Send it again."
        ) from exc


def _timeout(limit_s: float) -> HttpError:
    return HttpError(
        HTTPStatus.REQUEST_TIMEOUT,
        "BODY_TIMEOUT",
        f"The body did not arrive, or nothing more of it within {limit_s:g} s.",
        "Send it again, or as a job (`/api/v1/transcriptions`), whose upload can be resumed.",
        retryable=True,
    )


def _too_large(max_bytes: int) -> HttpError:
    return HttpError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "TOO_LARGE",
        f"The recording is larger than {max_bytes / 1e6:g} MB.",
        "Send a compressed one, or raise `upload_max_bytes`.",
    )


def _invalid_form(problem: str) -> HttpError:
    return HttpError(
        HTTPStatus.BAD_REQUEST, "INVALID_FORM", f"The form {problem}.", "Send one `file` and the parameters as fields."
    )


def _twice(name: str) -> ParameterError:
    return _conflict(name[:80], "is given more than once")


def _conflict(name: str, problem: str) -> ParameterError:
    return ParameterError("INVALID_VALUE", f"`{name}`: {problem}.", "Leave one of them out.", param=name)
