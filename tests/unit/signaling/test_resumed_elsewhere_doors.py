"""Who is let in with a session that another process had."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from mediaserver.audio.vad import VadPool
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.app import ACCOUNTS, ADMISSION, MEMBER, REGISTRY, SHARED, make_app
from signaling.auth.keys import NewKey
from signaling.auth.principal import Scope
from signaling.cluster.memory import MemoryState
from signaling.cluster.places import GROUP, Place, new_place_id
from signaling.resume.elsewhere import SEEN_GONE_S
from signaling.resume.record import Claim, name_of
from signaling.routes.native_stream import NativeStream
from tests.unit.signaling.front_door import FakeEngine
from tests.unit.signaling.test_native import RAW, SECOND, Line, vad

__all__ = ["vad"]

PATH = "/ws/v1/transcribe"
SDP = {"Content-Type": "application/sdp"}
UP = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


class Two:
    """Two servers on one state; the first has handed a session over when `path` is known."""

    def __init__(self, servers: list[TestServer], http: aiohttp.ClientSession, engine: FakeEngine) -> None:
        self.servers = servers
        self.http = http
        self.engine = engine

    @property
    def second(self) -> web.Application:
        return self.servers[1].app

    async def left(self, headers: dict[str, str] | None = None, query: dict[str, str] = RAW) -> str:
        """Open a session at the first server, and have it handed over; where its client comes back to."""
        for server in [*self.servers, *self.servers]:
            await server.app[MEMBER].tell()
        assert not any(server.app[MEMBER].places.is_alone for server in self.servers)
        url = self.servers[0].make_url(PATH).with_query(query)
        ws = await self.http.ws_connect(url, headers=headers)
        line = Line(ws)
        ready = await line.event()
        if query == RAW:
            await ws.send_bytes(SECOND)
        await line.say(type="keep_alive")
        assert (await line.event())["type"] == "pong"
        (live,) = self.servers[0].app[REGISTRY].sessions()
        assert isinstance(live.peer, NativeStream)
        async with asyncio.timeout(5):
            while live.peer.feed.channels.unjudged_s > 0.1:  # else all of it is heard again
                await asyncio.sleep(0.01)
        leaving = asyncio.create_task(self.servers[0].app[MEMBER].leave())
        async with asyncio.timeout(5):
            while not self.second[MEMBER].places.is_alone:
                await asyncio.sleep(0.01)
                await self.second[MEMBER].tell()
        leaving.cancel()  # it would wait for the other's next look
        await self.servers[0].app[REGISTRY].hand_over_all(deadline_s=5.0)
        assert [event["type"] for event in await line.rest()] == ["reconnect"]
        return str(ready["resume"]["path"])

    async def refusal(self, path: str) -> tuple[int, str]:
        async with self.http.get(self.servers[1].make_url(path), headers=UP) as response:
            return response.status, (await response.json())["error"]["code"]

    async def back(self, path: str) -> dict[str, Any]:
        """Come back, and close."""
        ws = await self.http.ws_connect(self.servers[1].make_url(path).with_query(after="1"))
        line = Line(ws)
        resumed = await line.event()
        await ws.close()
        return resumed


@pytest.fixture
async def two(vad: VadPool, tmp_path: Path) -> AsyncIterator[Two]:
    settings = Settings(shutdown_deadline_s=1.0, token_secret="x" * 32, max_sessions=1, data_dir=tmp_path)
    state, engine, servers = MemoryState(), FakeEngine(), []
    for name in ("a", "b"):
        place = Place(new_place_id(), name, "unix:/nowhere.sock")
        app = make_app(settings, metrics=Metrics(), engine=engine, vad=vad, state=state, place=place)
        servers.append(TestServer(app))
        await servers[-1].start_server()
    async with aiohttp.ClientSession() as http:
        yield Two(servers, http, engine)
    for server in servers:
        await server.close()
    await state.close()


async def test_a_session_goes_on_and_its_configuration_with_it(two: Two) -> None:
    path = await two.left(query={**RAW, "language": "en", "interim_results": "false"})
    resumed = await two.back(path)
    assert (resumed["type"], resumed["seq"], resumed["is_elsewhere"]) == ("resumed", 3, True)
    assert resumed["received_bytes"] == 0
    assert resumed["resume"]["path"] != path


async def test_audio_is_taken_up_where_all_before_it_was_settled(two: Two) -> None:
    resumed = await two.back(await two.left())
    assert 0 < resumed["received_bytes"] < len(SECOND)
    assert resumed["received_bytes"] == pytest.approx(resumed["stream_time"] * 32_000, abs=32)


async def test_a_container_is_begun_anew(two: Two) -> None:
    path = await two.left(query={"encoding": "opus"})
    assert (await two.back(path))["received_bytes"] is None


async def test_where_there_is_no_room_it_waits_for_some(two: Two) -> None:
    path = await two.left()
    other = await two.http.ws_connect(two.servers[1].make_url(PATH).with_query(RAW))
    assert await two.refusal(path) == (503, "SERVER_FULL")
    await other.close()
    async with asyncio.timeout(5):
        while len(two.second[REGISTRY]):
            await asyncio.sleep(0.01)
    assert (await two.back(path))["type"] == "resumed"


async def test_an_overloaded_engine_takes_none(two: Two) -> None:
    path = await two.left()
    two.engine.retry_after_s = 7
    assert await two.refusal(path) == (503, "OVERLOADED")
    two.engine.retry_after_s = None
    assert (await two.back(path))["type"] == "resumed"


async def test_a_server_that_stops_says_so(two: Two) -> None:
    path = await two.left()
    two.second[ADMISSION].stop()
    assert await two.refusal(path) == (503, "SHUTTING_DOWN")


async def test_strangers_and_other_doors_find_nothing(two: Two) -> None:
    path = await two.left()
    secret = path.rpartition("/")[2]
    other = secret[:-1] + ("x" if secret[-1] != "x" else "y")
    assert await two.refusal(f"{PATH}/{other}") == (404, "SESSION_NOT_FOUND")
    assert await two.refusal(f"{PATH}/stolen") == (404, "SESSION_NOT_FOUND")
    offer = two.servers[1].make_url(f"/whip/{secret}")
    async with two.http.post(offer, data="v=0", headers={"Content-Type": "application/sdp"}) as response:
        assert response.status == 404
    assert (await two.back(path))["type"] == "resumed"


async def test_a_configuration_of_another_version_is_not_taken_up_and_not_shown(
    two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    path = await two.left(query={**RAW, "prompt": "Anna's diagnosis"})
    state, name = two.second[SHARED].state, name_of(path.rpartition("/")[2])
    value = await state.get(name)
    assert value is not None
    record = json.loads(value)
    record["asked"]["config"]["tone"] = record["asked"]["config"]["prompt"]
    await state.put(name, json.dumps(record).encode(), ttl_s=30.0)
    assert await two.refusal(path) == (404, "SESSION_NOT_FOUND")
    assert "diagnosis" not in caplog.text


async def test_a_revoked_key_resumes_nowhere(two: Two) -> None:
    keys = two.second[ACCOUNTS].keys
    row, value = await keys.create(NewKey(name="a", tenant="t", scopes=[Scope.STREAM]))
    path = await two.left(headers={"Authorization": f"Bearer {value}"})
    await keys.revoke(row.id)
    assert await two.refusal(path) == (401, "INVALID_API_KEY")


async def test_who_had_it_is_whose_it_stays(two: Two) -> None:
    _, value = await two.second[ACCOUNTS].keys.create(NewKey(name="a", tenant="t", scopes=[Scope.STREAM]))
    path = await two.left(headers={"Authorization": f"Bearer {value}"})
    ws = await two.http.ws_connect(two.servers[1].make_url(path))
    (live,) = two.second[REGISTRY].sessions()
    assert (live.principal.tenant, live.principal.key_id is not None) == ("t", True)
    await ws.close()


class TestWhileItIsNotKnownWhoHasIt:
    """In the first seconds after a place has died the others take it for living."""

    @pytest.fixture
    async def dead(self, two: Two) -> str:
        place = Place("zzzzzzzz", "z", "unix:/nowhere-either.sock")
        value = json.dumps(asdict(place)).encode()
        await two.second[SHARED].state.join(GROUP, place.place_id, value, ttl_s=60.0)
        await two.second[MEMBER].tell()
        return place.place_id

    @pytest.mark.parametrize("is_claimed", [False, True])
    async def test_both_doors_say_when_to_come_again(self, two: Two, dead: str, *, is_claimed: bool) -> None:
        secret = f"{dead}.x"
        if is_claimed:
            secret = "yyyyyyyy.x"
            await two.second[SHARED].state.put(name_of(secret), Claim(dead).written(), ttl_s=30.0)
        for method, door, headers in (
            ("POST", "/whip", SDP),
            ("DELETE", "/whip", {}),
            ("GET", PATH, UP),  # a handshake
            ("GET", PATH, {}),  # and how a browser asks why that failed
            ("DELETE", PATH, {}),
        ):
            url = two.servers[1].make_url(f"{door}/{secret}")
            async with two.http.request(method, url, headers=headers) as response:
                error = (await response.json())["error"]
                assert (response.status, error["code"], error["retryable"]) == (503, "SESSION_MOVING", True)
                assert response.headers["Retry-After"] == str(SEEN_GONE_S)
        await two.second[SHARED].state.leave(GROUP, dead)
        await two.second[MEMBER].tell()
        assert await two.refusal(f"{PATH}/{secret}") == (404, "SESSION_NOT_FOUND")

    async def test_what_was_left_is_gone_on_with_meanwhile(self, two: Two) -> None:
        path = await two.left()
        (gone,) = [server.app[MEMBER].places.own for server in two.servers[:1]]
        two.second[MEMBER].places._sight._others[gone.place_id] = gone
        assert (await two.back(path))["type"] == "resumed"

    async def test_who_was_slower_comes_again_and_finds_it(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        path = await two.left()

        async def too_late(*_: object, **__: object) -> bool:
            return False

        with monkeypatch.context() as patched:
            patched.setattr(two.second[SHARED].state, "swap", too_late)
            assert await two.refusal(path) == (503, "SESSION_MOVING")
        assert (await two.back(path))["type"] == "resumed"


async def ended(two: Two, path: str) -> int:
    async with two.http.delete(two.servers[1].make_url(path)) as response:
        return response.status


async def test_one_that_nobody_holds_is_ended_for_good(two: Two) -> None:
    path = await two.left()
    assert await ended(two, path.replace(PATH, "/whip")) == 404  # another door's
    assert await ended(two, path) == 200
    assert await two.refusal(path) == (404, "SESSION_NOT_FOUND")
    assert await ended(two, path) == 404


async def test_one_that_goes_on_here_is_ended_by_the_url_that_it_had(two: Two) -> None:
    path = await two.left()
    ws = await two.http.ws_connect(two.servers[1].make_url(path).with_query(after="1"))
    line = Line(ws)
    assert (await line.event())["type"] == "resumed"
    assert await ended(two, path) == 200
    assert [event["type"] for event in await line.rest()][-1] == "closed"
    assert ws.close_code == 1000
    assert len(two.second[REGISTRY]) == 0
    assert await ended(two, path) == 404


async def test_one_that_is_just_being_ended_is_not_begun_again(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record stands until it has ended."""
    for server in [*two.servers, *two.servers]:
        await server.app[MEMBER].tell()
    ws = await two.http.ws_connect(two.servers[1].make_url(PATH).with_query(RAW))
    ready = await Line(ws).event()
    path = str(ready["resume"]["path"])
    name, state = name_of(path.rpartition("/")[2]), two.second[SHARED].state
    async with asyncio.timeout(5):
        while await state.get(name) is None:
            await asyncio.sleep(0.05)
    (live,) = two.second[REGISTRY].sessions()
    close, may_close = live.peer.close, asyncio.Event()

    async def slowly(reason: str, *, deadline_s: float | None = None) -> None:
        await may_close.wait()
        await close(reason, deadline_s=deadline_s)

    monkeypatch.setattr(live.peer, "close", slowly)
    ending = asyncio.create_task(ended(two, path))
    async with asyncio.timeout(5):
        while live.closing is None:
            await asyncio.sleep(0.01)
    assert await two.refusal(path) == (503, "SESSION_MOVING")
    may_close.set()
    assert await ending == 200
    async with asyncio.timeout(5):
        while await two.refusal(path) != (404, "SESSION_NOT_FOUND"):
            await asyncio.sleep(0.05)
    await ws.close()
