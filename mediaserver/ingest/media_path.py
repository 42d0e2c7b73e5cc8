"""RTP from the socket to its receiver in one step, where aiortc takes a queue, a task and a full parse for each packet.

aiortc reads every datagram as STUN first, queues it, wakes a task, which awaits three coroutines, and asks the date.
For what comes fifty times a second from every peer that costs more than decrypting and decoding it. So the socket's
protocol asks here first. Everything else (STUN, DTLS, RTCP, calls of several tracks, packets before the keys are
there) goes aiortc's way.

What is private there and used here, held by tests/unit/ingest/test_media_path.py: `aioice.ice.StunProtocol`,
`Connection._protocols`, and of `RTCDtlsTransport` `_rx_srtp`, `_rtp_router.receivers` and `.transport._connection`.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, NamedTuple

import pylibsrtp
from aioice.ice import StunProtocol
from aiortc import RTCDtlsTransport

DATAGRAM_MAX_BYTES = 4096
"""Longest datagram that is read: twice what an Ethernet path carries. asyncio asks the kernel for 256 KiB each time,
and memory of that size is given by the system and handed back for every packet."""

SRTP_MAX_BYTES = 1500
"""Longest packet that libsrtp's binding takes. It raises for a longer one, which would end aiortc's receiving, so that
anybody who can reach the port could end a call: no such packet goes anywhere."""

_HEADER = Struct("!xBHII")
_HEADER_BYTES = 12
_SRTP = range(128, 192)
"""First bytes of SRTP and SRTCP (RFC 7983 section 7)."""
_RTCP_TYPES = range(192, 224)
"""Second bytes of RTCP where it shares a port with RTP (RFC 5761 section 4)."""


class RtpPacket(NamedTuple):
    """What is read of a packet (RFC 3550 section 5.1)."""

    payload_type: int
    sequence_number: int
    timestamp: int
    ssrc: int
    payload: bytes


def parse_rtp(data: bytes) -> RtpPacket | None:
    """A packet without sources that contributed, extensions and padding; None where the header is malformed."""
    end = len(data)
    if end < _HEADER_BYTES or data[0] >> 6 != 2:
        return None
    flags = data[0]
    offset = _HEADER_BYTES + 4 * (flags & 15)
    if flags & 0x10:
        if end < offset + 4:
            return None
        offset += 4 + 4 * int.from_bytes(data[offset + 2 : offset + 4], "big")
    if flags & 0x20:
        padding = data[-1]
        if not padding:
            return None
        end -= padding
    if offset > end:
        return None
    marked_type, sequence_number, timestamp, ssrc = _HEADER.unpack_from(data)
    return RtpPacket(marked_type & 127, sequence_number, timestamp, ssrc, data[offset:end])


class MediaProtocol(StunProtocol):
    """A socket of an ICE agent; what is media may have a shorter way."""

    on_media: Callable[[bytes], bool] | None = None
    """Asked first for each datagram that may be SRTP or SRTCP; False: the agent is to have it."""

    def connection_made(self, transport: Any) -> None:
        """The socket is there."""
        transport.max_size = DATAGRAM_MAX_BYTES
        super().connection_made(transport)

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        """A datagram came."""
        if not self._is_done(data):
            super().datagram_received(data, addr)

    def _is_done(self, data: bytes | str) -> bool:
        if not isinstance(data, bytes) or not data or data[0] not in _SRTP:
            return False
        return len(data) > SRTP_MAX_BYTES or (self.on_media is not None and self.on_media(data))


class MediaPath:
    """The way of one transport's RTP to the one receiver that hears it.

    Args:
        transport: its keys may be still to come.
        take: gets each packet, on the event loop.
    """

    def __init__(self, transport: RTCDtlsTransport, take: Callable[[RtpPacket], None]) -> None:
        self._transport = transport
        self._receivers = transport._rtp_router.receivers
        self._take = take

    def open(self) -> None:
        """From now on, packets come this way. Sockets that are not `MediaProtocol`s go on as they do."""
        for protocol in self._transport.transport._connection._protocols:
            if isinstance(protocol, MediaProtocol):
                protocol.on_media = self.datagram

    def datagram(self, data: bytes) -> bool:
        """Whether a datagram was RTP for that receiver; forged and malformed ones are dropped."""
        keys = self._transport._rx_srtp
        if keys is None or len(self._receivers) != 1 or len(data) < 2 or data[1] in _RTCP_TYPES:
            return False
        try:
            packet = parse_rtp(keys.unprotect(data))
        except pylibsrtp.Error:
            return True
        if packet is not None:
            self._take(packet)
        return True
