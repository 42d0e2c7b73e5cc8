"""OpenAI's own SDKs, unmodified, transcribe recordings with the real server and the real model."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.settings import Settings
from tests.conftest import Speech
from tests.integration.real_server import serving
from tests.recordings import joined, write_wav
from tests.scoring import word_errors

WEB = Path(__file__).parents[2] / "web"

pytestmark = pytest.mark.timeout(120)


@pytest_asyncio.fixture
async def url(
    model_files: ModelFiles, vad_model_path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """A server whose temporary files are in `tmp_path`."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with serving(model_files, vad_model_path, settings=Settings(data_dir=tmp_path / "data")) as server:
        yield str(server.make_url("/"))
    # Every handler has ended.
    assert not list(tmp_path.glob("voiceforge-*")), "temporary files are left"


@pytest.fixture
def client(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}v1", api_key="sk-any", max_retries=0)


async def test_json_has_the_words_and_the_seconds(client: openai.AsyncOpenAI, speech: Speech) -> None:
    done = await client.audio.transcriptions.create(model="whisper-1", file=speech.path)
    assert word_errors(speech.text, done.text) <= 0.1, done.text
    assert done.usage is not None
    assert done.usage.type == "duration"
    assert done.usage.seconds == math.ceil(speech.duration_s)


async def test_verbose_json_has_segments_and_words_with_their_times(
    client: openai.AsyncOpenAI, speeches: dict[str, Speech]
) -> None:
    speech = speeches["gettysburg-slt"]
    done = await client.audio.transcriptions.create(
        model="tiny.en",
        file=speech.path,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        prompt="The Gettysburg Address.",
        language="en",
        temperature=0,
    )
    assert word_errors(speech.text, done.text) <= 0.15, done.text
    assert done.language == "english"
    assert abs(done.duration - speech.duration_s) < 0.1
    assert done.words
    assert done.segments
    assert " ".join(word.word for word in done.words) == done.text
    assert "".join(segment.text for segment in done.segments).strip() == done.text
    times = [(word.start, word.end) for word in done.words]
    assert times == sorted(times)
    assert times[0][0] >= 0
    assert times[-1][1] <= done.duration + 0.1
    for number, segment in enumerate(done.segments):
        assert segment.id == number
        assert segment.seek == int(segment.start * 100 + 1e-6)
        assert segment.tokens
        assert segment.avg_logprob < 0
        assert 0 <= segment.no_speech_prob <= 1
        assert 0 < segment.compression_ratio < 2.4


async def test_granularities_choose_what_is_there(client: openai.AsyncOpenAI, speech: Speech) -> None:
    words = await client.audio.transcriptions.create(
        model="whisper-1", file=speech.path, response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert words.words
    assert words.segments is None
    segments = await client.audio.transcriptions.create(
        model="whisper-1", file=speech.path, response_format="verbose_json"
    )
    assert segments.segments
    assert segments.words is None


@pytest.mark.parametrize("form", ["text", "srt", "vtt"])
async def test_texts_and_subtitles(client: openai.AsyncOpenAI, speech: Speech, form: Any) -> None:
    text = await client.audio.transcriptions.create(model="whisper-1", file=speech.path, response_format=form)
    assert isinstance(text, str)
    lines = [
        line
        for line in text.splitlines()
        if line and "-->" not in line and not line.strip().isdigit() and line != "WEBVTT"
    ]
    assert word_errors(speech.text, " ".join(lines)) <= 0.1, text
    assert text.startswith("WEBVTT") == (form == "vtt")
    assert ("-->" in text) == (form != "text")


async def test_tokens_come_with_real_probabilities(client: openai.AsyncOpenAI, speech: Speech) -> None:
    done = await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=speech.path, include=["logprobs"])
    assert done.logprobs
    spelt = b"".join(bytes(int(byte) for byte in token.bytes or []) for token in done.logprobs)
    assert spelt.decode().strip() == done.text
    values = [token.logprob for token in done.logprobs]
    assert all(value is not None and -25 < value <= 0 for value in values)
    assert len(set(values)) > len(values) / 2


async def test_a_stream_tells_text_that_never_changes(
    client: openai.AsyncOpenAI, speeches: dict[str, Speech], tmp_path: Path
) -> None:
    samples, said = joined(list(speeches.values()), pause_s=1.5)
    path = write_wav(tmp_path / "three.wav", [samples])
    deltas, done = [], None
    stream = await client.audio.transcriptions.create(
        model="gpt-4o-transcribe",
        file=path,
        stream=True,
        include=["logprobs"],
        chunking_strategy={"type": "server_vad", "silence_duration_ms": 200, "threshold": 0.4},
    )
    async for event in stream:
        if event.type == "transcript.text.delta":
            assert done is None
            deltas.append(event.delta)
            assert event.logprobs
        else:
            done = event
    assert done is not None
    assert len(deltas) > 1
    assert done.type == "transcript.text.done"
    assert "".join(deltas) == done.text
    assert word_errors(said, done.text) <= 0.1, done.text


async def test_the_stream_of_the_first_party_node_sdk(url: str, speech: Speech, tmp_path: Path) -> None:
    if shutil.which("node") is None or not (WEB / "node_modules" / "openai").is_dir():
        pytest.skip("needs Node and `npm ci` in web/")
    script = tmp_path / "transcribe.mjs"
    script.write_text(
        f"""
import fs from "node:fs";
import OpenAI from {json.dumps(str(WEB / "node_modules/openai/index.mjs"))};
const [baseURL, path] = process.argv.slice(2);
const client = new OpenAI({{ apiKey: "sk-any", baseURL, maxRetries: 0 }});
const file = () => fs.createReadStream(path);
const verbose = await client.audio.transcriptions.create({{
  file: file(), model: "whisper-1", response_format: "verbose_json", timestamp_granularities: ["word"],
}});
let streamed = "";
const stream = await client.audio.transcriptions.create({{ file: file(), model: "gpt-4o-transcribe", stream: true }});
for await (const event of stream) {{
  if (event.type === "transcript.text.delta") streamed += event.delta;
}}
let refused = null;
try {{
  await client.audio.transcriptions.create({{ file: file(), model: "whisper-1", temperature: 0.5 }});
}} catch (error) {{ refused = {{ status: error.status, param: error.param, code: error.code }}; }}
console.log(JSON.stringify({{ verbose, streamed, refused }}));
""",
        encoding="utf-8",
    )
    process = await asyncio.create_subprocess_exec(
        "node", str(script), f"{url}v1", str(speech.path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    told = json.loads(out)
    assert word_errors(speech.text, told["verbose"]["text"]) <= 0.1
    assert [word["word"] for word in told["verbose"]["words"]] == told["verbose"]["text"].split()
    assert told["streamed"] == told["verbose"]["text"]
    assert told["refused"] == {"status": 400, "param": "temperature", "code": "invalid_value"}


async def test_a_client_that_hangs_up_stops_the_decode(
    url: str, speeches: dict[str, Speech], no_leaked_tasks: None, tmp_path: Path
) -> None:
    samples, _ = joined(list(speeches.values()) * 8, pause_s=0.5)  # minutes: nothing decodes them in a second
    path = write_wav(tmp_path / "long.wav", [samples])
    async with aiohttp.ClientSession() as http:

        async def until(line: str) -> str:
            async with asyncio.timeout(40):
                while True:
                    async with http.get(f"{url}metrics") as response:
                        if line in (text := await response.text()):
                            return text
                    await asyncio.sleep(0.02)

        form = aiohttp.FormData({"model": "whisper-1"})
        form.add_field("file", path.read_bytes(), filename="a.wav")
        request = asyncio.create_task(http.post(f"{url}v1/audio/transcriptions", data=form))
        await until("voiceforge_recordings_running 1.0")
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        told = await until("voiceforge_recordings_running 0.0")
    assert 'voiceforge_recordings_total{outcome="cancelled"} 1.0' in told
    assert 'outcome="completed"' not in told
    async with asyncio.timeout(40):
        while list(tmp_path.glob("voiceforge-*")):
            await asyncio.sleep(0.02)


async def test_errors_are_those_that_the_sdk_knows(client: openai.AsyncOpenAI, speech: Speech) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.audio.transcriptions.create(model="some-other-model", file=speech.path, temperature=0)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as noise:
        await client.audio.transcriptions.create(model="whisper-1", file=("a.mp3", b"not audio at all" * 100))
    assert (noise.value.code, noise.value.param) == ("not_audio", "file")
    with pytest.raises(openai.BadRequestError) as translation:
        await client.audio.translations.create(model="whisper-1", file=speech.path)
    assert (translation.value.code, translation.value.param) == ("translation_unsupported", "model")
