"""Events at the session's address: server-sent events, a WebSocket, and every refusal by its code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import ClientResponse, WSMsgType
from front_door import OFFER, SDP, FakePeer, Node, StartNode

from mediaserver.events import Closed, Event, Final, Interim, Metadata, Ready
from mediaserver.session.channels import Channels
from mediaserver.session.eventlog import LISTENERS_MAX, EventLog
from mediaserver.session_config import SessionConfig
from signaling import eventlogs
from signaling.eventlogs import EventLogs
from signaling.registry import LiveSession
from signaling.routes import events
from signaling.routes.events import Events


class Call:
    """A session whose peer says what it is told to say."""

    def __init__(self, node: Node, url: str) -> None:
        self.node = node
        self.url = url
        self.peer: FakePeer = node.peers[-1]
        self.seq = 0
        self.calls: list[str] = []
        self.channels = Channels(lambda sink: self, outlet=self, count=1)  # type: ignore[arg-type, return-value]
        self.config = SessionConfig(metadata={"caller": "+49"})
        self.on_close_stream: Callable[[], None] | None = None
        for tap in self.peer.taps:
            tap.begin(self.channels)

    def send(self, event: Event, seq: int, channel: int) -> None: ...

    def finalize(self) -> None:
        self.calls.append("finalize")

    def fail(self, error: Any) -> None:
        self.calls.append(error.code)

    def tell(self, *events: Event) -> None:
        for event in events:
            for tap in self.peer.taps:
                tap.send(event, self.seq, 0)
            self.seq += 1

    def ends(self, reason: str = "client") -> None:
        self.tell(Metadata(1.0, 1.0, 1, 0.0, "m"), Closed(reason))
        self.gone(reason)

    def gone(self, reason: str = "client") -> None:
        assert self.peer.on_ended is not None
        self.peer.on_ended(reason)

    async def get(self, query: str = "", **headers: str) -> ClientResponse:
        return await self.node.client.get(
            self.url + query, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )


def final(utterance: int, text: str = "a") -> Final:
    return Final(utterance, text, 1.0, 0.0, 1.0, 1.0, None, None, [])


def interim(utterance: int, text: str = "a") -> Interim:
    return Interim(utterance, text, "", 1.0, 0.0, 1.0, 1.0, [])


@pytest.fixture
async def call(node: Node) -> Call:
    return await opened(node)


async def opened(node: Node) -> Call:
    response = await node.client.post("/whip", data=OFFER, headers=SDP)
    link = response.links["events"]
    assert link["type"] == "text/event-stream"
    assert link["url"].path == response.headers["Location"] + "/events"
    return Call(node, link["url"].path)


async def blocks(response: ClientResponse) -> list[dict[str, str]]:
    """All that a stream says until its end, field by field; comments under the empty name."""
    async with asyncio.timeout(5):
        text = await response.text()
    found = []
    for block in text.split("\n\n")[:-1]:
        found.append(dict(line.partition(":")[::2] for line in block.split("\n")))
    return [{name: value.strip() for name, value in block.items()} for block in found]


async def code_of(response: ClientResponse) -> tuple[int, str]:
    return response.status, (await response.json())["error"]["code"]


class TestServerSentEvents:
    async def test_all_events_come_with_their_numbers_until_closed(self, call: Call) -> None:
        call.tell(Ready({}, "m"), final(1, "naïve"))
        response = await call.get()
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-store"
        call.tell(interim(2), final(2))
        call.ends()
        retry, *events = await blocks(response)
        assert retry == {"retry": "2000"}
        assert [event["id"] for event in events] == ["0", "1", "3", "4", "5"]
        told = [json.loads(event["data"]) for event in events]
        assert [event["type"] for event in told] == ["ready", "final", "final", "metadata", "closed"]
        assert told[1]["transcript"] == "naïve"
        assert told[1]["metadata"] == {"caller": "+49"}

    async def test_the_last_event_id_or_after_says_where_to_go_on(self, call: Call) -> None:
        call.tell(Ready({}, "m"), final(1), final(2), final(3))
        call.ends()
        for response in (await call.get(Last_Event_ID="2"), await call.get("?after=2")):
            assert [event.get("id") for event in await blocks(response)] == [None, "3", "4", "5"]
        both = await call.get("?after=0", Last_Event_ID="3")
        assert [event.get("id") for event in await blocks(both)] == [None, "4", "5"]

    async def test_the_finals_can_be_read_after_the_end_and_who_knows_all_gets_204(self, call: Call) -> None:
        call.tell(final(1))
        call.ends()
        assert (await call.node.client.get(call.url.removesuffix("/events"))).status == 404
        assert len(await blocks(await call.get())) == 4
        response = await call.get(Last_Event_ID="2")
        assert response.status == 204

    async def test_a_gap_is_told_without_a_number(self, start_node: StartNode) -> None:
        call = await opened(await start_node(event_log_kib=16))
        call.tell(*(final(n, "x" * 1000) for n in range(40)))
        call.ends()
        _, gap, *events = await blocks(await call.get())
        assert "id" not in gap
        assert json.loads(gap["data"])["error"]["code"] == "EVENTS_LOST"
        numbers = [int(event["id"]) for event in events]
        assert numbers == list(range(numbers[0], 42))

    async def test_silence_is_filled_with_comments(self, node: Node) -> None:
        app_events = next(
            route.handler.__self__  # type: ignore[attr-defined]
            for route in node.app.router.routes()
            if isinstance(getattr(route.handler, "__self__", None), Events)
        )
        app_events._heartbeat_s = 0.02
        call = await opened(node)
        response = await call.get()
        await asyncio.sleep(0.1)
        call.ends()
        assert {"": ""} in await blocks(response)

    async def test_several_listen_at_once_and_one_too_many_is_429(self, call: Call) -> None:
        call.tell(final(1))
        responses = [await call.get() for _ in range(LISTENERS_MAX)]
        refused = await call.get()
        assert await code_of(refused) == (429, "TOO_MANY_LISTENERS")
        assert refused.headers["Retry-After"] == "15"
        call.ends()
        for response in responses:
            assert len(await blocks(response)) == 4
        assert len(await blocks(await call.get())) == 4

    async def test_a_listener_that_reads_nothing_holds_nobody_up(self, call: Call) -> None:
        slow = await call.get()
        for n in range(200):
            call.tell(interim(n, "x" * 20_000), final(n))
            await asyncio.sleep(0)
        call.ends()
        events = await blocks(slow)
        finals = [event for event in events if '"type":"final"' in event.get("data", "")]
        assert len(finals) == 200
        assert len(events) < 300  # interims were left out

    @pytest.mark.parametrize("upgrade", [False, True])
    async def test_a_listener_that_takes_nothing_is_cut(
        self, start_node: StartNode, monkeypatch: pytest.MonkeyPatch, upgrade: bool
    ) -> None:
        monkeypatch.setattr(events, "STALLED_S", 0.1)
        node = await start_node(event_log_kib=65_536)
        call = await opened(node)
        log = call.peer.taps[0]
        assert isinstance(log, EventLog)
        call.tell(*(final(n, "x" * 500_000) for n in range(100)))  # more than sockets hold
        _, writer = await asyncio.open_connection("127.0.0.1", node.client.port, limit=1024)
        handshake = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" * upgrade
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" * upgrade
        writer.write(f"GET {call.url} HTTP/1.1\r\nHost: localhost\r\n{handshake}{key}\r\n".encode())
        async with asyncio.timeout(5):
            while not log.listeners:
                await asyncio.sleep(0.01)
            while log.listeners:
                await asyncio.sleep(0.01)
        writer.close()
        assert call.seq == 100  # and nobody has waited for it

    async def test_a_session_that_is_cut_ends_the_stream_without_closed(self, call: Call) -> None:
        call.tell(final(1))
        response = await call.get()
        call.gone("error")
        assert [event.get("id") for event in await blocks(response)] == [None, "0"]

    async def test_the_end_of_the_server_ends_the_stream(self, node: Node) -> None:
        call = await opened(node)
        call.tell(final(1))
        response = await call.get()
        reading = asyncio.create_task(blocks(response))
        await node.client.server.close()
        assert len(await reading) == 2


class TestRefusals:
    @pytest.mark.parametrize("query", ["?after=x", "?after=-2", "?after=1.5", "?since=1", "?after=0&after=1"])
    async def test_a_query_that_is_wrong_is_named(self, call: Call, query: str) -> None:
        assert await code_of(await call.get(query)) == (400, "INVALID_CONFIG")

    @pytest.mark.parametrize("number", ["x", "-1", "1.5", "٣", "9" * 17, "5"])
    async def test_a_number_that_cannot_be_is_refused(self, call: Call, number: str) -> None:
        call.tell(final(1))
        assert await code_of(await call.get(Last_Event_ID=number)) == (400, "INVALID_CURSOR")

    async def test_a_number_of_the_future_is_refused(self, call: Call) -> None:
        assert await code_of(await call.get("?after=3")) == (400, "INVALID_CURSOR")

    async def test_no_such_session_is_404(self, node: Node) -> None:
        assert await code_of(await node.client.get("/whip/nobody/events")) == (404, "SESSION_NOT_FOUND")

    async def test_other_methods_are_405(self, call: Call) -> None:
        assert await code_of(await call.node.client.post(call.url)) == (405, "METHOD_NOT_ALLOWED")

    async def test_a_handshake_that_is_none_is_400(self, call: Call) -> None:
        response = await call.get(Upgrade="websocket", Connection="Upgrade")
        assert response.status == 400

    async def test_a_preflight_says_what_may_be_sent(self, call: Call) -> None:
        response = await call.node.client.options(call.url)
        assert response.status == 204
        assert "Last-Event-ID" in response.headers["Access-Control-Allow-Headers"]


class TestSocket:
    async def test_the_same_events_one_a_message_until_closed(self, call: Call) -> None:
        call.tell(Ready({}, "m"), final(1))
        async with call.node.client.ws_connect(call.url + "?after=0") as ws:
            assert (await ws.receive_json(timeout=5))["seq"] == 1
            call.tell(final(2))
            assert (await ws.receive_json(timeout=5))["seq"] == 2
            call.ends()
            assert [(await ws.receive_json(timeout=5))["type"] for _ in range(2)] == ["metadata", "closed"]
            message = await ws.receive(timeout=5)
            assert message.type is WSMsgType.CLOSE
            assert message.data == 1000

    async def test_messages_of_the_native_protocol_are_heard(self, call: Call) -> None:
        async with call.node.client.ws_connect(call.url) as ws:
            await ws.send_str('{"type":"finalize"}')
            await ws.send_str("{")
            await ws.send_bytes(b"\xff")
            await ws.send_str('{"type":"audio","data":""}')
            async with asyncio.timeout(5):
                while len(call.calls) < 4:
                    await asyncio.sleep(0.01)
        assert call.calls[:3] == ["finalize", "MALFORMED_MESSAGE", "MALFORMED_MESSAGE"]
        call.ends()

    async def test_a_listener_that_goes_leaves_its_place(self, call: Call) -> None:
        log = call.peer.taps[0]
        assert isinstance(log, EventLog)
        async with call.node.client.ws_connect(call.url):
            assert log.listeners == 1
        async with asyncio.timeout(5):
            while log.listeners:
                await asyncio.sleep(0.01)

    async def test_a_message_too_long_is_1009(self, call: Call) -> None:
        async with call.node.client.ws_connect(call.url) as ws:
            await ws.send_str("x" * 70_000)
            await ws.receive(timeout=5)
            assert ws.close_code == 1009

    async def test_after_the_end_the_rest_is_told_and_the_socket_closed(self, call: Call) -> None:
        call.tell(final(1))
        call.ends()
        async with call.node.client.ws_connect(call.url + "?after=1") as ws:
            assert (await ws.receive_json(timeout=5))["type"] == "closed"
            assert (await ws.receive(timeout=5)).data == 1000


class Gone:
    """A session in no registry."""

    @staticmethod
    def live() -> LiveSession:
        return LiveSession("s1", "whip", None)  # type: ignore[arg-type]


class TestAfterTheEnd:
    async def test_a_log_is_forgotten_after_its_time(self) -> None:
        logs, live = EventLogs(kept_kib=16, linger_s=0.01), Gone.live()
        logs.publish(live, logs.open("s1"))
        live.on_gone[0]()
        assert logs.find(live.secret) is not None
        await asyncio.sleep(0.03)
        assert logs.find(live.secret) is None

    async def test_beyond_a_size_those_that_ended_first_are_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(eventlogs, "ENDED_LETTERS_MAX", 25_000)
        logs, lives = EventLogs(kept_kib=16, linger_s=60), [Gone.live() for _ in range(4)]
        for live in lives:
            log = logs.open("s1")
            logs.publish(live, log)
            log.send(final(1, "x" * 10_000), 0, 0)
        for live in (lives[2], lives[0], lives[1]):
            live.on_gone[0]()
        assert [logs.find(live.secret) is None for live in lives] == [False, False, True, False]
        logs.close()
        assert all(logs.find(live.secret) is None for live in lives)
