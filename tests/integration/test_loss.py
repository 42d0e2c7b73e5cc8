"""Loss on the network and what is left of the speech: fixed patterns on real speech, then a real aiortc sender."""

from __future__ import annotations

import asyncio
import fractions
import time
from collections.abc import Callable
from dataclasses import dataclass

import aioice.ice
import av
import numpy as np
import pytest
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection
from aiortc.rtp import RtpPacket

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.ingest.receiver import AudioReceiver
from mediaserver.ingest.stream import AudioStream, StreamStatistics
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from tests.conftest import Speech

PACKET_S = 0.02
PACKET_SAMPLES = 320
OPUS = 111

Pattern = Callable[[int], bool]
"""Whether the packet with this number is lost."""

SINGLE: dict[int, Pattern] = {
    1: lambda n: n % 100 == 50,
    3: lambda n: n % 100 in (20, 50, 83),
    5: lambda n: n % 20 == 10,
    10: lambda n: n % 10 == 5,
}
BURSTS: dict[int, Pattern] = {
    1: lambda n: n % 300 in (150, 151, 152),
    3: lambda n: n % 100 in (50, 51, 52),
    5: lambda n: n % 200 in range(100, 110),
    10: lambda n: n % 50 in range(20, 25),
}


@dataclass
class Heard:
    samples: Samples
    statistics: StreamStatistics
    lags_s: list[float]
    """After each packet that arrived: how much of the audio up to it was not given out yet."""


@pytest.fixture(scope="module")
def packets(speeches: dict[str, Speech]) -> list[bytes]:
    """Ten seconds and more of speech as a browser sends it: 20 ms, 32 kbit/s, with error correction."""
    samples = np.concatenate([speech.samples() for speech in speeches.values()])
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = SAMPLE_RATE, "mono", "s16", 32_000
    encoder.options = {"application": "voip", "frame_duration": "20", "fec": "1", "packet_loss": "10"}
    pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
    encoded = []
    for start in range(0, len(pcm) - PACKET_SAMPLES + 1, PACKET_SAMPLES):
        frame = av.AudioFrame.from_ndarray(pcm[None, start : start + PACKET_SAMPLES], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, start
        encoded += [bytes(packet) for packet in encoder.encode(frame)]
    return encoded


def hear(packets: list[bytes], lost: Pattern, arrival_s: Callable[[int], float] = lambda n: n * PACKET_S) -> Heard:
    """The receive path on a made-up clock: every packet that is not lost, in order of arrival, and its timer."""
    chunks: list[Samples] = []
    settings = Settings()
    stream = AudioStream(
        {OPUS: "audio/opus"},
        on_samples=lambda samples, _concealed: chunks.append(samples),
        jitter_target_ms=settings.jitter_target_ms,
        jitter_max_ms=settings.jitter_max_ms,
        metrics=Metrics(),
    )
    lags_s = []
    highest = -1
    arrivals = sorted((arrival_s(n), n) for n in range(len(packets)) if not lost(n))
    for now_s, n in arrivals:
        while (deadline_s := stream.next_deadline_s) is not None and deadline_s <= now_s:
            stream.poll(deadline_s)
        packet = RtpPacket(
            payload_type=OPUS,
            sequence_number=(65_000 + n) % 65_536,
            timestamp=(4_294_000_000 + n * 960) % 2**32,
            ssrc=1,
            payload=packets[n],
        )
        assert stream.receive(packet, now_s)
        highest = max(highest, n)
        lags_s.append((highest + 1) * PACKET_S - stream.statistics.samples / SAMPLE_RATE)
    stream.flush(arrivals[-1][0])
    stream.close()
    return Heard(np.concatenate(chunks), stream.statistics, lags_s)


@pytest.mark.parametrize("percent", [1, 3, 5, 10])
@pytest.mark.parametrize("patterns", [SINGLE, BURSTS], ids=["single", "bursts"])
def test_no_more_audio_is_lost_than_the_network_lost(
    packets: list[bytes], patterns: dict[int, Pattern], percent: int
) -> None:
    heard = hear(packets, patterns[percent])
    dropped = sum(patterns[percent](n) for n in range(len(packets)))
    statistics = heard.statistics
    assert len(heard.samples) == len(packets) * PACKET_SAMPLES
    assert statistics.lost == statistics.concealed + statistics.recovered == dropped
    assert 100 * statistics.lost / len(packets) == pytest.approx(percent, abs=1)
    concealed_percent = 100 * statistics.concealed_samples / len(heard.samples)
    assert concealed_percent <= percent + 1
    assert concealed_percent == pytest.approx(100 * statistics.concealed / len(packets))


def test_error_correction_brings_back_most_single_losses(packets: list[bytes]) -> None:
    statistics = hear(packets, SINGLE[10]).statistics
    assert statistics.recovered > 0.6 * statistics.lost


def test_what_is_left_is_the_same_speech_in_the_same_place(packets: list[bytes]) -> None:
    whole = hear(packets, lambda n: False).samples
    assert float(np.corrcoef(whole, hear(packets, SINGLE[10]).samples)[0, 1]) > 0.95
    assert float(np.corrcoef(whole, hear(packets, BURSTS[10]).samples)[0, 1]) > 0.85


def test_delay_exists_only_around_loss(packets: list[bytes]) -> None:
    heard = hear(packets, BURSTS[5])
    settings = Settings()
    first_wait = int(settings.jitter_target_ms / 1000 / PACKET_S) + 1
    lags_s = heard.lags_s[first_wait:]
    assert max(lags_s) <= 0.2 + settings.jitter_target_ms / 1000 + PACKET_S + 1e-9  # the burst itself, and the wait
    delayed = [lag_s for lag_s in lags_s if lag_s > 1e-9]
    bursts = sum(BURSTS[5](n) and not BURSTS[5](n - 1) for n in range(len(packets)))
    assert len(delayed) <= 3 * bursts  # packets that arrive while a gap is waited for


def test_delay_recovers_after_a_stall_and_no_speech_is_dropped(packets: list[bytes]) -> None:
    def stalled(n: int) -> float:
        return max(n * PACKET_S, 2.99) if 100 <= n < 150 else n * PACKET_S  # a second arrives at once

    heard = hear(packets, lambda n: False, stalled)
    assert heard.statistics.lost == heard.statistics.concealed_samples == heard.statistics.resets == 0
    assert len(heard.samples) == len(packets) * PACKET_SAMPLES
    assert max(heard.lags_s[5:]) < 1e-9


def test_jitter_that_reorders_costs_little_once_it_is_known(packets: list[bytes]) -> None:
    rng = np.random.default_rng(7)
    delays_s = rng.uniform(0, 0.12, len(packets))
    heard = hear(packets, lambda n: False, lambda n: n * PACKET_S + float(delays_s[n]))
    assert len(heard.samples) == len(packets) * PACKET_SAMPLES
    assert heard.statistics.reordered > 0.3 * len(packets)
    assert heard.statistics.late < 0.02 * len(packets)


class SpeechTrack(MediaStreamTrack):
    """Speech in real time, as a microphone gives it."""

    kind = "audio"

    def __init__(self, samples: Samples) -> None:
        super().__init__()
        self._pcm = (samples * 32767).astype(np.int16)
        self._position = 0
        self._started_s: float | None = None

    async def recv(self) -> av.AudioFrame:
        if self._started_s is None:
            self._started_s = time.monotonic()
        wait_s = self._started_s + self._position / SAMPLE_RATE - time.monotonic()
        await asyncio.sleep(max(0.0, wait_s))
        part = np.take(self._pcm, range(self._position, self._position + PACKET_SAMPLES), mode="wrap")
        frame = av.AudioFrame.from_ndarray(part[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, self._position, fractions.Fraction(1, SAMPLE_RATE)
        self._position += PACKET_SAMPLES
        return frame


async def test_a_real_sender_over_a_lossy_path(
    speech: Speech, monkeypatch: pytest.MonkeyPatch, no_leaked_threads: None, no_leaked_tasks: None
) -> None:
    """An aiortc peer sends speech over DTLS and SRTP on loopback; every tenth packet is lost after decryption."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    sender, listener = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    chunks: list[tuple[Samples, int]] = []
    enough = asyncio.Event()

    def take(samples: Samples, concealed: int) -> None:
        chunks.append((samples, concealed))
        if len(chunks) >= 150:
            enough.set()

    source = sender.addTrack(SpeechTrack(speech.samples()))
    await sender.setLocalDescription(await sender.createOffer())
    await listener.setRemoteDescription(sender.localDescription)
    aiortc_receiver = listener.getTransceivers()[0].receiver
    receiver = AudioReceiver.attach(
        aiortc_receiver, on_samples=take, on_bye=lambda: None, settings=Settings(), metrics=Metrics()
    )
    deliver = aiortc_receiver._handle_rtp_packet
    first = dropped = 0

    async def lossy(packet: RtpPacket, arrival_time_ms: int) -> None:
        nonlocal first, dropped
        first = first or packet.sequence_number
        if (packet.sequence_number - first) % 10 == 5:
            dropped += 1
        else:
            await deliver(packet, arrival_time_ms)

    monkeypatch.setattr(aiortc_receiver, "_handle_rtp_packet", lossy)
    try:
        await listener.setLocalDescription(await listener.createAnswer())
        await sender.setRemoteDescription(listener.localDescription)
        async with asyncio.timeout(20):
            await enough.wait()
        reported = [item for item in (await source.getStats()).values() if item.type == "remote-inbound-rtp"]
    finally:
        receiver.stop()
        dropped_at_stop = dropped
        await sender.close()
        await listener.close()

    packets = receiver.status().packets
    assert packets.late == packets.resets == packets.malformed == 0
    assert dropped_at_stop - 1 <= packets.lost <= dropped_at_stop  # the very last may be followed by nothing
    assert packets.samples == (packets.received + packets.lost) * PACKET_SAMPLES
    assert packets.concealed_samples == sum(concealed for _, concealed in chunks) == packets.lost * PACKET_SAMPLES
    heard = np.concatenate([samples for samples, _ in chunks])
    assert np.sqrt(np.mean(heard**2)) > 0.01
    assert reported[0].packetsLost > 3  # the sender is told
