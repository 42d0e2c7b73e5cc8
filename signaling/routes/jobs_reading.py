"""Bodies of requests about recordings: bytes while they come, JSON, and forms, all of them bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel, ValidationError

from mediaserver.jobs.bodies import FILE_NAME_MAX_LETTERS, JobOptions
from mediaserver.session_config import config_error
from signaling.problems import HttpError

JSON_MAX_BYTES = 1 << 20
"""A hundred recordings of a batch, each with a signed URL, a prompt and metadata."""

FIELD_MAX_BYTES = 64 << 10
FIELDS_MAX = 200
"""Of a form, hot words among them."""

FORM_OVERHEAD_BYTES = 1 << 20
"""What a form may be larger than the recording in it."""

IDLE_TIMEOUT_S = 30.0
"""A client that sends nothing for so long in the middle of a body is gone."""

CHUNK_BYTES = 256 << 10

Model = TypeVar("Model", bound=BaseModel)
SaveFile = Callable[[AsyncIterator[bytes]], Awaitable[int]]


async def read_json(request: web.Request, model: type[Model]) -> Model:
    """A JSON body as a model.

    Raises:
        HttpError: as `read_value`.
        ConfigError: as `validated`.
    """
    return validated(await read_value(request), model)


async def read_value(request: web.Request) -> Any:
    """A JSON body.

    Raises:
        HttpError: UNSUPPORTED_MEDIA_TYPE, BODY_TOO_LARGE, BODY_TIMEOUT, BODY_BROKEN or INVALID_JSON.
    """
    if request.content_type != "application/json":
        raise HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            "The body is not JSON.",
            "Send `Content-Type: application/json`.",
        )
    body = bytearray()
    async for piece in pieces(request):
        body += piece
        if len(body) > JSON_MAX_BYTES:
            raise HttpError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "BODY_TOO_LARGE",
                f"The body is larger than {JSON_MAX_BYTES >> 10} KiB.",
                "Send fewer recordings at once.",
            )
    return parsed(bytes(body), "The body")


def parsed(text: bytes | str, what: str) -> Any:
    """JSON.

    Raises:
        HttpError: INVALID_JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise HttpError(
            HTTPStatus.BAD_REQUEST, "INVALID_JSON", f"{what} is not JSON.", "Send one object in UTF-8."
        ) from exc


def validated(value: Any, model: type[Model]) -> Model:
    """A parsed value as a model.

    Raises:
        ConfigError: INVALID_CONFIG, naming every field that is unknown or wrong.
    """
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        raise config_error(exc, known=sorted(model.model_fields)) from exc


async def pieces(request: web.Request) -> AsyncIterator[bytes]:
    """A body as it comes.

    Raises:
        HttpError: BODY_TIMEOUT or BODY_BROKEN.
    """
    while piece := await _next(request.content.readany):
        yield piece


@dataclass(slots=True)
class Form:
    """A form that was read: the recording's name and size, and the options."""

    options: JobOptions
    file_name: str | None
    size_bytes: int


@dataclass(slots=True)
class _Fields:
    """Parts of a form that are no file."""

    options: JobOptions | None = None
    single: dict[str, Any] = field(default_factory=dict)
    count: int = 0

    def add(self, name: str, text: str) -> None:
        self.count += 1
        if self.count > FIELDS_MAX:
            raise _invalid_form(f"has more than {FIELDS_MAX} fields")
        if name == "options" and self.options is None:
            self.options = validated(parsed(text, "`options`"), JobOptions)
        elif name == "hotwords":
            self.single.setdefault(name, []).extend(word for part in text.split(",") if (word := part.strip()))
        elif name in self.single or name == "options":
            raise _invalid_form(f"has `{name[:80]}` more than once")
        elif name == "metadata":
            self.single[name] = parsed(text, "`metadata`")
        else:
            self.single[name] = text

    def together(self) -> JobOptions:
        given = {} if self.options is None else self.options.model_dump(exclude_unset=True)
        twice = sorted(given.keys() & self.single.keys())
        if twice:
            raise _invalid_form(f"has `{twice[0]}` both in `options` and by itself")
        try:
            single = JobOptions.model_validate_strings(self.single)
        except ValidationError as exc:
            raise config_error(exc, known=["file", "options", *sorted(JobOptions.model_fields)]) from exc
        return validated({**given, **single.model_dump(exclude_unset=True)}, JobOptions)


async def read_form(request: web.Request, save: SaveFile, *, max_bytes: int) -> Form:
    """A form with a recording, which `save` writes down as it comes.

    Args:
        request: of `multipart/form-data`.
        save: takes the recording's bytes and gives their number.
        max_bytes: of the recording.

    Raises:
        HttpError: BODY_TOO_LARGE, BODY_TIMEOUT, BODY_BROKEN, INVALID_FORM, INVALID_JSON.
        ConfigError: INVALID_CONFIG.
        VoiceForgeError: whatever `save` raises.
    """
    if (request.content_length or 0) > max_bytes + FORM_OVERHEAD_BYTES:
        raise recording_too_large(max_bytes)
    fields, file_name, size_bytes = _Fields(), None, None
    try:
        reader = await request.multipart()
        while (part := await _next(reader.next)) is not None:
            if not isinstance(part, BodyPartReader) or not part.name:
                raise _invalid_form("has a part without a name")
            if part.name != "file":
                fields.add(part.name, await _text(part))
            elif size_bytes is not None:
                raise _invalid_form("has more than one `file`")
            else:
                file_name = shown_name(part.filename)
                size_bytes = await save(_file(part))
    except (ValueError, AssertionError, LookupError, HttpProcessingError) as exc:  # what aiohttp raises at nonsense
        raise _invalid_form("cannot be read") from exc
    if size_bytes is None:
        raise _invalid_form("has no `file`")
    return Form(fields.together(), file_name, size_bytes)


def shown_name(name: str | None) -> str | None:
    """A file's name as it is shown again: without folders and control characters, and bounded."""
    if name is None:
        return None
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(char for char in last if char.isprintable())[:FILE_NAME_MAX_LETTERS] or None


def recording_too_large(max_bytes: int) -> HttpError:
    """The refusal of a recording that is too large."""
    return HttpError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "TOO_LARGE",
        f"The recording is larger than {max_bytes / 1e6:.0f} MB.",
        "Send a compressed one, or raise `upload_max_bytes`.",
    )


async def _file(part: BodyPartReader) -> AsyncIterator[bytes]:
    while piece := await _next(lambda: part.read_chunk(CHUNK_BYTES)):
        yield piece


async def _text(part: BodyPartReader) -> str:
    body = bytearray()
    while piece := await _next(lambda: part.read_chunk(CHUNK_BYTES)):
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
        raise HttpError(
            HTTPStatus.REQUEST_TIMEOUT,
            "BODY_TIMEOUT",
            f"Nothing of the body arrived for {IDLE_TIMEOUT_S:g} s.",
            "Send it again, or in pieces (`/api/v1/uploads`), which can be gone on with.",
            retryable=True,
        ) from exc
    except (web.RequestPayloadError, ConnectionError) as exc:
        raise HttpError(
            HTTPStatus.BAD_REQUEST,
            "BODY_BROKEN",
            "The body is broken off or garbled.",
            "Send it again.",
            retryable=True,
        ) from exc


def _invalid_form(problem: str) -> HttpError:
    return HttpError(
        HTTPStatus.BAD_REQUEST,
        "INVALID_FORM",
        f"The form {problem}.",
        "Send multipart/form-data with one `file`, and the options as fields or as JSON in `options`.",
    )
