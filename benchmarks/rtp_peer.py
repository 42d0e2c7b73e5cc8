"""A WebRTC client that costs next to nothing: real ICE, DTLS, SRTP and data channel, and packets encoded beforehand.

What a browser's end does for a call is done by aiortc here, except for the sending of audio: its sender has two tasks
and an encoder's thread for each track. `Pacer` sends for all peers of a process instead.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiortc import RTCDataChannel, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpparameters import RTCRtpSendParameters
from yarl import URL

from benchmarks.reels import PACKET_MS, Reel
from mediaserver.ingest.ice import (
    LOOPBACK_ADDRESSES,
    IceOptions,
    close_peer_connection,
    configure_ice,
    connections_of,
    new_peer_connection,
)

CHANNEL = "transcripts"

TICKS = 48_000 * PACKET_MS // 1000
"""RTP clock ticks of a packet (RFC 7587 §4.1)."""

CONNECT_S = 20.0
"""Longest wait for `ready`."""

CLOSE_S = 30.0
"""Longest wait for the last finals and `closed`."""

CONSENT_TIMEOUT_S = 30.0
"""After so long without an answer the server is gone (RFC 7675 §5.1)."""

SLOTS = 10
"""Peers send in turn, a tenth of them every 2 ms: packets of a real crowd do not come all at once either."""

MARKER = 0x80

OnEvent = Callable[[Mapping[str, Any], float], None]
"""Told an event as its JSON object, and when it came (`perf_counter` seconds)."""


class PeerError(Exception):
    """A peer did not come in: `code` says why, by the server's own code where it has one."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class SetUp:
    """How long a peer took to come in, in seconds from the moment when its offer was sent.

    Args:
        answered_s: to the answer.
        connected_s: to the DTLS connection.
        ready_s: to the first event, `ready`, on the data channel.
    """

    answered_s: float
    connected_s: float
    ready_s: float


class RecordedPeer:
    """One peer; belongs to one event loop.

    Args:
        url: of the server.
        idle: what it plays while it says nothing.
        on_event: told each event after `ready`.
        query: the session's configuration.
    """

    def __init__(self, url: str, *, idle: Reel, on_event: OnEvent, query: Mapping[str, str]) -> None:
        self._url = url
        self._query = query
        self._on_event = on_event
        self._pc: RTCPeerConnection | None = None
        self._channel: RTCDataChannel | None = None
        self._srtp: Any = None
        self._send: Callable[[bytes], None] | None = None
        self._resource = ""
        self._ready = asyncio.Event()
        self._connected_at_s = self._ready_at_s = 0.0
        self._idle = self._reel = idle
        self._at = random.randrange(len(idle))
        self._sequence = random.randrange(1 << 15)
        self._timestamp = random.randrange(1 << 32)
        self._ssrc = self._payload_type = 0
        self._is_first = True
        self._on_played: Callable[[], None] | None = None
        self.closed = asyncio.Event()
        self.reason: str | None = None
        """Why the session ended, by the server or, `lost`, by what the client saw."""
        self.packets = 0
        """Sent so far."""
        self.ticks = 0
        """Packet times since the first packet."""
        self.began_at_s: float | None = None
        """When sample 0 was spoken (`perf_counter` seconds): 20 ms before the first packet left."""

    @property
    def stream_s(self) -> float:
        """The stream's time: seconds of audio since the first packet, sent or paused."""
        return self.ticks * PACKET_MS / 1000

    @property
    def is_talking(self) -> bool:
        """Whether it plays something else than its pause."""
        return self._reel is not self._idle

    async def connect(self, http: aiohttp.ClientSession) -> SetUp:
        """Offer, connect, and wait for `ready`. Nothing is left of a peer for which this raises.

        Raises:
            PeerError: the server refused, or no `ready` came.
        """
        try:
            return await self._connect(http)
        except TimeoutError:
            await self.abandon()
            raise PeerError("NO_READY") from None
        except aiohttp.ClientError as exc:
            await self.abandon()
            raise PeerError(type(exc).__name__) from exc
        except BaseException:
            await self.abandon()
            raise

    async def _connect(self, http: aiohttp.ClientSession) -> SetUp:
        pc = self._pc = new_peer_connection()
        sender = pc.addTransceiver("audio", direction="sendonly").sender
        _quieten(sender)
        channel = self._channel = pc.createDataChannel(CHANNEL)
        channel.on("message", self._hear)
        channel.on("close", lambda: self._end("lost"))
        pc.on("connectionstatechange", self._on_state)
        options = IceOptions(LOOPBACK_ADDRESSES[:1], None, range(0), CONSENT_TIMEOUT_S)
        configure_ice(pc, options, on_lost=lambda: self._end("lost"))
        await pc.setLocalDescription(await pc.createOffer())
        offer = pc.localDescription.sdp
        begun_s = time.perf_counter()
        async with http.post(
            f"{self._url}/whip", params=self._query, data=offer, headers={"Content-Type": "application/sdp"}
        ) as response:
            body = await response.text()
            if response.status != 201:
                raise PeerError(_code(response.status, body))
            self._resource = str(response.url.join(URL(response.headers["Location"])))
        answered_s = time.perf_counter() - begun_s
        await pc.setRemoteDescription(RTCSessionDescription(body, "answer"))
        async with asyncio.timeout(CONNECT_S):
            await self._ready.wait()
        if self.closed.is_set():
            raise PeerError("LOST")
        self._aim(pc, sender)
        return SetUp(answered_s, self._connected_at_s - begun_s, self._ready_at_s - begun_s)

    def play(self, reel: Reel, on_played: Callable[[], None]) -> None:
        """Play a reel once, from the next packet on, and tell when it is over; then the pause goes on."""
        self._reel, self._at, self._on_played = reel, 0, on_played

    def tick(self) -> None:
        """Send the next packet, or let its time pass."""
        if self._send is None:
            return
        payload = self._reel[self._at]
        self._at += 1
        self._timestamp = (self._timestamp + TICKS) & 0xFFFFFFFF
        self.ticks += 1
        if payload:
            self._sequence = (self._sequence + 1) & 0xFFFF
            if self._is_first:
                self._is_first, self.began_at_s = False, time.perf_counter() - PACKET_MS / 1000
                self.ticks = 1
            header = struct.pack(
                "!BBHII", 0x80, self._payload_type | MARKER, self._sequence, self._timestamp, self._ssrc
            )
            self._send(self._srtp.protect(header + payload))
            self.packets += 1
        if self._at >= len(self._reel):
            on_played, self._on_played = self._on_played, None
            self._reel, self._at = self._idle, 0
            if on_played is not None:
                on_played()

    async def hang_up(self) -> None:
        """End the session as a client should: its last finals are heard, then everything is closed."""
        channel = self._channel
        if channel is not None and channel.readyState == "open" and not self.closed.is_set():
            channel.send('{"type":"close_stream"}')
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self.closed.wait()
        await self.abandon()

    async def abandon(self) -> None:
        """Be gone without a word that the server could act upon soon: what is left to it is to notice."""
        self._send = None
        self._ready.set()
        pc, self._pc = self._pc, None
        if pc is None:
            return
        for connection in connections_of(pc):
            for protocol in connection._protocols:
                protocol.transport.abort()
        await close_peer_connection(pc)

    def _aim(self, pc: RTCPeerConnection, sender: RTCRtpSender) -> None:
        """Find what packets need: keys, the socket, and where it sends to."""
        transport: RTCDtlsTransport = sender.transport
        pair = connections_of(pc)[0]._nominated[1]
        socket, address = pair.protocol.transport, pair.remote_addr
        self._srtp = transport._tx_srtp
        self._ssrc = sender._ssrc
        self._payload_type = pc.getTransceivers()[0]._codecs[0].payloadType or 0
        self._send = lambda packet: socket.sendto(packet, address)

    def _on_state(self) -> None:
        match self._pc.connectionState if self._pc is not None else "closed":
            case "connected":
                self._connected_at_s = time.perf_counter()
            case "failed" | "closed":
                self._end("lost")

    def _hear(self, message: str | bytes) -> None:
        now_s = time.perf_counter()
        event = json.loads(message)
        match event["type"]:
            case "ready":
                self._ready_at_s = now_s
                self._ready.set()
            case "closed":
                self._end(event["reason"])
        self._on_event(event, now_s)

    def _end(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
        self._send = None
        self.closed.set()
        self._ready.set()


class Pacer:
    """Sends for all peers of a process, on one task: a tenth of them every 2 ms.

    A tick is due at an absolute time: one that is late does not delay the next, and its lateness is told.
    """

    def __init__(self) -> None:
        self._slots: list[list[RecordedPeer]] = [[] for _ in range(SLOTS)]
        self.late_s: list[float] = []

    def add(self, peer: RecordedPeer) -> None:
        """Send for a peer from now on."""
        min(self._slots, key=len).append(peer)

    def remove(self, peer: RecordedPeer) -> None:
        """Send for it no more."""
        for slot in self._slots:
            if peer in slot:
                slot.remove(peer)

    async def run(self) -> None:
        """Send until cancelled."""
        clock = asyncio.get_running_loop().time
        due_s, step_s, number = clock(), PACKET_MS / 1000 / SLOTS, 0
        while True:
            await asyncio.sleep(max(due_s - clock(), 0.0))
            if number == 0:
                self.late_s.append(max(clock() - due_s, 0.0))
            for peer in list(self._slots[number]):
                peer.tick()
            number = (number + 1) % SLOTS
            due_s += step_s


def _quieten(sender: RTCRtpSender) -> None:
    """Keep aiortc's sender from starting: its tasks would report on a stream that it does not send."""

    async def send(parameters: RTCRtpSendParameters) -> None:
        return

    sender.send = send  # type: ignore[method-assign]


def _code(status: int, body: str) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["error"]["code"])
    return f"HTTP_{status}"
