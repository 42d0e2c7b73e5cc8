"""What is left of a session over a WebSocket once it is over: nothing that only a search through all objects finds.

Such a search stops the event loop, and until it comes a session's last seconds of audio stay in memory.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer

from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.ingest.feed import Feed
from mediaserver.session.channels import Channels
from mediaserver.session.session import Session
from mediaserver.settings import Settings
from signaling.routes.native_stream import NativeStream
from signaling.socket import Outgoing, Visit
from tests.conftest import Speech
from tests.integration.real_server import emptied, serving
from tests.waiting import until

pytestmark = pytest.mark.timeout(180)

NATIVE = "/ws/v1/transcribe?encoding=linear16&sample_rate=16000"
DEEPGRAM = "/v1/listen?encoding=linear16&sample_rate=16000&interim_results=true"
OPENAI = "/v1/realtime?intent=transcription"

PARTS = (Session, Channels, Feed, NativeStream, Outgoing, Visit)
"""What a session consists of, at any door."""

PIECE_BYTES = 6400
PIECE_S = 0.02
"""Ten times as fast as it was spoken: quick, and yet there are interims."""


@pytest_asyncio.fixture
async def node(model_files: ModelFiles, vad_model_path: Path) -> AsyncIterator[TestServer]:
    async with serving(model_files, vad_model_path, settings=Settings(resume_window_s=1)) as server:
        yield server


@contextmanager
def no_searches() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def parts_there(known: weakref.WeakSet[object]) -> list[weakref.ref[object]]:
    """The sessions' parts that are there, but those known before; no frame of this test refers to them afterwards."""
    return [weakref.ref(item) for item in gc.get_objects() if isinstance(item, PARTS) and item not in known]


def sent(path: str, audio: bytes) -> str | bytes:
    if path != OPENAI:
        return audio
    # The protocol's audio is 24 kHz: here it is spoken too fast, and there are words nevertheless.
    return json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()})


async def talk(
    node: TestServer, path: str, speech: Speech, *, ending: str | None, known: weakref.WeakSet[object]
) -> list[weakref.ref[object]]:
    """Say something and end by that message, or by dropping the connection; the parts that were there meanwhile."""
    audio = (speech.samples() * 32767).astype(np.dtype("<i2")).tobytes()
    messages: list[aiohttp.WSMessage] = []

    async def listen(ws: aiohttp.ClientWebSocketResponse) -> None:
        async for message in ws:
            messages.append(message)

    async with aiohttp.ClientSession() as http, http.ws_connect(str(node.make_url("/")).rstrip("/") + path) as ws:
        listening = asyncio.create_task(listen(ws))
        for at in range(0, len(audio), PIECE_BYTES):
            message = sent(path, audio[at : at + PIECE_BYTES])
            await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))
            await asyncio.sleep(PIECE_S)
        await until(lambda: bool(messages), 20.0)
        parts = parts_there(known)
        if ending is None:
            transport = ws._response.connection and ws._response.connection.transport
            assert transport is not None
            transport.abort()
        else:
            await ws.send_str(ending)
            if path == OPENAI:  # its clients just leave
                await ws.close()
        await listening
    return parts


@pytest.mark.parametrize("drops", [False, True], ids=["ended", "dropped"])
@pytest.mark.parametrize(
    ("path", "ending"),
    [
        (NATIVE, '{"type":"close_stream"}'),
        (DEEPGRAM, '{"type":"CloseStream"}'),
        (OPENAI, '{"type":"input_audio_buffer.commit"}'),
    ],
    ids=["native", "deepgram", "openai"],
)
async def test_a_session_that_is_over_is_freed_without_a_search(
    node: TestServer, speech: Speech, path: str, ending: str, drops: bool
) -> None:
    known = weakref.WeakSet(item for item in gc.get_objects() if isinstance(item, PARTS))
    with no_searches():
        parts = await talk(node, path, speech, ending=None if drops else ending, known=known)
        assert {type(part()) for part in parts} >= {Session, Channels, Feed, Outgoing}
        await emptied(node)
        await until(lambda: all(part() is None for part in parts), 5.0)  # tasks that were cancelled end first


async def test_a_session_that_is_taken_up_again_is_freed_without_a_search(node: TestServer, speech: Speech) -> None:
    known = weakref.WeakSet(item for item in gc.get_objects() if isinstance(item, PARTS))
    audio = (speech.samples() * 32767).astype(np.dtype("<i2")).tobytes()
    url = str(node.make_url("/")).rstrip("/")
    with no_searches():
        async with aiohttp.ClientSession() as http:
            async with http.ws_connect(url + NATIVE) as ws:
                ready = json.loads((await ws.receive()).data)
                await ws.send_bytes(audio[: len(audio) // 2])
                transport = ws._response.connection and ws._response.connection.transport
                assert transport is not None
                transport.abort()
            async with http.ws_connect(f"{url}{ready['resume']['path']}?after={ready['seq']}") as ws:
                while (resumed := json.loads((await ws.receive()).data))["type"] != "resumed":
                    pass  # what it missed
                await ws.send_bytes(audio[resumed["received_bytes"] :])
                parts = parts_there(known)
                await ws.send_str('{"type":"close_stream"}')
                events = [json.loads(message.data) async for message in ws]
        assert events[-1]["type"] == "closed"
        await emptied(node)
        assert {type(part()) for part in parts} | {type(None)} == {*PARTS, type(None)}
        await until(lambda: all(part() is None for part in parts), 5.0)
