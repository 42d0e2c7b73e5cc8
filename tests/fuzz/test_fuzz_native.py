"""The native WebSocket under mutated messages."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import WSMsgType
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import ODD_TEXT, bytes_astray, queries, sendable, texts
from tests.fuzz.server import ANSWER_S, MESSAGES, Fuzzed

pytestmark = pytest.mark.timeout(3600)

PATH = "/ws/v1/transcribe"
PER_CONNECTION = 10
LOUD = (np.sin(np.arange(3200) / 5) * 9000).astype("<i2").tobytes()

FLAGS = st.sampled_from(["true", "false"])
RAW = [("encoding", "linear16"), ("sample_rate", "16000")]
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


async def converse(server: Fuzzed, query: list[tuple[str, str]], messages: list[str | bytes]) -> None:
    """Connect, say all of it, and go, whether or not the server has had enough of it before."""
    try:
        ws = await server.http.ws_connect(server.url(PATH, query))
    except aiohttp.WSServerHandshakeError as exc:
        if exc.status >= 500:
            raise
        server.tally[f"refused {exc.status}"] += 1
        return
    async with ws:
        for message in messages:
            server.tally["messages"] += 1
            try:
                if isinstance(message, bytes):
                    await ws.send_bytes(message)
                else:
                    await ws.send_str(sendable(message))
            except ConnectionError:
                break
        with contextlib.suppress(ConnectionError):
            await ws.send_str('{"type":"close_stream"}')
        while (reply := await ws.receive(timeout=ANSWER_S)).type is WSMsgType.TEXT:
            server.tally[json.loads(reply.data)["type"]] += 1
    server.tally[f"closed {ws.close_code}"] += 1
    assert ws.close_code != aiohttp.WSCloseCode.INTERNAL_ERROR


async def is_heard(server: Fuzzed) -> None:
    """A client that does everything right gets its words."""
    async with server.http.ws_connect(server.url(PATH, RAW)) as ws:
        assert (await ws.receive_json(timeout=ANSWER_S))["type"] == "ready"
        for _ in range(4):
            await ws.send_bytes(LOUD)
        await ws.send_str('{"type":"close_stream"}')
        events = [json.loads(message.data) async for message in ws if message.type is WSMsgType.TEXT]
    assert [event["transcript"] for event in events if event["type"] == "final"] == ["hello"]
    assert events[-1]["type"] == "closed"


def test_mutated_messages_leave_the_native_websocket_as_it_was(fuzzed: Fuzzed) -> None:
    @settings(settings.get_profile("fuzz"), max_examples=MESSAGES // PER_CONNECTION * 3 // 2)
    @given(queries(QUERY, RAW), st.lists(MESSAGE, min_size=PER_CONNECTION, max_size=PER_CONNECTION + 4))
    def try_one(query: list[tuple[str, str]], messages: list[str | bytes]) -> None:
        fuzzed.run(converse(fuzzed, query, messages))
        fuzzed.after_a_message()

    fuzzed.run(is_heard(fuzzed))
    try_one()
    fuzzed.run(is_heard(fuzzed))
    print(dict(fuzzed.tally))  # noqa: T201 - the figures of a deep run
