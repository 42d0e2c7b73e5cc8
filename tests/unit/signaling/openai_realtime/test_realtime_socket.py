"""Connections of OpenAI's Realtime WebSocket that the server ends, and what their clients are told."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientWebSocketResponse, WSCloseCode, WSMsgType
from front_door import Node, StartNode

from mediaserver.audio.vad import VadPool
from mediaserver.metrics import Metrics
from signaling.app import MODELS, REGISTRY
from signaling.routes.openai_realtime.conversation import Conversation

URL = "/v1/realtime?intent=transcription"


@pytest_asyncio.fixture
async def vad(vad_model_path: Path) -> AsyncIterator[VadPool]:
    pool = VadPool(vad_model_path, metrics=Metrics())
    yield pool
    await pool.close()


async def started(start_node: StartNode, vad: VadPool, **settings: Any) -> Node:
    """A server that hears, with an engine that decodes nothing."""
    node = await start_node(**settings)
    node.app[MODELS].vad = vad
    return node


async def rest_of(ws: ClientWebSocketResponse) -> tuple[list[dict[str, Any]], int, str]:
    """What is told until the end, and the code and reason of the close frame."""
    told = []
    while (message := await ws.receive(timeout=10)).type is WSMsgType.TEXT:
        told.append(message.json())
    assert message.type is WSMsgType.CLOSE
    return told, message.data, message.extra or ""


async def test_a_session_ends_when_it_has_lasted_long_enough(start_node: StartNode, vad: VadPool) -> None:
    node = await started(start_node, vad, session_max_s=0.3)
    async with node.client.ws_connect(URL) as ws:
        created = await ws.receive_json()
        assert created["session"]["expires_at"] > 1_700_000_000
        told, code, reason = await rest_of(ws)
    assert [event["error"]["code"] for event in told] == ["session_expired"]
    assert (code, reason) == (WSCloseCode.OK, "session_expired")
    assert len(node.app[REGISTRY]) == 0


async def test_a_stopping_server_says_so_and_completes_what_was_committed(start_node: StartNode, vad: VadPool) -> None:
    node = await started(start_node, vad)
    async with node.client.ws_connect(URL) as ws:
        await ws.receive_json()
        await ws.send_json(
            {
                "type": "session.update",
                "session": {"type": "transcription", "audio": {"input": {"turn_detection": None}}},
            }
        )
        audio = base64.b64encode(bytes(48_000)).decode()
        await ws.send_json({"type": "input_audio_buffer.append", "audio": audio})
        await ws.send_json({"type": "input_audio_buffer.commit"})
        kinds = [(await ws.receive_json())["type"] for _ in range(5)]
        assert kinds[-1] == "conversation.item.input_audio_transcription.completed"
        await node.app[REGISTRY].close_all("shutdown", deadline_s=1.0)
        told, code, _ = await rest_of(ws)
    assert [event["error"]["code"] for event in told] == ["shutting_down"]
    assert code == WSCloseCode.GOING_AWAY


async def test_a_full_server_refuses_before_the_upgrade(start_node: StartNode, vad: VadPool) -> None:
    node = await started(start_node, vad, max_sessions=1)
    async with node.client.ws_connect(URL) as ws:
        await ws.receive_json()
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        async with node.client.get(URL, headers=headers) as response:
            assert response.status == 503
            assert response.headers["Retry-After"]
            assert (await response.json())["error"]["code"] == "server_full"


async def test_long_messages_are_taken_whole_and_without_holding_others_up(start_node: StartNode, vad: VadPool) -> None:
    node = await started(start_node, vad)
    async with node.client.ws_connect(URL) as ws:
        await ws.receive_json()
        audio = base64.b64encode(bytes(48_000 * 20)).decode()  # 20 s in one message: it is read in a thread
        await ws.send_json({"type": "input_audio_buffer.append", "audio": audio})
        await ws.send_json({"type": "input_audio_buffer.commit"})
        kinds = [(await ws.receive_json(timeout=10))["type"] for _ in range(4)]
    assert kinds[0] == "input_audio_buffer.committed"
    assert kinds[-1] == "conversation.item.input_audio_transcription.completed"


async def test_a_session_that_fails_leaves_nothing_behind(
    start_node: StartNode, vad: VadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await started(start_node, vad)

    def fail(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Conversation, "begin", fail)
    async with node.client.ws_connect(URL) as ws:
        told, code, _ = await rest_of(ws)
    assert (told, code) == ([], WSCloseCode.INTERNAL_ERROR)
    assert len(node.app[REGISTRY]) == 0
