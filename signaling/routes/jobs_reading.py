"""Forms with a recording, which is written down as it comes; all of it bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from mediaserver.jobs.bodies import FILE_NAME_MAX_LETTERS, JobOptions
from mediaserver.session_config import config_error
from signaling.body import parsed, validated
from signaling.forms import FILE, bytes_of, invalid_form, parts_of, readable, text_of

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

    def add(self, name: str, text: str) -> None:
        if name == "options" and self.options is None:
            self.options = validated(parsed(text, "`options`"), JobOptions)
        elif name == "hotwords":
            self.single.setdefault(name, []).extend(word for part in text.split(",") if (word := part.strip()))
        elif name in self.single or name == "options":
            raise invalid_form(f"has `{name[:80]}` more than once")
        elif name == "metadata":
            self.single[name] = parsed(text, "`metadata`")
        else:
            self.single[name] = text

    def together(self) -> JobOptions:
        given = {} if self.options is None else self.options.model_dump(exclude_unset=True)
        twice = sorted(given.keys() & self.single.keys())
        if twice:
            raise invalid_form(f"has `{twice[0]}` both in `options` and by itself")
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
        HttpError: TOO_LARGE, BODY_TIMEOUT, BODY_BROKEN, INVALID_FORM, INVALID_JSON.
        ConfigError: INVALID_CONFIG.
        VoiceForgeError: whatever `save` raises.
    """
    fields, file_name, size_bytes = _Fields(), None, None
    with readable():
        async for part in parts_of(request, max_bytes=max_bytes):
            if part.name == FILE:
                file_name = shown_name(part.filename)
                size_bytes = await save(bytes_of(part))
            else:
                fields.add(part.name or "", await text_of(part))
    if size_bytes is None:
        raise invalid_form(f"has no `{FILE}`")
    return Form(fields.together(), file_name, size_bytes)


def shown_name(name: str | None) -> str | None:
    """A file's name as it is shown again: without folders and control characters, and bounded."""
    if name is None:
        return None
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(char for char in last if char.isprintable())[:FILE_NAME_MAX_LETTERS] or None
