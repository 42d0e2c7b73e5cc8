"""A WebRTC client that costs next to nothing: real ICE, DTLS, SRTP and data channel, and packets encoded beforehand.

What a browser's end does for a call is done by aiortc here, except for the sending of audio: its sender has two tasks
and an encoder's thread for each track. `rtp_pacer.Pacer` sends for all peers of a process instead.
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
    """How long a peer took to come in, or back, in seconds from the moment when its offer was sent.

    Args:
        answered_s: to the answer.
        connected_s: to the DTLS connection.
        ready_s: to `ready` on the data channel, the first event; of one that came back: to `resumed`.
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
        self._seq = 0
        self._ready = asyncio.Event()
        self._connected_at_s = self._ready_at_s = 0.0
        self._idle = self._reel = idle
        self._at = random.randrange(len(idle))
        self._sequence = random.randrange(1 << 15)
        self._timestamp = random.randrange(1 << 32)
        self._ssrc = self._payload_type = 0
        self._is_first = True
        self._on_played: Callable[[], None] | None = None
        self.is_away = False
        """Whether its connection was dropped, and it means to come back."""
        self.closed = asyncio.Event()
        self.reason: str | None = None
        """Why the session ended: by the server, or, `lost` and `unresumed`, by what the client saw."""
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
        return await self._come(http, f"{self._url}/whip", self._query)

    async def drop(self) -> None:
        """Lose the connection without a word. Time goes on meanwhile: what is played is heard by nobody."""
        self.is_away = True
        await self._let_go()

    async def resume(self, http: aiohttp.ClientSession) -> SetUp:
        """Come back into the session over another connection, and wait for `resumed`.

        Raises:
            PeerError: the server refused, or no `resumed` came. The peer is closed then, as `unresumed`.
        """
        try:
            return await self._come(http, self._resource, {"after": str(self._seq)})
        except PeerError:
            self._end("unresumed")
            raise

    async def _come(self, http: aiohttp.ClientSession, url: str, query: Mapping[str, str]) -> SetUp:
        try:
            return await self._connect(http, url, query)
        except TimeoutError:
            await self.abandon()
            raise PeerError("NO_READY") from None
        except aiohttp.ClientError as exc:
            await self.abandon()
            raise PeerError(type(exc).__name__) from exc
        except BaseException:
            await self.abandon()
            raise

    async def _connect(self, http: aiohttp.ClientSession, url: str, query: Mapping[str, str]) -> SetUp:
        pc = self._pc = new_peer_connection()
        self._ready.clear()
        sender = pc.addTransceiver("audio", direction="sendonly").sender
        _quieten(sender)
        channel = self._channel = pc.createDataChannel(CHANNEL)
        channel.on("message", lambda message: self._hear(pc, message))
        channel.on("close", lambda: self._lose(pc))
        pc.on("connectionstatechange", lambda: self._on_state(pc))
        options = IceOptions(LOOPBACK_ADDRESSES[:1], None, range(0), CONSENT_TIMEOUT_S)
        configure_ice(pc, options, on_lost=lambda: self._lose(pc))
        await pc.setLocalDescription(await pc.createOffer())
        offer = pc.localDescription.sdp
        begun_s = time.perf_counter()
        async with http.post(url, params=query, data=offer, headers={"Content-Type": "application/sdp"}) as response:
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
        self.is_away = False
        self._aim(pc, sender)
        return SetUp(answered_s, self._connected_at_s - begun_s, self._ready_at_s - begun_s)

    def play(self, reel: Reel, on_played: Callable[[], None]) -> None:
        """Play a reel once, from the next packet on, and tell when it is over; then the pause goes on."""
        self._reel, self._at, self._on_played = reel, 0, on_played

    def tick(self) -> None:
        """Send the next packet, or let its time pass."""
        if self._send is None and not self.is_away:
            return
        payload = self._reel[self._at]
        self._at += 1
        self._timestamp = (self._timestamp + TICKS) & 0xFFFFFFFF
        self.ticks += 1
        if payload and self._send is not None:
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
        self._end("lost")  # unless it ended in order
        await self.abandon()

    async def abandon(self) -> None:
        """Be gone without a word that the server could act upon soon: what is left to it is to notice."""
        self._ready.set()
        await self._let_go()

    async def _let_go(self) -> None:
        """Have no connection any more; what an old one still says is not heard."""
        self._send = None
        pc, self._pc = self._pc, None
        if pc is None:
            return
        for connection in connections_of(pc):
            await connection.close()  # before its sessions, whose last words would be sent
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

    def _on_state(self, pc: RTCPeerConnection) -> None:
        match pc.connectionState:
            case "connected":
                self._connected_at_s = time.perf_counter()
            case "failed" | "closed":
                self._lose(pc)

    def _lose(self, pc: RTCPeerConnection) -> None:
        if pc is self._pc:  # else it was let go on purpose
            self._end("lost")

    def _hear(self, pc: RTCPeerConnection, message: str | bytes) -> None:
        if pc is not self._pc:
            return
        now_s = time.perf_counter()
        event = json.loads(message)
        self._seq = event.get("seq", self._seq)
        match event["type"]:
            case "ready" | "resumed":
                self._ready_at_s = now_s
                self._ready.set()
            case "closed":
                self._end(event["reason"])
        self._on_event(event, now_s)

    def _end(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
        self._send = None
        self.is_away = False
        self.closed.set()
        self._ready.set()


def _quieten(sender: RTCRtpSender) -> None:
    """Keep aiortc's sender from starting: its tasks would report on a stream that it does not send."""

    async def send(parameters: RTCRtpSendParameters) -> None:
        return

    sender.send = send  # type: ignore[method-assign]


def _code(status: int, body: str) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["error"]["code"])
    return f"HTTP_{status}"
