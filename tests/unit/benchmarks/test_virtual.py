"""Time that jumps: timers, executors and what ends a run, without waiting for any of it."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from benchmarks.virtual import NothingLeftError, run_virtually
from mediaserver.decoder.engine import Engine
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Kind, Window
from mediaserver.metrics import Metrics

COST_S = 0.25


def cost_s() -> float:
    return COST_S


def test_hours_pass_in_no_time() -> None:
    async def wait() -> float:
        clock = asyncio.get_running_loop().time
        before_s = clock()
        await asyncio.sleep(7200)
        return clock() - before_s

    began_s = time.monotonic()
    assert run_virtually(wait(), cost_s=cost_s) == pytest.approx(7200)
    assert time.monotonic() - began_s < 3600


def test_timers_fire_in_order_and_at_their_time() -> None:
    async def wait() -> list[tuple[float, str]]:
        clock, rung = asyncio.get_running_loop().time, []

        async def ring(after_s: float, name: str) -> None:
            await asyncio.sleep(after_s)
            rung.append((round(clock(), 6), name))

        await asyncio.gather(ring(3, "late"), ring(1, "early"), ring(2, "middle"))
        return rung

    assert run_virtually(wait(), cost_s=cost_s) == [(1, "early"), (2, "middle"), (3, "late")]


def test_what_an_executor_does_is_done_after_its_cost() -> None:
    async def work() -> tuple[int, float, bool]:
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(None, divmod, 7, 2)
        at_once = future.done()
        quotient, _ = await future
        return quotient, loop.time(), at_once

    assert run_virtually(work(), cost_s=cost_s) == (3, COST_S, False)


def test_two_at_once_take_no_longer_than_one() -> None:
    async def work() -> float:
        await asyncio.gather(asyncio.to_thread(int), asyncio.to_thread(int))
        return asyncio.get_running_loop().time()

    assert run_virtually(work(), cost_s=cost_s) == COST_S


def test_an_exception_comes_through_after_its_cost_too() -> None:
    async def work() -> float:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 1, 0)
        return asyncio.get_running_loop().time()

    assert run_virtually(work(), cost_s=cost_s) == COST_S


def test_who_gives_up_is_not_answered() -> None:
    complaints: list[object] = []

    async def work() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(int), COST_S / 2)
        await asyncio.sleep(COST_S)

    run_virtually(work(), cost_s=cost_s)
    assert not complaints


def test_waiting_for_nothing_is_an_error_and_no_hang() -> None:
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(NothingLeftError):
        run_virtually(wait(), cost_s=cost_s)


class Scripted:
    """Says one word of every window."""

    def decode(self, windows: list[Window]) -> list[Hypothesis]:
        return [Hypothesis([HypothesisWord(" yes", 0.1, 0.4, 0.9)]) for _ in windows]


def test_an_engine_decodes_in_modelled_time() -> None:
    async def decode() -> list[Hypothesis]:
        engine = Engine(
            name="scripted",
            languages=("en",),
            load=Scripted,
            slots=1,
            max_batch=1,
            interim_period_s=0.6,
            metrics=Metrics(),
        )
        await engine.start()
        samples = np.zeros(16_000, dtype=np.float32)
        heard = await asyncio.gather(
            *(engine.decode(Window(name, Kind.FINAL, samples, 0, "en")) for name in ("first", "second"))
        )
        await engine.close()
        return heard

    first, second = run_virtually(decode(), cost_s=cost_s)
    assert (first.queued_s, first.compute_s) == (0.0, COST_S)
    assert (second.queued_s, second.compute_s) == (COST_S, COST_S)
