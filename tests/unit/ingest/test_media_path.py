"""RTP takes the short way, and nothing else does."""

from __future__ import annotations

import asyncio
import inspect
import struct
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aioice.ice import Connection, StunProtocol
from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceGatherer, RTCIceTransport
from aiortc.rtcdtlstransport import RtpReceiver
from aiortc.rtp import RtcpByePacket, RtpPacket
from hypothesis import given
from hypothesis import strategies as st
from pylibsrtp import Policy, Session

from mediaserver.ingest import media_path
from mediaserver.ingest.media_path import DATAGRAM_MAX_BYTES, SRTP_MAX_BYTES, MediaPath, MediaProtocol, parse_rtp

KEY = bytes(range(30))


def srtp(direction: int) -> Session:
    return Session(Policy(key=KEY, ssrc_type=direction, srtp_profile=Policy.SRTP_PROFILE_AES128_CM_SHA1_80))


def plain(number: int = 7, payload: bytes = b"opus") -> bytes:
    packet = RtpPacket(payload_type=111, sequence_number=number, timestamp=960 * number, ssrc=5, payload=payload)
    return bytes(packet.serialize())


class Bench:
    """A transport with keys, a socket of its agent and a sender with the same keys."""

    def __init__(self) -> None:
        self.transport = RTCDtlsTransport(RTCIceTransport(RTCIceGatherer()), [RTCCertificate.generateCertificate()])
        self.connection: Connection = self.transport.transport._connection
        self.protocol = MediaProtocol(self.connection)
        self.connection._protocols.append(self.protocol)
        self.sender = srtp(Policy.SSRC_ANY_OUTBOUND)
        self.transport._rx_srtp = srtp(Policy.SSRC_ANY_INBOUND)
        self.taken: list[media_path.RtpPacket] = []
        self.queued: list[bytes] = []
        self.connection.data_received = lambda data, component: self.queued.append(data)  # type: ignore[method-assign]
        self.protocol.local_candidate = type("Candidate", (), {"component": 1})()
        self.register(1)
        MediaPath(self.transport, self.taken.append).open()

    def register(self, receivers: int) -> None:
        self.transport._rtp_router.receivers.clear()
        for number in range(receivers):
            self.transport._rtp_router.receivers.add(_receiver(number))

    def come(self, data: bytes) -> None:
        self.protocol.datagram_received(data, ("127.0.0.1", 4000))


def _receiver(number: int) -> RtpReceiver:
    return type(f"Receiver{number}", (), {})()  # type: ignore[no-any-return]


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.connection._protocols.clear()


async def test_rtp_is_decrypted_and_handed_on_at_once(bench: Bench) -> None:
    bench.come(bench.sender.protect(plain()))
    assert bench.taken == [media_path.RtpPacket(111, 7, 6720, 5, b"opus")]
    assert not bench.queued


async def test_a_forged_packet_is_dropped(bench: Bench) -> None:
    data = bytearray(bench.sender.protect(plain()))
    data[-1] ^= 1
    bench.come(bytes(data))
    assert not bench.taken
    assert not bench.queued


@pytest.mark.parametrize("first_byte", [20, 22, 63])
async def test_dtls_goes_aiortcs_way(bench: Bench, first_byte: int) -> None:
    bench.come(bytes([first_byte]) + bytes(40))
    assert len(bench.queued) == 1


async def test_rtcp_goes_aiortcs_way(bench: Bench) -> None:
    bench.come(bench.sender.protect_rtcp(bytes(RtcpByePacket(sources=[5]))))
    assert len(bench.queued) == 1
    assert not bench.taken


async def test_without_keys_packets_wait_with_aiortc(bench: Bench) -> None:
    bench.transport._rx_srtp = None  # type: ignore[assignment]
    bench.come(bench.sender.protect(plain()))
    assert len(bench.queued) == 1


async def test_a_call_of_several_tracks_is_routed_by_aiortc(bench: Bench) -> None:
    bench.register(2)
    bench.come(bench.sender.protect(plain()))
    assert len(bench.queued) == 1
    assert not bench.taken


async def test_a_packet_that_libsrtp_cannot_take_goes_nowhere(bench: Bench) -> None:
    bench.come(b"\x80" * (SRTP_MAX_BYTES + 1))
    assert not bench.queued
    assert not bench.taken


@given(st.binary(max_size=80))
def test_no_bytes_raise(data: bytes) -> None:
    parse_rtp(data)


@given(st.binary(min_size=1, max_size=40), st.integers(0, 3), st.binary(max_size=3), st.integers(0, 5))
def test_a_payload_is_found_behind_sources_extensions_and_before_padding(
    payload: bytes, sources: int, extension: bytes, padding: int
) -> None:
    words = -(-len(extension) // 4)
    data = bytes([0x80 | (0x20 if padding else 0) | (0x10 if extension else 0) | sources, 0x80 | 111])
    data += struct.pack("!HII", 1, 2, 3) + bytes(4 * sources)
    if extension:
        data += struct.pack("!HH", 0xBEDE, words) + extension.ljust(4 * words, b"\0")
    data += payload + (bytes(padding - 1) + bytes([padding]) if padding else b"")
    assert parse_rtp(data) == media_path.RtpPacket(111, 1, 2, 3, payload)


async def test_asyncio_reads_no_more_than_a_datagram() -> None:
    """`max_size` is asyncio's own name for what it asks the kernel for; with another loop it is without effect."""
    connection = Connection(ice_controlling=False)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: MediaProtocol(connection), local_addr=("127.0.0.1", 0))
    try:
        assert transport.max_size == DATAGRAM_MAX_BYTES  # type: ignore[attr-defined]
    finally:
        transport.abort()


def test_contract_the_seam_is_where_it_was() -> None:
    assert list(inspect.signature(StunProtocol.datagram_received).parameters) == ["self", "data", "addr"]
    assert "data_received" in inspect.getsource(StunProtocol.datagram_received)
    source = inspect.getsource(RTCDtlsTransport)
    assert "self._rx_srtp" in source
    assert "_rtp_router" in source
