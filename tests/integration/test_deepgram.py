"""Deepgram's Python SDK, unmodified, against the real server with the real model and real speech."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from deepgram import AsyncDeepgramClient, DeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.core.events import EventType
from deepgram.environment import DeepgramClientEnvironment
from deepgram.errors import BadRequestError
from deepgram.listen.v1.types import ListenV1Configure

from mediaserver.audio.clock import Samples
from mediaserver.decoder.catalogue import ModelFiles
from tests.conftest import Speech
from tests.integration.deepgram_served import finals_of, served, text_of
from tests.integration.real_server import emptied, rested
from tests.integration.test_socket import at_rate, linear16
from tests.recordings import joined, write_wav
from tests.scoring import word_errors
from tests.unit.ingest.encoded_audio import encoded

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CHUNK_BYTES = 4000
MOST_SEND = {"model": "nova-3", "language": "en-US", "smart_format": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(
    model_files: ModelFiles, vad_model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[TestServer]:
    async with served(model_files, vad_model_path, tmp_path_factory.mktemp("data")) as server:
        yield server


def environment(node: TestServer) -> DeepgramClientEnvironment:
    """The one thing that whoever uses the SDK has to change."""
    host = f"127.0.0.1:{node.port}"
    return DeepgramClientEnvironment(
        base=f"http://{host}", production=f"ws://{host}", agent=f"ws://{host}", agent_rest=f"http://{host}"
    )


@pytest_asyncio.fixture(loop_scope="module")
async def client(node: TestServer) -> AsyncDeepgramClient:
    await rested(node)  # from the test before
    return AsyncDeepgramClient(api_key="any", environment=environment(node))


def pieces(data: bytes) -> Iterator[bytes]:
    return (data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES))


async def transcribe(client: AsyncDeepgramClient, audio: Iterable[bytes], **options: Any) -> list[dict[str, Any]]:
    """All messages of a stream that is sent as fast as it is taken."""
    async with client.listen.v1.connect(**{**MOST_SEND, **options}) as connection:

        async def send() -> None:
            for piece in audio:
                await connection.send_media(piece)
            await connection.send_close_stream()

        sending = asyncio.create_task(send())
        messages = [message.dict() async for message in connection]
        await sending
    return messages


def wav_data(codec: str, samples: Samples, rate: int) -> bytes:
    file = encoded("wav", codec, samples, rate)
    return file[file.index(b"data") + 8 :]


@pytest.mark.parametrize(
    ("what", "options"),
    [
        ("linear16 16 kHz", {"encoding": "linear16", "sample_rate": 16_000}),
        ("linear16 48 kHz", {"encoding": "linear16", "sample_rate": 48_000}),
        ("linear32 16 kHz", {"encoding": "linear32", "sample_rate": 16_000}),
        ("mulaw 8 kHz", {"encoding": "mulaw", "sample_rate": 8000}),
        ("ogg", {}),
        ("webm", {}),
        ("webm", {"encoding": "opus", "sample_rate": 48_000}),  # as clients say it, though it is a container
        ("flac", {"encoding": "flac", "sample_rate": 16_000}),
    ],
)
async def test_live_speech_has_the_right_words(
    client: AsyncDeepgramClient, speech: Speech, what: str, options: dict[str, Any]
) -> None:
    name, _, _ = what.partition(" ")
    rate = {"ogg": 48_000, "webm": 48_000}.get(name) or options["sample_rate"]
    samples = at_rate(speech.samples(), rate)
    match name:
        case "linear16":
            audio = linear16(samples)
        case "linear32":
            audio = samples.T.astype("<f4").tobytes()
        case "mulaw":
            audio = wav_data("pcm_mulaw", samples, rate)
        case container:
            audio = encoded(container, "flac" if container == "flac" else "libopus", samples, rate)
    messages = await transcribe(client, pieces(audio), **options)
    finals = finals_of(messages)
    assert word_errors(speech.text, text_of(finals)) <= 0.25, text_of(finals)
    assert messages[-1]["duration"] == pytest.approx(speech.duration_s, abs=0.1)
    assert all(item["is_final"] for item in messages if item["type"] == "Results")
    words = [word for item in finals for word in item["channel"]["alternatives"][0]["words"]]
    assert [word["punctuated_word"] for word in words] == text_of(finals).split()


async def test_interims_tell_all_that_is_not_final(client: AsyncDeepgramClient, speech: Speech) -> None:
    messages: list[dict[str, Any]] = []
    options = {**MOST_SEND, "encoding": "linear16", "sample_rate": 16_000, "interim_results": True}
    async with client.listen.v1.connect(**options) as connection:  # type: ignore[arg-type]

        async def listen() -> None:
            messages.extend([message.dict() async for message in connection])

        listening = asyncio.create_task(listen())
        for piece in pieces(linear16(speech.samples()[None, :])):
            await connection.send_media(piece)
            await asyncio.sleep(0.06)  # twice as fast as it was said
        await connection.send_close_stream()
        await listening
    finals = finals_of(messages)
    assert word_errors(speech.text, text_of(finals)) <= 0.25, text_of(finals)
    interims = [item["channel"]["alternatives"][0] for item in messages if not item.get("is_final", True)]
    assert len(interims) >= 2
    for item in interims:
        assert [word["punctuated_word"] for word in item["words"]] == item["transcript"].split()
    last = interims[-1]["transcript"]
    assert word_errors(" ".join(speech.text.split()[: len(last.split())]), last) <= 0.4, last


async def test_without_formatting_there_is_neither_punctuation_nor_case(
    client: AsyncDeepgramClient, speech: Speech
) -> None:
    audio = linear16(speech.samples()[None, :])
    options = {"encoding": "linear16", "sample_rate": 16_000, "smart_format": False, "replace": ["alice:ANNA"]}
    text = text_of(finals_of(await transcribe(client, pieces(audio), **options)))
    assert word_errors(speech.text.replace("Alice", "Anna"), text) <= 0.25, text
    assert text.replace("ANNA", "").replace("'", "").replace(" ", "").isalpha(), text
    assert text.replace("ANNA", "anna").islower()


async def test_each_channel_has_its_own_words_and_events(
    client: AsyncDeepgramClient, speeches: dict[str, Speech]
) -> None:
    spoken = [speeches["alice-awb"], speeches["darwin-rms"]]
    length = max(len(speech.samples()) for speech in spoken)
    both = np.stack([np.pad(speech.samples(), (0, length - len(speech.samples()))) for speech in spoken])
    messages = await transcribe(
        client,
        pieces(linear16(both)),
        encoding="linear16",
        sample_rate=16_000,
        channels=2,
        multichannel=True,
        interim_results=True,
        vad_events=True,
        tag=["a", "b"],
        extra=["call:7"],
    )
    for channel, speech in enumerate(spoken):
        text = text_of(finals_of(messages, channel=channel, channels=2))
        assert word_errors(speech.text, text) <= 0.25, text
    begun = [item["channel"] for item in messages if item["type"] == "SpeechStarted"]
    assert {tuple(channel) for channel in begun} == {(0, 2), (1, 2)}
    assert messages[-1]["tags"] == ["a", "b"]
    assert messages[-1]["extra"] == {"call": "7"}
    assert messages[0]["type"] in ("SpeechStarted", "Results")


async def test_pauses_are_speech_finals_and_gaps_are_utterance_ends(
    client: AsyncDeepgramClient, speeches: dict[str, Speech]
) -> None:
    samples, text = joined([speeches["alice-awb"], speeches["darwin-rms"]], pause_s=2.0)
    messages = await transcribe(
        client,
        pieces(linear16(samples[None, :])),
        encoding="linear16",
        sample_rate=16_000,
        interim_results=True,
        utterance_end_ms=1000,
        endpointing=300,
        vad_events=True,
    )
    finals = finals_of(messages)
    assert word_errors(text, text_of(finals)) <= 0.25, text_of(finals)
    assert sum(item["speech_final"] for item in finals) >= 2
    ends = [item["last_word_end"] for item in messages if item["type"] == "UtteranceEnd"]
    assert len(ends) == len(set(ends)) == 2
    last_words = [item["channel"]["alternatives"][0]["words"][-1]["end"] for item in finals if item["speech_final"]]
    assert set(ends) <= set(last_words)
    assert sum(item["type"] == "SpeechStarted" for item in messages) >= 2


async def test_finalize_makes_words_final_and_the_stream_goes_on(client: AsyncDeepgramClient, speech: Speech) -> None:
    audio = list(pieces(linear16(speech.samples()[None, :])))
    messages: list[dict[str, Any]] = []
    options = {**MOST_SEND, "encoding": "linear16", "sample_rate": 16_000}

    async with client.listen.v1.connect(**options) as connection:  # type: ignore[arg-type]

        async def answer() -> dict[str, Any]:
            """What comes until a finalize is answered."""
            while not messages or not messages[-1].get("from_finalize"):
                messages.append((await connection.recv()).dict())
            return messages[-1]

        for piece in audio[: len(audio) // 2]:
            await connection.send_media(piece)
        await connection.send_finalize()
        half = await asyncio.wait_for(answer(), 20)
        assert half["channel"]["alternatives"][0]["transcript"].startswith("Alice was")
        messages.append({"type": "mark"})
        await connection.send_finalize()
        nothing = await asyncio.wait_for(answer(), 20)
        assert (nothing["channel"]["alternatives"][0]["transcript"], nothing["duration"]) == ("", 0.0)
        await connection.send_keep_alive()
        await connection.send_configure(ListenV1Configure(type="Configure", keyterms=["Alice"]))
        assert (await connection.recv()).type == "ConfigureSuccess"
        for piece in audio[len(audio) // 2 :]:
            await connection.send_media(piece)
        await connection.send_close_stream()
        messages += [message.dict() async for message in connection]
    finals = finals_of([item for item in messages if item["type"] != "mark"])
    assert word_errors(speech.text, text_of(finals)) <= 0.3, text_of(finals)


async def test_the_sync_client_and_its_listeners(node: TestServer, speech: Speech) -> None:
    audio = linear16(speech.samples()[None, :])
    heard: list[dict[str, Any]] = []
    events: list[str] = []

    def talk() -> None:
        client = DeepgramClient(api_key="any", environment=environment(node))
        with client.listen.v1.connect(**MOST_SEND, encoding="linear16", sample_rate=16_000) as connection:  # type: ignore[arg-type]
            connection.on(EventType.OPEN, lambda _: events.append("open"))
            connection.on(EventType.MESSAGE, lambda message: heard.append(message.dict()))
            connection.on(EventType.ERROR, lambda error: events.append(f"error {error}"))
            connection.on(EventType.CLOSE, lambda _: events.append("close"))
            for piece in pieces(audio):
                connection.send_media(piece)
            connection.send_close_stream()
            connection.start_listening()

    await asyncio.to_thread(talk)
    assert events == ["open", "close"]
    text = text_of(finals_of(heard))
    assert word_errors(speech.text, text) <= 0.25, text


async def test_results_are_posted_to_a_callback_in_order(client: AsyncDeepgramClient, speech: Speech) -> None:
    posted: list[dict[str, Any]] = []

    async def hook(request: web.Request) -> web.Response:
        posted.append(await request.json())
        return web.Response()

    receiving = web.Application()
    receiving.add_routes([web.post("/hook", hook)])
    async with TestServer(receiving) as receiver:
        audio = linear16(speech.samples()[None, :])
        options = {"encoding": "linear16", "sample_rate": 16_000, "callback": str(receiver.make_url("/hook"))}
        assert await transcribe(client, pieces(audio), **options) == []
    text = text_of(finals_of(posted))
    assert word_errors(speech.text, text) <= 0.25, text


async def test_who_hangs_up_in_the_middle_leaves_nothing_behind(
    node: TestServer, client: AsyncDeepgramClient, speech: Speech
) -> None:
    before = asyncio.all_tasks()
    options = {**MOST_SEND, "encoding": "linear16", "sample_rate": 16_000}
    async with client.listen.v1.connect(**options) as connection:  # type: ignore[arg-type]
        await connection.send_media(linear16(speech.samples()[None, :])[:64_000])
        await connection.send_finalize()
        await connection.recv()
        connection._websocket.transport.abort()
        await emptied(node)
    async with asyncio.timeout(10):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.02)


async def test_refusals_reach_the_sdk(node: TestServer, client: AsyncDeepgramClient, speech: Speech) -> None:
    with pytest.raises(ApiError) as live:
        async with client.listen.v1.connect(model="nova-3", diarize=True):
            pass
    assert live.value.status_code == 400
    with pytest.raises(BadRequestError) as recorded:
        await client.listen.v1.media.transcribe_file(request=b"this is no audio", model="nova-3")
    assert recorded.value.body["category"] == "NOT_AUDIO"
    with pytest.raises(BadRequestError) as by_name:
        await client.listen.v1.media.transcribe_file(request=b"x", redact="pci", topics=True)
    assert "`redact`" in by_name.value.body["err_msg"]
    assert "`topics`" in by_name.value.body["err_msg"]
    expired = AsyncDeepgramClient(access_token="a.b.c", environment=environment(node))
    await expired.manage.v1.models.list()  # no token of ours, but nobody asks for keys yet


async def test_a_temporary_token_opens_a_stream_and_a_recording(
    node: TestServer, client: AsyncDeepgramClient, speech: Speech
) -> None:
    granted = await client.auth.v1.tokens.grant(ttl_seconds=60)
    assert granted.expires_in == 60
    bearer = AsyncDeepgramClient(access_token=granted.access_token, environment=environment(node))
    audio = linear16(speech.samples()[None, :])
    text = text_of(finals_of(await transcribe(bearer, pieces(audio), encoding="linear16", sample_rate=16_000)))
    assert word_errors(speech.text, text) <= 0.25, text
    forged = AsyncDeepgramClient(access_token=granted.access_token[:-2] + "xx", environment=environment(node))
    with pytest.raises(ApiError) as refused:
        await forged.listen.v1.media.transcribe_file(request=b"x")
    assert refused.value.status_code == 401


async def test_models_are_listed(client: AsyncDeepgramClient) -> None:
    listed = await client.manage.v1.models.list()
    assert listed.stt is not None
    (only,) = listed.stt
    assert (only.canonical_name, only.streaming, only.batch) == ("tiny.en", True, True)
    assert only.uuid_ is not None
    assert (await client.manage.v1.models.get(only.uuid_)).name == "tiny.en"


async def test_recordings_have_words_paragraphs_and_utterances(
    node: TestServer, client: AsyncDeepgramClient, speeches: dict[str, Speech], tmp_path: Path
) -> None:
    samples, text = joined([speeches["alice-awb"], speeches["darwin-rms"]], pause_s=3.0)
    path = write_wav(tmp_path / "two.wav", [samples])
    answer = await client.listen.v1.media.transcribe_file(
        request=path.read_bytes(), **MOST_SEND, utterances=True, keyterm=["Alice"]
    )
    (channel,) = answer.results.channels
    (alternative,) = channel.alternatives or []
    assert word_errors(text, alternative.transcript or "") <= 0.15, alternative.transcript
    assert alternative.words is not None
    assert [word.dict()["punctuated_word"] for word in alternative.words] == (alternative.transcript or "").split()
    assert alternative.paragraphs is not None
    assert len(alternative.paragraphs.paragraphs or []) == 2
    utterances = answer.results.utterances or []
    assert len(utterances) == 2
    assert utterances[1].start == pytest.approx(speeches["alice-awb"].duration_s + 3.0, abs=0.5)
    assert answer.metadata.duration == pytest.approx(len(samples) / 16_000, abs=0.1)

    def sync() -> str:
        blocking = DeepgramClient(api_key="any", environment=environment(node))
        channels = blocking.listen.v1.media.transcribe_file(request=path.read_bytes()).results.channels
        return (channels[0].alternatives or [])[0].transcript or ""

    bare = await asyncio.to_thread(sync)
    assert word_errors(text, bare) <= 0.15
    assert bare.islower()


async def test_a_stereo_recording_by_url_has_a_transcript_of_each_channel(
    client: AsyncDeepgramClient, speeches: dict[str, Speech], tmp_path: Path
) -> None:
    spoken = [speeches["alice-awb"], speeches["darwin-rms"]]
    path = write_wav(tmp_path / "stereo.wav", [speech.samples() for speech in spoken])
    got: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def hook(request: web.Request) -> web.Response:
        await got.put(json.loads(await request.read()))
        return web.Response()

    async def file(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(path)

    elsewhere = web.Application(client_max_size=1 << 24)
    elsewhere.add_routes([web.get("/stereo.wav", file), web.post("/hook", hook)])
    async with TestServer(elsewhere) as server:
        url = str(server.make_url("/stereo.wav"))
        answer = await client.listen.v1.media.transcribe_url(url=url, **MOST_SEND, multichannel=True, utterances=True)
        accepted = await client.listen.v1.media.transcribe_url(
            url=url, **MOST_SEND, multichannel=True, callback=str(server.make_url("/hook"))
        )
        posted = await asyncio.wait_for(got.get(), 30)
    assert posted["metadata"]["request_id"] == accepted.request_id
    for channel, speech in enumerate(spoken):
        for transcript in (
            (answer.results.channels[channel].alternatives or [])[0].transcript or "",
            posted["results"]["channels"][channel]["alternatives"][0]["transcript"],
        ):
            assert word_errors(speech.text, transcript) <= 0.15, transcript
    assert {utterance.channel for utterance in answer.results.utterances or []} == {0, 1}


async def test_the_clock_of_words_is_the_streams(client: AsyncDeepgramClient, speech: Speech) -> None:
    """Words of the same speech, later in a stream, are later by as much."""
    silence = np.zeros(3 * 16_000, np.float32)
    audio = linear16(np.concatenate((silence, speech.samples()))[None, :])

    finals = finals_of(await transcribe(client, pieces(audio), encoding="linear16", sample_rate=16_000))
    first = next(word for item in finals for word in item["channel"]["alternatives"][0]["words"])
    assert first["start"] == pytest.approx(3.3, abs=0.5)
