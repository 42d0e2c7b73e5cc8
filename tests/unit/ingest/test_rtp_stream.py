"""One speaker's RTP: sources, codecs, counters. G.711 packets, whose length says all, and a made-up clock."""

from __future__ import annotations

import numpy as np
from aiortc.rtp import RtpPacket
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaserver.audio.clock import Samples
from mediaserver.ingest.jitter import MAX_GAP_S
from mediaserver.ingest.stream import MAX_SOURCES, SILENCE_CHUNK_SAMPLES, STRAGGLER_S, AudioStream
from mediaserver.metrics import Metrics

PCMU, PCMA, G722, OPUS = 0, 8, 9, 96
LOUD = b"\x00" * 160


class Bench:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.chunks: list[tuple[Samples, int]] = []
        self.stream = AudioStream(
            {PCMU: "audio/PCMU", PCMA: "audio/PCMA", G722: "audio/G722", OPUS: "audio/opus"},
            on_samples=lambda samples, concealed: self.chunks.append((samples, concealed)),
            jitter_target_ms=40,
            jitter_max_ms=200,
            metrics=self.metrics,
        )

    def push(
        self, n: int, *, ssrc: int = 1, payload_type: int = PCMU, payload: bytes = LOUD, at_s: float | None = None
    ) -> bool:
        packet = RtpPacket(
            payload_type=payload_type, sequence_number=n % 65536, timestamp=n * 160, ssrc=ssrc, payload=payload
        )
        return self.stream.receive(packet, n * 0.02 if at_s is None else at_s)

    def total(self) -> int:
        return sum(len(samples) for samples, _ in self.chunks)

    def fate(self, name: str) -> float:
        return self.metrics.registry.get_sample_value("voiceforge_rtp_packets_total", {"fate": name}) or 0.0


def test_samples_come_out_16_khz_float32_in_stream_time() -> None:
    bench = Bench()
    for n in range(50):
        assert bench.push(n)
    bench.stream.flush(1.0)
    assert bench.total() == bench.stream.statistics.samples == 50 * 320
    assert all(samples.dtype == np.float32 and not concealed for samples, concealed in bench.chunks)
    assert bench.stream.next_deadline_s is None


def test_loss_is_concealed_and_counted() -> None:
    bench = Bench()
    for n in range(100):
        if n % 10 != 5:
            bench.push(n)
    bench.stream.flush(2.0)
    assert bench.total() == 100 * 320
    assert sum(concealed for _, concealed in bench.chunks) == 10 * 320
    assert bench.fate("received") == 90
    assert bench.fate("lost") == bench.fate("concealed") == 10
    assert bench.fate("recovered") == 0


def test_a_long_pause_is_silence_in_pieces() -> None:
    bench = Bench()
    pause_s = 20.0
    assert pause_s < MAX_GAP_S
    for n in range(1500):
        bench.push(n)
    bench.chunks.clear()
    packet = RtpPacket(payload_type=PCMU, sequence_number=1500, timestamp=(1500 + 1000) * 160, ssrc=1, payload=LOUD)
    bench.stream.receive(packet, 50.0)
    assert bench.total() == 1001 * 320
    assert max(len(samples) for samples, _ in bench.chunks) <= SILENCE_CHUNK_SAMPLES
    assert not any(concealed for _, concealed in bench.chunks)


def test_a_new_source_is_a_reset_and_what_was_held_comes_out_first() -> None:
    bench = Bench()
    for n in range(10):
        bench.push(n)
    bench.push(11)  # held behind 10
    bench.push(500, ssrc=2, at_s=0.24)
    bench.push(501, ssrc=2, at_s=0.26)
    bench.stream.flush(0.3)
    assert bench.stream.ssrc == 2
    assert bench.stream.statistics.resets == bench.stream.statistics.source_changes == 1
    assert bench.stream.statistics.silence_samples <= 16_000
    assert bench.total() - bench.stream.statistics.silence_samples == 14 * 320


def test_sources_are_capped() -> None:
    bench = Bench()
    for ssrc in range(40):
        heard = bench.push(ssrc * 100, ssrc=ssrc, at_s=ssrc * 2.0)
        assert heard == (ssrc < MAX_SOURCES)
    assert bench.stream.statistics.refused == 40 - MAX_SOURCES
    assert bench.stream.ssrc == MAX_SOURCES - 1
    assert bench.push(0, ssrc=3, at_s=100.0)  # one of the known comes back


def test_a_source_that_was_left_is_a_straggler_first_and_back_later() -> None:
    bench = Bench()
    bench.push(0, ssrc=1, at_s=0.0)
    bench.push(0, ssrc=2, at_s=0.1)
    assert not bench.push(1, ssrc=1, at_s=0.1 + STRAGGLER_S / 2)
    assert bench.stream.statistics.late == 1
    assert bench.push(2, ssrc=1, at_s=0.1 + STRAGGLER_S)
    assert bench.stream.ssrc == 1


def test_the_codec_may_change_within_a_source() -> None:
    bench = Bench()
    for n in range(10):
        bench.push(n)
    for n in range(10, 20):
        bench.push(n, payload_type=G722)
    for n in range(20, 30):
        bench.push(n, payload_type=OPUS, payload=b"\x48\x00")
    bench.stream.flush(1.0)
    assert bench.total() >= 30 * 320
    assert not bench.push(30, payload_type=77)
    assert bench.stream.statistics.refused == 1


def test_malformed_packets_are_concealed_and_counted() -> None:
    bench = Bench()
    for n in range(20):
        packet = RtpPacket(payload_type=OPUS, sequence_number=n, timestamp=n * 960, ssrc=1, payload=b"\xff\xff\xff")
        bench.stream.receive(packet, n * 0.02)
    bench.stream.flush(1.0)
    assert bench.total() == 20 * 320
    assert bench.fate("malformed") == 20
    assert bench.stream.statistics.concealed_samples == 20 * 320


def test_after_close_nothing_is_taken() -> None:
    bench = Bench()
    bench.push(0)
    bench.stream.flush(0.0)
    bench.stream.close()
    bench.stream.close()
    assert not bench.push(1)
    bench.stream.poll(9.0)
    bench.stream.flush(9.0)
    assert bench.total() == 320


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 12),
            st.sampled_from([PCMU, PCMA, G722, OPUS, 50]),
            st.integers(0, 65535),
            st.integers(0, 2**32 - 1),
            st.binary(max_size=60),
            st.floats(0, 3),
        ),
        max_size=60,
    )
)
def test_no_packets_raise(packets: list[tuple[int, int, int, int, bytes, float]]) -> None:
    bench = Bench()
    now_s = 0.0
    for ssrc, payload_type, number, timestamp, payload, wait_s in packets:
        now_s += wait_s
        bench.stream.receive(
            RtpPacket(
                payload_type=payload_type, sequence_number=number, timestamp=timestamp, ssrc=ssrc, payload=payload
            ),
            now_s,
        )
        bench.stream.poll(now_s)
    bench.stream.flush(now_s)
    assert bench.total() == bench.stream.statistics.samples
    assert bench.total() <= (now_s + 2.0) * 16_000 + len(packets) * 1920
    bench.stream.close()
