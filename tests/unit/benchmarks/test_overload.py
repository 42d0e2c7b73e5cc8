"""What the door is said to have answered, the periods of interims, and what counts as memory that grows."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from benchmarks.memory import Look, ReadyAnswers, broken, grown_mib
from benchmarks.overload import Answer, Door, ask, periods_s
from benchmarks.screen import Seen
from mediaserver.decoder.window import Kind, Window
from mediaserver.events import Interim, SpeechStarted


def door(*answers: float | None, until_s: float = 100.0) -> Door:
    """Asked once a second."""
    return Door([Answer(float(k), answer) for k, answer in enumerate(answers)], until_s)


def test_nobody_is_sent_away_from_an_open_door() -> None:
    free = door(None, None)
    assert free.refused_share == 0.0
    assert free.told_s == free.true_s == []
    assert free.kept_share is None
    assert door().refused_share == 0.0


def test_who_was_sent_away_and_what_was_true() -> None:
    shut = door(None, 2, 2, 2, None, None)
    assert shut.refused_share == 0.5
    assert shut.told_s == [2, 2, 2]
    assert shut.true_s == [3, 2, 1]
    # Asked at 1 s, back at 3 s: still shut. The others find it open.
    assert shut.kept_share == pytest.approx(2 / 3)


def test_what_comes_after_the_step_is_only_for_those_who_come_back() -> None:
    shut = door(2, 2, 2, None, until_s=0.5)
    assert shut.refused_share == 1.0
    assert shut.told_s == [2]
    assert shut.true_s == [3]
    assert shut.kept_share == 0.0


def test_a_door_that_never_opened_has_no_true_time() -> None:
    shut = door(9, 9)
    assert shut.true_s == []
    assert shut.kept_share is None


async def test_the_door_is_asked_until_told_to_stop() -> None:
    answers: list[Answer] = []
    task = asyncio.create_task(ask(lambda: 3.0, answers=answers))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [answer.retry_after_s for answer in answers] == [3.0]


def test_periods_are_within_an_utterance() -> None:
    def interim(at_s: float, number: int) -> Seen:
        return Seen(at_s, Interim(number, "a", "", 0.9, 0.0, at_s, at_s, []))

    seen = [interim(1.0, 1), interim(1.5, 1), Seen(1.6, SpeechStarted(0.0)), interim(4.0, 2), interim(6.0, 2)]
    assert periods_s(seen) == [0.5, 2.0]
    assert periods_s([]) == []


def look(minute: int, each_mib: float, decoder: str = "d") -> Look:
    return Look(decoder, 2, minute, 100.0, 100.0 + 2 * each_mib, 0, 0)


def test_memory_that_is_flat_breaks_nothing() -> None:
    looks = [look(1, 1.0), look(5, 2.0), look(60, 2.3)]
    assert [grown_mib(looks, item) for item in looks] == [None, None, pytest.approx(0.3)]
    assert broken(looks) == []


def test_memory_that_grows_or_is_too_much_is_told() -> None:
    assert "grown by 1.5 MiB" in broken([look(5, 2.0), look(60, 3.5)])[0]
    assert "takes 6.0 MiB" in broken([look(1, 6.0)])[0]
    assert broken([look(5, 2.0), look(60, 3.0, "other")]) == []


async def test_ready_answers_are_the_same_whatever_the_window() -> None:
    decoder = ReadyAnswers()

    async def words(start_s: float, length_s: float) -> list[str]:
        samples = np.zeros(int(length_s * 16_000), dtype=np.float32)
        hypothesis = await decoder.decode(Window("s", Kind.INTERIM, samples, int(start_s * 16_000)))
        assert all(start_s <= word.start < word.end <= start_s + length_s for word in hypothesis.words)
        return [word.text for word in hypothesis.words]

    long, short = await words(10.0, 4.0), await words(11.0, 2.0)
    assert len(long) == 9
    assert set(short) < set(long)
    assert await words(0.0, 0.1) == []
