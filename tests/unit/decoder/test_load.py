"""When finals count as late, and what a refused client is told."""

from __future__ import annotations

import pytest

from mediaserver.decoder import load as module
from mediaserver.decoder.load import LONGEST_RETRY_S, RECENT_S, SHORTEST_RETRY_S, Load


def final(load: Load, ident: int, *, queued_s: float, wait_s: float) -> None:
    load.queued(ident, context_s=5.0, now_s=queued_s)
    load.taken(ident, now_s=queued_s + wait_s)


def costing(slots: int = 1, *, cost: float = 0.1) -> Load:
    """An engine that takes `cost` seconds for a second of context."""
    load = Load(slots)
    load.decoded(context_s=10.0, compute_s=10.0 * cost, are_finals=False, now_s=0.0)
    return load


def test_an_engine_that_does_nothing_lets_everybody_in() -> None:
    assert Load(2).retry_after_s(0.0) is None


def test_finals_on_time_let_everybody_in() -> None:
    load = costing()
    for ident in range(20):
        final(load, ident, queued_s=float(ident), wait_s=0.4)
    assert load.retry_after_s(20.0) is None


def test_a_final_that_waits_too_long_closes_the_door_before_it_is_decoded() -> None:
    load = costing()
    load.queued(1, context_s=5.0, now_s=0.0)
    assert load.retry_after_s(0.9) is None
    assert load.retry_after_s(1.1) is not None


def test_a_backlog_closes_the_door_before_any_final_is_late() -> None:
    load = costing()
    for ident in range(5):
        load.queued(ident, context_s=5.0, now_s=0.0)
    assert load.backlog_s() == pytest.approx(2.5)
    assert load.retry_after_s(0.0) == 3


def test_the_backlog_is_shared_by_the_slots() -> None:
    load = costing(slots=4)
    for ident in range(5):
        load.queued(ident, context_s=5.0, now_s=0.0)
    assert load.backlog_s() == pytest.approx(2.5 / 4)
    assert load.retry_after_s(0.0) is None


def test_finals_that_go_on_coming_make_it_last_longer() -> None:
    idle, busy = costing(), costing()
    for second in range(10):
        busy.decoded(context_s=5.0, compute_s=0.5, are_finals=True, now_s=float(second))
    assert busy.finals_share(9.0) == pytest.approx(0.5)
    waits = []
    for load in (idle, busy):
        for ident in range(10):
            load.queued(ident, context_s=5.0, now_s=9.0)
        waits.append(load.retry_after_s(9.0))
    assert waits == [5, 10]


def test_one_unlucky_final_of_many_closes_no_door() -> None:
    load = costing()
    for ident in range(40):
        final(load, ident, queued_s=ident * 0.1, wait_s=3.0 if ident == 7 else 0.1)
    assert load.retry_after_s(5.0) is None


def test_the_door_opens_when_it_was_said_to_and_not_before() -> None:
    load = costing()
    final(load, 1, queued_s=0.0, wait_s=1.5)
    retry_after_s = load.retry_after_s(1.5)
    assert retry_after_s == RECENT_S
    for second in range(2, 11):
        assert load.retry_after_s(float(second)) is not None
    assert load.retry_after_s(1.5 + retry_after_s + 0.1) is None


def test_the_door_does_not_flap() -> None:
    load = costing()
    final(load, 1, queued_s=0.0, wait_s=1.5)
    assert load.retry_after_s(1.5) is not None
    final(load, 2, queued_s=11.0, wait_s=0.8)  # not late, but not calm either
    assert load.retry_after_s(12.0) is not None
    calm = costing()
    final(calm, 2, queued_s=11.0, wait_s=0.8)
    assert calm.retry_after_s(12.0) is None


def test_a_device_that_finals_fill_takes_no_more_though_none_is_late() -> None:
    load = costing()
    for second in range(10):
        load.decoded(context_s=9.0, compute_s=0.9, are_finals=True, now_s=float(second))
    retry_after_s = load.retry_after_s(9.5)
    assert retry_after_s is not None
    assert 1 <= retry_after_s <= RECENT_S
    assert load.retry_after_s(9.5 + retry_after_s + 0.5) is None


def test_a_device_that_interims_fill_takes_more() -> None:
    load = costing()
    for tenth in range(100):
        load.decoded(context_s=9.0, compute_s=0.1, are_finals=False, now_s=tenth / 10)
    assert load.retry_after_s(10.0) is None


def test_what_is_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    load = costing(cost=10.0)
    for ident in range(100):
        load.queued(ident, context_s=30.0, now_s=0.0)
    assert load.retry_after_s(0.0) == LONGEST_RETRY_S
    monkeypatch.setattr(module, "LATE_FINAL_S", 0.001)
    monkeypatch.setattr(module, "CALM_WAIT_S", 0.001)
    short = costing()
    short.queued(1, context_s=0.1, now_s=0.0)
    assert short.retry_after_s(0.1) == SHORTEST_RETRY_S


def test_the_cost_follows_what_batches_take() -> None:
    load = costing(cost=0.1)
    load.queued(1, context_s=10.0, now_s=0.0)
    for _ in range(60):
        load.decoded(context_s=10.0, compute_s=3.0, are_finals=False, now_s=0.0)
    assert load.backlog_s() == pytest.approx(3.0, rel=0.01)


def test_who_gives_up_waits_no_more() -> None:
    load = costing()
    load.queued(1, context_s=100.0, now_s=0.0)
    load.given_up(1)
    load.given_up(1)
    load.taken(1, now_s=50.0)
    assert load.backlog_s() == 0.0
    assert load.retry_after_s(50.0) is None


def test_memory_is_bounded() -> None:
    load = costing()
    for ident in range(5000):
        final(load, ident, queued_s=0.0, wait_s=0.0)
        load.decoded(context_s=1.0, compute_s=0.001, are_finals=True, now_s=0.0)
    assert len(load._waits) == len(load._spent) == module.MAX_WAITS
