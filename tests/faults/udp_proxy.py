"""A bad network between a WebRTC client and the server, in user space: it loses, reorders, narrows and is silent.

One proxy stands between one client and the server. It has a socket that the client takes for the server and one that
the server takes for the client: the candidates in both descriptions are rewritten, so that nothing goes past it. What
becomes of a packet follows from the seed and from the packet's number among those of its kind and way, so that the same
audio is lost in every run, however the handshake went.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

Address = tuple[str, int]

HOST = "127.0.0.1"

CANDIDATE = re.compile(r"^a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 (\d+) typ host.*\r\n", re.MULTILINE | re.IGNORECASE)
ANY_CANDIDATE = re.compile(r"^a=candidate:.*\r\n", re.MULTILINE)


class Kind(StrEnum):
    """What a packet is, by its first bytes (RFC 7983)."""

    STUN = "stun"
    DTLS = "dtls"
    RTP = "rtp"
    RTCP = "rtcp"
    OTHER = "other"


class Way(StrEnum):
    """Where a packet goes."""

    TO_SERVER = "to_server"
    TO_CLIENT = "to_client"


@dataclass(frozen=True)
class Network:
    """What is wrong with a network. As it is by default, nothing is.

    Args:
        loss: share of packets that are lost, each way.
        reordered: share of packets that are held back.
        held_s: for how long, in seconds; packets come every 20 ms.
        silence_from_packet: the RTP packet to the server at which silence begins: nothing passes, either way.
        silence_packets: how many RTP packets to the server fall into it; then it ends.
        to_client_bytes_s: how many bytes of DTLS (the data channel) reach the client in a second; None: all.
        to_client_queue_bytes: how many of them wait; further ones are lost, as in a router.
        seed: of what is lost and held back.
    """

    loss: float = 0.0
    reordered: float = 0.0
    held_s: float = 0.05
    silence_from_packet: int | None = None
    silence_packets: int = 0
    to_client_bytes_s: float | None = None
    to_client_queue_bytes: int = 4096
    seed: int = 1


class UdpProxy:
    """Between one client and the server, for one peer connection.

    Args:
        network: what it is like; may be changed while it runs.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.fates: Counter[tuple[Way, Kind, str]] = Counter()
        """Packets by way, kind and fate: passed, lost, held (and passed later), silenced, overflowed."""
        self._random: dict[tuple[Way, Kind], random.Random] = {}
        self._is_cut = False
        self._free_at_s = 0.0
        self._front: asyncio.DatagramTransport | None = None  # faces the client
        self._back: asyncio.DatagramTransport | None = None  # faces the server
        self._client: Address | None = None
        self._server: Address | None = None

    async def open(self) -> None:
        """Bind both sockets."""
        loop = asyncio.get_running_loop()
        for name, take in (("_front", self._from_client), ("_back", self._from_server)):
            transport, _ = await loop.create_datagram_endpoint(
                lambda take=take: _Receiver(take),  # type: ignore[misc]
                local_addr=(HOST, 0),
            )
            setattr(self, name, transport)

    def close(self) -> None:
        """Let go of both sockets; what is on its way is lost."""
        for transport in (self._front, self._back):
            if transport is not None:
                transport.close()

    def offer(self, sdp: str) -> str:
        """The client's offer as the server is to see it."""
        self._client = (HOST, _port_of(sdp))
        return _rewritten(sdp, _port(self._back))

    def answer(self, sdp: str) -> str:
        """The server's answer as the client is to see it."""
        self._server = (HOST, _port_of(sdp))
        return _rewritten(sdp, _port(self._front))

    @property
    def server(self) -> Address:
        """Where the server takes this peer's media, known since its answer."""
        assert self._server is not None
        return self._server

    def inject(self, way: Way, data: bytes) -> None:
        """Send something as if the other side had."""
        self._pass(way, data)

    def cut(self) -> None:
        """Nothing passes from now on."""
        self._is_cut = True

    # --- packets

    def _from_client(self, data: bytes) -> None:
        self._carry(Way.TO_SERVER, data)

    def _from_server(self, data: bytes) -> None:
        self._carry(Way.TO_CLIENT, data)

    def _carry(self, way: Way, data: bytes) -> None:
        loop, kind, network = asyncio.get_running_loop(), kind_of(data), self.network
        chance = self._random.setdefault((way, kind), random.Random(f"{network.seed} {way} {kind}"))
        is_lost, is_held = chance.random() < network.loss, chance.random() < network.reordered
        if self._is_cut or self._is_silent():
            self.fates[way, kind, "silenced"] += 1
        elif is_lost:
            self.fates[way, kind, "lost"] += 1
        elif way is Way.TO_CLIENT and kind is Kind.DTLS and network.to_client_bytes_s is not None:
            self._narrow(data, network.to_client_bytes_s, network.to_client_queue_bytes)
        elif is_held:
            self.fates[way, kind, "held"] += 1
            loop.call_later(network.held_s, self._pass, way, data)
        else:
            self.fates[way, kind, "passed"] += 1
            self._pass(way, data)

    def _is_silent(self) -> bool:
        begins_at, audio = self.network.silence_from_packet, (Way.TO_SERVER, Kind.RTP)
        if begins_at is None or self.fates[*audio, "passed"] < begins_at:
            return False
        return self.fates[*audio, "silenced"] < self.network.silence_packets

    def _narrow(self, data: bytes, bytes_s: float, queue_bytes: int) -> None:
        """A link of so many bytes a second with a queue before it."""
        loop = asyncio.get_running_loop()
        waits_s = max(0.0, self._free_at_s - loop.time())
        if waits_s * bytes_s > queue_bytes:
            self.fates[Way.TO_CLIENT, Kind.DTLS, "overflowed"] += 1
            return
        self.fates[Way.TO_CLIENT, Kind.DTLS, "passed"] += 1
        self._free_at_s = loop.time() + waits_s + len(data) / bytes_s
        loop.call_at(self._free_at_s, self._pass, Way.TO_CLIENT, data)

    def _pass(self, way: Way, data: bytes) -> None:
        transport, address = (self._back, self._server) if way is Way.TO_SERVER else (self._front, self._client)
        if transport is not None and address is not None and not transport.is_closing():
            transport.sendto(data, address)


@asynccontextmanager
async def udp_proxy(network: Network) -> AsyncIterator[UdpProxy]:
    """A proxy with both sockets open."""
    proxy = UdpProxy(network)
    await proxy.open()
    try:
        yield proxy
    finally:
        proxy.close()


def kind_of(data: bytes) -> Kind:
    """What a packet is (RFC 7983 §7, RFC 5761 §4)."""
    first = data[0] if data else 255
    if first < 4:
        return Kind.STUN
    if 20 <= first < 64:
        return Kind.DTLS
    if 128 <= first < 192:
        return Kind.RTCP if len(data) > 1 and 192 <= data[1] < 224 else Kind.RTP
    return Kind.OTHER


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._take(data)

    def error_received(self, exc: Exception) -> None:
        """A port that is closed again: the next packets tell more."""


def _port(transport: asyncio.DatagramTransport | None) -> int:
    assert transport is not None, "the proxy is not open"
    return int(cast("Address", transport.get_extra_info("sockname"))[1])


def _port_of(sdp: str) -> int:
    found = CANDIDATE.search(sdp)
    assert found is not None, "no candidate on 127.0.0.1"
    return int(found[1])


def _rewritten(sdp: str, port: int) -> str:
    """A description whose only candidate, in each of its sections, is this port of loopback."""
    flags = re.MULTILINE | re.IGNORECASE
    own = re.compile(rf"^a=candidate:(\S+) 1 udp (\d+) 127\.0\.0\.1 {_port_of(sdp)} typ host", flags)
    kept = ANY_CANDIDATE.sub(lambda match: match[0] if own.match(match[0]) else "", sdp)
    return own.sub(rf"a=candidate:\1 1 udp \2 {HOST} {port} typ host", kept)
