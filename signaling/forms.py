"""Forms with a recording, read part by part as they come, all of it bounded. What parts mean, each protocol says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http import HTTPStatus

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from signaling.body import next_piece
from signaling.problems import HttpError

FILE = "file"
FIELD_MAX_BYTES = 64 << 10
PARTS_MAX = 200
"""Of a form, hot words among them."""

FORM_OVERHEAD_BYTES = 1 << 20
"""What a form may be larger than the recording in it."""

CHUNK_BYTES = 256 << 10


@contextmanager
def readable() -> Iterator[None]:
    """Around all that is done with a form's parts.

    Raises:
        HttpError: INVALID_FORM, in the place of what aiohttp raises at nonsense.
    """
    try:
        yield
    except (ValueError, AssertionError, LookupError, HttpProcessingError) as exc:
        raise invalid_form("cannot be read") from exc


async def parts_of(request: web.Request, *, max_bytes: int) -> AsyncIterator[BodyPartReader]:
    """The parts of a form, each with a name, at most one of them the recording (`FILE`).

    Args:
        request: of `multipart/form-data`.
        max_bytes: of the recording.

    Raises:
        HttpError: TOO_LARGE, BODY_TIMEOUT, BODY_BROKEN, INVALID_FORM.
    """
    if (request.content_length or 0) > max_bytes + FORM_OVERHEAD_BYTES:
        raise recording_too_large(max_bytes)
    reader = await request.multipart()
    count = 0
    has_file = False
    while (part := await next_piece(reader.next)) is not None:
        count += 1
        if count > PARTS_MAX:
            raise invalid_form(f"has more than {PARTS_MAX} fields")
        if not isinstance(part, BodyPartReader) or not part.name:
            raise invalid_form("has a part without a name")
        if part.name == FILE:
            if has_file:
                raise invalid_form(f"has more than one `{FILE}`")
            has_file = True
        yield part


async def bytes_of(part: BodyPartReader) -> AsyncIterator[bytes]:
    """What a part holds, as it comes. Raises as `parts_of`."""
    while piece := await next_piece(lambda: part.read_chunk(CHUNK_BYTES)):
        yield piece


async def text_of(part: BodyPartReader) -> str:
    """A field's text. Raises as `parts_of`."""
    body = bytearray()
    async for piece in bytes_of(part):
        body += piece
        if len(body) > FIELD_MAX_BYTES:
            raise invalid_form(f"has a field of more than {FIELD_MAX_BYTES >> 10} KiB")
    try:
        return body.decode()
    except UnicodeDecodeError as exc:
        raise invalid_form("has a field that is not UTF-8") from exc


def invalid_form(problem: str) -> HttpError:
    """The refusal of a form that is none."""
    return HttpError(
        HTTPStatus.BAD_REQUEST,
        "INVALID_FORM",
        f"The form {problem}.",
        f"Send multipart/form-data with one `{FILE}`, and the rest as fields.",
    )


def recording_too_large(max_bytes: int) -> HttpError:
    """The refusal of a recording that is too large."""
    return HttpError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "TOO_LARGE",
        f"The recording is larger than {max_bytes / 1e6:.0f} MB.",
        "Send a compressed one, or raise `upload_max_bytes`.",
    )
