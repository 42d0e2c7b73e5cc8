"""Two servers that share a state: what one of them had, the other goes on with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer

from mediaserver.audio.vad import VadPool
from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.decoder.engine import open_engine
from mediaserver.ingest.link import Link
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.app import ADMISSION, MEMBER, REGISTRY, make_app
from signaling.cluster.memory import MemoryState
from signaling.cluster.places import Place, new_place_id
from tests.conftest import Speech
from tests.integration.real_server import emptied
from tests.integration.test_call_resumed import Caller, TimedTrack
from tests.integration.test_socket_resumed import Client, two_of, uncut
from tests.scoring import word_errors
from tests.waiting import LIMIT_S

SDPFRAG = {"Content-Type": "application/trickle-ice-sdpfrag"}

pytestmark = pytest.mark.timeout(120)


class Deployment:
    """Two servers."""

    def __init__(self, servers: list[TestServer], metrics: list[Metrics]) -> None:
        self.servers = servers
        self.metrics = metrics

    async def know_each_other(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            while any(server.app[MEMBER].places.is_alone for server in self.servers):
                await asyncio.sleep(0.05)

    def count(self, number: int, name: str, **labels: str) -> float:
        return self.metrics[number].registry.get_sample_value(f"voiceforge_{name}", labels or None) or 0.0


@pytest_asyncio.fixture
async def two(model_files: ModelFiles, vad_model_path: Any) -> AsyncIterator[Deployment]:
    settings = Settings(shutdown_deadline_s=3.0, token_secret="x" * 32)
    engine_metrics = Metrics()
    engine = open_engine(settings, model_files, engine_metrics)
    await engine.start()
    vad = VadPool(vad_model_path, metrics=engine_metrics)
    state, servers, metrics = MemoryState(), [], []
    for name in ("a", "b"):
        metrics.append(Metrics())
        place = Place(new_place_id(), name, "unix:/nowhere.sock")
        app = make_app(settings, metrics=metrics[-1], engine=engine, vad=vad, state=state, place=place)
        servers.append(TestServer(app))
        await servers[-1].start_server()
    deployment = Deployment(servers, metrics)
    await deployment.know_each_other()
    yield deployment
    for server in servers:
        await server.close()
    await engine.close()
    await vad.close()
    await state.close()


async def test_a_drained_server_hands_its_sessions_over(two: Deployment, speeches: dict[str, Speech]) -> None:
    text, audio = two_of(speeches)
    whole = await uncut(two.servers[1], audio)
    client = Client(two.servers[0], audio)
    await client.connect()
    await client.send(int(len(audio) * 0.6))
    two.servers[0].app[ADMISSION].stop()
    await two.servers[0].app[MEMBER].leave()
    await two.servers[0].app[REGISTRY].hand_over_all(deadline_s=3.0)
    await asyncio.wait_for(client.over(), LIMIT_S)
    assert client.codes == [1012]
    assert client.events[-1]["type"] == "reconnect"
    assert len(two.servers[0].app[REGISTRY]) == 0

    before = len(client.events)
    client.node = two.servers[1]
    await client.connect()
    resumed = client.events[before]
    assert (resumed["type"], resumed["is_elsewhere"]) == ("resumed", True)
    assert resumed["resume"]["path"] != client.events[0]["resume"]["path"]
    await client.send(len(audio))
    await client.finish()
    assert word_errors(whole.text, client.text) <= 0.05, (whole.text, client.text)
    assert word_errors(text, client.text) <= 0.2
    assert [final["utterance_id"] for final in client.finals] == list(range(1, len(client.finals) + 1))
    for ours, theirs in zip(client.finals, whole.finals, strict=True):
        assert ours["start"] == pytest.approx(theirs["start"], abs=0.1)
    seqs = [event["seq"] for event in client.events]
    assert seqs == sorted(set(seqs))
    assert [event["type"] for event in client.events].count("closed") == 1
    assert client.events[-2]["duration"] == pytest.approx(whole.events[-2]["duration"], abs=0.1)
    assert two.count(0, "sessions_ended_total", door="websocket", reason="moved") == 1
    assert two.count(1, "resumes_total", door="websocket", outcome="elsewhere") == 1


async def test_what_a_server_had_that_is_gone_is_gone_on_with_once(
    two: Deployment, speeches: dict[str, Speech]
) -> None:
    """The first server is cut off, and does not notice: it lets go once it sees that another one has the session."""
    _, audio = two_of(speeches)
    whole = await uncut(two.servers[1], audio)
    client = Client(two.servers[0], audio)
    await client.connect()
    await client.send(int(len(audio) * 0.45))  # in the middle of a sentence
    written = two.count(0, "resumptions_total", outcome="written")
    async with asyncio.timeout(LIMIT_S):
        while two.count(0, "resumptions_total", outcome="written") == written:
            await asyncio.sleep(0.05)
    await two.servers[0].app[MEMBER].leave()
    client.node = two.servers[1]
    before = len(client.events)
    await client.connect()
    assert client.events[before]["is_elsewhere"] is True
    assert client.resent > 0
    path = client.events[0]["resume"]["path"]
    async with aiohttp.ClientSession() as http, http.get(client.node.make_url(path)) as response:
        assert response.status == 426  # who was not told of the new address finds the session by the old one
    await client.send(len(audio))
    await emptied(two.servers[0])
    await client.finish()
    assert word_errors(whole.text, client.text) <= 0.05, (whole.text, client.text)
    seqs = [event["seq"] for event in client.events]
    assert seqs == sorted(set(seqs))
    assert two.count(0, "resumptions_total", outcome="claimed") == 1
    async with aiohttp.ClientSession() as http, http.get(client.node.make_url(path)) as response:
        assert response.status == 404


async def test_a_call_goes_on_at_another_server(
    two: Deployment, speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it takes that one a while to gather candidates: the clock goes on meanwhile."""
    negotiate = Link.negotiate

    async def slowly(link: Link) -> None:
        await negotiate(link)
        await asyncio.sleep(1.5)

    caller, first, second = Caller(two.servers[0]), TimedTrack(speech.path), TimedTrack(speech.path)
    await caller.call(first)
    await asyncio.wait_for(first.finished.wait(), 30)
    await two.servers[0].app[MEMBER].leave()
    await two.servers[0].app[REGISTRY].hand_over_all(deadline_s=15.0)
    await caller.until("reconnect")
    assert "closed" not in [event["type"] for event in caller.events]
    spoken_s, left_s = first.frames * 0.02, first.last_s
    path = caller.url
    caller.node = two.servers[1]
    with monkeypatch.context() as patched:
        patched.setattr(Link, "negotiate", slowly)
        await caller.call(second)
    assert caller.status == 201
    assert caller.url != path
    async with aiohttp.ClientSession() as http:
        for part in ("", "/events"):  # who was not told of the new address reaches it by the old one
            async with http.get(caller.node.make_url(path + part)) as response:
                assert response.status == 200
        async with http.patch(caller.node.make_url(path), headers=SDPFRAG) as response:
            assert response.status == 428  # and not 404
    await asyncio.wait_for(second.finished.wait(), 30)
    async with aiohttp.ClientSession() as http, http.delete(caller.node.make_url(path)) as response:
        assert response.status == 200
    assert len(two.servers[1].app[REGISTRY]) == 0
    await caller.until("closed")
    await caller.let_go()
    resumed = next(event for event in caller.events if event["type"] == "resumed")
    assert resumed["is_elsewhere"] is True
    seqs = [event["seq"] for event in caller.events]
    assert seqs == sorted(set(seqs))
    after = [final for final in caller.finals if final["start"] > speech.duration_s]
    before = [final for final in caller.finals if final["start"] <= speech.duration_s]
    assert word_errors(speech.text, " ".join(final["transcript"] for final in before)) <= 0.25
    assert word_errors(speech.text, " ".join(final["transcript"] for final in after)) <= 0.25
    offset_s = spoken_s + second.began_s - left_s
    assert after[0]["words"][0]["start"] == pytest.approx(offset_s, abs=0.5)
    assert [final["utterance_id"] for final in caller.finals] == list(range(1, len(caller.finals) + 1))
