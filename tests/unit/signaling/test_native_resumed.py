"""Coming back to a session of the native WebSocket: who may, to what, and what is told again."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import WSMessage, WSMsgType
from yarl import URL

from mediaserver.events import Final
from mediaserver.ingest.feed import Feed
from signaling.app import ACCOUNTS, REGISTRY
from signaling.auth.keys import NewKey
from signaling.auth.principal import Scope
from signaling.routes.native_stream import NativeStream
from signaling.socket import OnMessage, Outgoing
from tests.unit.signaling.test_native import RAW, SECOND, Line, Node, start, vad

__all__ = ["start", "vad"]

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")


@pytest.fixture
async def node(start: Any) -> Node:
    return await start(resume_window_s=20)


class Client:
    """A client that comes back by hand."""

    def __init__(self, node: Node, ws: aiohttp.ClientWebSocketResponse, ready: dict[str, Any]) -> None:
        self.node = node
        self.ws = ws
        self.line = Line(ws)
        self.path: str = ready["resume"]["path"]

    def url(self, after: int | None = None, path: str | None = None) -> URL:
        url = self.node.server.make_url(path or self.path)
        return url if after is None else url.with_query(after=str(after))

    async def back(self, after: int | None = None) -> Line:
        return Line(await self.node.http.ws_connect(self.url(after)))

    async def refusal(self, after: int | None = None, path: str | None = None) -> tuple[int, str]:
        async with self.node.http.get(self.url(after, path)) as response:
            return response.status, (await response.json())["error"]["code"]

    async def reset(self) -> None:
        connection = self.ws._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.abort()
        await self.held()

    async def held(self) -> None:
        async with asyncio.timeout(5):
            while not self.stream.describe()["is_held"]:
                await asyncio.sleep(0.005)

    @property
    def stream(self) -> NativeStream:
        (live,) = self.node.server.app[REGISTRY].sessions()
        assert isinstance(live.peer, NativeStream)
        return live.peer

    def count(self, name: str, **labels: str) -> float:
        return self.node.metrics.registry.get_sample_value(f"voiceforge_{name}", labels) or 0.0


async def connected(node: Node, query: dict[str, str] = RAW, **options: Any) -> Client:
    ws = await node.http.ws_connect(node.url(query), **options)
    return Client(node, ws, await Line(ws).event())


def final(number: int) -> Final:
    return Final(number, f"word {number}", 1.0, 0.0, 1.0, 1.0, "en", 1.0, [])


async def test_a_client_goes_on_where_it_was(node: Node) -> None:
    client = await connected(node)
    await client.ws.send_bytes(SECOND[:1000])
    await client.line.say(type="audio", data=base64.b64encode(SECOND[:500]).decode())
    await client.line.say(type="keep_alive")
    assert (await client.line.event())["type"] == "pong"
    await client.reset()
    client.stream.feed.channels.tell(final(1))
    client.stream.feed.channels.tell(final(2))
    line = await client.back(after=1)
    told = [await line.event() for _ in range(3)]
    assert [(event["type"], event["seq"]) for event in told] == [("final", 2), ("final", 3), ("resumed", 4)]
    assert told[2]["received_bytes"] == 1500
    assert told[2]["stream_time"] == pytest.approx(1500 / 32_000, abs=0.001)
    assert told[2]["is_elsewhere"] is False
    assert told[2]["resume"] == {"path": client.path, "window_s": 20}
    await line.ws.send_bytes(SECOND)
    await line.say(type="close_stream")
    rest = await line.rest()
    assert [event["type"] for event in rest] == ["metadata", "closed"]
    assert rest[0]["duration"] == pytest.approx(1 + 1500 / 32_000, abs=0.001)
    assert line.ws.close_code == 1000
    await node.empty()
    assert client.count("connections_lost_total", door="websocket") == 1
    assert client.count("resumes_total", door="websocket", outcome="here") == 1
    assert client.count("away_seconds_count", door="websocket") == 1


async def test_only_the_client_is_told_the_way_back(node: Node) -> None:
    client = await connected(node)
    await client.reset()
    line = await client.back(after=-1)
    ready, resumed = await line.event(), await line.event()
    assert (ready["type"], ready["resume"]) == ("ready", None)  # as it is in the log, which holds no secret
    assert resumed["resume"]["path"] == client.path
    await line.say(type="configure", config={"interim_results": False})
    assert (await line.event())["resume"]["path"] == client.path
    await line.ws.close()
    await node.empty()


async def test_a_connection_that_still_seems_to_live_is_replaced(node: Node) -> None:
    client = await connected(node)
    line = await client.back(after=0)
    assert (await line.event())["type"] == "resumed"
    message = await client.ws.receive(timeout=5)
    assert (message.type, client.ws.close_code) == (WSMsgType.CLOSE, 4001)
    again = await client.back(after=1)
    assert (await again.event())["type"] == "resumed"
    assert (await line.ws.receive(timeout=5)).type is WSMsgType.CLOSE
    assert line.ws.close_code == 4001
    assert node.sessions == 1
    await again.ws.send_bytes(SECOND)
    await again.say(type="close_stream")
    assert [event["type"] for event in await again.rest()] == ["metadata", "closed"]
    await node.empty()


async def test_who_was_replaced_is_heard_no_more(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the old connection still has to read when another is told what the server has would be heard twice."""
    heard, begin = [], NativeStream.begin

    def keep(stream: NativeStream, outgoing: Outgoing) -> OnMessage:
        heard.append(begin(stream, outgoing))
        return heard[0]

    monkeypatch.setattr(NativeStream, "begin", keep)
    client = await connected(node)
    line = await client.back(after=0)
    assert (await line.event())["received_bytes"] == 0
    assert await heard[0](WSMessage(WSMsgType.BINARY, SECOND, None))
    assert await heard[0](WSMessage(WSMsgType.TEXT, '{"type":"keep_alive"}', None))
    assert await heard[0](WSMessage(WSMsgType.TEXT, '{"type":"close_stream"}', None))
    assert client.stream.feed.received_bytes == 0
    assert client.stream.is_open
    await line.say(type="close_stream")
    assert [event["type"] for event in await line.rest()] == ["metadata", "closed"]
    await node.empty()


async def test_who_comes_back_to_a_session_that_has_just_ended_is_told_the_end(node: Node) -> None:
    client = await connected(node)
    stream = client.stream
    await client.reset()
    await stream.close("session_max")
    told: list[str] = []
    outgoing = SimpleNamespace(send=lambda telling: told.append(json.loads(telling.text)["type"]))
    stream.resume(outgoing, after=0)  # type: ignore[arg-type]
    assert told == ["metadata", "closed"]
    assert client.count("resumes_total", door="websocket", outcome="here") == 0


async def test_of_two_at_once_one_stays(node: Node) -> None:
    client = await connected(node)
    await client.reset()
    lines = await asyncio.gather(client.back(after=0), client.back(after=0))
    async with asyncio.timeout(5):
        while sum(line.ws.closed for line in lines) < 1:
            await asyncio.gather(*(_read_on(line) for line in lines))
    assert sorted(line.ws.close_code or 0 for line in lines) == [0, 4001]
    (stays,) = [line for line in lines if not line.ws.closed]
    await stays.say(type="close_stream")
    await stays.rest()
    await node.empty()


async def _read_on(line: Line) -> None:
    with suppress(TimeoutError):
        await line.ws.receive(timeout=0.1)


@pytest.mark.parametrize("code", [1001, 4002])
async def test_a_page_that_is_left_and_a_client_that_resumes_are_waited_for(node: Node, code: int) -> None:
    client = await connected(node)
    await client.ws.close(code=code)
    await client.held()
    line = await client.back(after=0)
    assert (await line.event())["type"] == "resumed"
    await line.ws.close()
    await node.empty()


async def test_a_goodbye_is_one(node: Node) -> None:
    client = await connected(node)
    await client.ws.close(code=1000)
    await node.empty()
    assert await client.refusal() == (404, "SESSION_NOT_FOUND")


async def test_who_does_not_come_back_in_time_finds_nothing(start: Any) -> None:
    node = await start(resume_window_s=0.1)
    client = await connected(node)
    await client.reset()
    await node.empty()
    assert await client.refusal() == (404, "SESSION_NOT_FOUND")
    assert client.count("resumes_total", door="websocket", outcome="expired") == 1
    assert client.count("sessions_ended_total", door="websocket", reason="peer_lost") == 1


async def test_a_held_session_is_not_idle(start: Any) -> None:
    node = await start(resume_window_s=20, socket_idle_timeout_s=0.1)
    client = await connected(node)
    await client.reset()
    await asyncio.sleep(0.3)
    line = await client.back(after=0)
    assert (await line.event())["type"] == "resumed"
    assert (await line.rest())[-1]["reason"] == "timeout"  # connected again, it is
    await node.empty()


async def test_strangers_and_nonsense_are_refused(node: Node) -> None:
    client = await connected(node)
    assert await client.refusal(path="/ws/v1/transcribe/nobody") == (404, "SESSION_NOT_FOUND")
    assert await client.refusal(after=1) == (400, "INVALID_CURSOR")
    assert await client.refusal(after=-2) == (400, "INVALID_CONFIG")
    assert await client.refusal() == (426, "UPGRADE_REQUIRED")  # a handshake would have been taken
    assert client.count("resumes_total", door="websocket", outcome="refused") == 4
    await client.ws.close()
    await node.empty()


async def test_who_has_said_all_cannot_come_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    may_end, finish = asyncio.Event(), Feed.finish

    async def drain(feed: Feed) -> None:
        await may_end.wait()
        await finish(feed)

    monkeypatch.setattr(Feed, "finish", drain)
    client = await connected(node)
    await client.line.say(type="close_stream")
    async with asyncio.timeout(5):
        while client.stream.is_open:
            await asyncio.sleep(0.005)
    assert await client.refusal() == (404, "SESSION_NOT_FOUND")
    may_end.set()
    assert (await client.line.rest())[-1]["type"] == "closed"
    await node.empty()


async def test_a_node_that_waits_for_nobody_says_so(start: Any) -> None:
    node = await start(resume_window_s=0)
    ws = await node.http.ws_connect(node.url(RAW))
    assert (await Line(ws).event())["resume"] is None
    (live,) = node.server.app[REGISTRY].sessions()
    async with node.http.get(node.server.make_url(f"/ws/v1/transcribe/{live.secret}")) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (409, "CANNOT_RESUME")
    await ws.close(code=1001)
    await node.empty()


async def test_a_revoked_key_does_not_resume(start: Any, tmp_path: Any) -> None:
    node = await start(resume_window_s=20, data_dir=tmp_path)
    row, value = await node.server.app[ACCOUNTS].keys.create(NewKey(name="a", tenant="t", scopes=[Scope.STREAM]))
    client = await connected(node, headers={"Authorization": f"Bearer {value}"})
    await client.reset()
    node.server.app[ACCOUNTS].keys.on_ended.clear()  # what ends the sessions of such a key is tested elsewhere
    await node.server.app[ACCOUNTS].keys.revoke(row.id)
    assert await client.refusal(after=0) == (401, "INVALID_API_KEY")
    await node.server.app[REGISTRY].close_all("shutdown", deadline_s=1.0)


async def test_events_that_are_kept_no_more_are_told_of(start: Any) -> None:
    node = await start(resume_window_s=20, event_log_kib=16)
    client = await connected(node)
    await client.reset()
    for number in range(200):
        client.stream.feed.channels.tell(final(number))
    line = await client.back(after=0)
    warned = await line.event()
    assert (warned["type"], warned["error"]["code"]) == ("warning", "EVENTS_LOST")
    events = []
    while not events or events[-1]["type"] != "resumed":
        events.append(await line.event())
    seqs = [event["seq"] for event in events]
    assert seqs == list(range(seqs[0], 202))
    assert seqs[0] > 1
    await line.ws.close()
    await node.empty()


async def test_a_message_that_waits_for_room_is_taken_whole_and_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection goes while the sessions are behind; what it brought is neither lost nor taken twice."""
    has_room, room = asyncio.Event(), Feed._room

    async def wait(feed: Feed) -> None:
        await has_room.wait()
        await room(feed)

    monkeypatch.setattr(Feed, "_room", wait)
    client = await connected(node)
    speech = (np.sin(np.arange(32_000)) * 1000).astype("<i2").tobytes()
    await client.ws.send_bytes(speech)
    await client.ws.send_bytes(SECOND)  # behind it, and read by nobody
    async with asyncio.timeout(5):
        while not client.stream.feed.received_bytes:
            await asyncio.sleep(0.005)
    line = await client.back(after=0)  # the server has not noticed that the old one is gone
    resumed = await line.event()
    assert resumed["received_bytes"] == len(speech)
    assert resumed["stream_time"] == 0
    await line.ws.send_bytes(SECOND)
    has_room.set()
    await line.say(type="close_stream")
    events = await line.rest()
    assert next(event for event in events if event["type"] == "metadata")["duration"] == pytest.approx(3.0, abs=0.001)
    await node.empty()


async def test_a_stream_that_turns_out_undecodable_while_nobody_is_there_ends(start: Any) -> None:
    node = await start(resume_window_s=20)
    client = await connected(node, {})
    (live,) = node.server.app[REGISTRY].sessions()
    stream = live.peer
    assert isinstance(stream, NativeStream)
    await client.reset()
    stream.feed._unread.append(b"this is no audio" * 100_000)
    stream.feed.attach()
    stream.feed.detach()
    await node.empty()
    assert stream.feed.reason == "undecodable"
    assert json.dumps(stream.describe())


class TestDelete:
    """A client that will not come back says so."""

    async def test_a_held_session_is_ended_for_good(self, node: Node) -> None:
        client = await connected(node)
        await client.ws.send_bytes(SECOND[:1000])
        await client.reset()
        async with node.http.delete(client.url()) as response:
            assert response.status == 200
        await node.empty()
        assert await client.refusal() == (404, "SESSION_NOT_FOUND")
        assert client.count("sessions_ended_total", door="websocket", reason="client") == 1
        assert client.count("sessions_held", door="websocket") == 0

    async def test_one_whose_client_is_there_is_told_its_end(self, node: Node) -> None:
        client = await connected(node)
        async with node.http.delete(client.url()) as response:
            assert response.status == 200
        assert [event["type"] for event in await client.line.rest()] == ["metadata", "closed"]
        assert client.ws.close_code == 1000

    async def test_what_is_not_there_cannot_be_ended(self, node: Node) -> None:
        for secret in ("stolen", "zzzzzzzz.stolen"):
            async with node.http.delete(node.server.make_url(f"/ws/v1/transcribe/{secret}")) as response:
                assert (response.status, (await response.json())["error"]["code"]) == (404, "SESSION_NOT_FOUND")

    async def test_a_page_of_another_origin_may_ask(self, start: Any) -> None:
        page = "https://page.example"
        node = await start(cors_origins=[page])
        headers = {"Origin": page, "Access-Control-Request-Method": "DELETE"}
        async with node.http.options(node.server.make_url("/ws/v1/transcribe/x"), headers=headers) as response:
            assert response.status == 204
            assert "DELETE" in response.headers["Access-Control-Allow-Methods"]
            assert response.headers["Access-Control-Allow-Origin"] == page
