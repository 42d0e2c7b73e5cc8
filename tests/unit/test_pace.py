"""So many begin in a turn of the event loop; the others have the next turns."""

from __future__ import annotations

import asyncio

import pytest

from mediaserver.pace import Pace
from tests.loop_turns import LoopTurns

CROWD = 21
EACH_TURN = 4


@pytest.fixture
async def turns() -> LoopTurns:
    return LoopTurns()


async def begin(pace: Pace, turns: LoopTurns, number: int, order: list[int]) -> None:
    await pace.turn()
    turns.note("begun")
    order.append(number)


def test_a_few_begin_without_a_step_of_the_loop() -> None:
    async def few() -> None:
        pace = Pace(EACH_TURN)
        for _ in range(EACH_TURN):
            with pytest.raises(StopIteration):
                pace.turn().send(None)

    asyncio.run(few())


async def test_of_a_crowd_so_many_begin_in_each_turn_in_their_order(turns: LoopTurns) -> None:
    pace, order = Pace(EACH_TURN), list[int]()
    tasks = [asyncio.create_task(begin(pace, turns, number, order)) for number in range(CROWD)]
    turns.begin()
    await asyncio.gather(*tasks)
    turns.end()
    assert order == list(range(CROWD))
    assert turns.most("begun") == EACH_TURN
    assert len(set(turns.noted["begun"])) == -(-CROWD // EACH_TURN)


async def test_whoever_comes_later_waits_behind_the_crowd(turns: LoopTurns) -> None:
    pace, order = Pace(EACH_TURN), list[int]()
    turns.begin()
    tasks = []
    for number in range(CROWD):
        tasks.append(asyncio.create_task(begin(pace, turns, number, order)))
        if number % 6 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    turns.end()
    assert order == list(range(CROWD))
    assert turns.most("begun") <= EACH_TURN


async def test_one_that_is_cancelled_leaves_its_turn_to_the_next(turns: LoopTurns) -> None:
    pace, order = Pace(EACH_TURN), list[int]()
    tasks = [asyncio.create_task(begin(pace, turns, number, order)) for number in range(CROWD)]
    await asyncio.sleep(0)
    for task in tasks[EACH_TURN:-1]:
        task.cancel()
    turns.begin()
    await tasks[-1]
    assert turns.now <= 3  # not a turn for each of those that are gone
    turns.end()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [*range(EACH_TURN), CROWD - 1]


async def test_one_that_hangs_keeps_nobody_from_beginning() -> None:
    pace, begun = Pace(1), list[int]()

    async def hang(number: int) -> None:
        await pace.turn()
        begun.append(number)
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(hang(number)) for number in range(3)]
    for _ in range(8):
        await asyncio.sleep(0)
    assert begun == [0, 1, 2]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_once_a_crowd_has_passed_nothing_is_left_running() -> None:
    pace = Pace(1)
    await asyncio.gather(*(pace.turn() for _ in range(3)))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not pace._is_counting
    with pytest.raises(StopIteration):
        pace.turn().send(None)
