"""A recording that comes as the body of a request, or is fetched from the URL in it, onto disk with its hash."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import aiohttp
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from mediaserver.errors import MediaError
from mediaserver.ingest.codecs import TELEPHONE_RATE
from mediaserver.outbound.client import OutboundPolicy, fetch_to_file, parse_url
from mediaserver.storage.database import StorageFullError, is_full
from signaling.body import read_json
from signaling.problems import HttpError

IDLE_TIMEOUT_S = 30.0
"""A client that sends nothing for so long in the middle of a body is gone."""

WHOLE_TIMEOUT_S = 3600.0
"""2 GB at 5 Mbit/s, uploaded or fetched."""

WRITE_BYTES = 1 << 20
"""Written and hashed at once, in a thread."""

WAV_FORMATS = {"linear16": (1, 2), "linear32": (3, 4), "mulaw": (7, 1), "alaw": (6, 1)}
"""Format tag and bytes of a sample (RFC 2361) of raw audio, which gets the header that it lacks."""

WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
LENGTH_UNKNOWN = 0xFFFF_FFFF


class UrlBody(BaseModel):
    """A recording that lies elsewhere."""

    model_config = ConfigDict(extra="ignore")

    url: str = Field(description="http or https, at a public address.")


class Raw(BaseModel):
    """Raw audio, as the query describes it."""

    encoding: str
    sample_rate: int | None
    channels: int

    def header(self, size_bytes: int) -> bytes:
        """A WAV header for so many bytes of audio."""
        tag, width = WAV_FORMATS[self.encoding]
        rate, frame = self.sample_rate or TELEPHONE_RATE, width * self.channels
        length = min(size_bytes, LENGTH_UNKNOWN - WAV_HEADER.size)
        return WAV_HEADER.pack(
            *(b"RIFF", length + WAV_HEADER.size - 8, b"WAVE"),
            *(b"fmt ", 16, tag, self.channels, rate, rate * frame, frame, 8 * width),
            *(b"data", length),
        )


async def read_url(request: web.Request, policy: OutboundPolicy) -> str:
    """The URL of a JSON body.

    Raises:
        HttpError: INVALID_JSON (400), BODY_TIMEOUT, BODY_BROKEN or BODY_TOO_LARGE.
        ConfigError: INVALID_CONFIG, INVALID_URL or ADDRESS_NOT_ALLOWED.
    """
    body = await read_json(request, UrlBody)
    parse_url(body.url, policy)
    return body.url


async def save_body(request: web.Request, path: Path, *, raw: Raw | None, max_bytes: int) -> str:
    """Write a body to a file as it comes; the SHA-256 of what came, in hex. What is left of a failure is the caller's.

    Args:
        request: whose body it is.
        path: made anew.
        raw: the body is audio without a header, and gets one; None: it is a container.
        max_bytes: a larger one is refused.

    Raises:
        HttpError: BODY_TIMEOUT (408), BODY_BROKEN or EMPTY_BODY (400).
        MediaError: TOO_LARGE.
        StorageFullError: DISK_FULL.
    """
    if (request.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    try:
        async with asyncio.timeout(WHOLE_TIMEOUT_S):
            with path.open("wb") as file:  # not in a thread: cancelled there, nobody would close it
                return await _save(request, _Sink(file, raw), max_bytes)
    except TimeoutError as exc:
        raise HttpError(
            HTTPStatus.REQUEST_TIMEOUT,
            "BODY_TIMEOUT",
            f"Nothing more of the recording came for {IDLE_TIMEOUT_S:g} s, or all of it took too long.",
            "Send it again.",
            retryable=True,
        ) from exc
    except OSError as exc:
        if is_full(exc):
            raise StorageFullError from exc
        raise
    except web.RequestPayloadError as exc:
        raise HttpError(
            HTTPStatus.BAD_REQUEST, "BODY_BROKEN", "The recording broke off.", "Send it again.", retryable=True
        ) from exc


async def fetch(session: aiohttp.ClientSession, url: str, path: Path, *, max_bytes: int) -> str:
    """Fetch a recording; its SHA-256, in hex.

    Raises:
        ConfigError, OutboundError, OSError: as `fetch_to_file`.
    """
    await fetch_to_file(session, url, path, max_bytes=max_bytes, timeout_s=WHOLE_TIMEOUT_S)

    def digest() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return await asyncio.to_thread(digest)


class _Sink:
    """A file and the hash of what is written to it, both in a thread."""

    def __init__(self, file: BinaryIO, raw: Raw | None) -> None:
        self._file = file
        self._raw = raw
        self._digest = hashlib.sha256()
        self.size_bytes = 0
        if raw is not None:
            file.write(raw.header(LENGTH_UNKNOWN))

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)

    def finish(self) -> str:
        if self._raw is not None:
            self._file.seek(0)
            self._file.write(self._raw.header(self.size_bytes))
        self._file.flush()
        return self._digest.hexdigest()


async def _save(request: web.Request, sink: _Sink, max_bytes: int) -> str:
    pending = bytearray()
    while True:
        async with asyncio.timeout(IDLE_TIMEOUT_S):
            piece = await request.content.readany()
        pending += piece
        if sink.size_bytes + len(pending) > max_bytes:
            raise _too_large(max_bytes)
        if not piece or len(pending) >= WRITE_BYTES:
            await asyncio.to_thread(sink.write, bytes(pending))
            pending.clear()
        if not piece:
            break
    if not sink.size_bytes:
        raise HttpError(
            HTTPStatus.BAD_REQUEST, "EMPTY_BODY", "There is no recording in the body.", "Send its bytes, or a URL."
        )
    return await asyncio.to_thread(sink.finish)


def _too_large(max_bytes: int) -> MediaError:
    return MediaError(
        "TOO_LARGE",
        f"The recording is larger than {max_bytes / 1e6:.0f} MB.",
        "Send a compressed one, or raise `upload_max_bytes`.",
    )
