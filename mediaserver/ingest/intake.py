"""What comes in at a peer connection's socket that no honest client sends: bounded, and never the end of a call.

Anybody who finds a UDP port can send to it, and who has a session can send anything over its data channel. In aiortc
1.16 and aioice 0.13 a single empty datagram, or one that libsrtp's binding finds too long, raises in the task that
receives, and ends the call; datagrams wait without bound until DTLS is up; a message is put together whatever its
length; and libsrtp remembers every source that ever sent. So four methods are replaced on the objects of one peer
connection, as in `ice.py`; `tests/faults` and `tests/unit/ingest/test_intake.py` hold what is relied on. It may go when
aiortc bounds and survives these itself.
"""

from __future__ import annotations

import asyncio
from typing import cast

import structlog
from aioice.ice import Connection
from aiortc import RTCDtlsTransport, RTCSctpTransport
from aiortc.rtcsctptransport import DataChunk
from pylibsrtp import Session

log = structlog.get_logger(__name__)

WAITING_MAX = 512
"""Datagrams that wait for DTLS: ten seconds of an audio track. A handshake's flights are a dozen. Further ones are
dropped, as by a full socket."""

SOURCES_MAX = 32
"""SSRCs of one transport that libsrtp keeps: several times what its streams hear, and the reporters of their RTCP. It
looks through them for every packet: after 20,000 that takes 80 µs, after a million the event loop would stand still."""

UNREAD_MAX_BYTES = 256 * 1024
"""Of messages that are not complete: four times the largest that an answer allows (`max-message-size`)."""

UNREAD_MAX_CHUNKS = 1024
"""Parts of them, and numbers of parts behind one that is missing, however little is in them: four times what so many
bytes take over a path of 1280 bytes. aiortc looks through all of them for each that comes, which takes 0.3 ms for so
many; 20,000 empty ones kept the event loop for 46 s."""


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


class BoundedSources:
    """The keys of one transport, which remember `SOURCES_MAX` sources.

    Those beyond are forgotten after each packet, not the first ones: what has been counted of a source's packets is
    part of its key stream (RFC 3711 section 3.3.1), so that a long call would be heard no more.

    Args:
        keys: what decrypts; it alone knows who is genuine, so that a stranger uses up nothing.
    """

    def __init__(self, keys: Session) -> None:
        self._keys = keys
        self._known: set[bytes] = set()  # bound: SOURCES_MAX

    def unprotect(self, data: bytes) -> bytes:
        """As `Session.unprotect`."""
        plain = self._keys.unprotect(data)
        if (ssrc := data[8:12]) not in self._known:
            self._meet(ssrc)
        return plain

    def unprotect_rtcp(self, data: bytes) -> bytes:
        """As `Session.unprotect_rtcp`."""
        plain = self._keys.unprotect_rtcp(data)
        if (ssrc := data[4:8]) not in self._known:
            self._meet(ssrc)
        return plain

    def _meet(self, ssrc: bytes) -> None:
        if len(self._known) < SOURCES_MAX:
            self._known.add(ssrc)
        else:
            self._keys.remove_stream(int.from_bytes(ssrc, "big"))


def bound_sources(transport: RTCDtlsTransport) -> None:
    """Have a peer that names a new source in each packet fill no memory and cost no more than others."""
    set_up = transport._setup_srtp

    def setup_srtp() -> None:
        set_up()
        if transport._rx_srtp is not None:
            transport._rx_srtp = cast(Session, BoundedSources(transport._rx_srtp))

    transport._setup_srtp = setup_srtp  # type: ignore[method-assign]


def bound_messages(association: RTCSctpTransport) -> None:
    """End an association whose peer sends messages without an end."""
    take = association._receive_data_chunk
    room = association._advertised_rwnd - UNREAD_MAX_BYTES
    held = 0  # parts, or more where a stream was reset

    def kept(stream_id: int) -> int:
        stream = association._inbound_streams.get(stream_id)
        return 0 if stream is None else len(stream.reassembly)

    async def receive_data_chunk(chunk: DataChunk) -> None:
        nonlocal held
        if held >= UNREAD_MAX_CHUNKS:
            held = sum(kept(stream_id) for stream_id in association._inbound_streams)
        if (
            association._advertised_rwnd - len(chunk.user_data) < room
            or max(held, len(association._sack_misordered)) >= UNREAD_MAX_CHUNKS
        ):
            log.warning("data channel ended", unread_bytes_max=UNREAD_MAX_BYTES, unread_chunks_max=UNREAD_MAX_CHUNKS)
            await association.stop()
            return
        before = kept(chunk.stream_id)
        await take(chunk)
        held += kept(chunk.stream_id) - before

    association._receive_data_chunk = receive_data_chunk  # type: ignore[method-assign]
