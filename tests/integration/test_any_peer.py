"""Peers without a data channel, whose words others read: FFmpeg, a telephone codec, another stack with two tracks.

The real application with the real model; the words are read as server-sent events, over a WebSocket and by webhook.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from aiortc import RTCPeerConnection, RTCRtpSender, RTCSessionDescription

from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.ingest.ice import LOOPBACK_ADDRESSES, IceOptions, close_peer_connection, configure_ice
from mediaserver.outbound.webhooks import signature
from mediaserver.settings import Settings
from signaling.app import REGISTRY
from signaling.caller import RecordingTrack
from signaling.routes import whip
from tests.conftest import Speech, in_ci
from tests.integration.real_server import serving
from tests.scoring import word_errors
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.timeout(120)

CLIENTS = Path(__file__).parent / "clients"
NODE_MODULES = Path(__file__).parents[2] / "web" / "node_modules"
LOOPBACK = IceOptions(LOOPBACK_ADDRESSES, None, range(0), 15.0)
NODE_SECRET = "a secret of the operator"

Event = dict[str, Any]


class Node:
    """A server in this process, a receiver of its webhooks, and a client to read with."""

    def __init__(self, server: TestServer, receiver: Receiver, http: ClientSession) -> None:
        self.server = server
        self.receiver = receiver
        self.http = http

    def url(self, path: str) -> str:
        return str(self.server.make_url(path))

    @property
    def sessions(self) -> int:
        return len(self.server.app[REGISTRY])

    async def read(self, url: str, **headers: str) -> list[tuple[int | None, Event]]:
        """All server-sent events of an address until its end, each with its id."""
        found: list[tuple[int | None, Event]] = []
        async with self.http.get(url, headers={k.replace("_", "-"): v for k, v in headers.items()}) as response:
            assert response.status == 200, await response.text()
            text = await response.text()
        for block in text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            if "data" in fields:
                found.append((int(fields["id"]) if "id" in fields else None, json.loads(fields["data"])))
        return found


class Receiver:
    """Whoever is posted to."""

    def __init__(self) -> None:
        self.posts: list[tuple[Any, bytes]] = []

    async def take(self, request: web.Request) -> web.Response:
        self.posts.append((request.headers, await request.read()))
        return web.Response(status=204)


@pytest_asyncio.fixture
async def node(model_files: ModelFiles, vad_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    # Clients here end their sessions right after the last word; on a busy machine its final may take a while.
    monkeypatch.setattr(whip, "DELETE_DEADLINE_S", 60.0)
    receiver, hooks = Receiver(), web.Application()
    hooks.router.add_post("/hook", receiver.take)
    receiving = TestServer(hooks)
    await receiving.start_server()
    settings = Settings(webhook_url=str(receiving.make_url("/hook")), webhook_secret=NODE_SECRET)
    async with serving(model_files, vad_model_path, settings=settings) as server, ClientSession() as http:
        yield Node(server, receiver, http)
    await receiving.close()


def said(events: list[Event], channel: int | None = None) -> str:
    """The finals as one text, of one channel or of all."""
    return " ".join(
        event["transcript"]
        for event in events
        if event["type"] == "final" and (channel is None or event["channel"] == channel)
    )


def posted(receiver: Receiver, session_id: str) -> list[Event]:
    """The events of a session that were posted, as they arrived; signatures and order are checked."""
    events: list[Event] = []
    sequence = 0
    for headers, body in receiver.posts:
        assert headers["X-VoiceForge-Signature"] == signature(NODE_SECRET, headers["X-VoiceForge-Timestamp"], body)
        told = json.loads(body)
        if told["session_id"] != session_id:
            continue
        assert (told["sequence"], told["missed"]) == (sequence, 0)
        sequence += 1
        assert told["type"] == headers["X-VoiceForge-Event"]
        events += told["events"]
    assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)
    return events


async def all_posted(receiver: Receiver, session_id: str) -> list[Event]:
    """`posted`, once the end is."""
    async with asyncio.timeout(LIMIT_S):
        while not (events := posted(receiver, session_id)) or events[-1]["type"] != "closed":
            await asyncio.sleep(0.02)
    return events


async def test_peers_without_a_data_channel_are_read_elsewhere(node: Node, speech: Speech) -> None:
    await asyncio.gather(ffmpeg_is_read(node, speech), telephone_is_posted(node, speech))
    assert node.sessions == 0


class Ffmpeg:
    """FFmpeg as a WHIP client: it sends no candidates, insists on being the DTLS server, and tells its log alone what
    its session is called."""

    def __init__(self, process: asyncio.subprocess.Process, location: str, log: asyncio.Task[bytes]) -> None:
        self.process = process
        self.location = location
        self.log = log

    @classmethod
    async def call(cls, url: str, *arguments: str) -> Ffmpeg:
        """Begin to stream; `arguments` are the inputs and what is done with them."""
        process = await asyncio.create_subprocess_exec(
            *(imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "debug", *arguments),
            *("-c:a", "libopus", "-ar", "48000", "-ac", "2", "-b:a", "64k", "-f", "whip", url),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        location = ""
        while not location and (line := await process.stderr.readline()):
            if found := re.search(rb"location=(http\S+/whip/[\w-]+)", line):
                location = found[1].decode()
        return cls(process, location, asyncio.create_task(process.stderr.read()))

    async def ends(self) -> None:
        """Wait until all has been sent."""
        await self.log
        assert await self.process.wait() == 0


async def ffmpeg_is_read(node: Node, speech: Speech) -> None:
    url = node.url("/whip") + "?metadata=%7B%22caller%22%3A%22studio%22%7D"
    ffmpeg = await Ffmpeg.call(url, "-re", "-i", str(speech.path), "-af", "apad=pad_dur=1")
    location = ffmpeg.location
    async with node.http.get(location) as response:
        state = await response.json()
    assert state["channel"] == "none"
    assert state["metadata"] == {"caller": "studio"}
    assert state["tracks"][0]["codec"] == "opus"

    # Two read as it happens, one of them over a WebSocket.
    reading = asyncio.create_task(node.read(location + "/events"))
    over_socket: list[Event] = []
    async with node.http.ws_connect(location + "/events") as ws:
        async for message in ws:
            over_socket.append(json.loads(message.data))
    told = await reading
    await ffmpeg.ends()
    events = [event for _, event in told]
    assert word_errors(speech.text, said(events)) <= 0.25, said(events)
    assert said(over_socket) == said(events)
    assert [number for number, _ in told] == [event["seq"] for event in events]
    assert any(event["type"] == "interim" for event in events)
    assert all(event["metadata"] == {"caller": "studio"} for event in events)
    assert [event["type"] for event in events][-2:] == ["metadata", "closed"]

    # Afterwards the finals are still there, and whoever was cut off goes on where it was.
    again = await node.read(location + "/events")
    assert said([event for _, event in again]) == said(events)
    assert not any(event["type"] == "interim" for _, event in again)
    known = next(event["seq"] for event in events if event["type"] == "final")
    rest = await node.read(location + "/events", Last_Event_ID=str(known))
    assert [number for number, _ in rest] == [number for number, _ in again if number is not None and number > known]
    async with node.http.get(f"{location}/events?after={events[-1]['seq']}") as response:
        assert response.status == 204
    assert said(await all_posted(node.receiver, state["session_id"])) == said(events)


async def telephone_is_posted(node: Node, speech: Speech) -> None:
    """aiortc as a gateway: PCMU, no data channel; the operator's receiver gets the words, signed and in order."""
    pc, track = RTCPeerConnection(), RecordingTrack(speech.path)
    transceiver = pc.addTransceiver(track, direction="sendonly")
    known = RTCRtpSender.getCapabilities("audio").codecs
    transceiver.setCodecPreferences([codec for codec in known if codec.mimeType == "audio/PCMU"])
    configure_ice(pc, LOOPBACK, on_lost=lambda: None)
    await pc.setLocalDescription(await pc.createOffer())
    headers = {
        "Content-Type": "application/sdp",
        "X-VoiceForge-Metadata": '{"caller":"+49 30 1234","call_id":"a7","queue":"sales"}',
    }
    async with node.http.post(node.url("/whip"), data=pc.localDescription.sdp, headers=headers) as response:
        assert response.status == 201, await response.text()
        location = node.url(response.headers["Location"])
        answer = await response.text()
    assert "m=application" not in answer
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    async with node.http.get(location) as response:
        state = await response.json()
    slow = await node.http.get(location + "/events")  # reads nothing until the end
    await track.finished.wait()
    await asyncio.sleep(0.8)
    async with node.http.delete(location) as response:
        assert response.status == 200
    track.stop()
    await close_peer_connection(pc)
    text = await slow.text()
    events = await all_posted(node.receiver, state["session_id"])
    assert word_errors(speech.text, said(events)) <= 0.35, said(events)
    assert {event["type"] for event in events} >= {"final", "utterance_end", "metadata", "closed"}
    metadata = {"caller": "+49 30 1234", "call_id": "a7", "queue": "sales"}
    assert all(event["metadata"] == metadata for event in events)
    assert '"type":"closed"' in text
    assert said(events) in said([json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")])


def pcm(speech: Speech, path: Path) -> Path:
    """A recording as 16 bit at 48 kHz, mono."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=48_000)
    with av.open(str(speech.path)) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    frames += resampler.resample(None)
    path.write_bytes(np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype("<i2").tobytes())
    return path


@pytest.mark.needs("node")
async def test_nobody_is_told_of_a_session_that_was_refused(node: Node) -> None:
    """Refusals that come when everything else is there: the session has been made, and is closed again."""
    pc = RTCPeerConnection()
    for _ in range(2):
        pc.addTransceiver("audio", direction="sendonly")
    await pc.setLocalDescription(await pc.createOffer())
    sdp, headers = pc.localDescription.sdp, {"Content-Type": "application/sdp"}
    labels = {"channel_labels": "agent,customer,third"}
    async with node.http.post(node.url("/whip"), params=labels, data=sdp, headers=headers) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, "INVALID_CONFIG")
    async with node.http.post(node.url("/v1/realtime/calls"), data=sdp, headers=headers) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, "too_many_tracks")
    await pc.close()
    assert node.sessions == 0
    await asyncio.sleep(0.3)
    assert [body for _, body in node.receiver.posts] == []


async def test_two_people_in_one_call_have_a_transcript_each(
    node: Node, speeches: dict[str, Speech], tmp_path: Path
) -> None:
    people = [speeches["alice-awb"], speeches["darwin-rms"]]
    await asyncio.gather(two_tracks_are_two_channels(node, people, tmp_path), stereo_is_two_channels(node, people))


async def stereo_is_two_channels(node: Node, people: list[Speech]) -> None:
    """FFmpeg with a recorder's file: one person on the left, one on the right."""
    inputs = [argument for speech in people for argument in ("-re", "-i", str(speech.path))]
    joined = "[0:a]apad=pad_dur=3[l];[l][1:a]join=inputs=2:channel_layout=stereo,apad=pad_dur=1"
    ffmpeg = await Ffmpeg.call(node.url("/whip") + "?multichannel=true", *inputs, "-filter_complex", joined)
    events = [event for _, event in await node.read(ffmpeg.location + "/events")]
    await ffmpeg.ends()
    for channel, speech in enumerate(people):
        assert word_errors(speech.text, said(events, channel)) <= 0.3, said(events, channel)
    assert {event["channel_label"] for event in events if "channel" in event} == {"left", "right"}


async def two_tracks_are_two_channels(node: Node, people: list[Speech], tmp_path: Path) -> None:
    """@roamhq/wrtc (libwebrtc) under Node.js: two people speak at once, each on a track of its own."""
    if not (NODE_MODULES / "@roamhq" / "wrtc").is_dir():
        (pytest.fail if in_ci() else pytest.skip)("needs web/node_modules (npm ci in web)")
    files = [pcm(speech, tmp_path / f"{number}.pcm") for number, speech in enumerate(people)]
    process = await asyncio.create_subprocess_exec(
        *(
            "node",
            str(CLIENTS / "two_tracks.mjs"),
            node.url("/whip") + "?channel_labels=agent",
            '{"call_id":"b8"}',
            *map(str, files),
        ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    answered: dict[str, Any] = {}
    while "location" not in answered and (line := await process.stdout.readline()):
        answered = json.loads(line)
    assert 'rel="events"' in answered["link"]
    reading = asyncio.create_task(node.read(answered["location"] + "/events"))
    await process.stdout.read()
    assert await process.wait() == 0
    events = [event for _, event in await reading]
    for channel, speech in enumerate(people):
        assert word_errors(speech.text, said(events, channel)) <= 0.25, said(events, channel)
    of_speech = [event for event in events if "channel" in event]
    names = defaultdict(set)
    for event in of_speech:
        names[event["channel"]].add(event["channel_label"])
    assert names == {0: {"agent"}, 1: {answered["tracks"][1]}}  # as chosen, else the track's own id
    assert all(event["metadata"] == {"call_id": "b8"} for event in events)
    assert [event["type"] for event in events].count("ready") == 1
    assert [event["type"] for event in events][-2:] == ["metadata", "closed"]
    started = {event["channel"]: event["at"] for event in reversed(of_speech) if event["type"] == "speech_started"}
    assert all(at < 1.5 for at in started.values()), started  # one clock: both begin with the call
    assert said(await all_posted(node.receiver, events[0]["session_id"])) == said(events)
