"""The peers of `voiceforge bench load` and `soak`: a real server hears what they play, and loses nothing of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer

from benchmarks import reels
from benchmarks.corpus import Recording
from benchmarks.rtp_drivers import Drivers, driving
from mediaserver.decoder.catalogue import ModelFiles
from signaling.app import REGISTRY
from tests.conftest import Speech
from tests.integration.real_server import emptied, serving
from tests.scoring import word_errors

pytestmark = pytest.mark.timeout(120)


@pytest_asyncio.fixture
async def server(model_files: ModelFiles, vad_model_path: Any) -> AsyncIterator[TestServer]:
    async with serving(model_files, vad_model_path) as served:
        yield served


@pytest_asyncio.fixture
async def drivers(server: TestServer, speech: Speech, tmp_path: Path) -> AsyncIterator[Drivers]:
    recording = Recording(folder=speech.path.parent, path=speech.path.name, duration_s=speech.duration_s)
    path = tmp_path / "reels.json"
    await asyncio.to_thread(lambda: reels.write(path, reels.idle_reels(), [reels.spoken_reel(recording, seed=1)]))
    url = str(server.make_url("")).rstrip("/")
    async with driving(url, path, processes=1, query={"language": "en"}) as started:
        yield started


async def test_what_they_play_is_heard_and_every_recording_has_its_final(
    server: TestServer, drivers: Drivers, speech: Speech
) -> None:
    set_ups, _ = await drivers.open(3, per_s=10.0, idle=reels.ROOM)
    assert len(set_ups) == len(server.app[REGISTRY]) == 3
    assert all(0 < item.answered_s <= item.connected_s <= item.ready_s for item in set_ups)
    await drivers.talk(1)
    while not (await drivers.report()).talking:
        await asyncio.sleep(0.1)
    last = await drivers.close()
    assert last.lost == 0
    assert not last.refused
    assert {peer.reason for peer in last.left} == {"client"}
    ((reel, text, finals),) = [item for peer in last.left for item in peer.said]
    assert reel == 0
    assert finals >= 1
    assert word_errors(speech.text, text) <= 0.15
    await emptied(server)


async def test_those_that_come_and_go_leave_nothing_behind(server: TestServer, drivers: Drivers) -> None:
    await drivers.open(2, per_s=10.0, idle=reels.DTX)
    await drivers.churn(2, stays_s=0.5, goings={"leave": 1.0}, idle=reels.DTX)
    gone = 0
    while gone < 3:
        await asyncio.sleep(0.2)
        gone += len((await drivers.report()).left)
    last = await drivers.close()
    assert {peer.reason for peer in last.left} <= {"client"}
    await emptied(server)


async def test_those_whose_connection_is_lost_come_back_and_are_told_everything_once(
    server: TestServer, drivers: Drivers, speech: Speech
) -> None:
    await drivers.open(2, per_s=10.0, idle=reels.ROOM)
    (first, _) = (live.session_id for live in server.app[REGISTRY].sessions())
    await drivers.talk(1)
    await drivers.churn(2, stays_s=1.0, goings={"return": 1.0}, idle=reels.ROOM)
    back = 0
    while back < 4:
        await asyncio.sleep(0.2)
        report = await drivers.report()
        back += len(report.returned)
        assert not report.left
        assert not report.unreturned
    assert len(server.app[REGISTRY]) == 2
    assert first in {live.session_id for live in server.app[REGISTRY].sessions()}
    last = await drivers.close()
    back += len(last.returned)
    assert [peer.reason for peer in last.left] == ["client", "client"]
    assert sum(peer.drops for peer in last.left) == sum(peer.events["resumed"] for peer in last.left) == back
    assert sum(peer.twice for peer in last.left) == 0
    heard = [text for peer in last.left for _, text, _ in peer.said]
    assert all(word_errors(speech.text, text) <= 0.25 for text in heard)
    await emptied(server)


async def test_those_that_are_gone_for_good_are_waited_for(server: TestServer, drivers: Drivers) -> None:
    await drivers.open(1, per_s=10.0, idle=reels.ROOM)
    await drivers.churn(0, stays_s=0.2, goings={"drop": 1.0}, idle=reels.ROOM)
    while not (gone := (await drivers.report()).left):
        await asyncio.sleep(0.1)
    assert [peer.reason for peer in gone] == ["dropped"]
    await asyncio.sleep(0.5)  # a word that was said would have been heard by now
    (live,) = server.app[REGISTRY].sessions()
    assert not live.reason
