"""Forms with a recording, which is written down as it comes; all of it bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import ValidationError

from mediaserver.jobs.bodies import FILE_NAME_MAX_LETTERS, JobOptions
from mediaserver.session_config import config_error
from signaling.body import next_piece, parsed, validated
from signaling.problems import HttpError

FIELD_MAX_BYTES = 64 << 10
FIELDS_MAX = 200
"""Of a form, hot words among them."""

FORM_OVERHEAD_BYTES = 1 << 20
"""What a form may be larger than the recording in it."""

CHUNK_BYTES = 256 << 10

SaveFile = Callable[[AsyncIterator[bytes]], Awaitable[int]]


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
        while (part := await next_piece(reader.next)) is not None:
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
    while piece := await next_piece(lambda: part.read_chunk(CHUNK_BYTES)):
        yield piece


async def _text(part: BodyPartReader) -> str:
    body = bytearray()
    while piece := await next_piece(lambda: part.read_chunk(CHUNK_BYTES)):
        body += piece
        if len(body) > FIELD_MAX_BYTES:
            raise _invalid_form(f"has a field of more than {FIELD_MAX_BYTES >> 10} KiB")
    try:
        return body.decode()
    except UnicodeDecodeError as exc:
        raise _invalid_form("has a field that is not UTF-8") from exc


def _invalid_form(problem: str) -> HttpError:
    return HttpError(
        HTTPStatus.BAD_REQUEST,
        "INVALID_FORM",
        f"The form {problem}.",
        "Send multipart/form-data with one `file`, and the options as fields or as JSON in `options`.",
    )
