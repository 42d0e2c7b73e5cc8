"""A server whose engine hears nothing, and where its recordings lie."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from front_door import FakeEngine

from mediaserver.audio.vad import VadPool
from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.app import make_app
from tests.unit.signaling.deepgram.vendors_door import Node


@pytest.fixture
async def vad(vad_model_path: ModelFiles) -> AsyncIterator[VadPool]:
    pool = VadPool(vad_model_path, metrics=Metrics())
    yield pool
    await pool.close()


@pytest.fixture
async def start(vad: VadPool, tmp_path: Path) -> AsyncIterator[Any]:
    nodes: list[Node] = []

    async def begin(*, loaded: bool = True, **settings: Any) -> Node:
        engine, metrics = FakeEngine(), Metrics()
        app = make_app(
            Settings(**{"shutdown_deadline_s": 1.0, "data_dir": tmp_path, **settings}),
            metrics=metrics,
            engine=engine if loaded else None,
            vad=vad if loaded else None,
        )
        server = TestServer(app)
        await server.start_server()
        nodes.append(Node(server, engine, metrics))
        return nodes[-1]

    yield begin
    for node in nodes:
        await node.http.close()
        await node.server.close()


@pytest.fixture
async def node(start: Any) -> Node:
    return await start()


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where recordings lie while they are transcribed."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder
