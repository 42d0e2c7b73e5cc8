"""Packets of several tracks on one transport, and the seam to aiortc that they are routed by."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from aiortc import RTCDtlsTransport
from aiortc.rtcdtlstransport import RtpRouter
from aiortc.rtp import RtpPacket

from mediaserver.ingest.routing import route_by_mid


class Bench:
    """A router with two receivers that share a payload type; one has announced its source."""

    def __init__(self) -> None:
        self.router: Any = RtpRouter()
        self.one, self.two = object(), object()
        self.router.register_receiver(self.one, ssrcs=[1], payload_types=[96], mid="a")
        self.router.register_receiver(self.two, ssrcs=[], payload_types=[96, 97], mid="b")
        route_by_mid(SimpleNamespace(_rtp_router=self.router))  # type: ignore[arg-type]

    def route(self, ssrc: int, mid: str | None = None, payload_type: int = 96) -> object:
        packet = RtpPacket(payload_type=payload_type, ssrc=ssrc)
        packet.extensions.mid = mid
        return self.router.route_rtp(packet)


def test_the_tag_says_whose_a_packet_is_and_is_remembered() -> None:
    bench = Bench()
    assert bench.route(7) is None  # aiortc cannot tell
    assert bench.route(7, "b") is bench.two
    assert bench.route(7) is bench.two
    assert bench.route(8, "a") is bench.one


def test_without_a_tag_aiortc_decides() -> None:
    bench = Bench()
    assert bench.route(1) is bench.one
    assert bench.route(9, payload_type=97) is bench.two


def test_the_tag_counts_more_than_an_announced_source() -> None:
    bench = Bench()
    assert bench.route(1, "b") is bench.two


def test_an_unknown_tag_or_codec_is_no_way_in() -> None:
    bench = Bench()
    assert bench.route(10, "c") is None
    assert bench.route(11, "a", payload_type=97) is None
    assert 11 not in bench.router.ssrc_table


def test_contract_aiortc_asks_the_router_by_that_name() -> None:
    """When this fails, read mediaserver/ingest/routing.py against the new aiortc before moving the pin."""
    names = RTCDtlsTransport._handle_rtp_data.__code__.co_names
    assert {"_rtp_router", "route_rtp"} <= set(names)
    assert {"mid_table", "ssrc_table", "payload_type_table"} <= set(RtpRouter().__dict__)
