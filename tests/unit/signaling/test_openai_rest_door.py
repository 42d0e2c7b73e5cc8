"""OpenAI's audio routes at the front door: every parameter, every refusal, every form, with an engine that is told."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from aiohttp import ClientResponse, FormData, web
from aiohttp.test_utils import TestClient, TestServer
from front_door import FakeEngine
from numpy.typing import NDArray

from mediaserver.audio.clock import samples_in
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Kind, Token, Window
from mediaserver.errors import VoiceForgeError
from mediaserver.jobs.recording import Recorder
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling import app as app_
from signaling import body as body_module
from signaling.routes import openai_rest
from tests.recordings import write_wav

PATH = "/v1/audio/transcriptions"


class Vad:
    """Hears somebody where a frame is loud."""

    @property
    def network(self) -> Vad:
        return self

    def encode(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        return (np.abs(frames).max(axis=1, keepdims=True) > 0.01).astype(np.float32)

    def step(
        self, encoded: NDArray[np.float32], states: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return encoded, states


class Engine(FakeEngine):
    """Says "Héllo there." of every window, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[Window] = []
        self.answer: Callable[[], Any] = lambda: None

    async def decode(self, window: Window) -> Hypothesis:
        self.windows.append(window)
        answered = self.answer()
        if answered is not None:
            await answered
        tokens = (Token(11, "ĠHÃ", -0.25), Token(12, "©", -0.5), Token(13, "llo", -0.125))
        words = [
            HypothesisWord(" Héllo", 0.2, 0.6, 0.9, tokens if window.with_tokens else ()),
            HypothesisWord(" there.", 0.6, 1.0, 0.8, (Token(14, "Ġthere.", -1.0),) if window.with_tokens else ()),
        ]
        return Hypothesis(words, window.language or "en", None, mean_log_probability=-0.4, no_speech_probability=0.01)


@dataclass
class Node:
    client: TestClient[web.Request, web.Application]
    engine: Engine
    folder: Path
    metrics: Metrics

    @property
    def left(self) -> list[Path]:
        """Temporary files that are there."""
        return list(self.folder.glob("voiceforge-*"))

    async def post(
        self, path: str = PATH, *, file: bytes | None = None, fields: list[tuple[str, str]] | None = None, **plain: str
    ) -> ClientResponse:
        form = FormData()
        for name, value in [("model", "whisper-1"), *plain.items(), *(fields or [])]:
            if value is not None and not (name == "model" and value == "whisper-1" and "model" in plain):
                form.add_field(name, value)
        form.add_field("file", wav(self.folder) if file is None else file, filename="a.wav")
        return await self.client.post(path, data=form)


def wav(folder: Path, *, utterances: int = 1) -> bytes:
    """Tones of 14 s, each of which is a piece of its own."""
    tone = np.full(samples_in(s=14.0), 0.3, dtype=np.float32)
    silence = np.zeros(samples_in(s=2.0), dtype=np.float32)
    samples = np.concatenate([part for _ in range(utterances) for part in (tone, silence)])
    return write_wav(folder / "made.wav", [samples]).read_bytes()


@pytest_asyncio.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings = Settings(data_dir=tmp_path / "data", upload_max_bytes=2_000_000, shutdown_deadline_s=1.0)
    engine, metrics = Engine(), Metrics()
    app = app_.make_app(settings, metrics=metrics, engine=engine, vad=Vad())  # type: ignore[arg-type]
    client = TestClient(TestServer(app))
    await client.start_server()
    yield Node(client, engine, tmp_path, metrics)
    await client.close()


async def refusal(response: ClientResponse) -> tuple[int, str, str | None]:
    """Status, code and parameter of a refusal of OpenAI's shape."""
    error = (await response.json())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith(".")
    assert error["type"] == ("server_error" if response.status >= 500 else "invalid_request_error")
    return response.status, error["code"], error["param"]


# -- what works


async def test_json(node: Node) -> None:
    response = await node.post()
    assert response.status == 200
    assert await response.json() == {"text": "Héllo there.", "usage": {"type": "duration", "seconds": 16}}
    assert node.engine.windows[0].kind is Kind.RECORDING
    assert not node.left


async def test_verbose_json(node: Node) -> None:
    response = await node.post(
        response_format="verbose_json",
        fields=[("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")],
    )
    told = await response.json()
    assert (told["task"], told["language"], told["duration"]) == ("transcribe", "english", 16.0)
    (segment,) = told["segments"]
    assert segment == {
        "id": 0,
        "seek": 20,
        "start": 0.2,
        "end": 1.0,
        "text": " Héllo there.",
        "tokens": [11, 12, 13, 14],
        "temperature": 0.0,
        "avg_logprob": -0.4,
        "compression_ratio": segment["compression_ratio"],
        "no_speech_prob": 0.01,
    }
    assert told["words"] == [
        {"word": "Héllo", "start": 0.2, "end": 0.6},
        {"word": "there.", "start": 0.6, "end": 1.0},
    ]


async def test_logprobs_have_the_bytes_of_each_token(node: Node) -> None:
    told = await (await node.post(fields=[("include[]", "logprobs")])).json()
    assert told["logprobs"] == [
        {"token": " H\N{REPLACEMENT CHARACTER}", "bytes": [32, 72, 195], "logprob": -0.25},
        {"token": "\N{REPLACEMENT CHARACTER}", "bytes": [169], "logprob": -0.5},
        {"token": "llo", "bytes": [108, 108, 111], "logprob": -0.125},
        {"token": " there.", "bytes": [32, 116, 104, 101, 114, 101, 46], "logprob": -1.0},
    ]


@pytest.mark.parametrize(
    ("form", "content_type", "text"),
    [
        ("text", "text/plain", "Héllo there.\n"),
        ("srt", "text/plain", "1\n00:00:00,200 --> 00:00:01,200\nHéllo there.\n"),
        ("vtt", "text/vtt", "WEBVTT\n\n00:00:00.200 --> 00:00:01.200\nHéllo there.\n"),
    ],
)
async def test_texts(node: Node, form: str, content_type: str, text: str) -> None:
    response = await node.post(response_format=form)
    assert response.content_type == content_type
    assert (await response.text()).strip() == text.strip()


async def test_all_parameters_reach_the_engine(node: Node) -> None:
    node.engine.languages = ("en", "de", "fr")
    response = await node.post(
        language="German",
        prompt="Zuvor.",
        temperature="0",
        fields=[("keywords[]", "Weiher"), ("keywords[]", "Au"), ("chunking_strategy", "auto")],
    )
    assert response.status == 200, await response.text()
    (window,) = node.engine.windows
    assert (window.language, window.prompt, window.hotwords) == ("de", "Zuvor.", ("Weiher", "Au"))
    await node.post(fields=[("languages[]", "fr"), ("languages[]", "german")])
    assert node.engine.windows[-1].language_candidates == ("de", "fr")


async def test_empty_fields_say_nothing(node: Node) -> None:
    assert (await node.post(language="", prompt="", temperature="", chunking_strategy="")).status == 200


@pytest.mark.parametrize(
    "fields",
    [
        [("chunking_strategy[type]", "server_vad"), ("chunking_strategy[silence_duration_ms]", "5000")],
        [("chunking_strategy", '{"type": "server_vad", "silence_duration_ms": 5000}')],
    ],
)
async def test_a_pause_is_what_the_client_says(node: Node, fields: list[tuple[str, str]]) -> None:
    sound = wav(node.folder, utterances=2)
    await node.post(file=sound)
    assert len(node.engine.windows) == 2
    await node.post(file=sound, fields=fields)
    first = node.engine.windows[2]
    assert len(first.samples) > samples_in(s=16.0), "the pause of two seconds is none"


async def test_a_translation_says_so(node: Node) -> None:
    node.engine.languages = ("en", "de")
    response = await node.post("/v1/audio/translations", response_format="verbose_json")
    told = await response.json()
    assert (told["task"], told["language"]) == ("translate", "english")
    assert node.engine.windows[0].task == "translate"


async def test_a_stream_is_deltas_that_add_up(node: Node) -> None:
    response = await node.post(file=wav(node.folder, utterances=3), stream="true", fields=[("include[]", "logprobs")])
    assert response.content_type == "text/event-stream"
    events = [json.loads(line.removeprefix("data: ")) for line in (await response.text()).split("\n\n") if line]
    *deltas, done = events
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert done["type"] == "transcript.text.done"
    assert "".join(event["delta"] for event in deltas) == done["text"] == "Héllo there. Héllo there. Héllo there."
    assert [event["logprobs"] for event in deltas] == [done["logprobs"][:4]] * 3
    assert done["usage"] == {"type": "duration", "seconds": 48}
    async with asyncio.timeout(5):
        while node.left:  # its end is told before the folder is gone
            await asyncio.sleep(0.01)


async def test_a_stream_whose_engine_fails_ends_with_an_error(node: Node) -> None:
    heard = asyncio.Event()

    async def fail() -> None:
        if len(node.engine.windows) > 2:
            await heard.wait()
            raise VoiceForgeError("ENGINE_CLOSED", "The decoder is stopping.", "Connect again later.", retryable=True)

    node.engine.answer = fail
    response = await node.post(file=wav(node.folder, utterances=3), stream="true")
    assert "delta" in json.loads((await response.content.readline()).removeprefix(b"data: "))
    heard.set()
    *_, last = [line for line in (await response.text()).splitlines() if line]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_closed"


async def test_a_silent_recording_has_an_empty_text(node: Node) -> None:
    sound = write_wav(node.folder / "silent.wav", [np.zeros(16_000, dtype=np.float32)]).read_bytes()
    assert (await (await node.post(file=sound)).json())["text"] == ""
    told = await (await node.post(file=sound, response_format="verbose_json")).json()
    assert (told["text"], told["segments"], told["language"]) == ("", [], "")
    streamed = await (await node.post(file=sound, stream="true")).text()
    assert json.loads(streamed.removeprefix("data: "))["text"] == ""


# -- what is refused


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("response_format", "diarized_json", "invalid_value"),
        ("response_format", "xml", "invalid_value"),
        ("temperature", "0.5", "invalid_value"),
        ("temperature", "warm", "invalid_value"),
        ("timestamp_granularities[]", "letter", "invalid_value"),
        ("timestamp_granularities[]", "word", "invalid_value"),
        ("include[]", "usage", "invalid_value"),
        ("chunking_strategy", "none", "invalid_value"),
        ("chunking_strategy[type]", "semantic_vad", "invalid_value"),
        ("chunking_strategy[threshold]", "0.5", "missing_required_parameter"),
        ("chunking_strategy", '{"type": "server_vad", "eagerness": "low"}', "unknown_parameter"),
        ("chunking_strategy", "{", "invalid_value"),
        ("known_speaker_names[]", "Ann", "invalid_value"),
        ("known_speaker_references[]", "data:audio/wav;base64,AAAA", "invalid_value"),
        ("stream", "perhaps", "invalid_value"),
        ("language", "xx", "unknown_language"),
        ("languages[]", "xx", "unknown_language"),
        ("prompt", "a" * 5000, "invalid_value"),
        ("seed", "7", "unknown_parameter"),
    ],
)
async def test_a_parameter_that_does_not_work_is_refused_by_name(node: Node, field: str, value: str, code: str) -> None:
    response = await node.post(fields=[(field, value)])
    assert await refusal(response) == (400, code, field.partition("[")[0])
    assert node.engine.windows == []
    assert not node.left


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("stream", "true"), ("response_format", "srt")], "stream"),
        ([("include[]", "logprobs"), ("response_format", "text")], "include"),
        ([("language", "en"), ("languages[]", "en")], "languages"),
        ([("prompt", "a"), ("prompt", "b")], "prompt"),
        ([("chunking_strategy", "auto"), ("chunking_strategy[type]", "server_vad")], "chunking_strategy"),
    ],
)
async def test_parameters_that_contradict_each_other_are_refused(
    node: Node, fields: list[tuple[str, str]], param: str
) -> None:
    assert await refusal(await node.post(fields=fields)) == (400, "invalid_value", param)


@pytest.mark.parametrize("field", ["language", "timestamp_granularities[]", "include[]", "stream", "keywords[]"])
async def test_translations_have_fewer_parameters(node: Node, field: str) -> None:
    response = await node.post("/v1/audio/translations", fields=[(field, "en")])
    assert await refusal(response) == (400, "unknown_parameter", field.partition("[")[0])


async def test_an_english_model_translates_nothing(node: Node) -> None:
    assert await refusal(await node.post("/v1/audio/translations")) == (400, "translation_unsupported", "model")


async def test_another_model_is_not_found(node: Node) -> None:
    assert await refusal(await node.post(model="other")) == (404, "model_not_found", None)


@pytest.mark.parametrize(
    ("missing", "code"), [("model", "missing_required_parameter"), ("file", "missing_required_parameter")]
)
async def test_what_is_required_is_asked_for(node: Node, missing: str, code: str) -> None:
    form = FormData()
    if missing != "model":
        form.add_field("model", "whisper-1")
    if missing != "file":
        form.add_field("file", wav(node.folder), filename="a.wav")
    else:
        form.add_field("prompt", b"x", filename="not-the-file")
    response = await node.client.post(PATH, data=form)
    assert await refusal(response) == (400, code, missing)


@pytest.mark.parametrize("content", [b"", b"not audio" * 99])
async def test_what_is_no_audio_is_refused(node: Node, content: bytes) -> None:
    assert await refusal(await node.post(file=content)) == (400, "not_audio", "file")
    assert await refusal(await node.post(file=content, stream="true")) == (400, "not_audio", "file")
    assert not node.left


async def test_two_files_and_garbage_are_no_form(node: Node) -> None:
    form = FormData({"model": "whisper-1"})
    for _ in range(2):
        form.add_field("file", b"x", filename="a.wav")
    assert await refusal(await node.client.post(PATH, data=form)) == (400, "invalid_form", None)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert await refusal(await node.client.post(PATH, data=b"garbage", headers=headers)) == (400, "invalid_form", None)
    for head in (b"None--x--", b'Content-Disposition: form-data; name="\x00"'):  # no headers of HTTP's
        body = b"--x\r\n" + head + b"\r\n\r\n1\r\n--x--\r\n"
        assert await refusal(await node.client.post(PATH, data=body, headers=headers)) == (400, "invalid_form", None)
    headers = {"Content-Type": "multipart/form-data"}
    assert await refusal(await node.client.post(PATH, data=b"garbage", headers=headers)) == (400, "invalid_form", None)
    form = FormData({"model": "whisper-1", "prompt": "a" * 70_000})
    form.add_field("file", b"x", filename="a.wav")
    assert await refusal(await node.client.post(PATH, data=form)) == (400, "invalid_form", None)


async def test_another_content_type_is_refused(node: Node) -> None:
    response = await node.client.post(PATH, json={"model": "whisper-1"})
    assert await refusal(response) == (415, "unsupported_media_type", None)


@pytest.mark.parametrize("told", [True, False])
async def test_a_file_that_is_too_large_is_refused(node: Node, told: bool) -> None:
    size = 4_000_000 if told else 2_100_000  # beyond the bound with a form's overhead, or just beyond the bound
    assert await refusal(await node.post(file=b"x" * size)) == (413, "too_large", None)
    assert not node.left


async def test_a_client_that_sends_nothing_more_is_given_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "IDLE_TIMEOUT_S", 0.05)

    async def body() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc'
        await asyncio.sleep(30)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    response = await node.client.post(PATH, data=body(), headers=headers)
    assert await refusal(response) == (408, "body_timeout", None)
    assert not node.left


async def test_unknown_paths_and_methods_are_told_in_the_same_shape(node: Node) -> None:
    assert await refusal(await node.client.post("/v1/audio/speech")) == (404, "not_found", None)
    response = await node.client.get(PATH)
    assert await refusal(response) == (405, "method_not_allowed", None)
    assert response.headers["Allow"] == "POST"


async def test_a_fault_of_ours_is_a_500_without_its_cause(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(Recorder, "transcribe", fail)
    response = await node.post()
    assert "secret" not in await response.text()
    assert await refusal(response) == (500, "internal_error", None)


async def test_a_full_disk_is_told(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        def seek(self, place: int) -> None:
            pass

        def close(self) -> None:
            pass

        truncate = close

    monkeypatch.setattr(Path, "open", lambda self, mode: Full())
    response = await node.client.post(PATH, data=FormData({"model": "whisper-1", "file": BytesIO(b"abc")}))
    assert await refusal(response) == (507, "disk_full", None)


async def test_nobody_is_let_in_while_the_node_cannot_work(node: Node) -> None:
    node.engine.ready = False
    response = await node.post()
    assert await refusal(response) == (503, "engine_down", None)
    assert int(response.headers["Retry-After"]) > 0
    node.engine.ready = True
    node.client.app[app_.MODELS].engine = None
    response = await node.post()
    assert await refusal(response) == (503, "model_loading", None)
    assert int(response.headers["Retry-After"]) > 0
    node.client.app[app_.ADMISSION].stop()
    assert await refusal(await node.post()) == (503, "shutting_down", None)
    assert node.metrics.registry.get_sample_value("voiceforge_refused_total", {"code": "SHUTTING_DOWN"}) == 1


async def test_too_many_at_once_are_refused(tmp_path: Path, node: Node) -> None:
    gate = asyncio.Event()
    node.engine.answer = gate.wait
    recorder = node.client.app[app_.RECORDINGS].recorder()
    waiting = [asyncio.create_task(node.post()) for _ in range(2 * Settings().max_recordings)]
    async with asyncio.timeout(10):
        while recorder._present < len(waiting):
            await asyncio.sleep(0.01)
    response = await node.post()
    assert await refusal(response) == (503, "recordings_full", None)
    assert int(response.headers["Retry-After"]) > 0
    gate.set()
    assert [done.status for done in await asyncio.gather(*waiting)] == [200] * len(waiting)


@pytest.mark.parametrize("stream", ["false", "true"])
async def test_a_client_that_hangs_up_ends_its_decode(node: Node, monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    monkeypatch.setattr(openai_rest, "GONE_PERIOD_S", 0.01)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    node.engine.answer = hang
    request = asyncio.create_task(node.post(stream=stream))
    async with asyncio.timeout(10):
        await begun.wait()
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        await ended.wait()
        while node.left:
            await asyncio.sleep(0.01)


async def test_a_stream_with_nothing_to_tell_says_that_it_lives(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_rest, "HEARTBEAT_S", 0.05)
    gate = asyncio.Event()
    node.engine.answer = gate.wait
    response = await node.post(stream="true")
    assert (await response.content.readline()).startswith(b":")
    gate.set()
    assert "transcript.text.done" in await response.text()
