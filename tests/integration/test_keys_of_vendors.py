"""Keys through the vendors' own SDKs and the native WebSocket, with the real models; and usage after a crash."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import openai
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner
from deepgram import AsyncDeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.environment import DeepgramClientEnvironment

from mediaserver.audio.clock import SAMPLE_RATE
from mediaserver.decoder.catalogue import ModelFiles
from signaling.app import ACCOUNTS, REGISTRY
from signaling.auth.keys import NewKey
from signaling.auth.principal import Scope
from signaling.cli import main
from signaling.own_server import own_server
from tests.conftest import Speech
from tests.integration.deepgram_served import served
from tests.integration.programs import url_of, voiceforge
from tests.integration.real_server import emptied
from tests.scoring import word_errors

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

WRONG = "vf_00000000_" + "x" * 43

WRITTEN_S = 30.0
"""Within this what was used is written, on a busy machine too."""


@pytest_asyncio.fixture
async def node(model_files: ModelFiles, vad_model_path: Path, tmp_path: Path) -> AsyncIterator[TestServer]:
    async with served(model_files, vad_model_path, tmp_path / "data") as server:
        yield server


@pytest_asyncio.fixture
async def key(node: TestServer) -> str:
    """Of a tenant that may stream and have recordings transcribed."""
    _, value = await accounts(node).keys.create(NewKey("shop", "shop", scopes=[Scope.STREAM, Scope.JOBS]))
    return value


def accounts(node: TestServer) -> Any:
    app: web.Application = node.app
    return app[ACCOUNTS]


def deepgram(node: TestServer, key: str) -> AsyncDeepgramClient:
    host = f"127.0.0.1:{node.port}"
    return AsyncDeepgramClient(
        api_key=key,
        environment=DeepgramClientEnvironment(
            base=f"http://{host}", production=f"ws://{host}", agent=f"ws://{host}", agent_rest=f"http://{host}"
        ),
    )


def openai_client(node: TestServer, key: str) -> openai.AsyncOpenAI:
    url = str(node.make_url("/v1"))
    return openai.AsyncOpenAI(base_url=url, websocket_base_url=url.replace("http", "ws", 1), api_key=key, max_retries=0)


def pcm(speech: Speech) -> bytes:
    return bytes((speech.samples() * 32767).astype("<i2").tobytes())


async def usage_of(node: TestServer, key: str, door: str, *, from_s: float = 0.01) -> float:
    """Seconds of audio by this door, once there are so many: its end is written down as soon as it is known."""
    async with asyncio.timeout(WRITTEN_S), aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
        while True:
            async with http.get(node.make_url("/api/v1/usage?by=door")) as response:
                used = {line["door"]: float(line["audio_s"]) for line in (await response.json())["lines"]}
            if used.get(door, 0.0) >= from_s:
                return used[door]
            await asyncio.sleep(0.05)


async def test_deepgrams_sdk_with_a_key(node: TestServer, key: str, speech: Speech) -> None:
    with pytest.raises(ApiError) as refused:
        async with deepgram(node, WRONG).listen.v1.connect(model="nova-3"):
            pass
    assert refused.value.status_code == 401
    assert len(node.app[REGISTRY]) == 0
    with pytest.raises(ApiError) as refused:
        await deepgram(node, WRONG).listen.v1.media.transcribe_file(request=speech.path.read_bytes())
    assert refused.value.status_code == 401
    options = {"model": "nova-3", "encoding": "linear16", "sample_rate": "16000"}
    async with deepgram(node, key).listen.v1.connect(**options) as connection:
        await connection.send_media(pcm(speech))
        await connection.send_close_stream()
        messages = [message.dict() async for message in connection]
    text = " ".join(
        item["channel"]["alternatives"][0]["transcript"]
        for item in messages
        if item["type"] == "Results" and item["is_final"]
    )
    assert word_errors(speech.text, text) <= 0.2, text
    audio_s = speech.samples().size / SAMPLE_RATE
    used_s = await usage_of(node, key, "deepgram", from_s=audio_s - 0.05)
    assert used_s == pytest.approx(audio_s, abs=0.05)


async def test_a_grant_through_deepgrams_sdk(node: TestServer, key: str, speech: Speech) -> None:
    granted = await deepgram(node, key).auth.v1.tokens.grant(ttl_seconds=60)
    client = AsyncDeepgramClient(
        access_token=granted.access_token, environment=deepgram(node, key)._client_wrapper._environment
    )
    async with client.listen.v1.connect(model="nova-3", encoding="linear16", sample_rate="16000") as connection:
        await connection.send_media(pcm(speech))
        await connection.send_close_stream()
        assert [message async for message in connection]
    assert await usage_of(node, key, "deepgram") > 0, "it is the key's usage"


async def test_openais_sdk_with_a_key(node: TestServer, key: str, speech: Speech) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        await openai_client(node, WRONG).audio.transcriptions.create(model="whisper-1", file=speech.path)
    assert refused.value.code == "invalid_api_key"
    heard = await openai_client(node, key).audio.transcriptions.create(model="whisper-1", file=speech.path)
    assert word_errors(speech.text, heard.text) <= 0.2, heard.text
    with pytest.raises(Exception, match="401"):
        async with openai_client(node, WRONG).realtime.connect(extra_query={"intent": "transcription"}):
            pass
    assert len(node.app[REGISTRY]) == 0
    made = await openai_client(node, key).realtime.client_secrets.create(session={"type": "transcription"})
    for value in (key, made.value):
        async with openai_client(node, value).realtime.connect(extra_query={"intent": "transcription"}) as connection:
            assert (await connection.recv()).type == "session.created"
    await emptied(node)
    audio_s = speech.samples().size / SAMPLE_RATE
    used_s = await usage_of(node, key, "openai", from_s=audio_s - 0.1)
    assert used_s == pytest.approx(audio_s, abs=0.1)


async def test_the_native_websocket_with_a_key_and_with_a_join_token(
    node: TestServer, key: str, speech: Speech
) -> None:
    url = node.make_url("/ws/v1/transcribe?encoding=linear16&sample_rate=16000")
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(url.update_query(api_key=WRONG))
        assert refused.value.status == 401
        assert len(node.app[REGISTRY]) == 0
        headers = {"Authorization": f"Bearer {key}"}
        wanted = {"config": {"language": "en", "interim_results": False}}
        async with http.post(node.make_url("/api/v1/tokens"), json=wanted, headers=headers) as response:
            token = (await response.json())["token"]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(url.update_query(token=token, interim_results="true"))
        assert refused.value.status == 400, "it is the token that decides"
        async with http.ws_connect(url.update_query(token=token)) as ws:
            ready = await ws.receive_json()
            assert ready["config"]["language"] == "en"
            assert ready["config"]["interim_results"] is False
            await ws.send_json({"type": "configure", "config": {"interim_results": True}})
            await ws.send_bytes(pcm(speech))
            await ws.send_json({"type": "close_stream"})
            events = [message.json() async for message in ws]
        assert [event["error"]["code"] for event in events if event["type"] == "error"] == ["FIXED_BY_TOKEN"]
        assert all(event["type"] != "interim" for event in events)
        text = " ".join(event["transcript"] for event in events if event["type"] == "final")
        assert word_errors(speech.text, text) <= 0.2, text
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(url.update_query(token=token))
        assert refused.value.status == 401, "once"
    audio_s = speech.samples().size / SAMPLE_RATE
    used_s = await usage_of(node, key, "websocket", from_s=audio_s - 0.05)
    assert used_s == pytest.approx(audio_s, abs=0.05)


async def test_a_server_that_is_killed_has_counted_all_but_the_last_seconds(
    model_files: ModelFiles, vad_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"data_dir": tmp_path, "port": 0}
    monkeypatch.setenv("VOICEFORGE_DATA_DIR", str(tmp_path))
    made = await asyncio.to_thread(CliRunner().invoke, main, ["keys", "create", "phone", "--tenant", "shop"])
    key = made.stdout.strip()
    sent_s = 0.0
    async with voiceforge("serve", settings=settings) as server:
        url = await url_of(server)
        await server.until("sessions are taken")
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http,
            http.ws_connect(f"{url}/ws/v1/transcribe?encoding=linear16&sample_rate=16000") as ws,
        ):
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            while sent_s < 8.0:
                await ws.send_bytes(np.zeros(SAMPLE_RATE // 10, "<i2").tobytes())
                sent_s += 0.1
                await asyncio.sleep(max(0.0, began_s + sent_s - loop.time()))
            await server.kill()
    with sqlite3.connect(tmp_path / "jobs.db") as database:
        ((tenant, audio_s),) = database.execute("SELECT tenant, audio_s FROM usage").fetchall()
    assert tenant == "shop"
    assert sent_s - 5.0 <= audio_s <= sent_s + 0.01, audio_s  # tenths do not add up exactly


async def test_a_server_of_ones_own_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEFORGE_DATA_DIR", str(tmp_path))
    await asyncio.to_thread(CliRunner().invoke, main, ["keys", "create", "phone"])
    async with own_server([]) as url, aiohttp.ClientSession() as http, http.get(f"{url}/api/v1/config") as response:
        assert response.status == 200
