"""What no honest client sends: at the media port, over a data channel, over HTTP and over WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import socket as sockets
import struct
import time

import pytest

from tests.conftest import Speech
from tests.faults.calls import Peer, peer, socket, talk
from tests.faults.node import MIB, Node, unharmed
from tests.faults.pulse import Pulse
from tests.faults.udp_proxy import HOST, Way
from tests.scoring import word_errors

ANSWER_S = 10.0
"""Within this every request is answered, or its connection closed."""

FIRST_BYTES = (0, 1, 3, 20, 21, 22, 23, 25, 63, 64, 79, 127, 128, 129, 144, 150, 191, 192, 255)
"""Of STUN, DTLS, RTP, RTCP, and of nothing."""

SIZES = (0, 1, 2, 3, 11, 12, 19, 20, 21, 50, 300, 1200, 1500, 1501, 2048, 5000, 60_000)

JUNK = 2000
"""Datagrams, each way in: one of every first byte and size, some six times."""

FLOOD_BYTES = 60 * MIB

BOMB_BYTES = 4 * MIB
"""A message of 64 times the allowed size; 256 KiB of it are let in."""


def junk(seed: int) -> bytes:
    """A datagram that is none of ours."""
    chance = random.Random(seed)
    size = chance.choice(SIZES)
    return bytes([chance.choice(FIRST_BYTES)][:size]) + chance.randbytes(max(0, size - 1))


async def test_junk_from_strangers_and_in_a_clients_name_costs_a_call_nothing(
    node: Node, pulse: Pulse, speech: Speech
) -> None:
    async with unharmed(node, pulse), peer(node.url, speech) as (client, proxy):
        media = proxy.server

        async def bother() -> None:
            with sockets.socket(sockets.AF_INET, sockets.SOCK_DGRAM) as stranger:
                for number in range(JUNK):
                    proxy.inject(Way.TO_SERVER, junk(number))
                    stranger.sendto(junk(-number), media)
                    if number % 4 == 0:
                        await asyncio.sleep(0.005)

        bothering = asyncio.create_task(bother())
        await client.said()
        await bothering
        await client.hang_up()
    client.told.assert_whole()
    assert word_errors(speech.text, client.told.text) <= 0.2, client.told.text
    assert client.told.of("metadata")[0]["concealed_duration"] <= 0.1  # what the kernel dropped with the junk


async def test_a_flood_before_a_peer_connects_fills_no_memory(node: Node, pulse: Pulse, speech: Speech) -> None:
    async with unharmed(node, pulse, memory_bytes=24 * MIB):
        client = Peer(node.url, speech)
        before_bytes = node.process.memory_info().rss
        status, answer = await client.offer(is_applied=False)
        assert status == 201
        found = re.search(r"127\.0\.0\.1 (\d+) typ host", answer)
        assert found is not None
        datagram = bytes([22]) + os.urandom(1199)
        with sockets.socket(sockets.AF_INET, sockets.SOCK_DGRAM) as stranger:
            for number in range(FLOOD_BYTES // len(datagram)):
                stranger.sendto(datagram, (HOST, int(found[1])))
                if number % 20 == 0:
                    await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        assert node.process.memory_info().rss - before_bytes < 24 * MIB
        await client.close()


async def test_a_message_without_end_over_a_data_channel_ends_its_own_call(
    node: Node, pulse: Pulse, speech: Speech
) -> None:
    async with unharmed(node, pulse, memory_bytes=24 * MIB), peer(node.url, speech) as (client, _):
        assert client.pc.sctp is not None
        client.pc.sctp._remote_max_message_size = 0
        client.channel.send(bytes(BOMB_BYTES))
        async with asyncio.timeout(ANSWER_S):
            await client.is_over.wait()


async def test_packets_of_sctp_that_are_none_cost_a_call_nothing(node: Node, pulse: Pulse, speech: Speech) -> None:
    chance = random.Random(5)
    async with unharmed(node, pulse), peer(node.url, speech) as (client, _):
        sctp = client.pc.sctp
        assert sctp is not None
        for kind in range(256):
            body = chance.randbytes(chance.choice((0, 1, 2, 3, 5, 16, 100)))
            chunk = struct.pack("!BBH", kind, chance.randrange(256), 4 + len(body)) + body + bytes(-len(body) % 4)
            # Not believed are whole ones that an honest end may end a call with (ABORT, SHUTDOWN …), or say what it has
            # got with (SACK, FORWARD TSN): by chance, half of all numbers acknowledge what was never sent.
            tag = chance.choice((0, 1)) if kind in (3, 6, 7, 8, 14, 192) else sctp._remote_verification_tag
            await sctp.transport._send_data(packet_of_sctp(tag, chunk))
            await sctp.transport._send_data(chance.randbytes(kind + 1))
        await client.said()
        await client.hang_up()
    assert word_errors(speech.text, client.told.text) <= 0.2, client.told.text


def packet_of_sctp(tag: int, chunk: bytes) -> bytes:
    """A packet with a right checksum."""
    from google_crc32c import value as crc32c

    head = struct.pack("!HHL", 5000, 5000, tag)
    return head + struct.pack("<L", crc32c(head + bytes(4) + chunk)) + chunk


HEAD = b"Host: 127.0.0.1\r\n"
OFFER = b"POST /whip HTTP/1.1\r\n" + HEAD + b"Content-Type: application/sdp\r\n"
UPGRADE = HEAD + (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
LISTEN = b"GET /ws/v1/transcribe?encoding=linear16&sample_rate=16000 HTTP/1.1\r\n" + UPGRADE + b"\r\n"

REQUESTS: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "no HTTP": (os.urandom(4096) + b"\r\n\r\n", (400,)),
    "TLS": (bytes.fromhex("16030102000100") + os.urandom(512), (400,)),
    "a line without end": (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", (400, 414)),
    "a header without end": (b"GET /healthz HTTP/1.1\r\n" + HEAD + b"X: " + b"a" * MIB + b"\r\n\r\n", (400, 431)),
    "100 000 headers": (b"GET /healthz HTTP/1.1\r\n" + HEAD + b"X: a\r\n" * 100_000 + b"\r\n", (400, 431)),
    "two lengths": (OFFER + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nv=0\r\n", (400,)),
    "a length and chunks": (
        OFFER + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        (400,),
    ),
    "a gigabyte announced": (OFFER + b"Content-Length: 1000000000\r\n\r\nv=0\r\n", (413,)),
    "chunks of no length": (OFFER + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", (400,)),
    "chunks without end": (
        OFFER + b"Transfer-Encoding: chunked\r\n\r\n" + (b"1000\r\n" + b"v" * 4096 + b"\r\n") * 500,
        (400, 413),
    ),
    "an offer of 1 MiB": (OFFER + b"Content-Length: %d\r\n\r\n" % MIB + b"v" * MIB, (413,)),
    "an offer of zeros": (OFFER + b"Content-Length: 60000\r\n\r\n" + bytes(60_000), (400,)),
    "an offer of lines": (
        OFFER + b"Content-Length: 60000\r\n\r\n" + b"m=audio 9 x 0\r\n" * 4000,
        (400,),
    ),
    "a bomb in gzip": (
        OFFER + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nv=0\r",
        (415,),
    ),
    "a frame of 2^62 bytes": (LISTEN + bytes([0x82, 0xFF]) + struct.pack("!Q", 1 << 62) + bytes(4), (101,)),
    "a frame of 2 MiB": (LISTEN + bytes([0x82, 0xFF]) + struct.pack("!QL", 2 * MIB, 0) + bytes(2 * MIB), (101,)),
    "fragments without end": (
        LISTEN + bytes([0x02, 0xFE]) + struct.pack("!HL", 60_000, 0) + bytes(60_000)
        + (bytes([0x00, 0xFE]) + struct.pack("!HL", 60_000, 0) + bytes(60_000)) * 40,
        (101,),
    ),
    "reserved bits": (LISTEN + bytes([0xF2, 0x84]) + bytes(8), (101,)),
    "text that is none": (LISTEN + bytes([0x81, 0x82]) + bytes(4) + b"\xff\xfe", (101,)),
    "a ping of 60 000 bytes": (LISTEN + bytes([0x89, 0xFE]) + struct.pack("!HL", 60_000, 0) + bytes(60_000), (101,)),
}  # fmt: skip


async def answered(node: Node, request: bytes) -> int:
    """The status of the answer to these bytes, once the server has closed the connection or could."""
    port = int(node.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(request)
        line = await reader.readline()
        status = int(line.split()[1])
        if status == 101:
            await reader.read()  # a WebSocket that has heard nonsense is closed
        return status
    except ConnectionError:  # it has had enough before it was all said
        return 0
    finally:
        writer.transport.abort()


async def test_requests_that_are_none_are_refused_at_once(node: Node, pulse: Pulse, speech: Speech) -> None:
    async with unharmed(node, pulse):
        talking = asyncio.create_task(talk(node.url, speech, pace=1.0))
        for name, (request, statuses) in REQUESTS.items():
            began_s = time.monotonic()
            async with asyncio.timeout(ANSWER_S):
                status = await answered(node, request)
            assert status in (*statuses, 0), name
            assert time.monotonic() - began_s < ANSWER_S, name
        told = await talking
    told.assert_whole()
    assert word_errors(speech.text, told.text) <= 0.2, told.text


@pytest.mark.parametrize("size", [2 * MIB, 64 * MIB])
async def test_messages_that_are_too_large_end_a_websocket_and_take_no_memory(
    node: Node, pulse: Pulse, size: int
) -> None:
    async with unharmed(node, pulse, memory_bytes=24 * MIB), socket(node.url) as client:
        with contextlib.suppress(ConnectionError):  # it has had enough before it was all sent
            await client.ws.send_bytes(bytes(size))
        await client.gone(limit_s=ANSWER_S)
