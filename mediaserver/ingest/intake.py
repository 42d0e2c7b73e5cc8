"""What comes in at a peer connection's socket that no honest client sends: bounded, and never the end of a call.

Anybody who finds a UDP port can send to it, and who has a session can send anything over its data channel. In aiortc
1.16 and aioice 0.13 a single empty datagram, or one that libsrtp's binding finds too long, raises in the task that
receives, and ends the call; datagrams wait without bound until DTLS is up; and a message is put together whatever its
length. So three methods are replaced on the objects of one peer connection, as in `ice.py`; `tests/faults` and
`tests/unit/ingest/test_intake.py` hold what is relied on. It may go when aiortc bounds and survives these itself.
"""

from __future__ import annotations

import asyncio

import structlog
from aioice.ice import Connection
from aiortc import RTCDtlsTransport, RTCSctpTransport
from aiortc.rtcsctptransport import DataChunk

log = structlog.get_logger(__name__)

WAITING_MAX = 512
"""Datagrams that wait for DTLS: ten seconds of an audio track. A handshake's flights are a dozen. Further ones are
dropped, as by a full socket."""

UNREAD_MAX_BYTES = 256 * 1024
"""Of messages that are not complete: four times the largest that an answer allows (`max-message-size`)."""


def bound_waiting(connection: Connection) -> None:
    """Drop what comes to an ICE agent faster than it is read."""
    queue, deliver = connection._queue, connection.data_received

    def received(data: bytes, component: int) -> None:
        if data and queue.qsize() < WAITING_MAX:
            deliver(data, component)

    connection.data_received = received  # type: ignore[method-assign]


def survive_malformed(transport: RTCDtlsTransport) -> None:
    """Have a datagram that cannot be read cost itself and nothing else."""
    receive = transport._recv_next
    told = False

    async def receive_next() -> None:
        nonlocal told
        try:
            await receive()  # takes one datagram each time, so that a failure does not come twice
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as exc:
            if not told:  # once a connection: whoever sends one sends a thousand
                told = True
                log.warning("malformed datagram", failure=type(exc).__name__)
            await asyncio.sleep(0)  # others have their turn, whatever comes next

    transport._recv_next = receive_next  # type: ignore[method-assign]


def bound_messages(association: RTCSctpTransport) -> None:
    """End an association whose peer sends messages without an end."""
    take = association._receive_data_chunk
    room = association._advertised_rwnd - UNREAD_MAX_BYTES

    async def receive_data_chunk(chunk: DataChunk) -> None:
        if association._advertised_rwnd - len(chunk.user_data) < room:
            log.warning("data channel ended", unread_bytes_max=UNREAD_MAX_BYTES)
            await association.stop()
            return
        await take(chunk)

    association._receive_data_chunk = receive_data_chunk  # type: ignore[method-assign]
