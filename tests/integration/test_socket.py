"""Whole conversations over the native WebSocket: the real application and models, real speech in every encoding."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import av
import numpy as np
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer

from mediaserver.audio.clock import Samples
from mediaserver.decoder.catalogue import ModelFiles
from signaling.own_server import own_server
from tests.conftest import Speech
from tests.integration.browser import LEAD_IN_S, browser_page, microphone
from tests.integration.real_server import emptied, serving
from tests.scoring import word_errors
from tests.unit.ingest.encoded_audio import encoded, opus_packets

pytestmark = pytest.mark.timeout(120)

CHUNK_BYTES = 4000
PATH = "/ws/v1/transcribe"


@pytest_asyncio.fixture
async def node(model_files: ModelFiles, vad_model_path: Any) -> AsyncIterator[TestServer]:
    async with serving(model_files, vad_model_path) as server:
        yield server
        await emptied(server)


def at_rate(samples: Samples, rate: int) -> Samples:
    """16 kHz audio at another rate, [1, n]."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    frame = av.AudioFrame.from_ndarray(samples[None, :], format="flt", layout="mono")
    frame.sample_rate = 16_000
    parts = [out.to_ndarray() for out in (*resampler.resample(frame), *resampler.resample(None))]
    return np.concatenate(parts, axis=1)


def linear16(samples: Samples) -> bytes:
    return (np.clip(samples, -1, 1).T * 32767).astype("<i2").tobytes()


def pieces(data: bytes) -> Iterator[bytes]:
    return (data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES))


async def transcribe(node: TestServer, query: dict[str, str], audio: Iterable[bytes]) -> list[dict[str, Any]]:
    """All events of a stream that is sent as fast as it is taken."""
    url = node.make_url(PATH).with_query(query)
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as ws:

        async def send() -> None:
            for piece in audio:
                await ws.send_bytes(piece)
            await ws.send_str('{"type":"close_stream"}')

        sending = asyncio.create_task(send())
        events = [json.loads(message.data) async for message in ws]
        await sending
        assert ws.close_code == 1000
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert [events[0]["type"], *(event["type"] for event in events[-2:])] == ["ready", "metadata", "closed"]
    return events


def text_of(events: list[dict[str, Any]], channel: int | None = None) -> str:
    finals = (event for event in events if event["type"] == "final" and event.get("channel") == channel)
    return " ".join(final["transcript"] for final in finals)


@pytest.mark.parametrize(
    ("name", "query", "rate"),
    [
        ("linear16", {"encoding": "linear16", "sample_rate": "44100"}, 44_100),
        ("pcm_mulaw", {"encoding": "mulaw"}, 8000),
        ("pcm_alaw", {"encoding": "alaw", "sample_rate": "8000"}, 8000),
        ("opus packets", {"encoding": "opus"}, 48_000),
    ],
)
async def test_raw_encodings_have_the_right_words(
    node: TestServer, speech: Speech, name: str, query: dict[str, str], rate: int
) -> None:
    samples = at_rate(speech.samples(), rate)
    match name:
        case "linear16":
            audio = pieces(linear16(samples))
        case "opus packets":
            audio = iter(opus_packets(samples, rate))
        case codec:
            file = encoded("wav", codec, samples, rate)
            audio = pieces(file[file.index(b"data") + 8 :])
    events = await transcribe(node, query, audio)
    assert word_errors(speech.text, text_of(events)) <= 0.3, text_of(events)
    assert events[-2]["duration"] == pytest.approx(speech.duration_s, abs=0.1)


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("wav", "pcm_s16le", 24_000),
        ("flac", "flac", 16_000),
        ("ogg", "libopus", 48_000),
        ("webm", "libopus", 48_000),
        ("mp3", "libmp3lame", 44_100),
        ("adts", "aac", 32_000),
    ],
)
async def test_containers_have_the_right_words(
    node: TestServer, speech: Speech, container: str, codec: str, rate: int
) -> None:
    data = encoded(container, codec, at_rate(speech.samples(), rate), rate)
    events = await transcribe(node, {}, pieces(data))
    assert word_errors(speech.text, text_of(events)) <= 0.25, text_of(events)


async def test_each_channel_has_its_own_words(node: TestServer, speeches: dict[str, Speech]) -> None:
    spoken = [speeches["alice-awb"], speeches["darwin-rms"]]
    length = max(len(speech.samples()) for speech in spoken)
    both = np.stack([np.pad(speech.samples(), (0, length - len(speech.samples()))) for speech in spoken])
    query = {
        "encoding": "linear16",
        "sample_rate": "16000",
        "channels": "2",
        "multichannel": "true",
        "channel_labels": "agent,caller",
        "metadata": '{"call_id":"a7"}',
    }
    events = await transcribe(node, query, pieces(linear16(both)))
    for channel, speech in enumerate(spoken):
        assert word_errors(speech.text, text_of(events, channel)) <= 0.25, text_of(events, channel)
    assert all(event["metadata"] == {"call_id": "a7"} for event in events)
    labels = {event["channel"]: event["channel_label"] for event in events if "channel" in event}
    assert labels == {0: "agent", 1: "caller"}
    assert sum(event["type"] == "ready" for event in events) == 1


async def test_base64_messages_and_finalize_give_finals_while_the_line_stays_open(
    node: TestServer, speech: Speech
) -> None:
    async with aiohttp.ClientSession() as http:
        url = node.make_url(PATH).with_query({"encoding": "linear16", "sample_rate": "16000"})
        async with http.ws_connect(url) as ws:
            for piece in pieces(linear16(speech.samples()[None, :])):
                await ws.send_str(json.dumps({"type": "audio", "data": base64.b64encode(piece).decode()}))
            await ws.send_str('{"type":"finalize"}')
            text = ""
            async with asyncio.timeout(20):
                while word_errors(speech.text, text) > 0.25:
                    event = json.loads(await ws.receive_str())
                    if event["type"] == "final":
                        text = f"{text} {event['transcript']}".strip()
            assert not ws.closed


async def test_audio_faster_than_it_is_decoded_is_held_back_and_told_and_all_heard(
    node: TestServer, speeches: dict[str, Speech]
) -> None:
    speech = speeches["gettysburg-slt"]
    samples = np.concatenate([np.pad(speech.samples(), (0, 12_000))] * 4)
    audio = pieces(linear16(samples[None, :]))
    events = await transcribe(node, {"encoding": "linear16", "sample_rate": "16000", "interim_results": "false"}, audio)
    assert word_errors(" ".join([speech.text] * 4), text_of(events)) <= 0.2, text_of(events)
    assert sum(event["type"] == "warning" for event in events) <= 1


RECORD = """async ({url, seconds}) => {
  const stream = await navigator.mediaDevices.getUserMedia({audio: {
    echoCancellation: false, noiseSuppression: false, autoGainControl: false}});
  const socket = new WebSocket(url);
  const events = [];
  socket.onmessage = message => events.push(JSON.parse(message.data));
  await new Promise((done, failed) => { socket.onopen = done; socket.onerror = failed; });
  const recorder = new MediaRecorder(stream, {mimeType: "audio/webm;codecs=opus"});
  recorder.ondataavailable = event => socket.send(event.data);
  recorder.start(250);
  await new Promise(done => setTimeout(done, seconds * 1000));
  const closed = new Promise(done => { socket.onclose = event => done(event.code); });
  recorder.onstop = () => socket.send('{"type":"close_stream"}');
  recorder.stop();
  const code = await closed;
  stream.getTracks().forEach(track => track.stop());
  return {events, code};
}"""


@pytest.mark.needs("chromium")
async def test_what_mediarecorder_makes_of_a_microphone_has_the_right_words(
    model_files: object, vad_model_path: object, speech: Speech, tmp_path: Path
) -> None:
    async with own_server(()) as url, browser_page(microphone(tmp_path / "microphone.wav", LEAD_IN_S, speech)) as page:
        await page.goto(url)
        socket = url.replace("http://", "ws://") + PATH
        seconds = speech.duration_s + LEAD_IN_S + 1.0
        result = await page.evaluate(RECORD, {"url": socket, "seconds": seconds})
    text = text_of(result["events"])
    assert result["code"] == 1000
    assert word_errors(speech.text, text) <= 0.25, text
    assert any(event["type"] == "interim" for event in result["events"])
    assert result["events"][-2]["duration"] == pytest.approx(seconds, abs=1.0)
