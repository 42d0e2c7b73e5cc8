"""What clients of OpenAI's `/v1/audio` send: a form with a recording and parameters, checked and written to disk."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import BodyPartReader, web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from mediaserver.decoder.window import Task
from mediaserver.errors import MediaError
from mediaserver.jobs.files import write_pieces
from mediaserver.jobs.recording import RecordingOptions
from mediaserver.settings import MAX_HOTWORDS, MAX_PROMPT_LETTERS, HotWord
from mediaserver.text.languages import code_of
from signaling.forms import FILE, bytes_of, parts_of, readable, recording_too_large, text_of
from signaling.openapi.operation import BytesOfFile
from signaling.problems import HttpError
from signaling.routes.openai_errors import ParameterError, invalid

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
        StorageFullError: DISK_FULL.
        ParameterError: MISSING_REQUIRED_PARAMETER, UNKNOWN_PARAMETER or INVALID_VALUE, with its `param`.
    """
    if request.content_type != "multipart/form-data":
        raise HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            "The body is not a form.",
            "Send `Content-Type: multipart/form-data` with `file` and `model`.",
        )
    try:
        async with asyncio.timeout(UPLOAD_TIMEOUT_S):
            fields, has_file = await _read_parts(request, path, max_bytes)
    except TimeoutError as exc:
        raise HttpError(
            HTTPStatus.REQUEST_TIMEOUT,
            "BODY_TIMEOUT",
            f"The body did not arrive within {UPLOAD_TIMEOUT_S:g} s.",
            "Send it as a job (`/api/v1/transcriptions`), whose upload can be resumed.",
            retryable=True,
        ) from exc
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
    with readable():
        async for part in parts_of(request, max_bytes=max_bytes):
            if part.name == FILE:
                has_file = True
                await _save(part, path, max_bytes)
            else:
                _put(fields, part.name or "", await text_of(part))
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
    try:
        await write_pieces(path, bytes_of(part), max_bytes=max_bytes)
    except MediaError as exc:
        raise recording_too_large(max_bytes) from exc


def _twice(name: str) -> ParameterError:
    return _conflict(name[:80], "is given more than once")


def _conflict(name: str, problem: str) -> ParameterError:
    return ParameterError("INVALID_VALUE", f"`{name}`: {problem}.", "Leave one of them out.", param=name)
