"""Benchmarks that are ended before their time: by hand, by a signal, or killed. Nothing that they started runs on."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks.ending import until_interrupted

BENCH = """
import asyncio, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as a terminal has it; tests may run where both are ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from benchmarks import reels
from benchmarks.ending import EndedError, heeding_signals, until_interrupted
from benchmarks.peers.server import Launch, serving
from benchmarks.rtp_drivers import driving

LISTEN = "import socket, sys, time; it = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"

async def ready(port):
    (await asyncio.open_connection("127.0.0.1", port))[1].close()
    return True

async def measure(folder, tells):
    launch = Launch("a server", (sys.executable, "-c", LISTEN, "{port}"), {}, ready)
    path = folder / "reels.json"
    reels.write(path, {}, [])
    async with serving(launch, folder / "log") as server, driving("", path, processes=1, query={}) as drivers:
        print(server.processes()[0].pid, drivers._processes[0].pid, flush=True)
        if tells:
            with until_interrupted():
                await asyncio.sleep(600)
            await drivers.close()
        else:
            await asyncio.sleep(600)
    return "told"

try:
    print(asyncio.run(heeding_signals(measure(Path(sys.argv[1]), sys.argv[2] == "tells"))), flush=True)
except EndedError as ended:
    print(ended, flush=True)
"""


async def gone(*pids: int) -> None:
    """Return once there are no such processes."""
    async with asyncio.timeout(40.0):
        for pid in pids:
            while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def benchmark(folder: Path, *, tells: bool) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[int]]]:
    """A benchmark that runs, and the processes of its server and its peers."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", BENCH, str(folder), "tells" if tells else "does not"), stdout=asyncio.subprocess.PIPE
    )
    pids: list[int] = []
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60.0):
            pids = [int(pid) for pid in (await process.stdout.readline()).split()]
        assert len(pids) == 2
        yield process, pids
    finally:
        for pid in (process.pid, *pids):
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()
        await process.wait()


@pytest.mark.parametrize(
    ("number", "tells", "says"),
    [
        (signal.SIGTERM, True, "told"),
        (signal.SIGHUP, False, "SIGHUP"),
        (signal.SIGINT, True, "told"),
    ],
)
async def test_a_signal_ends_what_it_started_and_tells_what_there_is(
    tmp_path: Path, number: signal.Signals, says: str, *, tells: bool
) -> None:
    async with benchmark(tmp_path, tells=tells) as (process, pids):
        process.send_signal(number)
        if number is signal.SIGTERM:  # once more, as timeout(1) does: to the process and to its group
            await asyncio.sleep(0.1)
            process.send_signal(number)
        out, _ = await asyncio.wait_for(process.communicate(), 40.0)
        assert out.decode().strip() == says
        assert process.returncode == 0
        assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent has died")
async def test_one_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    async with benchmark(tmp_path, tells=False) as (process, pids):
        process.kill()
        await gone(*pids)


async def test_who_ends_a_long_run_by_hand_is_told_what_there_is() -> None:
    async def run() -> bool:
        with until_interrupted() as cut:
            await asyncio.sleep(60.0)
        await asyncio.sleep(0)  # what follows may wait
        return cut.is_cut

    running = asyncio.create_task(run())
    await asyncio.sleep(0)
    running.cancel()  # what asyncio does at Ctrl-C
    assert await running
