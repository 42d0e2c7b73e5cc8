"""Conversations over WebSockets that begin well and go astray."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import numpy as np
from aiohttp import WSMsgType
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import sendable
from tests.fuzz.server import ANSWER_S, MESSAGES, Fuzzed

PER_CONNECTION = 10

LOUD = (np.sin(np.arange(3200) / 5) * 9000).astype("<i2").tobytes()
"""0.2 s that the VAD takes for speech, as linear16 at 16 kHz."""

Query = list[tuple[str, str]]


@dataclass(frozen=True)
class Door:
    """A protocol over a WebSocket.

    Args:
        path: of its route.
        goodbye: what a client says when it has said all.
        answer: in what it is answered by; then the client closes. If None, the server closes.
    """

    path: str
    goodbye: str
    answer: str | None = None


async def converse(server: Fuzzed, door: Door, query: Query, messages: Sequence[str | bytes]) -> None:
    """Connect, say all of it, and go, whether or not the server has had enough of it before."""
    try:
        ws = await server.http.ws_connect(server.url(door.path, query))
    except aiohttp.WSServerHandshakeError as exc:
        server.tally[f"refused {exc.status}"] += 1
        if exc.status >= 500:
            raise
        return
    async with ws:
        with contextlib.suppress(ConnectionError):
            for message in messages:
                server.tally["messages"] += 1
                if isinstance(message, bytes):
                    await ws.send_bytes(message)
                else:
                    await ws.send_str(sendable(message))
            await ws.send_str(door.goodbye)
        while (reply := await ws.receive(timeout=ANSWER_S)).type is WSMsgType.TEXT:
            server.tally[json.loads(reply.data)["type"]] += 1
            if door.answer is not None and door.answer in reply.data:
                break
    server.tally[f"closed {ws.close_code}"] += 1
    if ws.close_code in (None, aiohttp.WSCloseCode.INTERNAL_ERROR, aiohttp.WSCloseCode.ABNORMAL_CLOSURE):
        raise AssertionError(f"closed with {ws.close_code}")


def under_messages(
    server: Fuzzed, door: Door, queries: st.SearchStrategy[Query], message: st.SearchStrategy[str | bytes]
) -> None:
    """Try `MESSAGES` of them, ten a connection."""
    wanted = st.lists(message, min_size=PER_CONNECTION, max_size=PER_CONNECTION + 4)

    @settings(settings.get_profile("fuzz"), max_examples=MESSAGES // PER_CONNECTION * 3 // 2)
    @given(queries, wanted)
    def try_one(query: Query, messages: list[str | bytes]) -> None:
        server.run(converse(server, door, query, messages))
        server.after_a_message()

    try_one()


async def told(server: Fuzzed, door: Door, query: Query, messages: Sequence[str | bytes]) -> list[dict[str, object]]:
    """All that a client hears which does everything right."""
    async with server.http.ws_connect(server.url(door.path, query)) as ws, asyncio.timeout(ANSWER_S):
        for message in messages:
            await (ws.send_bytes(message) if isinstance(message, bytes) else ws.send_str(message))
        return [json.loads(message.data) async for message in ws if message.type is WSMsgType.TEXT]
