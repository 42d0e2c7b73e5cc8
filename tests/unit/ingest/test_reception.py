"""RTCP reception statistics against the arithmetic of RFC 3550."""

from __future__ import annotations

from mediaserver.ingest.reception import Reception


def feed(reception: Reception, numbers: list[int], *, first_ts: int = 0) -> None:
    for n in numbers:
        reception.add(n % 65536, (first_ts + n * 160) % 2**32, n * 0.02)


def test_no_loss() -> None:
    reception = Reception(8000)
    feed(reception, list(range(100)))
    assert (reception.packets_lost, reception.fraction_lost, reception.jitter) == (0, 0, 0)
    assert (reception.packets_expected, reception.max_seq) == (100, 99)


def test_loss_is_told_as_a_share_of_the_interval_and_in_all() -> None:
    reception = Reception(8000)
    feed(reception, [n for n in range(101) if n % 4 != 1])
    assert reception.packets_lost == 25
    assert reception.fraction_lost == 25 * 256 // 101
    feed(reception, list(range(101, 201)))
    assert reception.packets_lost == 25
    assert reception.fraction_lost == 0
    assert reception.fraction_lost == 0  # an empty interval


def test_late_packets_and_copies_count_as_the_standard_has_it() -> None:
    reception = Reception(8000)
    feed(reception, [0, 1, 3, 2, 4, 4, 4])
    assert reception.packets_lost == -2
    assert reception.fraction_lost == 0


def test_highest_sequence_number_is_extended() -> None:
    reception = Reception(8000)
    feed(reception, list(range(65_500, 65_600)))
    assert reception.max_seq == 65_599
    assert reception.packets_expected == 100


def test_jitter_survives_a_timestamp_that_wraps_or_jumps() -> None:
    reception = Reception(8000)
    feed(reception, list(range(100)), first_ts=2**32 - 8000)
    assert reception.jitter == 0
    for n in range(100, 300):
        reception.add(n, (n * 2**31) % 2**32, n * 0.02)
    assert 0 <= reception.jitter < 2**32


def test_jitter_follows_the_network() -> None:
    reception = Reception(8000)
    for n in range(200):
        reception.add(n, n * 160, n * 0.02 + (0.005 if n % 2 else 0.0))
    assert 38 <= reception.jitter <= 41  # 5 ms are 40 ticks


def test_a_restart_is_no_loss_and_a_stray_is_nothing() -> None:
    reception = Reception(8000)
    feed(reception, list(range(100)))
    feed(reception, [30_000])
    feed(reception, [100])
    assert reception.packets_expected == 101
    feed(reception, list(range(40_000, 40_010)))
    assert reception.packets_lost == 0
    assert reception.fraction_lost == 0
