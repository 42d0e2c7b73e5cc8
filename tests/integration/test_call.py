"""Whole calls: aiortc peers, the real application, the real models, real speech."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer
from aiortc import RTCPeerConnection, RTCRtpSender, RTCSessionDescription

from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.ingest.ice import IceOptions, close_peer_connection, configure_ice, new_peer_connection
from mediaserver.metrics import Metrics
from signaling.app import REGISTRY
from signaling.caller import Call, RecordingTrack
from tests.conftest import Speech, SpeechData
from tests.integration.real_server import serving
from tests.scoring import word_errors
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.timeout(120)

LOOPBACK = IceOptions(("127.0.0.1",), None, range(0), 15.0)


class Node:
    """A server in this process."""

    def __init__(self, server: TestServer, metrics: Metrics) -> None:
        self.server = server
        self.metrics = metrics

    @property
    def url(self) -> str:
        return str(self.server.make_url(""))

    @property
    def sessions(self) -> int:
        return len(self.server.app[REGISTRY])

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"voiceforge_{name}", labels or None) or 0.0


@pytest_asyncio.fixture
async def node(model_files: ModelFiles, vad_model_path: Any) -> AsyncIterator[Node]:
    metrics = Metrics()
    async with serving(model_files, vad_model_path, metrics=metrics) as server:
        yield Node(server, metrics)


async def transcript_of(node: Node, speech: Speech) -> tuple[str, list[dict[str, Any]]]:
    """Call the node, play the recording, hang up; the finals as one text, and all events."""
    events: list[dict[str, Any]] = []
    call = Call(
        url=node.url,
        track=RecordingTrack(speech.path),
        language=None,
        on_event=lambda event: events.append(dict(event)),
    )
    await call.run(asyncio.Event())
    return " ".join(event["transcript"] for event in events if event["type"] == "final"), events


async def test_a_peer_gets_the_right_words_and_a_tidy_end(node: Node, speech: Speech) -> None:
    text, events = await transcript_of(node, speech)
    assert word_errors(speech.text, text) <= 0.2, text
    types = [event["type"] for event in events]
    assert types[0] == "ready"
    assert types[-2:] == ["metadata", "closed"]
    assert [event["seq"] for event in events] == list(range(len(events)))
    interims = [event for event in events if event["type"] == "interim"]
    assert interims
    stable: dict[int, str] = {}
    for interim in interims:
        assert interim["stable"].startswith(stable.get(interim["utterance_id"], ""))
        assert interim["transcript"].startswith(interim["stable"])
        stable[interim["utterance_id"]] = interim["stable"]
    words = [word for event in events if event["type"] == "final" for word in event["words"]]
    assert all(0 <= word["start"] <= word["end"] <= speech.duration_s + 2.5 for word in words)
    assert all(0 <= word["confidence"] <= 1 for word in words)
    assert node.sessions == 0
    for stage in ("answered", "connected", "first_packet", "first_text"):
        assert node.count("setup_seconds_count", stage=stage) == 1, stage
    assert node.count("rtp_packets_total", fate="received") >= speech.duration_s * 45


async def test_two_people_speak_at_once_and_neither_hears_the_other(node: Node, speeches: dict[str, Speech]) -> None:
    chosen = [speeches["alice-awb"], speeches["darwin-rms"]]
    results = await asyncio.gather(*(transcript_of(node, speech) for speech in chosen))
    for speech, (text, _) in zip(chosen, results, strict=True):
        assert word_errors(speech.text, text) <= 0.25, text


async def test_recorded_people_get_the_right_words(node: Node, speech_data: SpeechData) -> None:
    chosen = [
        speech
        for speech in speech_data.select(category="english-read")
        if "librispeech-train-clean" in str(speech.path) and 6 < speech.duration_s < 14
    ][:3]
    results = await asyncio.gather(*(transcript_of(node, speech) for speech in chosen))
    rates = [word_errors(speech.text, text) for speech, (text, _) in zip(chosen, results, strict=True)]
    assert sum(rates) / len(rates) <= 0.15, rates


@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "G722"])
async def test_telephone_codecs_are_heard(node: Node, speech: Speech, codec: str) -> None:
    track = RecordingTrack(speech.path)
    events: list[dict[str, Any]] = []

    class Telephone(Call):
        def _listen(self, pc: RTCPeerConnection, channel: Any) -> None:
            known = RTCRtpSender.getCapabilities("audio").codecs
            preferred = [item for item in known if item.mimeType.lower() == f"audio/{codec.lower()}"]
            pc.getTransceivers()[0].setCodecPreferences(preferred)
            super()._listen(pc, channel)

    call = Telephone(url=node.url, track=track, language=None, on_event=lambda event: events.append(dict(event)))
    await call.run(asyncio.Event())
    text = " ".join(event["transcript"] for event in events if event["type"] == "final")
    assert word_errors(speech.text, text) <= 0.35, text


POOLS = ("decode_", "vad_")
"""The node's own threads: each is made when there is first something for it to do, on a busy machine after a while."""


def own_threads() -> int:
    """Threads but for those of the loop's executor, which stay for the next use and are bounded by it.

    Each of the node's own counts once by its name, made or not: a second pool of the same kind is seen.
    """
    names = Counter(thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_"))
    return sum(count - name.startswith(POOLS) for name, count in names.items())


async def test_thirty_sessions_leave_no_thread_task_or_socket_behind(
    node: Node, speech: Speech, no_leaked_tasks: None
) -> None:
    process = psutil.Process()

    async def one() -> None:
        """A session that says a second of something and vanishes behind its DELETE."""
        import aiohttp

        pc = new_peer_connection()
        track = RecordingTrack(speech.path)
        pc.addTrack(track)
        pc.createDataChannel("transcripts")
        configure_ice(pc, LOOPBACK, on_lost=lambda: None)
        await pc.setLocalDescription(await pc.createOffer())
        headers = {"Content-Type": "application/sdp"}
        async with aiohttp.ClientSession() as http:
            whip = node.server.make_url("/whip")
            location = None
            while location is None:
                async with http.post(whip, data=pc.localDescription.sdp, headers=headers) as response:
                    if response.status == 503:  # the machine is busy with something else: come again when it says
                        await asyncio.sleep(float(response.headers["Retry-After"]))
                        continue
                    assert response.status == 201
                    location = response.headers["Location"]
                    await pc.setRemoteDescription(RTCSessionDescription(await response.text(), "answer"))
            await asyncio.sleep(1.0)
            async with http.delete(node.server.make_url(location)) as response:
                assert response.status == 200
        track.stop()
        await close_peer_connection(pc)

    await asyncio.gather(*(one() for _ in range(6)))  # what is made once a process is made now
    threads, sockets = own_threads(), len(process.net_connections("inet"))
    tasks = len(asyncio.all_tasks())
    for _ in range(5):
        await asyncio.gather(*(one() for _ in range(6)))
    assert node.sessions == 0
    async with asyncio.timeout(LIMIT_S):
        while (
            own_threads() > threads
            or len(process.net_connections("inet")) > sockets
            or len(asyncio.all_tasks()) > tasks
        ):
            gc.collect()
            await asyncio.sleep(0.05)
    assert node.count("sessions", door="whip") == 0
