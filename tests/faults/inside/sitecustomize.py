"""Runs inside every server that is tested for faults, before its own code: a wall clock that can be stepped, and a
window through which its tasks are seen.

`FAULTS_FOLDER` names a folder. At SIGUSR1 the process writes the names of its event loop's tasks to `<pid>.tasks` in
it. At SIGUSR2 it reads `clock_offset_s` in it: the seconds by which `time.time` is wrong from now on.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from types import FrameType

NS_PER_S = 1_000_000_000


class _SteppedClock:
    """The wall clock and what it is off by."""

    def __init__(self) -> None:
        self._true_s, self._true_ns = time.time, time.time_ns
        self.offset_s = 0.0

    def now_s(self) -> float:
        return self._true_s() + self.offset_s

    def now_ns(self) -> int:
        return self._true_ns() + int(self.offset_s * NS_PER_S)


def _install(folder: Path) -> None:
    clock = _SteppedClock()
    time.time, time.time_ns = clock.now_s, clock.now_ns

    def show_tasks(_number: int, _frame: FrameType | None) -> None:
        # Runs in the main thread between two instructions of whatever the loop is doing.
        try:
            tasks = asyncio.all_tasks()
        except RuntimeError:  # no loop yet, or no more
            return
        names = sorted(getattr(task.get_coro(), "__qualname__", "?") for task in tasks if not task.done())
        written = folder / f"{os.getpid()}.tasks.new"
        written.write_text(json.dumps(names), encoding="utf-8")
        written.replace(folder / f"{os.getpid()}.tasks")

    def step(_number: int, _frame: FrameType | None) -> None:
        clock.offset_s = float((folder / "clock_offset_s").read_text(encoding="utf-8"))
        (folder / f"{os.getpid()}.stepped").write_text(str(clock.offset_s), encoding="utf-8")

    signal.signal(signal.SIGUSR1, show_tasks)
    signal.signal(signal.SIGUSR2, step)


if "FAULTS_FOLDER" in os.environ:
    _install(Path(os.environ["FAULTS_FOLDER"]))
