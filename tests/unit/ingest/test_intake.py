"""What strangers send to a media port: one at a time, on real objects of aiortc and aioice."""

from __future__ import annotations

import asyncio
from typing import Any

import aioice
import pytest
from aiortc import RTCSctpTransport
from aiortc.rtcsctptransport import SCTP_DATA_FIRST_FRAG, DataChunk
from pylibsrtp import Policy, Session

from mediaserver.ingest.ice import close_peer_connection, new_peer_connection, transports_of
from mediaserver.ingest.intake import UNREAD_MAX_BYTES, WAITING_MAX, bound_messages, bound_waiting, survive_malformed


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
