"""The benchmark of the WebSocket: its clients in another process against a server that they can rely on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.sockets import clients


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async def greet(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.send_str('{"type":"ready"}')
        received = 0
        async for message in ws:
            if isinstance(message.data, bytes):
                received += len(message.data)
            else:
                await ws.send_str(json.dumps({"type": f"heard {received}"}))
                break
        await ws.close()
        return ws

    app = web.Application()
    app.router.add_get("/", greet)
    server = TestServer(app)
    await server.start_server()
    yield str(server.make_url("/")).replace("http", "ws")
    await server.close()


async def test_each_connect_is_timed(url: str) -> None:
    async with clients(do="connect", url=url, times=3) as child:
        took_ms = (await child.line())["took_ms"]
    assert len(took_ms) == 3
    assert all(0 < ms < 5000 for ms in took_ms)


async def test_idle_connections_are_held_until_they_are_let_go(url: str) -> None:
    async with clients(do="idle", url=url, count=5) as child:
        assert await child.line() == {"open": 5}
        child.go_on()
        assert await child.line() == {"lost": 0}


async def test_all_of_a_recording_is_played(url: str, tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(np.zeros(1000, "<i2").tobytes())
    async with clients(do="speak", url=url, paths=[str(path)]) as child:
        assert (await child.line())["events"] == [{"ready": 1, "heard 2000": 1}]
