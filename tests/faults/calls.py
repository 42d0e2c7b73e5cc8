"""Clients of the servers that are tested: a WebRTC peer with a bad network before it, and a WebSocket."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
from aiortc import RTCDataChannel, RTCPeerConnection, RTCSessionDescription

from mediaserver.audio.clock import SAMPLE_RATE
from mediaserver.ingest.ice import IceOptions, close_peer_connection, configure_ice, new_peer_connection
from signaling.caller import CHANNEL, TAIL_S, RecordingTrack
from tests.conftest import Speech
from tests.faults.udp_proxy import Network, UdpProxy, udp_proxy

LOOPBACK = IceOptions(("127.0.0.1",), None, range(0), 30.0)
"""A client that is more patient than the server: what ends a call is the server's own doing."""

CONNECT_S = 20.0
FLUSH_S = 40.0

BUSY_S = 60.0
"""For so long a client comes again to a node that is overloaded: the tests' machine may be busy with something else."""

BUSY_POLL_S = 0.5

WS_PATH = "/ws/v1/transcribe"
FINALS_ONLY = {"interim_results": "false"}
"""Interims are most of what a session costs: where no fault is about them, a busy machine is spared them."""

LINEAR16 = {"encoding": "linear16", "sample_rate": "16000", **FINALS_ONLY}
PIECE_S = 0.1


@dataclass
class Told:
    """What a client has been told, and when on the monotonic clock."""

    events: list[dict[str, Any]] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, text: str | bytes) -> None:
        self.events.append(json.loads(text))
        self.at_s.append(time.monotonic())
        self.news.set()

    def of(self, type_: str) -> list[dict[str, Any]]:
        """The events of a type."""
        return [event for event in self.events if event["type"] == type_]

    def when(self, type_: str) -> float:
        """When the last event of a type was told."""
        return max(at_s for event, at_s in zip(self.events, self.at_s, strict=True) if event["type"] == type_)

    @property
    def text(self) -> str:
        """All that is final."""
        return " ".join(event["transcript"] for event in self.of("final"))

    @property
    def words(self) -> list[dict[str, Any]]:
        """The words of all finals."""
        return [word for event in self.of("final") for word in event["words"]]

    async def until(self, type_: str, *, limit_s: float = FLUSH_S, count: int = 1) -> dict[str, Any]:
        """Wait for so many events of a type; the last of them."""
        async with asyncio.timeout(limit_s):
            while len(self.of(type_)) < count:
                self.news.clear()
                await self.news.wait()
        return self.of(type_)[-1]

    def assert_whole(self) -> None:
        """Every event came, once and in order, to the last."""
        assert [event["seq"] for event in self.events] == list(range(len(self.events)))
        assert [event["type"] for event in self.events][-2:] == ["metadata", "closed"]


class Peer:
    """A WebRTC client that plays a recording into a call.

    Args:
        url: of the server.
        speech: what is said.
        proxy: the network before it.
        headers: of its offer.
        query: what it asks for; finals only if None.
    """

    def __init__(
        self,
        url: str,
        speech: Speech,
        *,
        proxy: UdpProxy | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> None:
        self.told = Told()
        self.track = RecordingTrack(speech.path)
        self.is_open = asyncio.Event()
        self.is_over = asyncio.Event()
        self.location = ""
        self.retry_after_s = 0
        self.connected_in_s = 0.0
        self._url = url
        self._query = FINALS_ONLY if query is None else query
        self._proxy = proxy
        self._headers = {"Content-Type": "application/sdp", **(headers or {})}
        self.pc: RTCPeerConnection = new_peer_connection()
        self.channel: RTCDataChannel

    async def open(self) -> bool:
        """Call, and wait until the data channel is open; False: finals would be late with one more."""
        began_s = time.monotonic()
        status, body = await self.offer()
        if status == 503 and "OVERLOADED" in body:
            return False
        assert status == 201, body
        async with asyncio.timeout(CONNECT_S):
            await self.is_open.wait()
        self.connected_in_s = time.monotonic() - began_s
        return True

    async def offer(self, *, is_applied: bool = True) -> tuple[int, str]:
        """Call; status and body of the answer, which is applied unless the call is to stay half open."""
        self.pc.addTrack(self.track)
        self.channel = self.pc.createDataChannel(CHANNEL)
        self.channel.on("message", self.told.take)
        self.channel.on("open", self.is_open.set)
        self.channel.on("close", self.is_over.set)
        configure_ice(self.pc, LOOPBACK, on_lost=lambda: None)
        await self.pc.setLocalDescription(await self.pc.createOffer())
        sdp = self.pc.localDescription.sdp
        if self._proxy is not None:
            sdp = self._proxy.offer(sdp)
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self._url}/whip", params=self._query, data=sdp, headers=self._headers) as response,
        ):
            body = await response.text()
            self.retry_after_s = int(response.headers.get("Retry-After", 0))
            if response.status == 201:
                self.location = self._url + response.headers["Location"]
        if response.status == 201 and is_applied:
            answer = body if self._proxy is None else self._proxy.answer(body)
            await self.pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        return response.status, body

    async def said(self) -> None:
        """Wait until all has been said; a call that ends before that has failed."""
        waits = [asyncio.create_task(event.wait()) for event in (self.track.finished, self.is_over)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        assert not self.is_over.is_set(), "the call was lost"
        await asyncio.sleep(TAIL_S)

    async def hang_up(self) -> None:
        """Ask for the end, and wait for it."""
        self.channel.send('{"type":"close_stream"}')
        ended = asyncio.create_task(self.told.until("closed"))
        over = asyncio.create_task(self.is_over.wait())
        await asyncio.wait((ended, over), return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        assert self.told.of("closed"), f"over, and told only {[event['type'] for event in self.told.events]}"
        await ended

    async def close(self) -> None:
        """Let go of everything."""
        self.track.stop()
        await close_peer_connection(self.pc)


@asynccontextmanager
async def peer(
    url: str,
    speech: Speech,
    *,
    network: Network | None = None,
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[Peer, UdpProxy]]:
    """A WebRTC client that has called, over that network; one that comes again where the node is busy."""
    async with udp_proxy(network or Network()) as proxy, asyncio.timeout(None) as patience:
        patience.reschedule(asyncio.get_running_loop().time() + BUSY_S)
        while True:
            client = Peer(url, speech, proxy=proxy, headers=headers, query=query)
            try:
                if not await client.open():
                    await asyncio.sleep(BUSY_POLL_S)
                    continue
                patience.reschedule(None)
                yield client, proxy
                return
            finally:
                await client.close()


async def call(url: str, speech: Speech, *, network: Network | None = None) -> tuple[Peer, UdpProxy]:
    """A whole call: what was told is in the client's `told`."""
    async with peer(url, speech, network=network) as (client, proxy):
        await client.said()
        await client.hang_up()
    return client, proxy


class Socket:
    """A WebSocket client that sends linear16 at 16 kHz.

    Args:
        ws: the open socket.
    """

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.told = Told()
        self._reading = asyncio.create_task(self._read())

    async def speak(self, speech: Speech, *, pace: float = 1.0, from_s: float = 0.0, to_s: float = 1e9) -> None:
        """Send a part of a recording, at so many times the pace of speech."""
        samples = speech.samples()[int(from_s * SAMPLE_RATE) : int(min(to_s, 3600.0) * SAMPLE_RATE)]
        step = int(PIECE_S * SAMPLE_RATE)
        began_s = time.monotonic()
        for at in range(0, len(samples), step):
            await self.ws.send_bytes(linear16(samples[at : at + step]))
            due_s = began_s + (at + step) / SAMPLE_RATE / pace
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def hang_up(self) -> None:
        """Ask for the end, and wait for it."""
        await self.ws.send_str('{"type":"close_stream"}')
        await self.told.until("closed")
        await self._reading

    async def gone(self, *, limit_s: float = FLUSH_S) -> None:
        """Wait until the server has closed."""
        async with asyncio.timeout(limit_s):
            await self._reading

    async def close(self) -> None:
        """Let go of it."""
        await self.ws.close()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        async for message in self.ws:
            if message.type is aiohttp.WSMsgType.TEXT:
                self.told.take(message.data)


@asynccontextmanager
async def socket(
    url: str, *, headers: Mapping[str, str] | None = None, is_patient: bool = True
) -> AsyncIterator[Socket]:
    """An open WebSocket of somebody who comes again where the node is busy, if patient."""
    async with aiohttp.ClientSession() as http:
        client = Socket(await _connected(http, f"{url}{WS_PATH}", headers, BUSY_S if is_patient else 0.0))
        try:
            yield client
        finally:
            await client.close()


async def _connected(
    http: aiohttp.ClientSession, url: str, headers: Mapping[str, str] | None, patience_s: float
) -> aiohttp.ClientWebSocketResponse:
    until_s = time.monotonic() + patience_s
    while True:
        try:
            return await http.ws_connect(url, params=LINEAR16, headers=headers)
        except aiohttp.WSServerHandshakeError as exc:
            if exc.status != 503 or time.monotonic() > until_s:
                raise
        await asyncio.sleep(BUSY_POLL_S)


async def talk(
    url: str,
    speech: Speech,
    *,
    pace: float = 4.0,
    headers: Mapping[str, str] | None = None,
    is_patient: bool = True,
) -> Told:
    """A whole conversation over a WebSocket."""
    async with socket(url, headers=headers, is_patient=is_patient) as client:
        await client.speak(speech, pace=pace)
        await client.hang_up()
    return client.told


def linear16(samples: np.ndarray[Any, Any]) -> bytes:
    """[n] float32 as bytes."""
    pcm: bytes = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    return pcm
