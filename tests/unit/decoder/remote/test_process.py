"""A child that is started, watched, started again, and never left behind. The children here are a few lines each."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from mediaserver import child as module
from mediaserver.child import Child
from mediaserver.decoder.remote.process import EngineProcess
from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("no_leaked_threads", "no_leaked_tasks")

READY = 'import json, sys; order = sys.stdin.readline(); print(json.dumps({"ready": True}), flush=True)\n'
UNTIL_PARENT_GOES = "sys.stdin.read()\n"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.02)


@asynccontextmanager
async def child(code: str, **limits: float) -> AsyncIterator[tuple[EngineProcess, Metrics]]:
    metrics = Metrics()
    process = EngineProcess((sys.executable, "-c", code), order='{"x": 1}', metrics=metrics, **limits)
    try:
        yield process, metrics
    finally:
        await process.close()
        assert process.pid is None


def restarts(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("voiceforge_engine_restarts_total") or 0.0


async def test_it_is_told_its_order_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    told = tmp_path / "order"
    code = f"{READY}open({str(told)!r}, 'w').write(order)\n{UNTIL_PARENT_GOES}"
    async with child(code) as (process, metrics):
        await process.start()
        pid = process.pid
        assert pid is not None
        await until(told.exists)
    assert told.read_text() == '{"x": 1}\n'
    assert not psutil.pid_exists(pid)
    assert restarts(metrics) == 0


async def test_one_that_is_killed_is_started_again() -> None:
    async with child(READY + UNTIL_PARENT_GOES) as (process, metrics):
        await process.start()
        first = process.pid
        assert first is not None
        psutil.Process(first).kill()
        await until(lambda: process.pid not in (None, first))
        assert restarts(metrics) == 1
        second = process.pid
        process.kill()
        await until(lambda: process.pid not in (None, second))


async def test_one_that_cannot_start_again_is_tried_again(tmp_path: Path) -> None:
    # It starts once, then fails twice, then starts.
    count = tmp_path / "count"
    code = (
        f"import pathlib, sys; path = pathlib.Path({str(count)!r})\n"
        "n = int(path.read_text()) if path.exists() else 0; path.write_text(str(n + 1))\n"
        f"if n in (1, 2): sys.exit(3)\n{READY}{UNTIL_PARENT_GOES}"
    )
    async with child(code) as (process, metrics):
        await process.start()
        process.kill()
        await until(lambda: count.read_text() == "4")
        assert restarts(metrics) == 3


async def test_one_that_says_why_it_cannot_start_is_quoted() -> None:
    said = '{"failed": {"code": "MODEL_UNLOADABLE", "message": "It is broken.", "hint": "Fetch it again."}}'
    async with child(f"print('a library says hello'); print({said!r})") as (process, _):
        with pytest.raises(VoiceForgeError) as caught:
            await process.start()
    assert (caught.value.code, caught.value.hint) == ("MODEL_UNLOADABLE", "Fetch it again.")


@pytest.mark.parametrize("code", ["raise SystemExit(7)", "print('x' * 200_000); raise SystemExit(7)"])
async def test_one_that_just_ends_is_a_sentence(code: str) -> None:
    async with child(code) as (process, _):
        with pytest.raises(VoiceForgeError, match="status 7"):
            await process.start()


async def test_one_that_never_gets_ready_is_ended() -> None:
    async with child("import time; time.sleep(60)", start_limit_s=0.3) as (process, _):
        with pytest.raises(VoiceForgeError, match="not ready after"):
            await process.start()
        assert process.pid is None


async def test_one_that_does_not_listen_is_killed() -> None:
    async with child(DEAF + READY + "time.sleep(60)", stop_limit_s=0.1) as (process, _):
        await process.start()
        pid = process.pid
    assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_a_program_that_is_not_there_is_a_sentence() -> None:
    process = EngineProcess(("/nowhere/engine",), order="{}", metrics=Metrics())
    with pytest.raises(VoiceForgeError, match="did not start"):
        await process.start()
    await process.close()


async def test_a_start_that_is_given_up_leaves_no_child() -> None:
    async with child("import time; time.sleep(60)") as (process, _):
        starting = asyncio.create_task(process.start())
        await until(lambda: process.pid is not None)
        pid = process.pid
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        assert pid is not None
        assert not psutil.pid_exists(pid)


def worker(code: str, **options: Any) -> Child:
    return Child(
        "worker",
        (sys.executable, "-c", code),
        order="{}",
        cannot_start=lambda why: VoiceForgeError("WORKER_FAILED", why, ""),
        start_limit_s=20.0,
        **{"stop_limit_s": 20.0, **options},
    )


async def test_one_that_hears_words_is_asked_by_one_and_not_by_signals() -> None:
    code = f"{DEAF}{READY}sys.exit(0 if sys.stdin.readline() == 'stop\\n' else 3)"
    process = worker(code, by_word=True)
    await process.start()
    assert process._process is not None
    await process.close()
    assert process._process.returncode == 0


async def test_what_it_says_is_heard() -> None:
    said: list[object] = []
    process = worker(
        f"{READY}print(json.dumps({{'loaded': 'tiny'}}), flush=True); {UNTIL_PARENT_GOES}", on_said=said.append
    )
    await process.start()
    await until(lambda: len(said) == 2)
    assert said == [{"ready": True}, {"loaded": "tiny"}]
    await process.close()


async def test_one_that_says_nothing_any_more_is_replaced() -> None:
    died: list[None] = []
    process = worker(READY + UNTIL_PARENT_GOES, silence_limit_s=0.2, on_died=lambda: died.append(None))
    await process.start()
    first = process.pid
    await until(lambda: bool(died) and process.pid not in (None, first))
    await process.close()
