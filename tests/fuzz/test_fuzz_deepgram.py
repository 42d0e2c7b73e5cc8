"""Deepgram's WebSocket and REST under mutated messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import ODD_TEXT, bytes_astray, queries, texts, utf8
from tests.fuzz.requests import RECORDING, ask
from tests.fuzz.server import MESSAGES, Fuzzed
from tests.fuzz.sockets import LOUD, Door, Query, told, under_messages

pytestmark = pytest.mark.timeout(3600)

DOOR = Door("/v1/listen", '{"type":"CloseStream"}')
RAW = [("encoding", "linear16"), ("sample_rate", "16000")]

FLAGS = st.sampled_from(["true", "false"])
EVERYWHERE: dict[str, st.SearchStrategy[str]] = {
    "model": st.sampled_from(["nova-3", "nova-2-general", "tiny.en"]),
    "language": st.sampled_from(["en", "en-US"]),
    "punctuate": FLAGS,
    "smart_format": FLAGS,
    "filler_words": FLAGS,
    "keyterm": st.text(min_size=1, max_size=8),
    "keywords": st.just("word:1"),
    "replace": st.just("hello:bye"),
    "tag": st.text(max_size=8),
    "extra": st.just("a:b"),
    "diarize": st.just("false"),
    "multichannel": FLAGS,
}
LIVE: dict[str, st.SearchStrategy[str]] = {
    **EVERYWHERE,
    "channels": st.sampled_from(["1", "2"]),
    "interim_results": FLAGS,
    "endpointing": st.sampled_from(["10", "300", "false", "true"]),
    "vad_events": FLAGS,
}
REST: dict[str, st.SearchStrategy[str]] = {
    **EVERYWHERE,
    "utterances": FLAGS,
    "paragraphs": FLAGS,
    "detect_language": FLAGS,
    "utt_split": st.just("0.8"),
}
REFUSED: dict[str, st.SearchStrategy[str]] = {
    "search": st.text(max_size=8),
    "redact": st.just("pci"),
    "callback": st.just("http://127.0.0.1:1/"),
    "diarize": st.just("true"),
    "utterance_end_ms": st.sampled_from(["1000", "2000"]),
}
VALID: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({"type": "KeepAlive"}),
    st.just({"type": "Finalize"}),
    st.just({"type": "Finalize", "channel": 0}),
    st.just({"type": "CloseStream"}),
    st.just({"type": "Configure", "keyterms": ["Anna"], "features": {"punctuate": True}}),
)
MESSAGE = st.one_of(texts(VALID), texts(VALID), bytes_astray(st.just(LOUD)))
BODY = st.one_of(
    st.tuples(st.just("audio/wav"), bytes_astray(st.just(RECORDING))),
    st.tuples(st.sampled_from(["audio/*", "application/octet-stream", "", "text/plain"]), st.just(RECORDING)),
    st.tuples(st.just("application/json"), texts(st.just({"url": "http://127.0.0.1:1/a.wav"})).map(utf8)),
)


async def is_heard(server: Fuzzed) -> None:
    messages = await told(server, DOOR, RAW, [LOUD] * 4 + ['{"type":"CloseStream"}'])
    finals: Any = [message for message in messages if message["type"] == "Results" and message["is_final"]]
    assert "hello" in " ".join(final["channel"]["alternatives"][0]["transcript"] for final in finals).lower()
    assert messages[-1]["type"] == "Metadata"


async def is_transcribed(server: Fuzzed) -> None:
    status, body = await ask(server, "POST", "/v1/listen", RECORDING, {"Content-Type": "audio/wav"})
    assert status == 200, body
    assert body["results"]["channels"][0]["alternatives"][0]["transcript"].lower().startswith("hello")


def test_mutated_messages_leave_deepgrams_websocket_as_it_was(fuzzed: Fuzzed) -> None:
    fuzzed.run(is_heard(fuzzed))
    refused = queries({**LIVE, **REFUSED}, RAW)
    under_messages(fuzzed, DOOR, st.one_of(*[queries(LIVE, RAW)] * 5, refused), MESSAGE)
    fuzzed.run(is_heard(fuzzed))


def test_mutated_requests_leave_deepgrams_rest_as_it_was(fuzzed: Fuzzed) -> None:
    @settings(settings.get_profile("fuzz"), max_examples=MESSAGES // 2)
    @given(st.one_of(queries(REST), queries({**REST, **REFUSED})), BODY, ODD_TEXT)
    def try_one(query: Query, body: tuple[str, bytes], key: str) -> None:
        content_type, data = body
        headers = {"Content-Type": content_type, "Authorization": f"Token {key}"}
        fuzzed.run(ask(fuzzed, "POST", "/v1/listen", data, headers, query))
        fuzzed.after_a_message()

    fuzzed.run(is_transcribed(fuzzed))
    try_one()
    fuzzed.run(is_transcribed(fuzzed))
