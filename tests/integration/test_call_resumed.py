"""Calls whose peer connections are lost: the client comes back with another one, and the session goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from statistics import median
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer
from aiortc import RTCPeerConnection, RTCSessionDescription
from av import AudioFrame

from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.ingest.ice import IceOptions, close_peer_connection, configure_ice, connections_of, new_peer_connection
from mediaserver.settings import Settings
from signaling.app import REGISTRY
from signaling.caller import RecordingTrack
from tests.conftest import Speech
from tests.integration.real_server import emptied, rested, serving
from tests.scoring import word_errors

pytestmark = pytest.mark.timeout(120)

LOOPBACK = IceOptions(("127.0.0.1",), None, range(0), 60.0)
SDP = {"Content-Type": "application/sdp"}


@pytest_asyncio.fixture
async def node(model_files: ModelFiles, vad_model_path: Any) -> AsyncIterator[TestServer]:
    settings = Settings(ping_timeout_s=1.5, resume_window_s=20)
    async with serving(model_files, vad_model_path, settings=settings) as server:
        yield server


class TimedTrack(RecordingTrack):
    """A recording of which it is known when it was sent: a busy machine sends it later than it wanted to."""

    began_s: float = 0.0
    last_s: float = 0.0
    frames: int = 0

    async def recv(self) -> AudioFrame:
        frame = await super().recv()
        self.last_s = asyncio.get_running_loop().time()
        self.began_s = self.began_s or self.last_s
        self.frames += 1
        return frame


class Caller:
    """A client that comes back."""

    def __init__(self, node: TestServer) -> None:
        self.node = node
        self.events: list[dict[str, Any]] = []
        self.url = "/whip?endpointing_ms=3000"  # no final before it is asked for
        self.etags: list[str] = []
        self.status = 0
        self._pc: RTCPeerConnection | None = None
        self._channel: Any = None

    async def call(self, track: TimedTrack, *more: TimedTrack, after: int | None = None) -> None:
        """Offer a connection: the first opens the session, others take it up."""
        pc = self._pc = new_peer_connection()
        for one in (track, *more):
            pc.addTrack(one)
        channel = self._channel = pc.createDataChannel("transcripts")
        channel.on("message", lambda text: self.events.append(json.loads(text)))
        configure_ice(pc, LOOPBACK, on_lost=lambda: None)
        await pc.setLocalDescription(await pc.createOffer())
        await rested(self.node)
        url = self.node.make_url(self.url)
        if self.events:
            url = url.with_query(after=str(self.events[-1]["seq"] if after is None else after))
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, data=pc.localDescription.sdp, headers=SDP) as response,
        ):
            self.status, body = response.status, await response.text()
            if response.status == 201:
                self.url = response.headers["Location"]
                self.etags.append(response.headers["ETag"])
                await pc.setRemoteDescription(RTCSessionDescription(body, "answer"))
            else:
                await close_peer_connection(pc)

    async def drop(self) -> None:
        """The network is gone: no word by DTLS."""
        assert self._pc is not None
        for connection in connections_of(self._pc):
            await connection.close()

    async def hang_up(self) -> None:
        self._channel.send('{"type":"close_stream"}')
        await self.until("closed")
        await self.let_go()

    async def let_go(self) -> None:
        assert self._pc is not None
        await self._pc.close()

    async def until(self, kind: str, count: int = 1) -> None:
        async with asyncio.timeout(40):
            while [event["type"] for event in self.events].count(kind) < count:
                await asyncio.sleep(0.02)

    async def state(self) -> str:
        async with aiohttp.ClientSession() as http, http.get(self.node.make_url(self.url)) as response:
            return str((await response.json())["state"])

    @property
    def finals(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == "final"]


def words_of(finals: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(word["word"], word["start"]) for final in finals for word in final["words"]]


@pytest.mark.parametrize("is_noticed", [True, False])
async def test_a_call_goes_on_over_another_connection(node: TestServer, speech: Speech, *, is_noticed: bool) -> None:
    """The same is said again after the drop: as much later as the client was away."""
    caller, first, second = Caller(node), TimedTrack(speech.path), TimedTrack(speech.path)
    await caller.call(first)
    await asyncio.wait_for(first.finished.wait(), 30)
    spoken_s, left_s = first.frames * 0.02, first.last_s
    await caller.drop()  # in the moment after the last word: its final is told while nobody is there
    known = caller.events[-1]["seq"]
    if is_noticed:
        async with asyncio.timeout(10):
            (live,) = node.app[REGISTRY].sessions()
            while await caller.state() != "held" or not live.peer.channels.is_settled:
                await asyncio.sleep(0.05)
    else:
        await asyncio.sleep(0.3)
    assert len(node.app[REGISTRY]) == 1
    await caller.call(second)
    assert caller.status == 201
    await asyncio.wait_for(second.finished.wait(), 30)
    await asyncio.sleep(0.5)
    await caller.hang_up()

    events = caller.events
    resumed = next(event for event in events if event["type"] == "resumed")
    assert (resumed["is_elsewhere"], resumed["received_bytes"]) == (False, None)
    assert resumed["resume"]["path"] == caller.url == events[0]["resume"]["path"]
    assert len(set(caller.etags)) == 2
    seqs = [event["seq"] for event in events]
    assert seqs == sorted(set(seqs))
    assert not is_noticed or any(event["type"] == "final" and known < event["seq"] < resumed["seq"] for event in events)
    offset_s = spoken_s + second.began_s - left_s
    after = [final for final in caller.finals if final["start"] > speech.duration_s]
    before = [final for final in caller.finals if final["start"] <= speech.duration_s]
    assert word_errors(speech.text, " ".join(final["transcript"] for final in before)) <= 0.25
    assert word_errors(speech.text, " ".join(final["transcript"] for final in after)) <= 0.25
    alone, heard = words_of(before), words_of(after)
    shifts = [ours[1] - theirs[1] for ours, theirs in zip(heard[-8:], alone[-8:], strict=True) if ours[0] == theirs[0]]
    assert len(shifts) >= 4
    assert median(shifts) == pytest.approx(offset_s, abs=0.1)
    assert [event["type"] for event in events].count("closed") == 1
    await emptied(node)


async def test_offers_that_do_not_fit_leave_the_session_waiting(node: TestServer, speech: Speech) -> None:
    caller = Caller(node)
    await caller.call(TimedTrack(speech.path))
    await caller.until("ready")
    await caller.drop()
    path = caller.url

    async def refused(data: str, *, query: str = "", headers: dict[str, str] = SDP) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as http,
            http.post(node.make_url(path + query), data=data, headers=headers) as response,
        ):
            return response.status, (await response.json())["error"]["code"]

    assert await refused("v=0\r\n") == (422, "NO_USABLE_AUDIO")
    assert await refused("v=0\r\n", headers={"Content-Type": "text/plain"}) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert await refused("v=0\r\n", query="?after=99") == (400, "INVALID_CURSOR")
    before = len(caller.events)
    await caller.call(TimedTrack(speech.path), TimedTrack(speech.path))  # two tracks, where there was one
    assert (caller.status, len(caller.events)) == (409, before)
    await caller.call(TimedTrack(speech.path))
    assert caller.status == 201
    await caller.until("resumed")
    await caller.hang_up()
    await emptied(node)
    assert await refused("v=0\r\n") == (404, "SESSION_NOT_FOUND")


async def test_a_client_that_closes_its_connection_ends_its_session(node: TestServer, speech: Speech) -> None:
    caller = Caller(node)
    await caller.call(TimedTrack(speech.path))
    await caller.until("ready")
    assert caller._pc is not None
    await caller._pc.close()
    await emptied(node)
