"""When a process is searched for garbage, and what is told of it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from mediaserver.metrics import Metrics
from signaling import memory
from signaling.memory import NEVER, OVERDUE, WORTHWHILE, Searches, is_due


class Circle:
    """Nothing but a search finds it once it is gone."""

    def __init__(self) -> None:
        self.self = self


@pytest.fixture
def thresholds() -> Iterator[tuple[int, int, int]]:
    """Of the process that runs the tests; kept as they were, whatever a test does."""
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)


def pauses(metrics: Metrics, generation: str) -> float:
    return metrics.registry.get_sample_value("voiceforge_gc_pause_seconds_count", {"generation": generation}) or 0.0


@pytest.mark.parametrize(
    ("searches", "is_at_rest", "expected"),
    [
        (0, True, False),
        (WORTHWHILE - 1, True, False),
        (WORTHWHILE, True, True),
        (WORTHWHILE, False, False),
        (OVERDUE - 1, False, False),
        (OVERDUE, False, True),
    ],
)
def test_all_is_searched_when_nobody_is_there_or_it_is_overdue(searches: int, is_at_rest: bool, expected: bool) -> None:
    assert is_due(searches, is_at_rest=is_at_rest) is expected


async def test_searches_are_ours_while_it_runs_and_pythons_afterwards(thresholds: tuple[int, int, int]) -> None:
    callbacks = list(gc.callbacks)
    task = asyncio.create_task(Searches(Metrics(), is_at_rest=lambda: False).run())
    await asyncio.sleep(0)
    assert gc.get_threshold()[2] == NEVER
    assert len(gc.callbacks) == len(callbacks) + 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert gc.get_threshold() == thresholds
    assert gc.callbacks == callbacks


async def test_circles_are_found_once_nobody_is_there_and_each_pause_is_told(
    thresholds: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "PERIOD_S", 0.0)
    metrics, is_at_rest, looks = Metrics(), False, 0

    def rests() -> bool:
        nonlocal looks
        looks += 1
        return is_at_rest

    task = asyncio.create_task(Searches(metrics, is_at_rest=rests).run())
    await asyncio.sleep(0)
    gc.collect()
    told = pauses(metrics, "2")
    circles = [Circle() for _ in range(50)]
    gc.collect(1)  # they are old now
    del circles
    for _ in range(WORTHWHILE):
        gc.collect(1)
    looks = 0
    while looks < 3:
        await asyncio.sleep(0)
    assert sum(isinstance(one, Circle) for one in gc.get_objects()) == 50
    is_at_rest = True
    looks = 0
    while looks < 3:
        await asyncio.sleep(0)
    assert not any(isinstance(one, Circle) for one in gc.get_objects())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert pauses(metrics, "2") > told
    assert pauses(metrics, "1") >= WORTHWHILE
    assert pauses(metrics, "0") == 0
