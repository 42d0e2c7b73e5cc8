"""The vendor's live route with a VAD and a decoder that hear nothing: what is refused and how, and how it all ends."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from mediaserver.ingest.feed import Feed
from signaling.app import ADMISSION, REGISTRY
from signaling.routes.deepgram import callbacks, listen
from signaling.socket import open_socket
from tests.unit.signaling.deepgram.vendors_door import FOREIGN_TOKEN, HANDSHAKE, RAW, SECOND, Node

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")


async def test_a_stream_ends_with_an_empty_final_and_its_metadata(node: Node) -> None:
    async with node.connect({**RAW, "tag": "a", "extra": "k:v"}) as line:
        request_id = line.ws._response.headers["dg-request-id"]
        await line.ws.send_bytes(SECOND)
        await line.say(type="CloseStream")
        final, metadata = await line.rest()
        assert line.ws.close_code == 1000
    assert (final["start"], final["duration"], final["is_final"], final["speech_final"]) == (0.0, 1.0, True, False)
    assert final["metadata"]["request_id"] == metadata["request_id"] == request_id
    assert (metadata["duration"], metadata["channels"], metadata["tags"]) == (1.0, 1, ["a"])
    assert metadata["sha256"] == hashlib.sha256(SECOND).hexdigest()


async def test_an_empty_binary_message_ends_a_stream(node: Node) -> None:
    async with node.connect() as line:
        await line.ws.send_bytes(b"")
        (metadata,) = await line.rest()
        assert line.ws.close_code == 1000
    assert (metadata["type"], metadata["duration"]) == ("Metadata", 0.0)


async def test_a_finalize_in_silence_is_answered_in_each_channel(node: Node) -> None:
    async with node.connect({**RAW, "channels": "2", "multichannel": "true"}) as line:
        await line.ws.send_bytes(SECOND)
        await line.say(type="Finalize")
        answers = [await line.hear(), await line.hear()]
        assert [(item["channel_index"], item["from_finalize"], item["duration"]) for item in answers] == [
            ([0, 2], True, 0.5),
            ([1, 2], True, 0.5),
        ]
        await line.ws.send_bytes(SECOND)
        await line.say(type="Finalize", channel=1)
        answer = await line.hear()
        assert (answer["channel_index"], answer["start"], answer["duration"]) == ([1, 2], 0.5, 0.5)
        await line.say(type="CloseStream")
        rest_of_the_left, metadata = await line.rest()
        assert (rest_of_the_left["channel_index"], rest_of_the_left["start"]) == ([0, 2], 0.5)
        assert metadata["channels"] == 2


async def test_what_cannot_be_read_is_answered_and_the_stream_goes_on(node: Node) -> None:
    async with node.connect() as line:
        await line.ws.send_str("nonsense")
        assert (await line.hear())["variant"] == "SchemaError"
        await line.say(type="Configure", keyterms=["Kant"])
        assert (await line.hear())["type"] == "ConfigureSuccess"
        await line.say(type="KeepAlive")
        await line.say(type="CloseStream")
        assert [message["type"] for message in await line.rest()] == ["Metadata"]


async def test_without_audio_or_a_keep_alive_it_is_closed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listen.IDLE_S == 10.0
    monkeypatch.setattr(listen, "IDLE_S", 0.2)
    async with node.connect() as line:
        for _ in range(5):
            await asyncio.sleep(0.1)
            await line.say(type="KeepAlive")
        (metadata,) = await line.rest()
        assert line.ws.close_code == 1011
    assert metadata["type"] == "Metadata"


async def test_the_reason_of_the_close_frame_is_the_vendors(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "IDLE_S", 0.1)
    async with node.connect(autoclose=False) as line:
        assert (await line.hear())["type"] == "Metadata"
        frame = await line.ws.receive(timeout=5)
        assert (frame.type, frame.data) == (WSMsgType.CLOSE, 1011)
        assert frame.extra.startswith("NET-0001")
        await line.ws.close()


async def test_audio_that_cannot_be_decoded_is_told_and_closes_the_stream(node: Node) -> None:
    async with node.connect({}, autoclose=False) as line:
        await line.ws.send_bytes(b"this is no container at all" * 100)
        messages = [await line.hear(), await line.hear()]
        frame = await line.ws.receive(timeout=5)
        assert (frame.type, frame.data) == (WSMsgType.CLOSE, 1008)
        assert frame.extra.startswith("DATA-0000")
        await line.ws.close()
    assert [message["type"] for message in messages] == ["Error", "Metadata"]
    assert messages[0]["variant"] == "UNDECODABLE_AUDIO"


async def test_a_server_that_stops_says_so(node: Node) -> None:
    async with node.connect() as line:
        await line.ws.send_bytes(SECOND)
        closing = asyncio.create_task(node.server.app[REGISTRY].close_all("shutdown", deadline_s=1.0))
        messages = await line.rest()
        await closing
        assert line.ws.close_code == 1001
    assert messages[-1]["type"] == "Metadata"


async def test_who_vanishes_leaves_nothing_behind(node: Node) -> None:
    async with node.connect() as line:
        await line.ws.send_bytes(SECOND)
        assert node.sessions == 1
        assert line.ws._response.connection is not None
        transport = line.ws._response.connection.transport
        assert transport is not None
        transport.abort()


@pytest.mark.parametrize(
    ("offered", "answered"), [("token, my-secret-key", "token"), ("Bearer, not-a-jwt", "Bearer"), (None, None)]
)
async def test_the_subprotocol_is_answered_and_a_key_is_never_logged(
    node: Node, offered: str | None, answered: str | None, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    protocols = offered.split(", ") if offered else []
    async with node.connect(protocols=protocols, headers={"Authorization": "Token my-other-key"}) as line:
        assert line.ws.protocol == answered
        await line.say(type="CloseStream")
        await line.rest()
    said = caplog.text + "".join(capsys.readouterr())
    assert "my-secret-key" not in said
    assert "my-other-key" not in said


async def test_a_key_in_a_header_of_its_own_is_refused_and_never_logged(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """aiohttp reads the first of several headers alone, and logs it where it knows none of it."""
    several = [*HANDSHAKE.items(), ("Sec-WebSocket-Protocol", "my-secret-key"), ("Sec-WebSocket-Protocol", "token")]
    for path in ("/v1/listen", "/v1/realtime"):
        async with node.http.get(node.url(path), headers=several) as response:
            assert response.status == 400
            assert "INVALID_SUBPROTOCOL" in (await response.text()).upper()
    assert "my-secret-key" not in caplog.text


@pytest.mark.parametrize(
    "door", ["/v1/listen?encoding=linear16&sample_rate=16000", "/v1/realtime?intent=transcription"]
)
async def test_who_is_held_back_is_not_cut_for_pings_that_it_cannot_answer(
    node: Node, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a client sends while it is held back is not read, answers to pings neither."""
    room = asyncio.Event()

    async def hold(_feed: Feed, _data: bytes) -> None:
        await room.wait()

    monkeypatch.setattr(Feed, "push", hold)
    monkeypatch.setattr("signaling.socket.PING_S", 0.1)
    defaults: Any = open_socket.__kwdefaults__
    monkeypatch.setitem(defaults, "ping_s", 0.1)
    append = json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(48_000)).decode()})
    async with node.http.ws_connect(node.url().replace("/v1/listen", "") + door) as ws:
        hearing = asyncio.create_task(ws.receive())  # answers pings

        async def send() -> None:
            for _ in range(200):  # more than sockets hold
                await (ws.send_str(append) if "realtime" in door else ws.send_bytes(bytes(48_000)))

        sending = asyncio.create_task(send())
        await asyncio.sleep(0.6)
        assert node.sessions == 1
        room.set()
        await asyncio.wait_for(sending, 10)
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
    async with asyncio.timeout(5):
        while node.sessions:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ({"diarize": "true"}, {}, 400, "INVALID_PARAMETER"),
        ({"n\x00o\x7fn\r\ns\u00e9": "1"}, {}, 400, "INVALID_PARAMETER"),
        ({"encoding": "linear16"}, {}, 400, "INVALID_AUDIO_FORMAT"),
        ({"model": "large-v3"}, {}, 400, "MODEL_NOT_LOADED"),
        ({"language": "tlh"}, {}, 400, "UNKNOWN_LANGUAGE"),
        ({"language": "multi"}, {}, 400, "UNKNOWN_LANGUAGE"),
        ({"callback": "ftp://example.org"}, {}, 400, "INVALID_URL"),
        ({"callback": "http://127.0.0.1/hook"}, {}, 400, "ADDRESS_NOT_ALLOWED"),
        ({}, {"Sec-WebSocket-Protocol": "my-secret-key"}, 400, "INVALID_SUBPROTOCOL"),
        ({}, {"Authorization": f"Bearer {FOREIGN_TOKEN}"}, 401, "INVALID_AUTH"),
        ({}, {"Sec-WebSocket-Protocol": f"bearer, {FOREIGN_TOKEN}"}, 401, "INVALID_AUTH"),
        ({}, {"Upgrade": "h2c"}, 426, "UPGRADE_REQUIRED"),
    ],
)
async def test_a_handshake_is_refused_before_the_upgrade_in_both_shapes(
    node: Node, query: dict[str, str], headers: dict[str, str], status: int, code: str
) -> None:
    refused, body, _ = await node.refusal(query, headers)
    assert (refused, body["category"]) == (status, code)
    assert node.metrics.registry.get_sample_value("voiceforge_refused_total", {"code": code}) == 1


async def test_a_node_that_is_full_or_late_says_when_to_come_back(start: Any) -> None:
    full = await start(max_sessions=1)
    async with full.connect(), full.http.get(full.url(query=RAW), headers=HANDSHAKE) as response:
        assert response.status == 429
        assert (await response.json())["category"] == "SERVER_FULL"
        assert int(response.headers["Retry-After"]) > 0
    full.engine.retry_after_s = 7
    status, body, response = await full.refusal(RAW)
    assert (status, body["category"], response.headers["Retry-After"]) == (429, "OVERLOADED", "7")
    full.engine.ready = False
    assert (await full.refusal(RAW))[:1] == (503,)
    full.server.app[ADMISSION].stop()
    status, body, _ = await full.refusal(RAW)
    assert (status, body["category"]) == (503, "SHUTTING_DOWN")
    loading = await start(loaded=False)
    status, body, _ = await loading.refusal(RAW)
    assert (status, body["category"]) == (503, "MODEL_LOADING")


async def test_results_are_posted_where_a_callback_is_named(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "LAST_S", 2.0)
    node = await start(outbound_allow_private=True)
    got: list[tuple[str, str | None, dict[str, Any]]] = []

    async def hook(request: web.Request) -> web.Response:
        got.append((request.method, request.headers.get("dg-request-id"), await request.json()))
        return web.Response()

    receiving = web.Application()
    receiving.router.add_route("*", "/hook", hook)
    async with TestServer(receiving) as receiver:
        query = {**RAW, "callback": str(receiver.make_url("/hook")), "callback_method": "put"}
        async with node.connect(query) as line:
            request_id = line.ws._response.headers["dg-request-id"]
            await line.ws.send_bytes(SECOND)
            await line.ws.send_str("nonsense")
            assert (await line.hear())["variant"] == "SchemaError"  # what a message is answered by comes at once
            await line.say(type="CloseStream")
            assert await line.rest() == []
    assert [(method, named, body["type"]) for method, named, body in got] == [
        ("PUT", request_id, "Results"),
        ("PUT", request_id, "Metadata"),
    ]
