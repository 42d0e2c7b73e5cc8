"""Clients and the player, against servers that speak the other servers' protocols by script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import numpy as np
import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from benchmarks.peers import client as client_
from benchmarks.peers import whisperlive
from benchmarks.peers.client import Client
from benchmarks.peers.perform import perform
from benchmarks.peers.server import Server, Usage
from benchmarks.peers.voiceforge import PACKET_SAMPLES, opus
from benchmarks.peers.whisperlive import WhisperLiveClient
from benchmarks.peers.whisperlivekit import WhisperLiveKitClient
from benchmarks.scripts import Script
from mediaserver.audio.clock import Samples, samples_in
from mediaserver.errors import VoiceForgeError

Talk = Callable[[web.WebSocketResponse], Awaitable[None]]


def script(seconds: float) -> Script:
    return Script("speaker", np.linspace(-0.5, 0.5, samples_in(s=seconds), dtype=np.float32))


class Measured:
    """A server's costs, made up."""

    def __init__(self) -> None:
        self.asked = 0

    def usage(self) -> Usage:
        self.asked += 1
        return Usage(cpu_s=self.asked / 10, rss_mib=100.0 + self.asked)


@asynccontextmanager
async def speaking(talk: Talk) -> AsyncIterator[int]:
    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await talk(socket)
        return socket

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    async with TestServer(app) as server:
        assert server.port is not None
        yield server.port


async def play(*clients: Client) -> None:
    await perform(cast(Server, Measured()), clients)


class WhisperLive:
    """Completes a segment once it has 0.2 s."""

    def __init__(self) -> None:
        self.hello: dict[str, Any] = {}
        self.heard: list[Samples] = []

    async def talk(self, socket: web.WebSocketResponse) -> None:
        self.hello = await socket.receive_json()
        await socket.send_json({"uid": self.hello["uid"], "message": "SERVER_READY", "backend": "faster_whisper"})
        async for message in socket:
            self.heard.append(np.frombuffer(message.data, "<f4"))
            if len(self.heard) == 2:
                segment = {"start": "0.000", "end": "0.200", "text": " Hello.", "completed": True}
                await socket.send_json({"uid": self.hello["uid"], "segments": [segment]})


async def test_whisperlive_hears_the_script_as_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whisperlive, "SETTLE_S", 0.1)
    server = WhisperLive()
    async with speaking(server.talk) as port:
        client = WhisperLiveClient(script(0.35), port)
        await play(client)
    assert (server.hello["language"], server.hello["task"], server.hello["use_vad"]) == ("en", "transcribe", True)
    assert [len(block) for block in server.heard] == [1600, 1600, 1600, 800]  # the last one is shorter
    np.testing.assert_array_equal(np.concatenate(server.heard), client.script.samples)
    assert [item.text.settled for item in client.shown] == ["Hello."]


async def test_whisperlivekit_hears_16_bits_and_an_end_and_is_waited_for() -> None:
    heard = bytearray()

    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.send_json({"type": "config", "useAudioWorklet": True, "mode": "full"})
        async for message in socket:
            if not message.data:
                break
            heard.extend(message.data)
            await socket.send_json({"lines": [], "buffer_transcription": "one"})  # the same each time
        await socket.send_json({"lines": [{"speaker": 1, "text": " one two"}], "buffer_transcription": ""})
        await socket.send_json({"type": "ready_to_stop"})
        await socket.receive()

    async with speaking(talk) as port:
        client = WhisperLiveKitClient(script(0.3), port)
        await play(client)
    np.testing.assert_allclose(np.frombuffer(heard, "<i2") / 32767, client.script.samples, atol=1e-4)
    assert [item.text.shown for item in client.shown] == ["one", "one two"]


async def test_costs_are_taken_while_audio_plays() -> None:
    async with speaking(WhisperLive().talk) as port:
        clients = [WhisperLiveClient(script(0.2), port) for _ in range(2)]
        for client in clients:
            client._settle_s = 0.05
        done = await perform(cast(Server, Measured()), clients)
    assert done.cost.audio_s == pytest.approx(0.4)
    assert done.cost.server_cpu_s > 0
    assert done.cost.rss_peak_mib > 100
    assert done.parts[1].spoken_at_s - done.parts[0].spoken_at_s == pytest.approx(0.618)
    assert all(part.ended_at_s > part.spoken_at_s + 0.2 for part in done.parts)


async def test_whisperlive_has_finished_when_it_says_the_same_again_and_again() -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await socket.send_json({"message": "SERVER_READY"})
        for _ in range(2):
            await socket.receive()
        for text in ("one", "one two", "one two", "one two three", *["one two three"] * 3):
            segment = {"start": "0.000", "end": "0.200", "text": text, "completed": False}
            await asyncio.sleep(0.02)
            await socket.send_json({"segments": [segment]})
        await socket.receive()  # says no more, and does not hang up

    async with speaking(talk) as port:
        client = WhisperLiveClient(script(0.2), port)
        done = await perform(cast(Server, Measured()), [client])
    assert [item.text.shown for item in client.shown] == ["one", "one two", "one two three"]
    assert done.parts[0].ended_at_s - done.parts[0].spoken_at_s < whisperlive.SETTLE_S / 2


async def test_a_rehearsal_ends_with_the_first_text() -> None:
    async with speaking(WhisperLive().talk) as port:
        client = WhisperLiveClient(script(0.3), port)  # would wait for SETTLE_S otherwise
        done = await perform(cast(Server, Measured()), [client], rehearsal=True)
    assert [item.text.shown for item in client.shown] == ["Hello."]
    assert done.parts[0].ended_at_s - done.parts[0].spoken_at_s < whisperlive.SETTLE_S / 2


async def test_a_server_that_takes_no_client_is_told() -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await socket.send_json({"status": "WAIT", "message": 10.0})
        await socket.receive()

    async with speaking(talk) as port:
        with pytest.raises(VoiceForgeError, match=r"WAIT: 10\.0") as caught:
            await play(WhisperLiveClient(script(0.2), port))
    assert caught.value.code == "PEER_REFUSED"


async def test_a_server_that_hangs_up_at_once_is_told() -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.close()

    async with speaking(talk) as port:
        with pytest.raises(VoiceForgeError) as caught:
            await play(WhisperLiveClient(script(0.2), port))
    assert caught.value.code in ("PEER_REFUSED", "PEER_UNREACHABLE")


async def test_a_server_that_hangs_up_in_the_middle_is_told_and_ends_all() -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.send_json({"type": "config"})
        await socket.receive()
        await socket.close()

    async with speaking(talk) as port:
        with pytest.raises(VoiceForgeError) as caught:
            await play(*(WhisperLiveKitClient(script(1.0), port) for _ in range(2)))
    assert caught.value.code == "PEER_LOST"


async def test_a_server_that_never_is_ready_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_, "CONNECT_S", 0.1)

    async def talk(socket: web.WebSocketResponse) -> None:
        async for _ in socket:
            pass

    async with speaking(talk) as port:
        with pytest.raises(VoiceForgeError) as caught:
            await play(WhisperLiveKitClient(script(0.2), port))
    assert caught.value.code == "PEER_UNREACHABLE"


async def test_a_port_without_a_server_is_told(unused_tcp_port: int) -> None:
    with pytest.raises(VoiceForgeError) as caught:
        await play(WhisperLiveKitClient(script(0.2), unused_tcp_port))
    assert caught.value.code == "PEER_UNREACHABLE"


async def test_what_is_not_of_the_protocol_is_passed_over() -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        for odd in ("{", "[]", json.dumps({"lines": 3})):
            await socket.send_str(odd)
        await socket.send_bytes(b"\x00")
        await socket.send_json({"type": "config"})
        async for message in socket:
            if message.type is WSMsgType.BINARY and not message.data:
                break
        await socket.send_json({"type": "ready_to_stop"})
        await socket.receive()

    async with speaking(talk) as port:
        client = WhisperLiveKitClient(script(0.1), port)
        await play(client)
    assert client.shown == []


def test_a_script_is_encoded_once_in_packets_of_20_ms() -> None:
    packets = opus(np.zeros(PACKET_SAMPLES * 10 + 5, np.float32))
    assert len(packets) == 11
    times = [float(packet.pts * packet.time_base) for packet in packets if packet.pts is not None and packet.time_base]
    assert np.diff(times) == pytest.approx(0.02)


async def test_closing_leaves_no_task_behind() -> None:
    async with speaking(WhisperLive().talk) as port:
        client = WhisperLiveClient(script(0.1), port)
        await client.connect()
        await client.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "peer-client"]
