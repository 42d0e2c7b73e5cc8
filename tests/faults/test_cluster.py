"""Processes that belong together: one of them is killed, or what they share is away."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.decoder.catalogue import ModelFiles
from tests.conftest import Speech
from tests.faults.calls import LINEAR16, PIECE_S, WS_PATH, linear16, peer, socket, talk
from tests.faults.node import Node, served, unharmed
from tests.faults.pulse import Pulse
from tests.recordings import joined
from tests.redis_servers import RedisServer, free_port, redis_server
from tests.scoring import word_errors

BYTES_PER_S = 2 * SAMPLE_RATE

WRITTEN_S = 2.5
"""Within this of a final what another process needs to go on is written (at most once a second, looked for twice). A
final that was told in the last of it may be told once more, under the same `utterance_id`."""

RESUMED_S = 20.0
"""A dead process is missed after 4 s at most; a client asks again every half a second."""

WORKER_BACK_S = 40.0
"""A worker starts in 3 s on a free machine."""

REDIS_BACK_S = 15.0
"""It is asked for again every second or two, and places say that they are there every second."""


class Returning:
    """A WebSocket client that comes back when its connection drops, and sends again what was not heard.

    Args:
        url: of the server.
        audio: [n] float32 at 16 kHz; what is said.
    """

    def __init__(self, url: str, audio: Samples) -> None:
        self.events: list[dict[str, Any]] = []
        self.away_s = 0.0
        self._url = url
        self._audio = linear16(audio)

    @property
    def finals(self) -> Sequence[dict[str, Any]]:
        return [event for event in self.events if event["type"] == "final"]

    @property
    def text(self) -> str:
        return " ".join(event["transcript"] for event in self.finals)

    async def run(self) -> None:
        """Say all of it, whatever happens."""
        async with aiohttp.ClientSession() as http:
            path, query, at, lost_s = WS_PATH, dict(LINEAR16), 0, None
            while not self.events or self.events[-1]["type"] != "closed":
                try:
                    async with http.ws_connect(self._url + path, params=query) as ws:
                        if lost_s is not None:
                            first = await self._until(ws, "resumed")
                            at, self.away_s = int(first["received_bytes"]), time.monotonic() - lost_s
                        else:
                            first = await self._until(ws, "ready")
                        path = first["resume"]["path"]
                        speaking = asyncio.create_task(self._speak(ws, at))
                        async for message in ws:
                            if message.type is aiohttp.WSMsgType.TEXT:
                                self.events.append(json.loads(message.data))
                        speaking.cancel()
                        await asyncio.gather(speaking, return_exceptions=True)
                    lost_s = time.monotonic()
                except (aiohttp.ClientError, ConnectionError):
                    if lost_s is None or time.monotonic() - lost_s > RESUMED_S:
                        raise
                    await asyncio.sleep(0.5)
                query = {"after": str(self.events[-1]["seq"])}

    async def _until(self, ws: aiohttp.ClientWebSocketResponse, type_: str) -> dict[str, Any]:
        while True:
            message = await ws.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise ConnectionResetError(f"closed with {ws.close_code}")
            event: dict[str, Any] = json.loads(message.data)
            self.events.append(event)
            if event["type"] == type_:
                return event

    async def _speak(self, ws: aiohttp.ClientWebSocketResponse, at: int) -> None:
        step = int(PIECE_S * BYTES_PER_S)
        began_s, first = time.monotonic(), at
        while at < len(self._audio):
            await ws.send_bytes(self._audio[at : at + step])
            at += step
            await asyncio.sleep(max(0.0, began_s + (at - first) / BYTES_PER_S - time.monotonic()))
        await ws.send_str('{"type":"close_stream"}')


def workers_of(node: Node) -> list[psutil.Process]:
    """The processes that hold sessions."""
    return [child for child in node.process.children() if "signaling.workers" in " ".join(child.cmdline())]


def speaks_to(client: Returning, node: Node) -> int:
    """The number of the worker that a client's session is in."""
    place = client.events[0]["resume"]["path"].rsplit("/", 1)[1].split(".")[0]
    opened = [json.loads(line) for line in node.log_text().splitlines() if '"session opened"' in line]
    (line,) = [line for line in opened if line["session"] == client.events[0]["session_id"]]
    assert place
    return int(line["worker"])


async def test_what_was_said_to_a_worker_that_is_killed_is_told_by_another_once_and_whole(
    tmp_path: Path, model_files: ModelFiles, vad_model_path: Path, speeches: dict[str, Speech]
) -> None:
    audio, text = joined([speeches["gettysburg-slt"], speeches["alice-awb"]], pause_s=1.2)
    with served(tmp_path, "--workers", "2") as node:
        clients = [Returning(node.url, audio) for _ in range(2)]
        running = [asyncio.create_task(client.run()) for client in clients]
        async with asyncio.timeout(60.0):
            while not all(client.finals for client in clients):
                await asyncio.sleep(0.05)
        await asyncio.sleep(WRITTEN_S)  # the second recording is being said
        number = speaks_to(clients[0], node)
        (victim,) = [process for process in workers_of(node) if _number_of(process) == number]
        victim.kill()
        killed_s = time.monotonic()
        await asyncio.gather(*running)
        for client in clients:
            assert word_errors(text, client.text) <= 0.2, client.text
            sequence = [event["seq"] for event in client.events]
            assert sequence == sorted(set(sequence)), "nothing is told twice"
            utterances = [event["utterance_id"] for event in client.finals]
            assert utterances == list(range(1, len(utterances) + 1)), "nor left out"
            lasted_s = client.events[-2]["duration"]
            assert lasted_s == pytest.approx(len(audio) / SAMPLE_RATE, abs=0.3), "one timeline"
        assert 0.0 < clients[0].away_s < RESUMED_S
        while len(workers_of(node)) < 2 or (await asyncio.to_thread(node.fetch, "/readyz"))[0] != 200:
            assert time.monotonic() - killed_s < WORKER_BACK_S
            await asyncio.sleep(0.1)
        assert not (errors := [line for line in node.new_errors() if "worker died" not in line]), "\n".join(errors)


def _number_of(process: psutil.Process) -> int:
    return int(next(word for word in process.cmdline() if word.startswith("worker-")).removeprefix("worker-"))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.mark.needs("redis-server", "redis-cli")
async def test_redis_away_ends_no_session_and_is_missed_until_it_is_back(
    tmp_path: Path, model_files: ModelFiles, vad_model_path: Path, longest: Speech, pulse: Pulse, redis: RedisServer
) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with served(tmp_path, redis_url=redis.url, token_secret="x" * 32, node_address=address) as node:
        await asyncio.gather(*(talk(node.url, longest) for _ in range(3)))
        async with unharmed(node, pulse), peer(node.url, longest) as (client, _):
            talking = asyncio.create_task(talk(node.url, longest, pace=1.0))
            await node.until(sessions=2)  # without Redis nobody is let in
            await asyncio.sleep(1.5)
            await asyncio.to_thread(redis.stop)
            await asyncio.sleep(3.0)
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await talk(node.url, longest, is_patient=False)  # nobody could be counted
            assert refused.value.status == 503
            assert refused.value.headers is not None
            assert int(refused.value.headers["Retry-After"]) > 0
            await client.said()
            await client.hang_up()
            for told in (client.told, await talking):
                told.assert_whole()
                assert word_errors(longest.text, told.text) <= 0.2, told.text
            await asyncio.to_thread(redis.start)
            began_s = time.monotonic()
            while not await _comes_in(node):
                assert time.monotonic() - began_s < REDIS_BACK_S
                await asyncio.sleep(0.2)


async def _comes_in(node: Node) -> bool:
    try:
        async with socket(node.url, is_patient=False) as client:
            await client.hang_up()
            return True
    except aiohttp.WSServerHandshakeError:
        return False
