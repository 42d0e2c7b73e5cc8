"""The native WebSocket with a VAD and a decoder that hear nothing: what is said, refused, and how it all ends."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from mediaserver.audio.vad import VadPool
from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.ingest.feed import Feed
from mediaserver.metrics import Metrics
from mediaserver.session.dialect import Telling
from mediaserver.settings import Settings
from signaling.app import ADMISSION, REGISTRY, make_app
from signaling.routes.native import MESSAGE_MAX_BYTES
from signaling.routes.native_stream import NativeStream
from signaling.socket import Outgoing, open_socket
from tests.unit.signaling.front_door import FakeEngine

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")

RAW = {"encoding": "linear16", "sample_rate": "16000"}
SECOND = np.zeros(16_000, "<i2").tobytes()


class Node:
    """A server in this process whose engine hears nothing."""

    def __init__(self, server: TestServer, http: aiohttp.ClientSession, engine: FakeEngine, metrics: Metrics) -> None:
        self.server = server
        self.http = http
        self.engine = engine
        self.metrics = metrics

    @property
    def sessions(self) -> int:
        return len(self.server.app[REGISTRY])

    def url(self, query: dict[str, str]) -> str:
        return str(self.server.make_url("/ws/v1/transcribe").with_query(query).with_scheme("ws"))

    @asynccontextmanager
    async def connect(self, query: dict[str, str] = RAW, **options: Any) -> AsyncIterator[Line]:
        async with self.http.ws_connect(self.url(query), **options) as ws:
            line = Line(ws)
            assert (await line.event())["type"] == "ready"
            yield line
        await self.empty()

    async def empty(self) -> None:
        """Wait until no session is left."""
        async with asyncio.timeout(3):
            while self.sessions:
                await asyncio.sleep(0.01)

    async def refusal(self, query: dict[str, str], **options: Any) -> tuple[int, dict[str, Any]]:
        """The status and the error of a handshake that is refused."""
        handshake = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
            **options.pop("headers", {}),
        }
        url = self.url(query).replace("ws://", "http://")
        async with self.http.get(url, headers=handshake, **options) as response:
            assert self.sessions == 0
            return response.status, (await response.json())["error"]


class Line:
    """A client's end."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def say(self, **message: Any) -> None:
        await self.ws.send_str(json.dumps(message))

    async def event(self) -> dict[str, Any]:
        return json.loads(await self.ws.receive_str(timeout=5))

    async def error(self) -> dict[str, Any]:
        event = await self.event()
        assert event["type"] == "error", event
        return event["error"]

    async def rest(self) -> list[dict[str, Any]]:
        """All events until the close frame."""
        events = []
        async with asyncio.timeout(5):
            async for message in self.ws:
                assert message.type is WSMsgType.TEXT
                events.append(json.loads(message.data))
        return events


@pytest.fixture
async def vad(vad_model_path: ModelFiles) -> AsyncIterator[VadPool]:
    pool = VadPool(vad_model_path, metrics=Metrics())
    yield pool
    await pool.close()


@pytest.fixture
async def start(vad: VadPool) -> AsyncIterator[Any]:
    nodes: list[Node] = []

    async def begin(*, loaded: bool = True, **settings: Any) -> Node:
        engine, metrics = FakeEngine(), Metrics()
        app = make_app(
            Settings(**{"shutdown_deadline_s": 1.0, "resume_window_s": 0.1, **settings}),
            metrics=metrics,
            engine=engine if loaded else None,
            vad=vad if loaded else None,
        )
        server = TestServer(app)
        await server.start_server()
        nodes.append(Node(server, aiohttp.ClientSession(), engine, metrics))
        return nodes[-1]

    yield begin
    for node in nodes:
        await node.http.close()
        await node.server.close()


@pytest.fixture
async def node(start: Any) -> Node:
    return await start()


async def test_a_stream_begins_with_ready_and_ends_with_its_totals(node: Node) -> None:
    async with node.http.ws_connect(node.url({**RAW, "language": "en", "metadata": '{"call":"a7"}'})) as ws:
        line = Line(ws)
        ready = await line.event()
        assert ready["type"] == "ready"
        assert ready["seq"] == 0
        assert ready["metadata"] == {"call": "a7"}
        config = ready["config"]
        assert (config["encoding"], config["sample_rate"], config["channels"]) == ("linear16", 16_000, 1)
        assert node.sessions == 1
        await ws.send_bytes(SECOND)
        await line.say(type="audio", data=base64.b64encode(SECOND).decode())
        await line.say(type="close_stream")
        metadata, closed = await line.rest()
        assert (metadata["type"], metadata["duration"]) == ("metadata", 2.0)
        assert (closed["type"], closed["reason"], closed["seq"]) == ("closed", "client", 2)
        assert ws.close_code == 1000
    await node.empty()


async def test_keep_alive_and_finalize_are_answered(node: Node) -> None:
    async with node.connect() as line:
        await line.say(type="keep_alive")
        assert (await line.event())["type"] == "pong"
        await line.say(type="finalize")
        await line.say(type="close_stream")
        assert [event["type"] for event in await line.rest()] == ["metadata", "closed"]


async def test_each_channel_is_heard_and_labels_are_no_more_than_channels(node: Node) -> None:
    query = {**RAW, "channels": "2", "multichannel": "true", "channel_labels": "agent,caller"}
    async with node.connect(query) as line:
        await line.ws.send_bytes(SECOND)
        await line.say(type="close_stream")
        metadata, _ = await line.rest()
        assert metadata["duration"] == 0.5
    status, error = await node.refusal({**RAW, "channel_labels": "a,b"})
    assert (status, error["code"]) == (400, "INVALID_CONFIG")
    assert "`channel_labels`" in error["message"]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"encoding": "mp4"}, "`encoding`"),
        ({"encoding": "linear16"}, "`sample_rate`"),
        ({"encoding": "linear16", "sample_rate": "7999"}, "`sample_rate`"),
        ({"encoding": "linear16", "sample_rate": "fast"}, "`sample_rate`"),
        ({"sample_rate": "16000"}, "`sample_rate`"),
        ({**RAW, "channels": "9"}, "`channels`"),
        ({"encoding": "opus", "channels": "3"}, "`channels`"),
        ({**RAW, "diarize": "true"}, "`diarize`"),
        ({**RAW, "hotwords": "a", "custom_vocabulary": "b"}, "`custom_vocabulary`"),
        ({**RAW, "metadata": "text"}, "`metadata`"),
        ({**RAW, "model": "large-v9"}, "large-v9"),
        ({**RAW, "language": "xx"}, "xx"),
    ],
)
async def test_what_the_url_cannot_have_is_refused_by_name(node: Node, query: dict[str, str], named: str) -> None:
    status, error = await node.refusal(query)
    assert status == 400
    assert named in error["message"]
    assert node.metrics.registry.get_sample_value("voiceforge_refused_total", {"code": error["code"]}) == 1
    async with node.http.get(node.url(query)) as response:  # as a browser asks that was not told why
        assert (response.status, (await response.json())["error"]["code"]) == (400, error["code"])


async def test_a_field_given_twice_is_refused(node: Node) -> None:
    url = node.url({}) + "?encoding=linear16&encoding=flac"
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await node.http.ws_connect(url)
    assert caught.value.status == 400


async def test_plain_http_is_told_to_upgrade(node: Node) -> None:
    async with node.http.get(node.server.make_url("/ws/v1/transcribe")) as response:
        assert response.status == 426
        assert response.headers["Upgrade"] == "websocket"
        assert (await response.json())["error"]["code"] == "UPGRADE_REQUIRED"


async def test_subprotocols_are_refused_for_they_would_be_logged(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    status, error = await node.refusal(RAW, headers={"Sec-WebSocket-Protocol": "token, s3cret-key"})
    assert (status, error["code"]) == (400, "UNKNOWN_SUBPROTOCOL")
    assert "s3cret" not in caplog.text


async def test_admission_is_asked_before_the_upgrade(start: Any) -> None:
    loading = await start(loaded=False)
    assert (await loading.refusal(RAW))[1]["code"] == "MODEL_LOADING"
    busy = await start(max_sessions=1)
    busy.engine.retry_after_s = 7
    assert (await busy.refusal(RAW))[0] == 503
    busy.engine.retry_after_s = None
    async with busy.connect():
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await busy.http.ws_connect(busy.url(RAW))
        assert caught.value.status == 503
    busy.server.app[ADMISSION].stop()
    assert (await busy.refusal(RAW))[1]["code"] == "SHUTTING_DOWN"


async def test_foreign_pages_are_refused(node: Node) -> None:
    status, error = await node.refusal(RAW, headers={"Origin": "https://elsewhere.example"})
    assert (status, error["code"]) == (403, "ORIGIN_NOT_ALLOWED")


async def test_the_key_of_the_url_is_in_no_log_and_no_event(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    async with node.http.ws_connect(node.url({**RAW, "api_key": "s3cret-key"})) as ws:
        assert "s3cret" not in await ws.receive_str(timeout=5)
        await ws.send_str('{"type":"configure","config":{"language":"xx"}}')
        assert "s3cret" not in await ws.receive_str(timeout=5)
    await node.empty()
    assert "s3cret" not in caplog.text


async def test_metadata_comes_by_header_url_and_configure(node: Node) -> None:
    header = {"X-VoiceForge-Metadata": '{"caller":"+49","call":"from header"}'}
    async with node.http.ws_connect(node.url({**RAW, "metadata": '{"call":"a7"}'}), headers=header) as ws:
        line = Line(ws)
        assert (await line.event())["metadata"] == {"caller": "+49", "call": "a7"}
        await line.say(type="configure", config={"metadata": {"call": "b8"}})
        assert (await line.event())["metadata"] == {"call": "b8"}
    for wrong in ("caller", "[]", '{"caller":1}', '{"a":"' + "x" * 300 + '"}', "[" * 5000):
        status, error = await node.refusal(RAW, headers={"X-VoiceForge-Metadata": wrong})
        assert status == 400, wrong
        assert error["code"] in ("INVALID_METADATA", "INVALID_CONFIG")


async def test_configure_changes_the_format_before_the_first_audio_only(node: Node) -> None:
    async with node.connect({}) as line:
        await line.say(type="configure", config={"encoding": "linear16", "sample_rate": 8000, "hotwords": ["Hg"]})
        config = (await line.event())["config"]
        assert (config["encoding"], config["sample_rate"], config["hotwords"]) == ("linear16", 8000, ["Hg"])
        await line.ws.send_bytes(SECOND)
        await line.say(type="configure", config={"sample_rate": 16_000})
        error = await line.error()
        assert error["code"] == "AUDIO_HAS_BEGUN"
        assert "`sample_rate`" in error["message"]
        await line.say(type="configure", config={"custom_vocabulary": ["Bi"], "sample_rate": 8000})
        assert (await line.event())["config"]["hotwords"] == ["Bi"]
        await line.say(type="close_stream")
        metadata, _ = await line.rest()
        assert metadata["duration"] == pytest.approx(2.0, abs=0.01)


async def test_configure_is_done_whole_or_not_at_all(node: Node) -> None:
    async with node.connect() as line:
        for config, code in [
            ({"sample_rate": 8000, "language": "xx"}, "UNKNOWN_LANGUAGE"),
            ({"language": "en", "encoding": "linear32", "sample_rate": None}, "INVALID_AUDIO_FORMAT"),
            ({"channels": 2, "multichannel": True}, "CHANNELS_ARE_SET"),
            ({"channel_labels": ["a", "b"]}, "INVALID_CONFIG"),
            ({"diarize": True}, "INVALID_CONFIG"),
            ({"api_key": "x"}, "INVALID_CONFIG"),
            ({"\ud800": 1}, "INVALID_CONFIG"),
            ({"language": "\ud800"}, "UNKNOWN_LANGUAGE"),
        ]:
            await line.say(type="configure", config=config)
            assert (await line.error())["code"] == code, config
        await line.ws.send_bytes(SECOND)
        await line.say(type="close_stream")
        metadata, _ = await line.rest()
        assert metadata["duration"] == 1.0


@pytest.mark.parametrize("field", ["language", "languages", "model", "prompt", "hotwords", "denoise", "encoding"])
@pytest.mark.parametrize("value", ["\ud800", "x\udfff", "\0", "\u202e", "😀" * 40])
async def test_texts_that_no_encoding_takes_are_refused_or_taken(node: Node, field: str, value: str) -> None:
    async with node.connect() as line:
        await line.say(type="configure", config={field: [value] if field in ("languages", "hotwords") else value})
        assert (await line.event())["type"] in ("error", "ready")
        await line.say(type="keep_alive")
        assert (await line.event())["type"] == "pong"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "MALFORMED_MESSAGE"),
        ("{", "MALFORMED_MESSAGE"),
        ("[" * 100_000, "MALFORMED_MESSAGE"),
        ('{"type":"audio","data":"' + "A" * 262_144 + '"}', "MESSAGE_TOO_LONG"),
        ("[]", "MALFORMED_MESSAGE"),
        ("null", "MALFORMED_MESSAGE"),
        ('{"type":"sing"}', "UNKNOWN_MESSAGE"),
        ('{"type":["finalize"]}', "UNKNOWN_MESSAGE"),
        ("{}", "UNKNOWN_MESSAGE"),
        ('{"type":"\\ud800"}', "UNKNOWN_MESSAGE"),
        ('{"type":"finalize","now":true}', "MALFORMED_MESSAGE"),
        ('{"type":"finalize","\\ud800":true}', "MALFORMED_MESSAGE"),
        ('{"type":"audio"}', "MALFORMED_MESSAGE"),
        ('{"type":"audio","data":1}', "MALFORMED_MESSAGE"),
        ('{"type":"audio","data":"?"}', "MALFORMED_MESSAGE"),
        ('{"type":"audio","data":"\\u00e4"}', "MALFORMED_MESSAGE"),
        ('{"type":"configure"}', "INVALID_CONFIG"),
        ('{"type":"configure","config":[]}', "INVALID_CONFIG"),
        ('{"type":"configure","config":{"language":7}}', "INVALID_CONFIG"),
        (json.dumps({"type": "finalize"} | {str(n): n for n in range(10_000)}), "MALFORMED_MESSAGE"),
        (json.dumps({"type": "configure", "config": {str(n): n for n in range(10_000)}}), "INVALID_CONFIG"),
        (json.dumps({"type": "configure", "config": {"hotwords": [1] * 50_000}}), "INVALID_CONFIG"),
        (json.dumps({"type": "configure", "config": {"languages": "a," * 50_000}}), "INVALID_CONFIG"),
        (
            json.dumps({"type": "configure", "config": {"metadata": {str(n): n for n in range(10_000)}}}),
            "INVALID_CONFIG",
        ),
    ],
)
async def test_malformed_messages_are_told_and_the_session_goes_on(node: Node, text: str, code: str) -> None:
    async with node.connect() as line:
        await line.ws.send_str(text)
        error = await line.error()
        assert error["code"] == code
        assert len(error["message"]) < 2000  # what is wrong is not told ten thousand times
        await line.say(type="keep_alive")
        assert (await line.event())["type"] == "pong"


async def test_audio_that_cannot_be_decoded_ends_the_session(node: Node) -> None:
    async with node.connect({}) as line:
        await line.ws.send_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
        error, metadata, closed = await line.rest()
        assert error["error"]["code"] == "UNDECODABLE_AUDIO"
        assert "MP4" in error["error"]["message"]
        assert (metadata["type"], closed["reason"]) == ("metadata", "undecodable")
        assert line.ws.close_code == 1003


@pytest.mark.parametrize("encoding", ["linear16", "opus", "flac"])
async def test_an_empty_message_is_no_audio(node: Node, encoding: str) -> None:
    async with node.connect({"encoding": encoding, "sample_rate": "16000"}) as line:
        await line.ws.send_bytes(b"")
        await line.say(type="keep_alive")
        assert (await line.event())["type"] == "pong"


async def test_a_bare_close_ends_the_session(node: Node) -> None:
    async with node.connect() as line:
        await line.ws.send_bytes(SECOND)
    assert node.metrics.registry.get_sample_value(
        "voiceforge_sessions_ended_total", {"door": "websocket", "reason": "client"}
    )


async def test_what_a_client_makes_us_quote_reaches_it() -> None:
    """An event with half a surrogate pair, which UTF-8 cannot say, does not stop those after it."""

    async def quote(request: web.Request) -> web.WebSocketResponse:
        ws = await open_socket(request, max_message_bytes=1000)
        outgoing = Outgoing(request, ws, Metrics())
        outgoing.send(Telling('"\ud800"'))
        outgoing.send(Telling('"after"'))
        await outgoing.close()
        return ws

    app = web.Application()
    app.router.add_get("/", quote)
    async with TestServer(app) as server, aiohttp.ClientSession() as http, http.ws_connect(server.make_url("/")) as ws:
        assert await ws.receive_str(timeout=5) == '"?"'
        assert await ws.receive_str(timeout=5) == '"after"'


async def test_a_silent_connection_is_pinged_and_no_answer_waited_for(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signaling.socket.PING_S", 0.05)
    async with node.connect(autoping=False) as line:
        for _ in range(4):
            assert (await line.ws.receive(timeout=5)).type is WSMsgType.PING
        await line.say(type="keep_alive")
        while (message := await line.ws.receive(timeout=5)).type is WSMsgType.PING:
            pass
        assert json.loads(message.data)["type"] == "pong"


async def test_a_client_that_goes_while_it_is_held_back_is_missed_at_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = asyncio.Event()

    async def hold(feed: Feed, data: bytes) -> None:
        held.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Feed, "push", hold)
    _, writer = await raw_connection(node)
    writer.write(b"\x82\x81\0\0\0\0x")
    await asyncio.wait_for(held.wait(), 5)
    (live,) = node.server.app[REGISTRY]._by_secret.values()
    assert isinstance(live.peer, NativeStream)
    monkeypatch.setattr("signaling.socket.STALLED_LETTERS", 0)
    live.peer.feed.channels.keep_alive()  # what is told now finds that nobody reads
    await node.empty()
    writer.close()


async def test_who_has_said_all_is_heard_out_also_when_it_has_left(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callbacks and webhooks hear what nobody waits for at the other end."""
    draining, decoded, finish = asyncio.Event(), asyncio.Event(), Feed.finish

    async def drain(feed: Feed) -> None:
        draining.set()
        await decoded.wait()
        await finish(feed)

    monkeypatch.setattr(Feed, "finish", drain)
    monkeypatch.setattr(Outgoing, "_cut", lambda _self: None)  # tests' servers, unlike ours, cancel what is cut
    _, writer = await raw_connection(node)
    message = b'{"type":"close_stream"}'
    writer.write(b"\x81" + bytes([0x80 | len(message)]) + bytes(4) + message)
    await asyncio.wait_for(draining.wait(), 5)
    (live,) = node.server.app[REGISTRY]._by_secret.values()
    assert isinstance(live.peer, NativeStream)
    monkeypatch.setattr("signaling.socket.STALLED_LETTERS", 0)
    live.peer.feed.channels.keep_alive()  # what is told now finds that nobody reads
    await asyncio.sleep(0.05)
    assert live.peer.feed.is_open
    decoded.set()
    await node.empty()
    assert live.peer.feed.reason == "client"
    writer.close()


async def test_a_close_frame_without_a_code_is_the_clients_end(node: Node) -> None:
    """Browsers send it for `close()`."""
    _, writer = await raw_connection(node)
    writer.write(b"\x88\x80\0\0\0\0")
    await node.empty()
    writer.close()
    ended = node.metrics.registry.get_sample_value(
        "voiceforge_sessions_ended_total", {"door": "websocket", "reason": "client"}
    )
    assert ended == 1


async def test_a_message_that_is_too_long_ends_the_session(node: Node) -> None:
    async with node.connect() as line:
        await line.ws.send_bytes(bytes(MESSAGE_MAX_BYTES + 1))
        await line.rest()
        assert line.ws.close_code == 1009
    async with node.connect() as line:
        await line.ws.send_bytes(bytes(MESSAGE_MAX_BYTES - 100))
        await line.say(type="close_stream")
        assert (await line.rest())[-1]["type"] == "closed"


async def test_a_session_without_messages_ends(start: Any) -> None:
    node = await start(socket_idle_timeout_s=0.2)
    async with node.connect() as line:
        assert [event.get("reason") for event in await line.rest()][-1] == "timeout"
        assert line.ws.close_code == 1008


async def test_shutdown_tells_and_closes(start: Any) -> None:
    node = await start()
    async with node.connect() as line:
        await node.server.app[REGISTRY].close_all("shutdown", deadline_s=1.0)
        assert (await line.rest())[-1]["reason"] == "shutdown"
        assert line.ws.close_code == 1001


async def raw_connection(node: Node) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket without a client that keeps the rules."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    path = node.url(RAW).split(str(node.server.port), 1)[1]
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n\r\n".encode()
    )
    assert b"101" in await reader.readuntil(b"\r\n\r\n")
    await reader.read(2)
    assert node.sessions == 1
    return reader, writer


@pytest.mark.parametrize(
    "frames",
    [
        b"",
        b"\x82\xfe",  # half a header
        b"\x82\xfe\xff\xff\0\0\0\0half a message",
        b"\x02\x84\0\0\0\0half",  # a fragment that never ends
        b"\xff\xff\xff\xff",  # reserved bits
        b"\x81\x82\0\0\0\0\xff\xfe",  # text that is no UTF-8
        b"\x88\x80\0\0\0\0",  # a close frame, and nothing else
    ],
)
@pytest.mark.parametrize("abrupt", [True, False])
@pytest.mark.parametrize("window_s", [0, 0.1])
async def test_clients_that_break_off_leave_no_session_behind(
    start: Any, frames: bytes, window_s: float, *, abrupt: bool
) -> None:
    node = await start(resume_window_s=window_s)
    _, writer = await raw_connection(node)
    writer.write(frames)
    await writer.drain()
    await asyncio.sleep(0.02)
    if abrupt:
        writer.transport.abort()
    else:
        writer.close()
    await node.empty()


async def test_a_client_that_never_reads_is_cut(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signaling.socket.STALLED_LETTERS", 20_000)
    _, writer = await raw_connection(node)
    message = b'{"type":"x"}'
    frame = b"\x81" + bytes([0x80 | len(message)]) + bytes(4) + message

    async def flood() -> None:
        async with asyncio.timeout(20):
            while True:
                writer.write(frame * 1000)
                await writer.drain()
                await asyncio.sleep(0)

    with pytest.raises(ConnectionError):
        await flood()
    writer.close()
    await node.empty()


async def test_channels_count_as_so_many_sessions(start: Any) -> None:
    node = await start(max_sessions=3)
    stereo = {**RAW, "channels": "2", "multichannel": "true"}
    async with node.http.ws_connect(node.url(stereo)):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await node.http.ws_connect(node.url(stereo))
        assert refused.value.status == 503
        async with node.http.ws_connect(node.url(RAW)):
            assert node.sessions == 2
