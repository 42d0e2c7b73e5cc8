"""Bodies of requests, bounded: bytes while they come, and JSON as a model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from mediaserver.session_config import config_error
from signaling.problems import HttpError

JSON_MAX_BYTES = 1 << 20
"""A hundred recordings of a batch, each with a signed URL, a prompt and metadata."""

IDLE_TIMEOUT_S = 30.0
"""A client that sends nothing for so long in the middle of a body is gone."""

JSON_VALUES_MAX = 25_000
"""A hundred recordings of a batch with all hot words and metadata have 18 000. A megabyte of brackets would hold the
event loop up for a quarter of a second."""

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")


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
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > JSON_VALUES_MAX:
        raise HttpError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "BODY_TOO_LARGE",
            f"The body has more than {JSON_VALUES_MAX} values.",
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
    while piece := await next_piece(request.content.readany):
        yield piece


async def next_piece(get: Callable[[], Awaitable[T]]) -> T:
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
