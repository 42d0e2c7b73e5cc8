"""When finals count as late, and what a refused client is told."""

from __future__ import annotations

import math

import pytest

from mediaserver.decoder import load as module
from mediaserver.decoder.load import LONGEST_RETRY_S, RECENT_S, SHORTEST_RETRY_S, WAITS_S, Load


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
    assert load.retry_after_s(0.0) == math.ceil(2.5 + WAITS_S)


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
    assert waits == [5 + WAITS_S, 10 + WAITS_S]


def test_one_unlucky_final_of_many_closes_no_door() -> None:
    load = costing()
    for ident in range(40):
        final(load, ident, queued_s=ident * 0.1, wait_s=3.0 if ident == 7 else 0.1)
    assert load.retry_after_s(5.0) is None


def test_the_door_opens_when_it_was_said_to_and_not_before() -> None:
    load = costing()
    final(load, 1, queued_s=0.0, wait_s=1.5)
    retry_after_s = load.retry_after_s(1.5)
    assert retry_after_s == WAITS_S
    for tenth in range(15, 55):
        assert load.retry_after_s(tenth / 10) is not None
    assert load.retry_after_s(1.5 + retry_after_s + 0.1) is None


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("finals", [10, 20, 40])
@pytest.mark.parametrize("cost", [0.08, 0.15])
def test_what_is_told_in_a_burst_is_what_it_takes(slots: int, finals: int, cost: float) -> None:
    """All finals come at once, each slot takes the next one when it is free, and nothing else comes."""
    load = costing(slots, cost=cost)
    for ident in range(finals):
        load.queued(ident, context_s=5.0, now_s=0.0)
    told_s = load.retry_after_s(0.0)
    if told_s is None:
        assert finals * 5.0 * cost / slots <= 1.0
        return
    free_s = [0.0] * slots
    events: list[tuple[float, int, bool]] = []
    for ident in range(finals):
        slot = free_s.index(min(free_s))
        events.append((free_s[slot], ident, False))
        free_s[slot] += 5.0 * cost
        events.append((free_s[slot], ident, True))
    opened_s, now_s = None, 0.0
    while opened_s is None and now_s < 100.0:
        while events and min(events)[0] <= now_s:
            at_s, ident, is_done = min(events)
            events.remove((at_s, ident, is_done))
            if is_done:
                load.decoded(context_s=5.0, compute_s=5.0 * cost, are_finals=True, now_s=at_s)
            else:
                load.taken(ident, now_s=at_s)
        if load.retry_after_s(now_s) is None:
            opened_s = now_s
        now_s += 0.1
    assert opened_s is not None
    assert opened_s - 0.5 <= told_s <= opened_s + 4.0, (told_s, opened_s)


def test_the_door_does_not_flap() -> None:
    load = costing()
    final(load, 1, queued_s=0.0, wait_s=1.5)
    assert load.retry_after_s(1.5) is not None
    final(load, 2, queued_s=5.0, wait_s=0.8)  # not late, but not calm either
    assert load.retry_after_s(6.0) is not None
    calm = costing()
    final(calm, 2, queued_s=4.0, wait_s=0.8)
    assert calm.retry_after_s(5.0) is None


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


def test_what_is_told_is_bounded() -> None:
    load = costing(cost=10.0)
    for ident in range(100):
        load.queued(ident, context_s=30.0, now_s=0.0)
    assert load.retry_after_s(0.0) == LONGEST_RETRY_S
    short = costing()
    final(short, 1, queued_s=0.0, wait_s=1.5)
    assert short.retry_after_s(1.5 + WAITS_S - 0.01) == SHORTEST_RETRY_S


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
