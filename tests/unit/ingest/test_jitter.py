"""The jitter buffer on made-up packets and a made-up clock: 20 ms Opus-like packets, 960 ticks at 48 kHz."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaserver.ingest.jitter import (
    MAX_GAP_S,
    MAX_HELD_PACKETS,
    RESET_SILENCE_S,
    JitterBuffer,
    Kind,
    Playout,
)

TICKS = 960
SAMPLES = 320
STEP_S = 0.02


class Bench:
    """Feeds numbered packets; the payload is the number, so order can be read off the outcome."""

    def __init__(self, *, first_seq: int = 1000, first_ts: int = 50_000, target_ms: float = 40, max_ms: float = 200):
        self.buffer = JitterBuffer(48_000, target_ms=target_ms, max_ms=max_ms)
        self.first_seq, self.first_ts = first_seq, first_ts
        self.out: list[Playout] = []
        self.now_s = 100.0

    def push(self, n: int, *, at_s: float | None = None, ts_shift: int = 0, seq_shift: int = 0) -> list[Playout]:
        self.now_s = 100.0 + n * STEP_S if at_s is None else at_s
        got = self.buffer.push(
            (self.first_seq + n + seq_shift) % 65536,
            (self.first_ts + n * TICKS + ts_shift) % 2**32,
            str(n).encode(),
            TICKS,
            self.now_s,
        )
        self.out += got
        return got

    def poll(self, at_s: float) -> list[Playout]:
        self.now_s = at_s
        got = self.buffer.poll(at_s)
        self.out += got
        return got

    def flush(self) -> list[Playout]:
        got = self.buffer.flush(self.now_s)
        self.out += got
        return got

    def started(self) -> Bench:
        """Past the first packets' wait, with 0..3 out."""
        for n in range(4):
            self.push(n)
        self.poll(100.0 + 4 * STEP_S - 0.001)
        assert self.order() == [0, 1, 2, 3]
        return self

    def order(self) -> list[int]:
        return [int(p.payload) for p in self.out if p.kind is Kind.PACKET and p.payload is not None]

    def total(self) -> int:
        return sum(p.samples for p in self.out)

    def kinds(self) -> list[Kind]:
        return [p.kind for p in self.out]


def test_packets_in_order_come_out_at_once() -> None:
    bench = Bench().started()
    for n in range(4, 50):
        assert [p.payload for p in bench.push(n)] == [str(n).encode()]
        assert bench.buffer.next_deadline_s is None
    assert bench.total() == 50 * SAMPLES


def test_first_packet_waits_for_one_that_was_overtaken() -> None:
    bench = Bench()
    assert bench.push(1, at_s=100.0) == []
    assert bench.buffer.next_deadline_s == pytest.approx(100.04)
    assert bench.push(0, at_s=100.01) == []
    bench.poll(100.04)
    assert bench.order() == [0, 1]
    assert bench.buffer.counts.reordered == 1


def test_reordered_packets_come_out_in_order() -> None:
    bench = Bench().started()
    for n in (5, 4, 7, 8, 6, 9):
        bench.push(n, at_s=100.1)
    assert bench.order() == list(range(10))
    assert set(bench.kinds()) == {Kind.PACKET}
    assert bench.buffer.counts.reordered == 2
    assert bench.buffer.counts.lost == 0


def test_sequence_and_timestamp_wrap_around() -> None:
    bench = Bench(first_seq=65534, first_ts=2**32 - TICKS)
    for n in (0, 1, 3, 2, 4, 5):
        bench.push(n, at_s=100.0 + n * 0.001)
    bench.flush()
    assert bench.order() == [0, 1, 2, 3, 4, 5]
    assert bench.total() == 6 * SAMPLES
    assert bench.buffer.counts.resets == 0


def test_a_missing_packet_is_lost_when_its_time_is_up() -> None:
    bench = Bench().started()
    assert bench.push(5) == []
    deadline_s = bench.buffer.next_deadline_s
    assert deadline_s == pytest.approx(bench.now_s + 0.04)
    assert bench.poll(deadline_s - 0.001) == []
    assert bench.poll(deadline_s) == [Playout(Kind.LOSS, SAMPLES, b"5", 1), Playout(Kind.PACKET, SAMPLES, b"5")]
    assert bench.buffer.next_deadline_s is None
    assert bench.total() == 6 * SAMPLES
    assert bench.buffer.counts.lost == 1


def test_a_later_packet_ends_the_wait_too() -> None:
    bench = Bench().started()
    bench.push(5)
    bench.push(6)
    bench.push(7)  # 40 ms after packet 5
    assert bench.order()[-3:] == [5, 6, 7]


def test_two_gaps_are_waited_for_each_on_its_own() -> None:
    bench = Bench().started()
    bench.push(5, at_s=100.10)
    bench.push(7, at_s=100.12)
    bench.poll(100.14)
    assert bench.order()[-1] == 5
    assert bench.buffer.next_deadline_s == pytest.approx(100.16)
    bench.push(6, at_s=100.15)
    assert bench.order()[-2:] == [6, 7]


def test_a_duplicate_is_counted_and_dropped() -> None:
    bench = Bench().started()
    bench.push(3, at_s=100.1)
    bench.push(5, at_s=100.1)
    bench.push(5, at_s=100.1)
    assert bench.buffer.counts.duplicate == 2
    assert bench.buffer.counts.late == 0


def test_a_late_packet_is_counted_and_raises_the_target() -> None:
    bench = Bench().started()
    bench.push(5, at_s=100.1)
    bench.poll(100.15)
    assert bench.push(4, at_s=100.2) == []
    assert bench.buffer.counts.late == 1
    assert bench.buffer.target_s(100.2) == pytest.approx((0.04 + 0.11) / 2)  # half-way to 100 ms + 10 ms margin
    assert bench.total() == 6 * SAMPLES


def test_the_target_follows_lateness_up_to_the_maximum_and_falls_back() -> None:
    bench = Bench().started()
    for n in range(4, 200, 2):  # each pair swapped, its first 150 ms late
        bench.push(n + 1, at_s=100.0 + n * STEP_S)
        bench.push(n, at_s=100.15 + n * STEP_S)
    now_s = bench.now_s
    assert bench.buffer.target_s(now_s) == pytest.approx(0.16, abs=0.01)
    assert bench.buffer.counts.late < 10  # soon waited for long enough
    assert bench.buffer.target_s(now_s + 10) == pytest.approx(0.1, abs=0.01)
    assert bench.buffer.target_s(now_s + 120) == pytest.approx(0.04, abs=0.001)


def test_lateness_that_no_wait_would_catch_changes_nothing() -> None:
    bench = Bench().started()
    bench.push(5, at_s=100.1)
    bench.poll(100.2)
    bench.push(4, at_s=101.0)
    assert bench.buffer.target_s(101.0) == pytest.approx(0.04)


def test_a_burst_after_a_stall_comes_out_at_once_and_leaves_no_delay() -> None:
    bench = Bench().started()
    for n in range(4, 54):  # one second held up in the network
        assert len(bench.push(n, at_s=101.08)) == 1
    for n in range(54, 60):
        assert len(bench.push(n)) == 1
    assert bench.order() == list(range(60))
    assert bench.buffer.take_longest_hold_s() <= 0.08  # the first packets' own wait
    bench.push(60)
    assert bench.buffer.take_longest_hold_s() == 0.0


def test_a_burst_of_loss_is_one_gap() -> None:
    bench = Bench().started()
    bench.push(14)
    bench.poll(bench.now_s + 0.04)
    assert bench.out[-2:] == [Playout(Kind.LOSS, 10 * SAMPLES, b"14", 10), Playout(Kind.PACKET, SAMPLES, b"14")]


def test_an_unbroken_sequence_with_a_timestamp_gap_is_silence() -> None:
    bench = Bench().started()
    got = bench.push(4, at_s=100.48, ts_shift=20 * TICKS)
    assert got == [Playout(Kind.SILENCE, 20 * SAMPLES), Playout(Kind.PACKET, SAMPLES, b"4")]
    assert bench.buffer.counts.lost == 0


def test_loss_inside_discontinuous_transmission_is_both() -> None:
    bench = Bench().started()
    bench.push(5, at_s=100.5, ts_shift=20 * TICKS)
    bench.poll(100.54)
    assert bench.out[-3:] == [
        Playout(Kind.SILENCE, 20 * SAMPLES),
        Playout(Kind.LOSS, SAMPLES, b"5", 1),
        Playout(Kind.PACKET, SAMPLES, b"5"),
    ]


def test_sloppy_timestamps_are_not_filled_one_by_one_but_not_forgotten() -> None:
    bench = Bench().started()
    assert [p.kind for p in bench.push(4, ts_shift=200)] == [Kind.PACKET]  # 4 ms off
    assert [p.kind for p in bench.push(5, ts_shift=-200)] == [Kind.PACKET]
    assert bench.push(6, ts_shift=600)[0] == Playout(Kind.SILENCE, 200)
    assert bench.total() == 7 * SAMPLES + 200


def test_a_timestamp_that_jumps_is_a_reset_with_little_silence() -> None:
    for shift in (-48_000 * 3600, 48_000 * 3600, 2**31, -48_000):
        bench = Bench().started()
        got = bench.push(4, ts_shift=shift)
        assert [p.kind for p in got] == [Kind.RESET, Kind.PACKET]
        assert got[0].samples <= RESET_SILENCE_S * 16_000
        assert [p.kind for p in bench.push(5, ts_shift=shift)] == [Kind.PACKET]
        assert bench.buffer.counts.resets == 1


def test_a_pause_up_to_the_limit_counts_in_full_and_a_longer_one_is_a_reset() -> None:
    def after(pause_s: float) -> list[Playout]:
        bench = Bench().started()
        for n in range(4, 3000):
            bench.push(n)
        return bench.push(3000, at_s=160.0 + pause_s, ts_shift=int(pause_s * 48_000))

    assert after(25.0)[0] == Playout(Kind.SILENCE, 25 * 16_000)
    assert after(MAX_GAP_S + 5)[0] == Playout(Kind.RESET, int(RESET_SILENCE_S * 16_000))


def test_made_up_audio_cannot_outrun_the_clock() -> None:
    bench = Bench()
    for n in range(500):  # ten seconds in which each packet claims to come 1.9 s after the last
        bench.push(n, ts_shift=n * 91_200)
    bench.flush()
    made_up = sum(p.samples for p in bench.out if p.kind is not Kind.PACKET) / 16_000
    assert made_up <= 10 + 2


def test_a_restarted_sequence_is_taken_up_by_its_second_packet() -> None:
    for shift in (-5000, 20_000, 32_768):
        bench = Bench().started()
        assert bench.push(4, seq_shift=shift, ts_shift=123_456_789) == []
        got = bench.push(5, seq_shift=shift, ts_shift=123_456_789)
        assert [p.kind for p in got] == [Kind.RESET, Kind.PACKET, Kind.PACKET]
        assert bench.order() == [0, 1, 2, 3, 4, 5]
        assert [p.kind for p in bench.push(6, seq_shift=shift, ts_shift=123_456_789)] == [Kind.PACKET]


def test_a_restart_just_behind_is_known_by_its_timestamp() -> None:
    bench = Bench().started()
    for n in range(4, 60):
        bench.push(n)
    for n in range(60, 70):
        bench.push(n, seq_shift=-50, ts_shift=10**9)
    assert bench.order() == list(range(70))
    assert bench.buffer.counts.late == bench.buffer.counts.duplicate == 0


def test_a_single_stray_packet_changes_nothing() -> None:
    bench = Bench().started()
    bench.push(4, seq_shift=9000)
    for n in range(4, 10):
        bench.push(n)
    assert bench.order() == list(range(10))
    assert bench.buffer.counts.resets == 0


def test_padding_takes_a_number_and_no_time() -> None:
    bench = Bench().started()
    assert bench.buffer.push(1004, 50_000 + 4 * TICKS, b"", 0, 100.08) == []
    assert [p.kind for p in bench.push(5, ts_shift=-TICKS)] == [Kind.PACKET]
    assert bench.total() == 5 * SAMPLES


def test_flush_gives_what_is_held() -> None:
    bench = Bench()
    bench.push(0)
    assert bench.out == []
    bench.flush()
    assert bench.order() == [0]
    bench.push(2)
    bench.push(4)
    bench.flush()
    assert bench.kinds()[1:] == [Kind.LOSS, Kind.PACKET, Kind.LOSS, Kind.PACKET]
    assert bench.buffer.held_packets == 0
    assert bench.buffer.next_deadline_s is None


def test_a_stopped_stream_is_drained_and_then_sleeps() -> None:
    bench = Bench().started()
    bench.push(5)
    wakes = 0
    while (deadline_s := bench.buffer.next_deadline_s) is not None:
        bench.poll(deadline_s)
        wakes += 1
    assert wakes == 1
    assert bench.order()[-1] == 5


def test_too_many_held_packets_end_the_wait_and_none_is_dropped() -> None:
    bench = Bench(target_ms=1000, max_ms=1000)
    for n in range(1, 600):
        if n % 150:
            bench.push(n, at_s=100.0 + n * 1e-4)
        assert bench.buffer.held_packets <= MAX_HELD_PACKETS
    bench.flush()
    assert bench.order() == [n for n in range(1, 600) if n % 150]


def test_restart_takes_another_clock() -> None:
    bench = Bench().started()
    bench.buffer.restart(8000)
    bench.buffer.push(7, 99, b"x", 160, 100.5)
    got = bench.buffer.flush(100.5)
    assert got == [Playout(Kind.RESET, pytest.approx((0.5 - 0.06) * 16_000, abs=1)), Playout(Kind.PACKET, 320, b"x")]
    with pytest.raises(ValueError, match="44100"):
        bench.buffer.restart(44_100)


@settings(max_examples=150, deadline=None)
@given(
    first_seq=st.integers(0, 65535),
    first_ts=st.integers(0, 2**32 - 1),
    count=st.integers(2, 200),
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.5),
    copies=st.floats(0, 0.3),
    spread_s=st.floats(0, 0.3),
)
def test_any_interleaving_adds_up_to_the_span_of_the_timestamps(
    first_seq: int, first_ts: int, count: int, seed: int, loss: float, copies: float, spread_s: float
) -> None:
    rng = random.Random(seed)
    arrivals = []
    for n in range(count):
        if n in (0, count - 1) or rng.random() >= loss:
            at_s = 100.0 + n * STEP_S + (rng.random() * spread_s if n else 0.0)
            arrivals.append((at_s, n))
            if rng.random() < copies:
                arrivals.append((at_s + rng.random() * spread_s, n))
    bench = Bench(first_seq=first_seq, first_ts=first_ts)
    for at_s, n in sorted(arrivals):
        while (deadline_s := bench.buffer.next_deadline_s) is not None and deadline_s < at_s:
            bench.poll(deadline_s)
        bench.push(n, at_s=at_s)
        assert bench.buffer.held_packets <= MAX_HELD_PACKETS
    bench.flush()
    order = bench.order()
    assert order == sorted(set(order))
    assert bench.total() == (order[-1] - order[0] + 1) * SAMPLES
    counts = bench.buffer.counts
    assert counts.received == len(arrivals) == len(order) + counts.late + counts.duplicate
    assert counts.lost == order[-1] - order[0] + 1 - len(order)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 65535),
            st.integers(0, 2**32 - 1),
            st.integers(0, 5760),
            st.floats(0, 5),
            st.sampled_from(["push", "near", "poll", "flush"]),
        ),
        max_size=150,
    )
)
def test_garbage_never_raises_and_is_bounded(steps: list[tuple[int, int, int, float, str]]) -> None:
    buffer = JitterBuffer(48_000, target_ms=40, max_ms=200)
    now_s, seq, made_up = 0.0, 0, 0
    for number, timestamp, duration, wait_s, what in steps:
        now_s += wait_s
        seq = (seq + number % 7 - 2) % 65536 if what == "near" else number
        if what == "poll":
            got = buffer.poll(now_s)
        elif what == "flush":
            got = buffer.flush(now_s)
        else:
            got = buffer.push(seq, timestamp, b"x", duration, now_s)
        assert buffer.held_packets <= MAX_HELD_PACKETS
        assert (buffer.next_deadline_s is None) == (buffer.held_packets == 0)
        assert all(p.samples >= 0 for p in got)
        made_up += sum(p.samples for p in got if p.kind is not Kind.PACKET)
    assert made_up <= (now_s + 2.0) * 16_000 + 1
