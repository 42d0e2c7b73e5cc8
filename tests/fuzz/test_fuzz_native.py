"""The native WebSocket under mutated messages."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.fuzz.mutation import ODD_TEXT, bytes_astray, queries, texts
from tests.fuzz.server import Fuzzed
from tests.fuzz.sockets import LOUD, Door, told, under_messages

pytestmark = pytest.mark.timeout(3600)

DOOR = Door("/ws/v1/transcribe", '{"type":"close_stream"}')
RAW = [("encoding", "linear16"), ("sample_rate", "16000")]

FLAGS = st.sampled_from(["true", "false"])
QUERY: dict[str, st.SearchStrategy[str]] = {
    "channels": st.sampled_from(["1", "2", "8"]),
    "multichannel": FLAGS,
    "language": st.just("en"),
    "interim_results": FLAGS,
    "vad_enabled": FLAGS,
    "hotwords": st.just("Anna,Bob"),
    "custom_vocabulary": st.just("Anna,Bob"),
    "metadata": st.just('{"caller":"Ann"}'),
    "channel_labels": st.just("agent,caller"),
    "endpointing_ms": st.sampled_from(["100", "500"]),
    "settled_finals": FLAGS,
    "api_key": ODD_TEXT,
}
CONFIG = st.fixed_dictionaries(
    {},
    optional={
        "language": st.sampled_from([None, "en"]),
        "interim_results": st.booleans(),
        "vad_enabled": st.booleans(),
        "hotwords": st.lists(st.text(min_size=1, max_size=10), max_size=3),
        "metadata": st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=2),
        "channel_labels": st.lists(st.just("a"), max_size=2),
        "endpointing_ms": st.integers(100, 1000),
        "encoding": st.sampled_from(["linear16", "opus", None]),
        "sample_rate": st.sampled_from([8000, 16000]),
        "channels": st.integers(1, 3),
    },
)
VALID: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(lambda config: {"type": "configure", "config": config}, CONFIG),
    st.builds(lambda data: {"type": "audio", "data": base64.b64encode(data).decode()}, st.just(LOUD)),
    st.just({"type": "finalize"}),
    st.just({"type": "keep_alive"}),
    st.just({"type": "close_stream"}),
)
MESSAGE = st.one_of(texts(VALID), texts(VALID), bytes_astray(st.just(LOUD)))


async def is_heard(server: Fuzzed) -> None:
    events = await told(server, DOOR, RAW, [LOUD] * 4 + ['{"type":"close_stream"}'])
    assert [event["transcript"] for event in events if event["type"] == "final"] == ["hello"]
    assert (events[0]["type"], events[-1]["type"]) == ("ready", "closed")


def test_mutated_messages_leave_the_native_websocket_as_it_was(fuzzed: Fuzzed) -> None:
    fuzzed.run(is_heard(fuzzed))
    under_messages(fuzzed, DOOR, queries(QUERY, RAW), MESSAGE)
    fuzzed.run(is_heard(fuzzed))
