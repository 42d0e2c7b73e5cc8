"""Requests whose bodies, queries and headers have gone astray."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from yarl import URL

from mediaserver.audio.clock import SAMPLE_RATE
from tests.fuzz.server import Fuzzed
from tests.unit.ingest.encoded_audio import wav

SPOKEN = np.concatenate((np.sin(np.arange(8000) / 5) * 9000, np.zeros(8000))).astype("<i2").tobytes()

RECORDING = wav(1, 16, 1, SAMPLE_RATE, SPOKEN)
"""Half a second that the VAD takes for speech, and as much silence."""

REFUSED_BY_DESIGN = (501, 503, 507)
"""What a server may say that cannot do something, has no room, or no disk."""

HEADER_LETTERS = 500


def header_text(text: str) -> str:
    """Text as it can stand in a header, where a line break would begin another one."""
    kept = "".join(letter for letter in text if letter.isprintable())[:HEADER_LETTERS]
    return kept.encode("utf-8", "ignore").decode("utf-8")


async def ask(
    server: Fuzzed,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    query: list[tuple[str, str]] | None = None,
) -> tuple[int, Any]:
    """A request's status and its body, as JSON where it says so. A fault of the server is one of the test."""
    given = {name: header_text(value) for name, value in (headers or {}).items()}
    url: URL = server.url(path, query)
    async with server.http.request(
        method, url, data=body, headers=given, skip_auto_headers=("Content-Type",), allow_redirects=False
    ) as response:
        data = await response.read()
        server.tally["messages"] += 1
        server.tally[f"answered {response.status}"] += 1
        if response.status >= 500 and response.status not in REFUSED_BY_DESIGN:
            raise AssertionError(f"{method} {url}: {response.status} {data[:500]!r}")
        if response.content_type == "application/json" and data:
            return response.status, json.loads(data)
        return response.status, data
