"""What tests of the vendor's routes ask, and a server that they ask it of."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import jwt
import numpy as np
from aiohttp import WSMsgType
from aiohttp.test_utils import TestServer
from front_door import FakeEngine

from mediaserver.metrics import Metrics
from signaling.app import REGISTRY

FOREIGN_TOKEN = jwt.encode({"iss": "voiceforge", "exp": 1, "jti": "1", "kind": "grant"}, "x" * 32, algorithm="HS256")
RAW = {"encoding": "linear16", "sample_rate": "16000"}
SECOND = np.zeros(16_000, "<i2").tobytes()
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
}
BOTH_SHAPES = {"category", "message", "details", "request_id", "err_code", "err_msg"}


class Node:
    """A server in this process whose engine hears nothing."""

    def __init__(self, server: TestServer, engine: FakeEngine, metrics: Metrics) -> None:
        self.server = server
        self.http = aiohttp.ClientSession()
        self.engine = engine
        self.metrics = metrics

    @property
    def sessions(self) -> int:
        return len(self.server.app[REGISTRY])

    def url(self, path: str = "/v1/listen", query: dict[str, str] | None = None) -> str:
        return str(self.server.make_url(path).with_query(query or {}))

    @asynccontextmanager
    async def connect(self, query: dict[str, str] = RAW, **options: Any) -> AsyncIterator[Line]:
        async with self.http.ws_connect(self.url(query=query), **options) as ws:
            yield Line(ws)
        async with asyncio.timeout(3):
            while self.sessions:
                await asyncio.sleep(0.01)

    async def refusal(
        self, query: dict[str, str], headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any], aiohttp.ClientResponse]:
        """The status and the body of a handshake that is refused."""
        async with self.http.get(self.url(query=query), headers={**HANDSHAKE, **(headers or {})}) as response:
            return await told(self, response)

    async def post(self, query: dict[str, str] | None = None, **options: Any) -> tuple[int, dict[str, Any], Any]:
        async with self.http.post(self.url(query=query), **options) as response:
            return await told(self, response)


async def told(node: Node, response: aiohttp.ClientResponse) -> tuple[int, dict[str, Any], aiohttp.ClientResponse]:
    body = await response.json()
    assert node.sessions == 0
    if response.status >= 400:
        assert set(body) == BOTH_SHAPES
        assert body["request_id"] == response.headers["dg-request-id"]
        assert body["err_code"] == body["category"]
        assert response.headers["dg-error"]
        assert response.headers["Cache-Control"] == "no-store"
    return response.status, body, response


class Line:
    """A client's end."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def say(self, **message: Any) -> None:
        await self.ws.send_str(json.dumps(message))

    async def hear(self) -> dict[str, Any]:
        return json.loads(await self.ws.receive_str(timeout=5))

    async def rest(self) -> list[dict[str, Any]]:
        """All messages until the close frame."""
        messages = []
        async with asyncio.timeout(5):
            async for message in self.ws:
                assert message.type is WSMsgType.TEXT
                messages.append(json.loads(message.data))
        return messages


def a_second(rate: int = 16_000) -> bytes:
    """A WAV of silence."""
    data = bytes(2 * rate)
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + len(data),
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        rate,
        2 * rate,
        2,
        16,
        b"data",
        len(data),
    )
    return header + data
