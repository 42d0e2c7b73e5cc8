"""OpenAI's Realtime API under mutated messages: its WebSocket, its data channel, its secrets and calls."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaserver.metrics import Metrics
from mediaserver.session.dialect import Dialect, NativeDialect
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from signaling.routes.openai_realtime.conversation import Conversation
from signaling.routes.openai_realtime.session_state import SessionState
from signaling.sessions import Models, SessionFactory
from tests.fuzz import test_fuzz_native
from tests.fuzz.mutation import ODD_TEXT, astray, bytes_astray, queries, texts, utf8
from tests.fuzz.requests import ask
from tests.fuzz.server import MESSAGES, Fuzzed, LoudnessVad, OneWordEngine
from tests.fuzz.sockets import LOUD, Door, under_messages
from tests.unit.ingest.test_sdp import CHROMIUM

pytestmark = pytest.mark.timeout(3600)

BYE = '{"type":"conversation.item.retrieve","item_id":"none","event_id":"over and out"}'
DOOR = Door("/v1/realtime", BYE, answer="over and out")
INTENT = [("intent", "transcription")]

TURNS = st.sampled_from(
    [
        None,
        {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500},
        {"type": "semantic_vad", "eagerness": "high"},
    ]
)
FORMATS = st.sampled_from([{"type": "audio/pcm", "rate": 24000}, {"type": "audio/pcmu"}, {"type": "audio/pcma"}])
SPOKEN = st.fixed_dictionaries(
    {"model": st.sampled_from(["gpt-4o-transcribe", "whisper-1", "tiny.en"])},
    optional={"language": st.just("en"), "prompt": st.text(max_size=9), "keywords": st.just(["Anna"])},
)
INPUT = st.fixed_dictionaries(
    {},
    optional={
        "format": FORMATS,
        "noise_reduction": st.sampled_from([None, {"type": "near_field"}]),
        "transcription": SPOKEN,
        "turn_detection": TURNS,
    },
)
SESSION = st.fixed_dictionaries(
    {"type": st.just("transcription")},
    optional={
        "include": st.just(["item.input_audio_transcription.logprobs"]),
        "audio": st.fixed_dictionaries({}, optional={"input": INPUT}),
    },
)
LEGACY = st.fixed_dictionaries(
    {},
    optional={
        "input_audio_format": st.sampled_from(["pcm16", "g711_ulaw", "g711_alaw"]),
        "input_audio_transcription": SPOKEN,
        "turn_detection": TURNS,
        "include": st.just(["item.input_audio_transcription.logprobs"]),
    },
)
SECRET = st.fixed_dictionaries(
    {}, optional={"expires_after": st.just({"anchor": "created_at", "seconds": 60}), "session": SESSION}
)
AUDIO = {"type": "input_audio_buffer.append", "audio": base64.b64encode(LOUD).decode()}
VALID: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just(AUDIO),
    st.just({"type": "input_audio_buffer.commit"}),
    st.just({"type": "input_audio_buffer.clear"}),
    st.just({"type": "conversation.item.retrieve", "item_id": "item_x"}),
    st.just({"type": "conversation.item.delete", "item_id": "item_x", "event_id": "e"}),
    st.builds(lambda session: {"type": "session.update", "session": session}, SESSION),
    st.builds(lambda session: {"type": "transcription_session.update", "session": session}, LEGACY),
    st.builds(lambda session: {"type": "transcription_session.update", **session}, LEGACY),
)
MESSAGE = st.one_of(st.just(json.dumps(AUDIO)), texts(VALID), texts(VALID), texts(VALID), bytes_astray(st.just(LOUD)))


async def is_heard(server: Fuzzed) -> None:
    silent = {"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(48_000)).decode()}
    async with server.http.ws_connect(server.url(DOOR.path, INTENT)) as ws:
        for event in [AUDIO] * 6 + [silent] * 2:
            await ws.send_json(event)
        while (event := await ws.receive_json(timeout=5))["type"] != (
            "conversation.item.input_audio_transcription.completed"
        ):
            assert event["type"] != "error", event
        assert event["transcript"] == "hello"


def test_mutated_messages_leave_the_realtime_websocket_as_it_was(fuzzed: Fuzzed) -> None:
    query = queries({"model": st.just("whisper-1")}, INTENT)
    fuzzed.run(is_heard(fuzzed))
    under_messages(fuzzed, DOOR, query, MESSAGE)
    fuzzed.run(is_heard(fuzzed))


FORM = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, bytes]:
    """The three forms of a call's body; the offer itself is another test's business."""
    session = draw(texts(SESSION))
    match draw(st.integers(0, 2)):
        case 0:
            return "application/sdp", draw(bytes_astray(st.just(CHROMIUM.encode())))
        case 1:
            given = draw(astray(st.just({"sdp": "v=0\r\n", "session": {"type": "transcription"}})))
            return "application/json", utf8(json.dumps(given))
        case _:
            form = FORM.format("sdp", "v=0") + FORM.format("session", session) + "--b--\r\n"
            return "multipart/form-data; boundary=b", draw(bytes_astray(st.just(utf8(form))))


REQUEST = st.one_of(
    st.tuples(st.just("/v1/realtime/client_secrets"), st.just("application/json"), texts(SECRET).map(utf8)),
    st.tuples(st.just("/v1/realtime/transcription_sessions"), st.just("application/json"), texts(LEGACY).map(utf8)),
    calls().map(lambda call: ("/v1/realtime/calls", *call)),
)


def test_mutated_requests_leave_the_realtime_api_as_it_was(fuzzed: Fuzzed) -> None:
    @settings(settings.get_profile("fuzz"), max_examples=MESSAGES // 2)
    @given(REQUEST, st.one_of(st.just("sk-1"), st.just("sk-1"), ODD_TEXT))
    def try_one(request: tuple[str, str, bytes], key: str) -> None:
        path, content_type, body = request
        fuzzed.run(answered(path, content_type, body, key))
        fuzzed.after_a_message()

    async def answered(path: str, content_type: str, body: bytes, key: str) -> None:
        headers = {"Content-Type": content_type, "Authorization": f"Bearer {key}"}
        async with fuzzed.http.post(fuzzed.url(path), data=body, headers=headers_of(headers)) as response:
            fuzzed.tally[f"{path} {response.status}"] += 1
            fuzzed.tally["messages"] += 1
            assert response.status < 500 or response.status in (501, 503), await response.text()
            if response.status == 201:
                await ask(fuzzed, "POST", f"{response.headers['Location']}/hangup")

    def headers_of(headers: dict[str, str]) -> dict[str, str]:
        return {name: "".join(letter for letter in value if letter.isprintable()) for name, value in headers.items()}

    try_one()
    fuzzed.run(is_heard(fuzzed))


class DataChannel:
    """A dialect over channels that hear loudness, without a network."""

    def __init__(self, dialect: Dialect, sessions: SessionFactory) -> None:
        self.dialect = dialect
        self.told: list[str] = []
        self.channels = sessions.channels("s_1", SessionConfig.model_validate({}), self)

    def send(self, event: Any, seq: int, channel: int) -> None:
        self.told += [telling.text for telling in self.dialect.tell(event, seq, channel)]

    async def talk(self, messages: list[str | bytes], samples: Any) -> None:
        self.dialect.begin(self.channels)
        self.channels.start()
        for message in messages:
            self.told += [telling.text for telling in self.dialect.hear(message, self.channels)]
            self.channels.push(samples)
            await asyncio.sleep(0)
        await self.channels.close("client", deadline_s=5)
        for text in self.told:
            json.loads(text.encode("utf-8"))


@pytest.mark.parametrize("protocol", ["native", "openai"])
def test_mutated_messages_leave_a_data_channel_as_it_was(protocol: str, tmp_path: Path, fuzzed: Fuzzed) -> None:
    node = Settings(data_dir=tmp_path)
    models = Models(OneWordEngine(), LoudnessVad(), None)  # type: ignore[arg-type]
    factory = SessionFactory(settings=node, models=models, metrics=Metrics())
    samples = np.frombuffer(LOUD, "<i2").astype(np.float32)[None] / 32768
    message = texts(VALID if protocol == "openai" else test_fuzz_native.VALID)
    any_message = st.one_of(message, message.map(utf8), st.binary(max_size=50))

    @settings(settings.get_profile("fuzz"), max_examples=MESSAGES // 10)
    @given(st.lists(any_message, min_size=10, max_size=12))
    def try_one(messages: list[str | bytes]) -> None:
        dialect: Dialect = (
            Conversation("s_1", state=SessionState(), settings=node) if protocol == "openai" else NativeDialect("s_1")
        )
        fuzzed.run(DataChannel(dialect, factory).talk(messages, samples))
        fuzzed.tally["messages"] += len(messages)
        fuzzed.after_a_message()

    try_one()
