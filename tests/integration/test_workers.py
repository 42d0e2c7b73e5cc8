"""`serve --workers 2`: real processes, real speech, and what becomes of it when one of them is killed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import psutil
import pytest
import pytest_asyncio

from tests.conftest import Speech
from tests.served_nodes import Peer, ServeProcess, Socket, connected, peer, served
from tests.waiting import until

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServeProcess]:
    """One server for all tests: what is killed in one of them is back before the next; the last but one stops it."""
    ports = ("--udp-port-min", "47800", "--udp-port-max", "47831")  # of both: they must not run into each other
    data = tmp_path_factory.mktemp("data")
    async with served(data, "--workers", "2", "--max-sessions", "8", *ports) as running:
        yield running


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def gone_by_worker_2(node: ServeProcess) -> set[str]:
    """The places that it has missed."""
    return {line["place"] for line in node.lines(event="place gone", worker=2) if "place" in line}


async def test_both_workers_serve_peers_and_sockets(node: ServeProcess, speech: Speech) -> None:
    """Two peers and two sockets at once; every request that follows goes to whichever worker takes it."""
    assert node.said.count("is loaded") == node.said.count("is listening") == 1
    sockets = [Socket(speech, node.http), Socket(speech, node.http)]
    async with peer(speech, node.http) as first, peer(speech, node.http) as second:
        for one in (first, second):
            await one.call(node.url)
        talking = [asyncio.create_task(one.run(node.url)) for one in sockets]
        for _ in range(12):  # whichever worker takes the connection
            for one in (first, second):
                async with node.http.get(f"{node.url}{one.location}") as response:
                    assert response.status == 200
        metrics = await node.metrics()
        assert 'voiceforge_sessions{worker="1",door="whip"}' in metrics or 'worker="2",door="whip"' in metrics
        assert metrics.count("# TYPE voiceforge_sessions gauge") == 1
        for one in (first, second):
            await one.spoken()
            await one.close_stream()
        await asyncio.gather(*talking)
        for heard in (first, second, *sockets):
            heard.assert_says(heard.speech)
        assert {one.close_code for one in sockets} == {1000}
    async with AsyncExitStack() as held:  # one worker has room for four
        for _ in range(5):
            await held.enter_async_context(await connected(node.url, node.http))
    used = {line["worker"] for line in node.lines(event="session opened")}
    assert used == {1, 2}, used
    async with peer(speech, node.http) as third:
        await third.call(node.url)
        assert await third.delete(node.url) == 200
        assert await third.delete(node.url) == 404


async def test_a_recording_is_run_by_the_one_worker_that_does(node: ServeProcess, speech: Speech) -> None:
    """Taken in by any of them; the database, which is made by the first, is known to all."""
    jobs = []
    for _ in range(6):
        form = aiohttp.FormData()
        form.add_field("file", speech.path.read_bytes(), filename="speech")
        async with node.http.post(f"{node.url}/api/v1/transcriptions", data=form) as response:
            assert response.status == 201, await response.text()
            jobs.append((await response.json())["id"])
    for job in jobs:
        async with asyncio.timeout(60.0):
            while True:
                async with node.http.get(f"{node.url}/api/v1/transcriptions/{job}") as response:
                    assert response.status == 200
                    if (state := (await response.json())["state"]) in ("completed", "failed"):
                        break
                await asyncio.sleep(0.05)
        assert state == "completed"


async def test_a_killed_worker_takes_nothing_but_its_own(node: ServeProcess, speech: Speech) -> None:
    peers = [Peer(speech, node.http) for _ in range(4)]
    try:
        for one in peers:
            await one.call(node.url)
        places = {one.place for one in peers}
        assert len(places) == 2
        await until(lambda: all(one.of("ready") for one in peers))
        victim = node.worker(1)
        victim.kill()
        await until(lambda: bool(node.lines(event="worker died", number=1)))
        await until(lambda: bool(node.lines(event="worker is back", number=1)))
        assert node.worker(1).pid != victim.pid
        await until(lambda: bool(places & gone_by_worker_2(node)))  # it looks around every second
        gone = gone_by_worker_2(node)
        running = [one for one in peers if one.place not in gone]
        for one in peers:
            async with node.http.get(f"{node.url}{one.location}") as response:
                assert response.status == (200 if one in running else 404)
        for one in running:
            await one.spoken()
            await one.close_stream()
            one.assert_says(speech)
        assert running
        assert len(running) < len(peers)
        socket = Socket(speech, node.http)
        await socket.run(node.url, pace=4.0)
        socket.assert_says(speech)
        assert 'voiceforge_worker_restarts_total{worker="supervisor"} 1.0' in await node.metrics()
    finally:
        for one in peers:
            await one.close()


async def test_a_killed_engine_loses_no_final(node: ServeProcess, speech: Speech) -> None:
    sockets = [Socket(speech, node.http) for _ in range(2)]
    talking = [asyncio.create_task(one.run(node.url)) for one in sockets]
    await until(lambda: all(one.of("interim") for one in sockets))
    (engine,) = node.children("engine")
    engine.kill()
    await asyncio.gather(*talking)
    for one in sockets:
        one.assert_says(speech)
        assert not one.of("error")


async def test_a_stop_flushes_finals_and_a_service_manager_may_signal_everybody(
    node: ServeProcess, speech: Speech
) -> None:
    sockets = [Socket(speech, node.http) for _ in range(3)]
    talking = [asyncio.create_task(one.run(node.url)) for one in sockets]
    await until(lambda: all(one.of("interim") for one in sockets))
    await asyncio.sleep(2.0)
    processes = [node.worker(1), node.worker(2), *node.children("engine")]
    for process in processes:
        process.send_signal(signal.SIGTERM)
    assert await node.stop() == 0
    assert all(is_gone(process) for process in processes)
    await asyncio.gather(*talking)
    for one in sockets:
        assert one.of("final"), one.events[-3:]
        assert one.is_over
    assert not node.lines(event="shutdown forced")


async def test_a_killed_supervisor_leaves_nobody_behind(tmp_path: Path) -> None:
    async with served(tmp_path, "--workers", "2") as node:
        left = [node.worker(1), node.worker(2), *node.children("engine")]
        node.process.kill()
        await until(lambda: all(is_gone(process) for process in left))
