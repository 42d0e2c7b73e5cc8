"""Requests that reach the wrong place, and sessions that go where there is room."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from front_door import FRAGMENT, OFFER, SDP
from two_places import Two, two_places

from signaling.app import ACCOUNTS, AUDIT
from signaling.auth.keys import NewKey
from signaling.cluster.hop_headers import ORIGIN
from signaling.openapi.operation import Undescribed, described
from signaling.resume.record import CLAIMED, name_of
from tests.waiting import until

SDPFRAG = {"Content-Type": "application/trickle-ice-sdpfrag"}
HELD = Undescribed("a test's own")


class Doors:
    """Routes of a test's own, for what no door of ours does on purpose."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.went_on = asyncio.Event()
        self.seen: list[web.Request] = []

    def add(self, app: web.Application) -> None:
        app.router.add_route("*", "/probe/{secret}", self.probe)
        app.router.add_get("/socket/{secret}", self.socket)

    @described(HELD)
    async def probe(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        match request.query.get("do"):
            case "echo":
                response = web.StreamResponse()
                await response.prepare(request)
                async for chunk in request.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response
            case "break":
                response = web.StreamResponse()
                await response.prepare(request)
                await response.write(b"the first half, ")
                assert request.transport is not None
                request.transport.close()
                await asyncio.sleep(0)
                return response
            case "hold":
                self.went_on.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    self.gone.set()
            case "headers":
                return web.json_response({name.lower(): value for name, value in request.headers.items()})
        return web.Response(text="here", headers={"X-Answer": "1", "Connection": "X-Answer"})

    @described(HELD)
    async def socket(self, request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        try:  # aiohttp's test server cancels the handlers of clients that are gone
            await self._converse(request, ws)
        finally:
            self.gone.set()
        return ws

    async def _converse(self, request: web.Request, ws: web.WebSocketResponse) -> None:
        async for message in ws:
            if message.data == "end":
                await ws.close(code=4321, message=b"as you say")
            elif message.data == "cut":
                assert request.transport is not None
                request.transport.abort()
            elif message.data == "flood":
                for _ in range(400):
                    await ws.send_bytes(b"x" * 64 * 1024)
                    self.went_on.set()
            elif message.type is aiohttp.WSMsgType.TEXT:
                await ws.send_str(f"heard {message.data}")
            else:
                await ws.send_bytes(message.data)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    async with two_places(tmp_path) as both:
        yield both


@pytest.fixture
def doors() -> Doors:
    return Doors()


@pytest.fixture
async def probed(tmp_path: Path, doors: Doors) -> AsyncIterator[Two]:
    async with two_places(tmp_path, add=doors.add) as both:
        yield both


async def offer(two: Two, at: str, **query: str) -> aiohttp.ClientResponse:
    return await two.http.post(at, data=OFFER, headers=SDP, params=query)


async def test_a_session_is_reached_at_any_place(two: Two) -> None:
    created = await offer(two, two.first.url("/whip"))
    assert created.status == 201
    location = created.headers["Location"]
    assert location.startswith(f"/whip/{two.first.place_id}.")
    elsewhere = two.second.url(location)
    described_ = await two.http.get(elsewhere)
    assert (described_.status, (await described_.json())["state"]) == (200, "connected")
    trickled = await two.http.patch(elsewhere, data=FRAGMENT, headers={**SDPFRAG, "If-Match": created.headers["ETag"]})
    assert (trickled.status, two.first.peers[0].fragments) == (204, [FRAGMENT])
    refused = await two.http.patch(elsewhere, data=FRAGMENT, headers=SDPFRAG)
    assert (refused.status, (await refused.json())["error"]["code"]) == (428, "PRECONDITION_REQUIRED")
    assert (await two.http.delete(elsewhere)).status == 200
    assert (two.first.peers[0].closed, two.first.sessions) == (["client"], 0)
    await until(lambda: two.second.hops("passed_on") == 4)


async def test_a_place_that_is_gone_has_no_sessions(two: Two) -> None:
    location = (await offer(two, two.first.url("/whip"))).headers["Location"]
    await two.first.server.close()  # its socket is gone before anybody has seen it leave
    answer = await two.http.get(two.second.url(location))
    assert (answer.status, (await answer.json())["error"]["code"]) == (404, "SESSION_NOT_FOUND")
    assert two.second.hops("gone") == 1


async def test_a_session_that_went_on_elsewhere_is_reached_by_the_url_it_had(probed: Two, doors: Doors) -> None:
    """Its client may have lost the connection again before it was told the new one."""
    for secret, one in (("cccccccc.x", probed.first), ("cccccccc.y", probed.second)):
        value = CLAIMED + one.place_id.encode()
        assert await probed.first.member.state.add(name_of(secret), value, ttl_s=60.0)
        async with probed.http.get(probed.second.url(f"/probe/{secret}")) as answer:
            assert await answer.text() == "here"
        await until(lambda: probed.second.hops("passed_on") == 1)  # and the other one is answered here
    assert [request.app is probed.first.app for request in doors.seen] == [True, False]


async def test_a_session_is_found_where_it_went_though_its_place_seems_to_be_there(probed: Two, doors: Doors) -> None:
    """Its place has died a moment ago; or it was cut off, lives again, and has let go of the session."""
    gone = replace(probed.first.member.places.own, place_id="zzzzzzzz", address="unix:/nowhere.sock")
    probed.first.member.places._sight._others["zzzzzzzz"] = gone
    second = probed.second.place_id
    for secret, at in (("zzzzzzzz.x", probed.first), (f"{probed.first.place_id}.x", probed.first)):
        assert await probed.first.member.state.add(name_of(secret), CLAIMED + second.encode(), ttl_s=60.0)
        async with probed.http.post(at.url(f"/probe/{secret}?do=echo"), data=b"an offer") as answer:
            assert await answer.read() == b"an offer"
    assert [request.app is probed.second.app for request in doors.seen] == [True, True]
    # By the other one too, which passes it on to the place that it names, and gets it back.
    async with probed.http.get(probed.second.url(f"/probe/{probed.first.place_id}.x")) as answer:
        assert await answer.text() == "here"
    assert doors.seen[-1].app is probed.second.app
    assert len(doors.seen) == 3


@pytest.mark.parametrize("secret", ["", "aaaaaaaa.x", "not-a-place.x", "x", "AAAAAAAA.x"])
async def test_what_names_no_place_is_handled_where_it_arrives(two: Two, secret: str) -> None:
    assert (await two.http.get(two.second.url(f"/whip/{secret}"))).status in (204, 404)
    assert (await two.http.get(two.second.url(f"/whip/{two.second.place_id}.{secret}"))).status == 404
    assert two.second.hops("passed_on") == two.second.hops("gone") == 0


async def test_one_hop_at_most(two: Two) -> None:
    """A secret of a third place, at a place that gets it by a hop, is not passed on again."""
    place = two.first.member.places.own
    location = (await offer(two, two.second.url("/whip"))).headers["Location"]
    origin = two.first.member.hop._origin
    headers = {ORIGIN: origin.sign("GET", location, "127.0.0.1", to=place.place_id)}
    connector = aiohttp.UnixConnector(place.address.removeprefix("unix:"))
    async with aiohttp.ClientSession(connector=connector) as http:
        assert (await http.get(f"http://localhost{location}", headers=headers)).status == 404


async def test_new_sessions_go_where_there_is_room(tmp_path: Path) -> None:
    async with two_places(tmp_path, max_sessions=2) as two:
        created = [await offer(two, two.first.url("/whip")) for _ in range(5)]
        assert [answer.status for answer in created] == [201] * 4 + [503]
        assert (two.first.sessions, two.second.sessions) == (2, 2)
        assert created[-1].headers["Retry-After"]
        assert two.second.metrics.registry.get_sample_value("voiceforge_sessions", {"door": "whip"}) == 2


async def test_two_idle_places_keep_what_comes(two: Two) -> None:
    for _ in range(3):
        for one in (two.first, two.second):
            assert (await offer(two, one.url("/whip"))).status == 201
        await two.look()
    assert (two.first.sessions, two.second.sessions) == (3, 3)
    assert two.first.hops("passed_on") == two.second.hops("passed_on") == 0


async def test_a_fuller_place_passes_offers_on(two: Two) -> None:
    for _ in range(40):
        assert (await offer(two, two.first.url("/whip"))).status == 201
        await two.look()
    assert two.second.sessions >= 14
    assert two.first.sessions - two.second.sessions <= 8


async def test_a_place_that_drains_or_is_overloaded_passes_on(two: Two) -> None:
    two.first.engine.retry_after_s = 7
    assert (await offer(two, two.first.url("/whip"))).status == 201
    two.first.engine.retry_after_s = None
    two.first.drain()
    assert (await offer(two, two.first.url("/whip"))).status == 201
    assert (two.first.sessions, two.second.sessions) == (0, 2)
    two.second.drain()
    await two.look()
    refused = await offer(two, two.first.url("/whip"))
    assert (refused.status, (await refused.json())["error"]["code"]) == (503, "SHUTTING_DOWN")


async def test_who_asks_is_asked_where_it_arrives(two: Two) -> None:
    """A refusal of the other place comes back as it is, headers and all, to a page of another origin too."""
    two.first.drain()
    answer = await offer(two, two.first.url("/whip"), endpointing_ms="1")
    assert answer.status == 400
    assert answer.headers.getall("Vary") == ["Origin"]
    assert len(answer.headers.getall("X-Request-ID")) == 1
    strange = await two.http.post(two.first.url("/whip"), data=OFFER, headers={**SDP, "Origin": "https://evil.example"})
    assert strange.status == 403


async def test_nobody_but_places_comes_in_by_the_inner_door(two: Two) -> None:
    path = two.first.member.places.own.address.removeprefix("unix:")
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as http:
        for value in ("", "x", "a b c d", "0" * 64 + " 1 n 127.0.0.1"):
            answer = await http.post("http://localhost/whip", data=OFFER, headers={**SDP, ORIGIN: value})
            assert (answer.status, (await answer.json())["error"]["code"]) == (403, "HOP_REFUSED")
    assert two.first.sessions == 0


async def test_who_is_refused_at_the_inner_door_is_counted_and_recorded(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    async with two_places(tmp_path, audit_log=str(path)) as two:
        here = two.first.member.places.own
        signature = two.second.member.hop._origin.sign("POST", "/whip", "x", to=two.second.place_id)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(here.address.removeprefix("unix:"))) as http:
            for value, status in (("x", 403), (signature, 421)):
                headers = {**SDP, ORIGIN: value, "X-Request-ID": "caught-1"}
                answer = await http.post("http://localhost/whip", data=OFFER, headers=headers)
                assert (answer.status, answer.headers["X-Request-ID"]) == (status, "caught-1")
        await two.first.app[AUDIT].surely("test.look")
        written = path.read_text()
        records = [entry for line in written.splitlines() if (entry := json.loads(line))["action"] == "access.refuse"]
        assert [entry["code"] for entry in records] == ["HOP_REFUSED", "HOP_MISDIRECTED"]
        assert all(entry["object"] == {"route": "POST /whip"} for entry in records)
        assert all(entry["actor"]["kind"] == "nobody" and entry["request_id"] == "caught-1" for entry in records)
        assert signature not in written
        for code in ("HOP_REFUSED", "HOP_MISDIRECTED"):
            assert two.first.metrics.registry.get_sample_value("voiceforge_refused_total", {"code": code}) == 1


async def test_another_in_a_places_stead_is_not_taken_for_it(two: Two) -> None:
    """A server that was started anew at the same address, before the others have seen it."""
    gone = replace(two.second.member.places.own, place_id="zzzzzzzz", sessions=0)
    known = two.first.member.places._sight._others
    known["zzzzzzzz"] = gone
    answer = await two.http.get(two.first.url("/whip/zzzzzzzz.secret"))
    assert (answer.status, (await answer.json())["error"]["code"]) == (404, "SESSION_NOT_FOUND")
    assert two.first.hops("gone") == 1
    known["zzzzzzzz"] = gone  # it may have been looked for meanwhile
    answer = await two.http.post(two.first.url("/whip/zzzzzzzz.secret"), data=OFFER, headers=SDP)
    assert (answer.status, (await answer.json())["error"]["code"]) == (503, "PLACE_LOST")


async def test_the_header_of_hops_means_nothing_at_the_public_door(tmp_path: Path) -> None:
    async with two_places(tmp_path, trusted_proxies=["127.0.0.1"]) as two:
        origin = two.first.member.hop._origin
        headers = {
            **SDP,
            ORIGIN: origin.sign("POST", "/whip", "127.0.0.1", to=two.first.place_id),
            "X-Forwarded-For": "203.0.113.7",
        }
        assert (await two.http.post(two.first.url("/whip"), data=OFFER, headers=headers)).status == 401
        two.first.drain()  # and a hop carries the real address on: no key, not of this machine
        assert (await two.http.post(two.first.url("/whip"), data=OFFER, headers=headers)).status == 401
        await until(lambda: two.first.hops("passed_on") == 1)
        assert (await offer(two, two.first.url("/whip"))).status == 201  # of this machine, through a hop


async def test_who_has_no_key_makes_no_place_look_full(tmp_path: Path) -> None:
    async with two_places(tmp_path, max_sessions=2) as two:
        _, value = await two.first.app[ACCOUNTS].keys.create(NewKey("phone", "acme"))
        two.first.drain()
        for _ in range(6):
            assert (await offer(two, two.first.url("/whip"))).status == 401
        headers = {**SDP, "Authorization": f"Bearer {value}"}
        assert (await two.http.post(two.first.url("/whip"), data=OFFER, headers=headers)).status == 201
        assert two.second.sessions == 1


@pytest.mark.parametrize(
    "target", ["/whip/{}.none#part", "http://elsewhere.example/whip/{}.none", "/whip/{}.a%2F..%0d"]
)
async def test_odd_targets_go_to_that_place_and_nowhere_else(two: Two, target: str) -> None:
    """Those of the letter of RFC 9112 that no browser sends; a refused signature would fill the log, too."""
    reader, writer = await asyncio.open_connection("127.0.0.1", two.first.server.port)
    asked = target.format(two.second.place_id)
    writer.write(f"GET {asked} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    assert b"SESSION_NOT_FOUND" in answer
    assert two.first.hops("passed_on") == 1


async def test_bodies_stream_both_ways(probed: Two) -> None:
    secret = f"{probed.first.place_id}.x"
    sent = b"0123456789" * 200_000

    async def body() -> AsyncIterator[bytes]:
        for start in range(0, len(sent), 300_000):
            yield sent[start : start + 300_000]

    for data in (sent, body()):
        answer = await probed.http.post(probed.second.url(f"/probe/{secret}?do=echo"), data=data)
        assert await answer.read() == sent


async def test_headers_of_one_connection_end_there(probed: Two) -> None:
    url = probed.second.url(f"/probe/{probed.first.place_id}.x")
    headers = {"Connection": "close, X-Mine", "X-Mine": "1", "TE": "trailers", "X-Other": "2", "Expect": "100-continue"}
    seen = await (await probed.http.get(f"{url}?do=headers", headers=headers)).json()
    assert {"x-mine", "te", "expect"}.isdisjoint(seen)
    assert (seen["x-other"], seen["host"]) == ("2", f"127.0.0.1:{probed.second.server.port}")
    answer = await probed.http.get(url)
    assert (await answer.text(), "X-Answer" in answer.headers) == ("here", False)
    assert (await probed.http.head(url)).status == 200


async def test_an_answer_that_breaks_off_is_not_taken_for_whole(probed: Two) -> None:
    answer = await probed.http.get(probed.second.url(f"/probe/{probed.first.place_id}.x?do=break"))
    with pytest.raises(aiohttp.ClientPayloadError):
        await answer.read()


async def test_the_other_place_hears_when_the_client_is_gone(probed: Two, doors: Doors) -> None:
    url = probed.second.url(f"/probe/{probed.first.place_id}.x?do=hold")
    asking = asyncio.create_task(probed.http.get(url))
    await asyncio.wait_for(doors.went_on.wait(), 5.0)
    asking.cancel()
    await asyncio.wait_for(doors.gone.wait(), 5.0)


async def test_a_socket_is_passed_through(probed: Two, doors: Doors) -> None:
    url = probed.second.url(f"/socket/{probed.first.place_id}.x")
    async with probed.http.ws_connect(url, max_msg_size=0) as ws:
        await ws.send_str("a")
        assert await ws.receive_str() == "heard a"
        large = bytes(range(256)) * 8000
        await ws.send_bytes(large)
        assert await ws.receive_bytes() == large
        await ws.ping(b"p")
        await ws.send_str("end")
        closed = await ws.receive()
        assert (closed.type, ws.close_code) == (aiohttp.WSMsgType.CLOSE, 4321)
    await asyncio.wait_for(doors.gone.wait(), 5.0)


async def test_a_socket_that_is_cut_is_cut_for_both(probed: Two, doors: Doors) -> None:
    url = probed.second.url(f"/socket/{probed.first.place_id}.x")
    async with probed.http.ws_connect(url) as ws:
        await ws.send_str("cut")
        message = await ws.receive()
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSE)
        assert ws.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE
    doors.gone.clear()
    ws = await probed.http.ws_connect(url)
    connection = ws._response.connection
    assert connection is not None
    assert connection.transport is not None
    connection.transport.abort()
    await asyncio.wait_for(doors.gone.wait(), 5.0)


async def test_who_does_not_read_is_not_read_for(probed: Two, doors: Doors) -> None:
    """26 MB are offered to a client that reads nothing: they stay where they are."""
    url = probed.second.url(f"/socket/{probed.first.place_id}.x")
    ws = await probed.http.ws_connect(url)
    connection = ws._response.connection
    assert connection is not None
    assert connection.transport is not None
    connection.transport.pause_reading()  # type: ignore[attr-defined]
    await ws.send_str("flood")
    await asyncio.wait_for(doors.went_on.wait(), 5.0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(doors.gone.wait(), 0.3)
    connection.transport.abort()
    await asyncio.wait_for(doors.gone.wait(), 5.0)


async def test_a_handshake_that_is_refused_there_is_refused_here(probed: Two) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await probed.http.ws_connect(probed.second.url(f"/whip/{probed.first.place_id}.x/events"))
    assert caught.value.status == 404
