"""Which track a packet is of, where several share a transport (RFC 9143 §9.2).

aiortc goes by sources that were announced and by payload types. Symptom: a second track of a client that announces no
sources (Pion, werift, a gateway) is never heard, nor is a track whose source changes. Cause: its router reads the tag
in the packets' header extension and does not look at it. It may go when aiortc routes by it.

What is private there and used here, held by tests/unit/ingest/test_routing.py: `RTCDtlsTransport._rtp_router`, and the
router's `route_rtp`, `ssrc_table`, `mid_table` and `payload_type_table`.
"""

from __future__ import annotations

from typing import Any, cast

from aiortc import RTCDtlsTransport, RTCRtpReceiver
from aiortc.rtp import RtpPacket


def route_by_mid(transport: RTCDtlsTransport) -> None:
    """Have a transport's packets go by their tag first; without one, as aiortc decides.

    Args:
        transport: that the tracks share; their receivers need not be registered yet.
    """
    router = cast(Any, transport._rtp_router)
    as_before = router.route_rtp

    def route_rtp(packet: RtpPacket) -> RTCRtpReceiver | None:
        mid = packet.extensions.mid
        tagged = router.mid_table.get(mid) if mid is not None else None
        if tagged is None:
            return cast("RTCRtpReceiver | None", as_before(packet))
        if tagged not in router.payload_type_table.get(packet.payload_type, ()):
            return None  # a codec that was not agreed on
        router.ssrc_table[packet.ssrc] = tagged  # the tag comes with the first packets only
        return cast(RTCRtpReceiver, tagged)

    router.route_rtp = route_rtp
