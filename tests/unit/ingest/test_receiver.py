"""The seam to aiortc: that it is where it was, and that what is taken over behaves."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator
from importlib.metadata import version

import numpy as np
import pytest
import pytest_asyncio
from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceGatherer, RTCIceTransport, RTCRtpReceiver
from aiortc.rtcrtpparameters import RTCRtpCodecParameters, RTCRtpReceiveParameters
from aiortc.rtcrtpreceiver import RemoteStreamTrack
from aiortc.rtp import RtcpByePacket, RtcpRrPacket, RtpPacket

from mediaserver.audio.clock import Samples
from mediaserver.ingest import stream
from mediaserver.ingest.jitter import MAX_GAP_S
from mediaserver.ingest.receiver import AudioReceiver
from mediaserver.ingest.reception import Reception
from mediaserver.ingest.stream import MAX_SOURCES
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings

PCMU = RTCRtpCodecParameters(mimeType="audio/PCMU", clockRate=8000, channels=1, payloadType=0)


class Bench:
    """A receiver on a transport that was never connected; packets are routed as the transport would."""

    def __init__(self) -> None:
        self.transport = RTCDtlsTransport(RTCIceTransport(RTCIceGatherer()), [RTCCertificate.generateCertificate()])
        self.aiortc = RTCRtpReceiver("audio", self.transport)
        self.aiortc._track = RemoteStreamTrack(kind="audio")
        self.chunks: list[tuple[Samples, int]] = []
        self.byes = 0
        self.receiver = AudioReceiver.attach(
            self.aiortc,
            on_samples=lambda samples, concealed: self.chunks.append((samples, concealed)),
            on_bye=self.bye,
            settings=Settings(),
            metrics=Metrics(),
        )

    def bye(self) -> None:
        self.byes += 1

    async def start(self) -> None:
        await self.aiortc.receive(RTCRtpReceiveParameters(codecs=[PCMU]))

    async def send(self, n: int, *, ssrc: int = 5, timestamp: int | None = None) -> None:
        packet = RtpPacket(
            payload_type=0,
            sequence_number=n % 65536,
            timestamp=n * 160 if timestamp is None else timestamp,
            ssrc=ssrc,
            payload=bytes(160),
        )
        await self.transport._handle_rtp_data(packet.serialize(), arrival_time_ms=0)

    def total(self) -> int:
        return sum(len(samples) for samples, _ in self.chunks)


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.start()
    yield made
    made.receiver.stop()
    await made.aiortc.stop()


def test_the_private_seam_of_aiortc_is_where_it_was() -> None:
    """When this fails, read mediaserver/ingest/receiver.py against the new aiortc before moving the pin."""
    assert version("aiortc").startswith("1.16.")
    assert list(inspect.signature(RTCRtpReceiver._handle_rtp_packet).parameters) == [
        "self",
        "packet",
        "arrival_time_ms",
    ]
    assert list(inspect.signature(RTCRtpReceiver._handle_rtcp_packet).parameters) == ["self", "packet"]
    assert list(inspect.signature(RTCRtpReceiver._handle_disconnect).parameters) == ["self"]
    assert list(inspect.signature(RTCRtpReceiver.receive).parameters) == ["self", "parameters"]
    for name in ("_handle_rtp_packet", "_handle_rtcp_packet", "receive"):
        assert inspect.iscoroutinefunction(getattr(RTCRtpReceiver, name))
    disconnect = inspect.getsource(RTCRtpReceiver._handle_disconnect)
    assert disconnect.split(":", 1)[1].split("\n", 1)[1].strip() == "self.__stop_decoder()"
    reporting = inspect.getsource(RTCRtpReceiver._run_rtcp)
    for name in ("fraction_lost", "packets_lost", "max_seq", "jitter"):
        assert f"stream.{name}" in reporting
        assert hasattr(Reception, name)
    assert hasattr(Reception(8000), "packets_received")


async def test_the_receiver_has_the_attributes_that_the_seam_uses() -> None:
    bench = Bench()
    assert isinstance(bench.aiortc._RTCRtpReceiver__remote_streams, dict)  # type: ignore[attr-defined]
    assert bench.aiortc._RTCRtpReceiver__started is False  # type: ignore[attr-defined]
    assert bench.aiortc._enabled is True
    assert isinstance(bench.transport._rtp_router.ssrc_table, dict)


async def test_a_late_packet_does_not_make_its_source_unknown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tracks share payload types: only the table of sources tells them apart, and a call comes back off hold."""
    router = bench.transport._rtp_router
    router.register_receiver(RTCRtpReceiver("audio", bench.transport), ssrcs=[9], payload_types=[0], mid="b")
    router.ssrc_table |= {5: bench.aiortc, 6: bench.aiortc}
    for ssrc in (5, 6):
        for n in range(10):
            await bench.send(n, ssrc=ssrc)
    await bench.send(10, ssrc=5)  # overtaken by the other source's
    assert bench.receiver.status().packets.late == 1
    monkeypatch.setattr(stream, "STRAGGLER_S", 0.0)
    before = bench.total()
    for n in range(11, 21):
        await bench.send(n, ssrc=5)
    bench.receiver.flush()
    assert bench.receiver.status().ssrc == 5
    assert bench.total() - before >= 10 * 320


async def test_rtp_becomes_samples(bench: Bench) -> None:
    assert bench.receiver.last_packet_s is None
    for n in range(50):
        await bench.send(n)
    bench.receiver.flush()
    assert bench.total() == 50 * 320
    assert bench.chunks[0][0].dtype == np.float32
    assert bench.receiver.packets_received == 50
    assert bench.receiver.last_packet_s == pytest.approx(asyncio.get_running_loop().time(), abs=1.0)
    status = bench.receiver.status()
    assert (status.codecs, status.ssrc, status.jitter_target_ms) == ({0: "audio/PCMU"}, 5, 40.0)
    assert status.packets.samples == 50 * 320


async def test_aiortc_neither_decodes_nor_queues(bench: Bench) -> None:
    assert not any(thread.name == "audio-decoder" for thread in threading.enumerate())
    for n in range(200):
        await bench.send(n)
    assert bench.aiortc._RTCRtpReceiver__decoder_queue.qsize() <= 1  # type: ignore[attr-defined]
    assert bench.aiortc._track._queue.qsize() <= 1  # type: ignore[union-attr]


async def test_reports_say_what_was_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: asyncio.Queue[RtcpRrPacket] = asyncio.Queue()

    async def keep(packet: RtcpRrPacket) -> None:
        sent.put_nowait(packet)

    monkeypatch.setattr(bench.aiortc, "_send_rtcp", keep)
    bench.aiortc._set_rtcp_ssrc(77)
    for n in range(100):
        if n % 4 != 1:
            await bench.send(65_500 + n)
    async with asyncio.timeout(3):
        sent_report = await sent.get()
    (report,) = sent_report.reports
    assert (report.ssrc, report.packets_lost, report.highest_sequence) == (5, 25, 65_599)
    assert report.fraction_lost == pytest.approx(64, abs=1)
    assert len(bytes(sent_report)) == 32
    stats = await bench.aiortc.getStats()
    inbound = next(item for item in stats.values() if item.type == "inbound-rtp")
    assert (inbound.packetsReceived, inbound.packetsLost) == (75, 25)


async def test_a_timer_runs_only_while_packets_are_held(bench: Bench) -> None:
    await bench.send(0)
    assert bench.receiver._timer is not None  # the first packet waits for one that it overtook
    await asyncio.sleep(0.08)
    assert bench.total() == 320
    assert bench.receiver._timer is None
    for n in range(1, 20):
        await bench.send(n)
        assert bench.receiver._timer is None
    await bench.send(21)
    timer = bench.receiver._timer
    assert timer is not None
    await bench.send(22)
    assert bench.receiver._timer is timer
    await asyncio.sleep(0.08)
    assert bench.total() == 23 * 320
    assert bench.receiver._timer is None


async def test_bye_hands_on_the_last_word_and_is_told(bench: Bench) -> None:
    for n in (0, 1, 3):
        await bench.send(n)
    await bench.aiortc._handle_rtcp_packet(RtcpByePacket(sources=[4]))
    assert bench.byes == 0  # somebody else's
    for recipient in bench.transport._rtp_router.route_rtcp(RtcpByePacket(sources=[5])):
        await recipient._handle_rtcp_packet(RtcpByePacket(sources=[5]))
    assert bench.total() == 4 * 320
    assert bench.byes == 1


async def test_a_lost_transport_hands_on_the_last_word_and_is_told(bench: Bench) -> None:
    await bench.send(0)
    bench.aiortc._handle_disconnect()
    assert (bench.total(), bench.byes) == (320, 1)


async def test_stop_flushes_and_takes_no_more(bench: Bench) -> None:
    await bench.send(0)
    bench.receiver.stop()
    bench.receiver.stop()
    await bench.send(1)
    bench.aiortc._handle_disconnect()
    assert (bench.total(), bench.byes) == (320, 0)
    assert bench.receiver._timer is None
    assert bench.receiver.status().packets.received == 1


async def test_sources_beyond_the_cap_leave_no_trace(bench: Bench) -> None:
    for ssrc in range(100):
        await bench.send(ssrc * 10, ssrc=1000 + ssrc)
    assert len(bench.transport._rtp_router.ssrc_table) <= MAX_SOURCES
    assert len(bench.aiortc._RTCRtpReceiver__remote_streams) == 1  # type: ignore[attr-defined]
    assert bench.receiver.status().packets.refused == 100 - MAX_SOURCES


async def test_wild_timestamps_neither_raise_nor_flood(bench: Bench) -> None:
    rng = np.random.default_rng(3)
    for n in range(300):
        await bench.send(n, timestamp=int(rng.integers(0, 2**32)))
    bench.receiver.flush()
    assert bench.total() <= 300 * 320 + MAX_GAP_S * 16_000
    reports = bench.aiortc._RTCRtpReceiver__remote_streams  # type: ignore[attr-defined]
    assert 0 <= reports[5].jitter < 2**32


async def test_a_disabled_receiver_takes_nothing(bench: Bench) -> None:
    bench.aiortc._enabled = False
    await bench.send(0)
    bench.receiver.flush()
    assert bench.total() == 0


async def test_attaching_to_a_started_receiver_is_refused(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="before"):
        AudioReceiver.attach(
            bench.aiortc,
            on_samples=lambda samples, concealed: None,
            on_bye=bench.bye,
            settings=Settings(),
            metrics=Metrics(),
        )


async def test_a_receiver_that_is_stopped_before_it_starts_stays_silent() -> None:
    bench = Bench()
    bench.receiver.stop()
    await bench.start()
    await bench.send(0)
    assert bench.total() == 0
    await bench.aiortc.stop()
