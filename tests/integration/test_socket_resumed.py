"""Clients of the native WebSocket whose connections drop: no word is lost, and none is told twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest
import pytest_asyncio
from aiohttp import WSMsgType
from aiohttp.test_utils import TestServer

from mediaserver.decoder.catalogue import ModelFiles
from tests.conftest import Speech
from tests.integration.real_server import emptied, rested, serving
from tests.scoring import word_errors
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.timeout(120)

CHUNK_BYTES = 3200
PATH = "/ws/v1/transcribe"
RAW = {"encoding": "linear16", "sample_rate": "16000"}
PACE = 6.0
"""Times as fast as it was spoken: what is on its way when a connection is cut is some tenths of a second."""


@pytest_asyncio.fixture
async def node(model_files: ModelFiles, vad_model_path: Any) -> AsyncIterator[TestServer]:
    async with serving(model_files, vad_model_path) as server:
        yield server
        await emptied(server)


class Client:
    """A client that keeps what it has sent, and comes back.

    Args:
        node: where to.
        audio: linear16, 16 kHz mono.
    """

    def __init__(self, node: TestServer, audio: bytes, query: dict[str, str] = RAW) -> None:
        self.node = node
        self.audio = audio
        self.sent = 0
        self.resent = 0
        self.events: list[dict[str, Any]] = []
        self.resumed: list[dict[str, Any]] = []
        self.codes: list[int | None] = []
        self._query = query
        self._http = aiohttp.ClientSession()
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._old: list[aiohttp.ClientWebSocketResponse] = []
        self._ready = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        resume = next((event["resume"] for event in reversed(self.events) if event.get("resume")), None)
        self._ready.clear()
        if resume is None:
            url = self.node.make_url(PATH).with_query(self._query)
        else:
            url = self.node.make_url(resume["path"]).with_query(after=str(self.events[-1]["seq"]))
        await rested(self.node)
        self._ws = await self._http.ws_connect(url)
        self._reading = asyncio.create_task(self._read(self._ws))
        await asyncio.wait_for(self._ready.wait(), LIMIT_S)

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for message in ws:
            assert message.type is WSMsgType.TEXT
            event = json.loads(message.data)
            self.events.append(event)
            if event["type"] == "resumed":
                assert event["received_bytes"] <= self.sent
                self.resent += self.sent - event["received_bytes"]
                self.sent = event["received_bytes"]
                self.resumed.append(event)
            if event["type"] in ("ready", "resumed"):
                self._ready.set()
        self.codes.append(ws.close_code)

    async def send(self, until: int) -> None:
        assert self._ws is not None
        while self.sent < until:
            piece = self.audio[self.sent : min(until, self.sent + CHUNK_BYTES)]
            self.sent += len(piece)
            await self._ws.send_bytes(piece)
            await asyncio.sleep(len(piece) / 32_000 / PACE)

    async def reset(self) -> None:
        """The connection is gone at once, and what was on its way with it."""
        assert self._ws is not None
        for _ in range(5):
            self.sent += CHUNK_BYTES
            await self._ws.send_bytes(self.audio[self.sent - CHUNK_BYTES : self.sent])
        assert self._reading is not None
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        connection = self._ws._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.abort()

    def abandon(self) -> None:
        """The connection still seems to live; the client is elsewhere."""
        assert self._ws is not None
        self._old.append(self._ws)
        self.sent += 5 * CHUNK_BYTES  # they went into a network that delivers nothing any more

    async def over(self) -> None:
        """Wait until the server has hung up."""
        assert self._reading is not None
        await self._reading

    async def finish(self) -> None:
        assert self._ws is not None
        assert self._reading is not None
        await self._ws.send_str('{"type":"close_stream"}')
        await asyncio.wait_for(self._reading, 30)
        await self._http.close()

    @property
    def finals(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == "final"]

    @property
    def text(self) -> str:
        return " ".join(final["transcript"] for final in self.finals)


async def uncut(node: TestServer, audio: bytes) -> Client:
    client = Client(node, audio)
    await client.connect()
    await client.send(len(audio))
    await client.finish()
    return client


def two_of(speeches: dict[str, Speech]) -> tuple[str, bytes]:
    """Two people one after the other, with a pause between them and at the end; about 20 s."""
    chosen = [speeches["alice-awb"], speeches["darwin-rms"]]
    pause = np.zeros(12_000, np.float32)
    samples = np.concatenate([part for speech in chosen for part in (speech.samples(), pause)])
    return " ".join(speech.text for speech in chosen), (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


async def test_three_cuts_within_a_recording_change_no_word(node: TestServer, speeches: dict[str, Speech]) -> None:
    text, audio = two_of(speeches)
    whole = await uncut(node, audio)
    assert word_errors(text, whole.text) <= 0.2, whole.text

    client = Client(node, audio)
    await client.connect()
    for share, is_half_open in ((0.3, False), (0.55, True), (0.8, False)):
        await client.send(int(len(audio) * share))
        if is_half_open:
            client.abandon()
        else:
            await client.reset()
            await asyncio.sleep(0.3)
        await client.connect()
    await client.send(len(audio))
    await client.finish()

    assert word_errors(whole.text, client.text) <= 0.05, (whole.text, client.text)
    assert [final["utterance_id"] for final in client.finals] == list(range(1, len(client.finals) + 1))
    for ours, theirs in zip(client.finals, whole.finals, strict=True):
        assert ours["start"] == pytest.approx(theirs["start"], abs=0.002)
        for word, other in zip(ours["words"], theirs["words"], strict=True):
            assert word["start"] == pytest.approx(other["start"], abs=0.05)
    assert client.events[-2]["duration"] == pytest.approx(whole.events[-2]["duration"], abs=0.002)
    # In order, none twice; what is missing are interims that others took the place of while nobody was there.
    seqs = [event["seq"] for event in client.events]
    assert seqs == sorted(set(seqs))
    assert len(client.resumed) == 3
    assert client.resent >= 5 * CHUNK_BYTES
    assert client.codes == [4001, 1000]
    assert all(event["resume"]["path"] == client.events[0]["resume"]["path"] for event in client.resumed)
