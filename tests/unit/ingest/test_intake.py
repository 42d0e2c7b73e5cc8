"""What strangers send to a media port: one at a time, on real objects of aiortc and aioice."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import aioice
import pytest
from aiortc import RTCSctpTransport
from aiortc.rtcsctptransport import SCTP_DATA_FIRST_FRAG, SCTP_DATA_LAST_FRAG, SCTP_DATA_UNORDERED, DataChunk
from pylibsrtp import Error, Policy, Session

from mediaserver.ingest.ice import close_peer_connection, new_peer_connection, transports_of
from mediaserver.ingest.intake import (
    SOURCES_MAX,
    UNREAD_MAX_BYTES,
    UNREAD_MAX_CHUNKS,
    WAITING_MAX,
    BoundedSources,
    bound_messages,
    bound_sources,
    bound_waiting,
    survive_malformed,
)


async def test_datagrams_that_nobody_reads_yet_are_bounded() -> None:
    connection = aioice.Connection(ice_controlling=False)
    bound_waiting(connection)
    for _ in range(WAITING_MAX + 10):
        connection.data_received(b"x", 1)
    connection.data_received(b"", 1)
    assert connection._queue.qsize() == WAITING_MAX


async def association() -> tuple[Any, RTCSctpTransport]:
    pc = new_peer_connection()
    pc.createDataChannel("transcripts")
    assert pc.sctp is not None
    return pc, pc.sctp


async def test_it_is_aiortc_that_a_datagram_makes_fail() -> None:
    """Once this fails, `survive_malformed` may go."""
    pc, _ = await association()
    transport: Any = transports_of(pc)[0]

    async def arrive() -> bytes:
        return b""

    transport.transport._recv = arrive
    transport._RTCDtlsTransport__handshake_done = True
    with pytest.raises(IndexError):
        await transport._recv_next()
    await close_peer_connection(pc)


@pytest.mark.parametrize("data", [b"", bytes([128]) * 5000, bytes([200])])
async def test_a_datagram_that_cannot_be_read_costs_itself(data: bytes) -> None:
    pc, _ = await association()
    transport: Any = transports_of(pc)[0]
    arrivals = [data, b"\x02good"]

    async def arrive() -> bytes:
        if not arrivals:
            raise ConnectionError
        return arrivals.pop(0)

    transport.transport._recv = arrive
    transport._RTCDtlsTransport__handshake_done = True
    transport._rx_srtp = Session(Policy(key=bytes(30), ssrc_type=Policy.SSRC_ANY_INBOUND))
    survive_malformed(transport)
    await transport._recv_next()
    await transport._recv_next()
    with pytest.raises(ConnectionError):  # the end of a connection is told as it is
        await transport._recv_next()
    await close_peer_connection(pc)


class Keys(Session):
    """libsrtp's, which counts the sources that it keeps."""

    def __init__(self, direction: int) -> None:
        super().__init__(Policy(key=bytes(30), ssrc_type=direction))
        self.sources: set[int] = set()

    def unprotect(self, packet: bytes) -> bytes:
        plain = super().unprotect(packet)
        self.sources.add(int.from_bytes(packet[8:12], "big"))
        return plain

    def unprotect_rtcp(self, packet: bytes) -> bytes:
        plain = super().unprotect_rtcp(packet)
        self.sources.add(int.from_bytes(packet[4:8], "big"))
        return plain

    def remove_stream(self, ssrc: int) -> None:
        super().remove_stream(ssrc)  # raises for one that it does not keep
        self.sources.remove(ssrc)


def rtp(ssrc: int, number: int = 1) -> bytes:
    return struct.pack("!BBHII", 0x80, 111, number, 960 * number, ssrc) + b"opus"


def rtcp(ssrc: int) -> bytes:
    return struct.pack("!BBHII", 0x80, 201, 1, ssrc, 0)[:8]


async def test_a_peer_with_a_source_a_packet_fills_no_memory() -> None:
    pc, _ = await association()
    transport: Any = transports_of(pc)[0]
    keys, sender = Keys(Policy.SSRC_ANY_INBOUND), Session(Policy(key=bytes(30), ssrc_type=Policy.SSRC_ANY_OUTBOUND))

    def setup_srtp() -> None:
        transport._rx_srtp = keys

    transport._setup_srtp = setup_srtp
    bound_sources(transport)
    transport._setup_srtp()
    first = sender.protect(rtp(1))
    assert transport._rx_srtp.unprotect(first) == rtp(1)
    packet = sender.protect(rtp(5_000))
    forged = packet[:-1] + bytes([packet[-1] ^ 1])
    with pytest.raises(Error):
        transport._rx_srtp.unprotect(forged)
    for ssrc in range(2, 3 * SOURCES_MAX):
        assert transport._rx_srtp.unprotect(sender.protect(rtp(ssrc))) == rtp(ssrc)
        assert transport._rx_srtp.unprotect_rtcp(sender.protect_rtcp(rtcp(10_000 + ssrc))) == rtcp(10_000 + ssrc)
    assert len(keys.sources) == SOURCES_MAX
    assert 1 in keys.sources  # who was there first goes on as it was: no packet of it counts twice
    with pytest.raises(Error):
        transport._rx_srtp.unprotect(first)
    assert transport._rx_srtp.unprotect(sender.protect(rtp(3 * SOURCES_MAX - 1, 2)))  # and who came late is heard
    await close_peer_connection(pc)


async def test_a_transport_without_keys_is_left_as_it_is() -> None:
    pc, _ = await association()
    transport: Any = transports_of(pc)[0]
    transport._setup_srtp = lambda: None
    bound_sources(transport)
    transport._setup_srtp()
    assert not isinstance(transport._rx_srtp, BoundedSources)
    await close_peer_connection(pc)


async def test_a_message_without_an_end_ends_the_association() -> None:
    pc, sctp = await association()
    stopped = asyncio.Event()

    async def stop() -> None:
        stopped.set()

    sctp.stop = stop  # type: ignore[method-assign]
    sctp._last_received_tsn = 0
    bound_messages(sctp)
    for tsn in range(1, UNREAD_MAX_BYTES // 1000 + 2):
        chunk = DataChunk(flags=SCTP_DATA_FIRST_FRAG if tsn == 1 else 0)
        chunk.tsn, chunk.stream_id, chunk.stream_seq, chunk.user_data = tsn, 1, 0, bytes(1000)
        assert not stopped.is_set()
        await sctp._receive_data_chunk(chunk)
    assert stopped.is_set()
    held = sum(len(chunk.user_data) for stream in sctp._inbound_streams.values() for chunk in stream.reassembly)
    assert held <= UNREAD_MAX_BYTES
    await close_peer_connection(pc)


WHOLE = SCTP_DATA_FIRST_FRAG | SCTP_DATA_LAST_FRAG


@pytest.mark.parametrize(
    ("flags", "first_tsn", "streams"),
    [
        (0, 1, 1),  # parts of a message that has no beginning
        (0, 1, 50),  # of many
        (WHOLE | SCTP_DATA_UNORDERED, 2, 1),  # messages that are told at once, behind one that never comes
    ],
)
async def test_parts_that_hold_nothing_end_the_association_too(flags: int, first_tsn: int, streams: int) -> None:
    pc, sctp = await association()
    stopped = asyncio.Event()

    async def stop() -> None:
        stopped.set()

    async def receive(stream_id: int, pp_id: int, data: bytes) -> None:
        pass

    sctp.stop, sctp._receive = stop, receive  # type: ignore[method-assign]
    sctp._last_received_tsn = 0
    bound_messages(sctp)
    for number in range(UNREAD_MAX_CHUNKS + 1):
        assert not stopped.is_set()
        chunk = DataChunk(flags=flags)
        chunk.tsn, chunk.stream_id, chunk.stream_seq, chunk.user_data = first_tsn + number, number % streams, 0, b""
        await sctp._receive_data_chunk(chunk)
    assert stopped.is_set()
    await close_peer_connection(pc)


async def test_any_number_of_whole_messages_is_taken() -> None:
    pc, sctp = await association()
    taken = []

    async def receive(stream_id: int, pp_id: int, data: bytes) -> None:
        taken.append(data)

    sctp._receive = receive  # type: ignore[method-assign]
    sctp._last_received_tsn = 0
    bound_messages(sctp)
    for tsn in range(1, 2 * UNREAD_MAX_CHUNKS):
        chunk = DataChunk(flags=SCTP_DATA_LAST_FRAG if tsn % 2 == 0 else SCTP_DATA_FIRST_FRAG)
        chunk.tsn, chunk.stream_id, chunk.stream_seq, chunk.user_data = tsn, 1, (tsn - 1) // 2, b"x"
        await sctp._receive_data_chunk(chunk)
    assert len(taken) == UNREAD_MAX_CHUNKS - 1
    await close_peer_connection(pc)
