"""Two servers behind one Redis: real processes, real peers, and each of them asked for what is the other's."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.conftest import Speech
from tests.redis_servers import RedisServer, free_port, redis_server
from tests.served_nodes import Peer, ServeProcess, Socket, peer, served
from tests.waiting import until

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.needs("redis-server", "redis-cli"),
]

ROOM = 2
"""Sessions of a node."""

SDPFRAG = {"Content-Type": "application/trickle-ice-sdpfrag"}
NO_MORE = "a=end-of-candidates\r\n"


class Nodes:
    """Two servers, and how to start one more."""

    def __init__(self, stack: AsyncExitStack, data_dir: Path, redis: RedisServer) -> None:
        self.redis = redis
        self.running: list[ServeProcess] = []
        self._stack = stack
        self._data_dir = data_dir
        self._secret = secrets.token_urlsafe(32)

    async def start(self, *options: str) -> ServeProcess:
        node = await self._stack.enter_async_context(
            served(
                self._data_dir,
                "--node-address",
                f"http://127.0.0.1:{free_port()}",
                "--max-sessions",
                str(ROOM),
                *options,
                REDIS_URL=self.redis.url,
                TOKEN_SECRET=self._secret,
            )
        )
        self.running.append(node)
        return node

    @property
    def first(self) -> ServeProcess:
        return self.running[0]

    @property
    def second(self) -> ServeProcess:
        return self.running[-1]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        both = Nodes(stack, tmp_path_factory.mktemp("data"), redis)
        await both.start()
        await both.start()
        yield both


async def events_of(http: aiohttp.ClientSession, url: str) -> list[str]:
    """What is told at a session's address until it is over."""
    told = []
    async with http.get(url) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        async for line in response.content:
            if line.startswith(b"data: "):
                told.append(json.loads(line[6:])["type"])
    return told


async def test_a_full_node_passes_on_and_any_node_answers_for_any_session(nodes: Nodes, speech: Speech) -> None:
    first, second = nodes.first, nodes.second
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(peer(speech, first.http)) for _ in range(ROOM + 1)]
        for one in peers:
            await one.call(first.url)
        there = [one for one in peers if one.place != peers[0].place]
        assert there, "none was passed on"
        mine, other = peers[0], there[0]
        for one, wrong in ((mine, second), (other, first)):
            async with one.http.get(f"{wrong.url}{one.location}") as response:
                assert response.status == 200
            fragment = {"data": NO_MORE, "headers": {**SDPFRAG, "If-Match": one.etag}}
            async with one.http.patch(f"{wrong.url}{one.location}", **fragment) as response:
                assert response.status in (204, 400), await response.text()
            async with one.http.patch(f"{wrong.url}{one.location}", data=NO_MORE, headers=SDPFRAG) as response:
                assert response.status == 428
        reading = [
            asyncio.create_task(events_of(one.http, f"{wrong.url}{one.location}/events"))
            for one, wrong in ((mine, second), (other, first))
        ]
        async with first.http.ws_connect(f"{first.url}{other.location}/events") as ws:
            assert (await ws.receive_json())["type"] == "ready"
        for one in peers:
            await one.spoken()
            await one.close_stream()
            one.assert_says(speech)
        for told, one in zip(await asyncio.gather(*reading), (mine, other), strict=True):
            heard = [event["type"] for event in one.events]
            for kept in (told, heard):  # who reads later is not told again what has been overtaken
                kept[:] = [kind for kind in kept if kind in ("ready", "final", "metadata", "closed")]
            assert told == heard
    async with peer(speech, first.http) as one:
        await one.call(first.url)
        await until(lambda: bool(one.of("ready")))
        wrong = second if one.place == mine.place else first
        assert await one.delete(wrong.url) == 200
        await until(lambda: one.is_over)


async def test_a_full_node_passes_sockets_on(nodes: Nodes, speech: Speech) -> None:
    first = nodes.first
    sockets = [Socket(speech, first.http) for _ in range(ROOM + 1)]
    await asyncio.gather(*(one.run(first.url) for one in sockets))
    for one in sockets:
        one.assert_says(speech)
        assert one.close_code == 1000


async def test_redis_may_go_and_come_back(nodes: Nodes, speech: Speech) -> None:
    first, second = nodes.first, nodes.second
    async with peer(speech, first.http) as one:
        await one.call(first.url)
        await until(lambda: bool(one.of("ready")))
        nodes.redis.stop()
        await until(lambda: bool(first.lines(event="state away")) and bool(second.lines(event="state away")))
        for node in (first, second):  # they know each other still
            async with one.http.get(f"{node.url}{one.location}") as response:
                assert response.status == 200
        await one.spoken()
        await one.close_stream()
        one.assert_says(speech)
    nodes.redis.start()
    await until(lambda: bool(first.lines(event="state back")) and bool(second.lines(event="state back")))
    async with peer(speech, first.http) as one:

        async def takes() -> None:
            async with asyncio.timeout(30.0):
                while await first.ready() != 200:
                    await asyncio.sleep(0.1)

        await takes()
        await one.call(first.url)
        for node in (first, second):
            async with one.http.get(f"{node.url}{one.location}") as response:
                assert response.status == 200
        assert await one.delete(second.url) == 200


async def test_a_node_that_is_killed_takes_only_its_own(nodes: Nodes, speech: Speech) -> None:
    first, second = nodes.first, nodes.second
    peers = [Peer(speech, first.http) for _ in range(2)]
    try:
        await peers[0].call(first.url)
        await peers[1].call(second.url)
        assert peers[0].place != peers[1].place
        second.process.kill()
        async with first.http.get(f"{first.url}{peers[1].location}") as response:
            assert response.status == 404  # at once: nothing listens there
        await until(lambda: bool(first.lines(event="place gone", place=peers[1].place)))
        async with peer(speech, first.http) as new:
            await new.call(first.url)
            assert new.place == peers[0].place
        await peers[0].spoken()
        await peers[0].close_stream()
        peers[0].assert_says(speech)
    finally:
        for one in peers:
            await one.close()


async def test_a_node_that_drains_sends_new_ones_away_and_ends_with_its_last(nodes: Nodes, speech: Speech) -> None:
    first = nodes.first
    third = await nodes.start("--drain-s", "60")
    async with peer(speech, third.http) as one:
        await one.call(third.url)
        await until(lambda: bool(one.of("interim")))
        third.process.terminate()
        async with asyncio.timeout(10.0):
            while await third.ready() != 503:
                await asyncio.sleep(0.02)
        async with peer(speech, third.http) as new:
            await new.call(third.url)  # taken by the other one
            assert new.place != one.place
            assert await new.delete(first.url) == 200
        await one.spoken()
        await one.close_stream()
        one.assert_says(speech)
    assert await asyncio.wait_for(third.process.wait(), 60.0) == 0


async def test_a_stop_under_load_loses_no_final(nodes: Nodes, speech: Speech) -> None:
    """The sessions are told to go on elsewhere, with all that was final; who does not is not missed."""
    node = await nodes.start("--shutdown-deadline-s", "40")
    sockets = [Socket(speech, node.http) for _ in range(2)]
    talking = [asyncio.create_task(one.run(node.url)) for one in sockets]
    await until(lambda: all(heard.of("interim") for heard in sockets))
    assert await node.stop() == 0
    await asyncio.gather(*talking)
    for heard in sockets:
        assert heard.of("reconnect") or heard.is_over, (heard.events[-3:], node.logged[-4000:])
        assert heard.of("reconnect") or heard.text
        assert heard.close_code in (1000, 1012)
    assert not node.lines(event="shutdown forced")
