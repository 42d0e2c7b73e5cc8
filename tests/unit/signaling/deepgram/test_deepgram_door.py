"""The vendor's routes with a VAD and a decoder that hear nothing: what is refused and how, and how it all ends."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import struct
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import numpy as np
import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer
from front_door import FakeEngine

from mediaserver.audio.vad import VadPool
from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.ingest.feed import Feed
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.app import ADMISSION, REGISTRY, make_app
from signaling.routes.deepgram import callbacks, listen, rest
from signaling.socket import open_socket

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")

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


# --- live


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


# --- recordings


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


async def test_a_recording_of_silence_has_no_words_and_leaves_no_file(node: Node, scratch: Path) -> None:
    status, body, response = await node.post({"utterances": "true", "tag": "a"}, data=a_second())
    assert status == 200
    assert body["metadata"]["request_id"] == response.headers["dg-request-id"]
    assert (body["metadata"]["duration"], body["metadata"]["tags"]) == (1.0, ["a"])
    assert body["results"]["channels"][0]["alternatives"][0]["transcript"] == ""
    assert body["results"]["utterances"] == []
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("query", "sent", "status", "code"),
    [
        ({"sentiment": "true"}, {"data": b"x"}, 400, "INVALID_PARAMETER"),
        ({"model": "large-v3"}, {"data": b"x"}, 400, "MODEL_NOT_LOADED"),
        ({"detect_language": "true"}, {"data": b"x"}, 400, "UNKNOWN_LANGUAGE"),
        ({"language": "tlh"}, {"data": b"x"}, 400, "UNKNOWN_LANGUAGE"),
        ({"callback": "nowhere"}, {"data": b"x"}, 400, "INVALID_URL"),
        ({"callback": "http://10.0.0.1/"}, {"data": b"x"}, 400, "ADDRESS_NOT_ALLOWED"),
        ({}, {"data": b"this is no recording" * 100}, 400, "NOT_AUDIO"),
        ({}, {"data": b""}, 400, "EMPTY_BODY"),
        ({}, {"data": b"{", "headers": {"Content-Type": "application/json"}}, 400, "INVALID_JSON"),
        ({}, {"json": {"uri": "https://example.org"}}, 400, "INVALID_CONFIG"),
        ({}, {"json": {"url": "file:///etc/passwd"}}, 400, "INVALID_URL"),
        ({}, {"json": {"url": "http://169.254.169.254/latest"}}, 400, "ADDRESS_NOT_ALLOWED"),
        ({}, {"json": {"url": "http://localhost:1/a.wav"}}, 400, "ADDRESS_NOT_ALLOWED"),
        (RAW, {"json": {"url": "https://example.org/a.raw"}}, 400, "INVALID_PARAMETER"),
        ({}, {"data": bytes(5000)}, 413, "TOO_LARGE"),
        ({}, {"data": b"x", "headers": {"Authorization": f"Bearer {FOREIGN_TOKEN}"}}, 401, "INVALID_AUTH"),
    ],
)
async def test_a_recording_is_refused_by_name_in_both_shapes(
    start: Any, scratch: Path, query: dict[str, str], sent: dict[str, Any], status: int, code: str
) -> None:
    node = await start(upload_max_bytes=4000)
    refused, body, _ = await node.post(query, **sent)
    assert (refused, body["category"]) == (status, code), body
    assert list(scratch.iterdir()) == []


async def test_a_body_that_turns_out_too_large_is_refused_too(start: Any, scratch: Path) -> None:
    node = await start(upload_max_bytes=4000)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(1000)

    status, body, _ = await node.post(data=pieces())
    assert (status, body["category"]) == (413, "TOO_LARGE")
    assert list(scratch.iterdir()) == []


async def test_raw_audio_is_read_as_the_query_says(node: Node) -> None:
    query = {"encoding": "mulaw", "sample_rate": "8000", "channels": "2", "multichannel": "true"}
    status, body, _ = await node.post(query, data=b"\xff" * 16_000)
    assert status == 200
    assert (body["metadata"]["duration"], body["metadata"]["channels"]) == (1.0, 2)


async def test_too_many_recordings_are_told_when_to_come_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "REQUESTS_MAX", 0)
    status, body, response = await node.post(data=a_second())
    assert (status, body["category"]) == (429, "RECORDINGS_FULL")
    assert int(response.headers["Retry-After"]) > 0


async def test_other_methods_and_faults_are_told_in_the_vendors_shape(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.http.delete(node.url()) as response:
        status, body, _ = await told(node, response)
    assert (status, body["category"]) == (405, "METHOD_NOT_ALLOWED")
    monkeypatch.setattr(rest, "recorded", lambda *_: 1 / 0)
    status, body, _ = await node.post(data=a_second())
    assert (status, body["category"]) == (500, "INTERNAL_ERROR")


@pytest.mark.parametrize(("recording", "kind"), [(a_second(), "results"), (b"this is no recording" * 100, "category")])
async def test_a_recording_by_url_is_fetched_and_what_comes_of_it_posted(
    start: Any, scratch: Path, recording: bytes, kind: str
) -> None:
    node = await start(outbound_allow_private=True)
    got: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()

    async def hook(request: web.Request) -> web.Response:
        await got.put((request.headers["dg-request-id"], await request.json()))
        return web.Response()

    async def file(_request: web.Request) -> web.Response:
        return web.Response(body=recording)

    elsewhere = web.Application()
    elsewhere.add_routes([web.post("/hook", hook), web.get("/a.wav", file)])
    async with TestServer(elsewhere) as server:
        status, body, _ = await node.post(
            {"callback": str(server.make_url("/hook"))}, json={"url": str(server.make_url("/a.wav"))}
        )
        assert (status, list(body)) == (200, ["request_id"])
        async with asyncio.timeout(5):
            request_id, posted = await got.get()
    assert request_id == body["request_id"]
    assert kind in posted
    assert list(scratch.iterdir()) == []


async def test_who_hangs_up_is_not_transcribed_for(node: Node, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "LOOK_S", 0.02)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def transcribe(*_: Any, **__: Any) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    monkeypatch.setattr("mediaserver.jobs.recording.Recorder.transcribe", transcribe)
    asking = asyncio.create_task(node.post(data=a_second()))
    async with asyncio.timeout(3):
        await begun.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await ended.wait()
        while list(scratch.iterdir()):
            await asyncio.sleep(0.01)


async def test_what_was_to_be_posted_ends_with_the_server(start: Any, scratch: Path, monkeypatch: Any) -> None:
    node = await start(outbound_allow_private=True)
    begun = asyncio.Event()

    async def transcribe(*_: Any, **__: Any) -> None:
        begun.set()
        await asyncio.sleep(60)

    monkeypatch.setattr("mediaserver.jobs.recording.Recorder.transcribe", transcribe)
    status, _, _ = await node.post({"callback": "http://127.0.0.1:9/"}, data=a_second())
    assert status == 200
    await begun.wait()
    await node.http.close()
    await node.server.close()
    assert list(scratch.iterdir()) == []


async def test_pages_of_listed_origins_may_send_the_sdks_headers(start: Any) -> None:
    node = await start(cors_origins=["https://app.example.org"])
    for path in ("/v1/listen", "/v1/auth/grant", "/v1/models"):
        async with node.http.options(node.url(path), headers={"Origin": "https://app.example.org"}) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == "https://app.example.org"
            assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
            assert "POST" in response.headers["Access-Control-Allow-Methods"]
            assert "dg-request-id" in response.headers["Access-Control-Expose-Headers"]


# --- grants and models


async def test_a_temporary_token_opens_connections_and_gets_no_other(node: Node) -> None:
    async with node.http.post(node.url("/v1/auth/grant"), json={"ttl_seconds": 7}) as response:
        granted = await response.json()
    assert granted["expires_in"] == 7
    token = granted["access_token"]
    for options in ({"headers": {"Authorization": f"bearer {token}"}}, {"protocols": ["bearer", token]}):
        async with node.connect(**options) as line:
            await line.say(type="CloseStream")
            await line.rest()
    headers = {"Authorization": f"Bearer {token}"}
    async with node.http.post(node.url("/v1/auth/grant"), headers=headers) as response:
        status, body, _ = await told(node, response)
    assert (status, body["category"]) == (403, "INSUFFICIENT_PERMISSIONS")


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ({"json": {"ttl_seconds": 0}}, 400, "INVALID_CONFIG"),
        ({"json": {"ttl_seconds": 3601}}, 400, "INVALID_CONFIG"),
        ({"json": []}, 400, "INVALID_CONFIG"),
        ({"data": b"{", "headers": {"Content-Type": "application/json"}}, 400, "INVALID_JSON"),
        ({"data": b"ttl_seconds=7"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"headers": {"Authorization": f"Bearer {FOREIGN_TOKEN}"}}, 401, "INVALID_AUTH"),
    ],
)
async def test_a_wrong_request_for_a_token_is_refused(node: Node, sent: dict[str, Any], status: int, code: str) -> None:
    async with node.http.post(node.url("/v1/auth/grant"), **sent) as response:
        refused, body, _ = await told(node, response)
    assert (refused, body["category"]) == (status, code)


async def test_a_token_lives_for_half_a_minute_unless_asked(node: Node) -> None:
    for sent in ({}, {"json": {"ttl_seconds": None, "more": 1}}):
        async with node.http.post(node.url("/v1/auth/grant"), **sent) as response:  # type: ignore[arg-type]
            assert (await response.json())["expires_in"] == 30


async def test_models_are_what_clients_of_both_vendors_read(node: Node) -> None:
    async with node.http.get(node.url("/v1/models")) as response:
        listed = await response.json()
    assert listed["object"] == "list"
    assert listed["data"] == listed["stt"]
    (only,) = listed["data"]
    assert (only["id"], only["object"], only["canonical_name"], only["languages"]) == (
        "tiny.en",
        "model",
        "tiny.en",
        ["en"],
    )
    assert listed["tts"] == []
    for name in ("tiny.en", only["uuid"], "nova-3", "whisper-1"):
        async with node.http.get(node.url(f"/v1/models/{name}")) as response:
            assert await response.json() == only


async def test_a_model_that_is_not_there_is_told_in_both_shapes(node: Node, start: Any) -> None:
    async with node.http.get(node.url("/v1/models/gpt-9")) as response:
        body = await response.json()
        assert response.status == 404
    assert set(body) == BOTH_SHAPES | {"error"}
    assert (body["error"]["code"], body["error"]["param"], body["error"]["type"]) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    loading = await start(loaded=False)
    async with loading.http.get(loading.url("/v1/models")) as response:
        assert (response.status, (await response.json())["category"]) == (503, "MODEL_LOADING")
