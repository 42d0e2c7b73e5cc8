"""The bad network itself: what it does to packets, and that it does the same each time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from tests.faults.udp_proxy import HOST, Kind, Network, UdpProxy, Way, kind_of, udp_proxy

RTP = bytes([0x80, 111])
RTCP = bytes([0x80, 200])
DTLS = bytes([22, 254, 253])
STUN = bytes([0, 1])

DESCRIPTION = (
    "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"
    "a=candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host\r\n"
    "a=candidate:2 1 udp 2130706431 ::1 5 typ host\r\n"
    "a=end-of-candidates\r\n"
)


class End(asyncio.DatagramProtocol):
    """A client's or a server's socket."""

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)  # it is one without being of that class
        self.port = int(transport.get_extra_info("sockname")[1])

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.got.append(data)


@asynccontextmanager
async def between(network: Network) -> AsyncIterator[tuple[End, UdpProxy, End, list[tuple[str, int]]]]:
    """A client, a proxy and a server, and where the first and the last send."""
    loop = asyncio.get_running_loop()
    async with udp_proxy(network) as proxy:
        ends = []
        for _ in range(2):
            _, end = await loop.create_datagram_endpoint(End, local_addr=(HOST, 0))
            ends.append(end)
        client, server = ends
        seen = [proxy.answer(DESCRIPTION.format(port=server.port)), proxy.offer(DESCRIPTION.format(port=client.port))]
        yield client, proxy, server, [(HOST, int(sdp.split("127.0.0.1 ")[1].split()[0])) for sdp in seen]
        for end in ends:
            end.transport.close()


async def send(end: End, packets: list[bytes], to: tuple[str, int]) -> None:
    for packet in packets:
        end.transport.sendto(packet, to)
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)


def numbered(head: bytes, count: int) -> list[bytes]:
    return [head + number.to_bytes(2, "big") for number in range(count)]


async def test_what_is_wrong_with_nothing_passes_everything_both_ways() -> None:
    async with between(Network()) as (client, _, server, (to_server, to_client)):
        await send(client, numbered(RTP, 50), to_server)
        await send(server, numbered(DTLS, 50), to_client)
        assert server.got == numbered(RTP, 50)
        assert client.got == numbered(DTLS, 50)


def test_descriptions_name_the_proxy_alone() -> None:
    async def rewritten() -> str:
        async with udp_proxy(Network()) as proxy:
            return proxy.offer(DESCRIPTION.format(port=1234))

    sdp = asyncio.run(rewritten())
    assert sdp.count("a=candidate") == 1
    assert "::1" not in sdp
    assert " 1234 " not in sdp
    assert "a=end-of-candidates\r\n" in sdp


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (RTP, Kind.RTP),
        (RTCP, Kind.RTCP),
        (DTLS, Kind.DTLS),
        (STUN, Kind.STUN),
        (b"", Kind.OTHER),
        (bytes(2), Kind.STUN),
    ],
)
def test_packets_are_told_apart(data: bytes, kind: Kind) -> None:
    assert kind_of(data) is kind


async def test_the_same_packets_are_lost_whatever_else_is_sent() -> None:
    got = []
    for others in (0, 30):
        async with between(Network(loss=0.1, seed=7)) as (client, proxy, server, (to_server, _)):
            await send(client, numbered(STUN, others), to_server)
            await send(client, numbered(RTP, 200), to_server)
            got.append([data for data in server.got if kind_of(data) is Kind.RTP])
            lost = proxy.fates[Way.TO_SERVER, Kind.RTP, "lost"]
            assert lost == 200 - len(got[-1])
            assert 8 <= lost <= 36
    assert got[0] == got[1]


async def test_what_is_held_back_arrives_later() -> None:
    async with between(Network(reordered=0.2, held_s=0.02)) as (client, _, server, (to_server, _)):
        await send(client, numbered(RTP, 50), to_server)
        assert server.got != numbered(RTP, 50)
        assert sorted(server.got) == numbered(RTP, 50)


async def test_silence_lasts_for_so_many_packets_of_audio_and_is_for_all_both_ways() -> None:
    async with between(Network(silence_from_packet=10, silence_packets=5)) as (client, _, server, ways):
        await send(client, numbered(RTP, 12), ways[0])
        await send(server, numbered(DTLS, 3), ways[1])
        await send(client, numbered(RTP, 20)[12:], ways[0])
        await send(server, numbered(STUN, 3), ways[1])
        assert server.got == numbered(RTP, 20)[:10] + numbered(RTP, 20)[15:]
        assert client.got == numbered(STUN, 3)


async def test_a_narrow_link_takes_its_time_and_loses_what_does_not_fit_before_it() -> None:
    record = DTLS + bytes(97)
    network = Network(to_client_bytes_s=2000, to_client_queue_bytes=450)
    async with between(network) as (client, proxy, server, (_, to_client)):
        await send(server, [record] * 10, to_client)
        assert len(client.got) <= 2  # 50 ms each
        await asyncio.sleep(0.4)
        assert 5 <= len(client.got) == 10 - proxy.fates[Way.TO_CLIENT, Kind.DTLS, "overflowed"] < 10


async def test_nothing_passes_a_cut() -> None:
    async with between(Network()) as (client, proxy, server, (to_server, _)):
        proxy.cut()
        await send(client, numbered(RTP, 5), to_server)
        assert server.got == []
