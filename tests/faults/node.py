"""A server in a process of its own, seen from without: its metrics, its log, its memory, its files, its tasks."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.faults.pulse import Pulse

INSIDE = Path(__file__).parent / "inside"

READY_S = 60.0
"""A start takes 3 s where the machine is free."""

STOP_S = 20.0
"""The server's own deadline (10 s) and some room."""

CALM_S = 20.0
"""Within this everything that belonged to a fault is gone again, where a test says nothing else."""

EASE_S = 30.0
"""Within this a node without sessions takes newcomers again: what finals took is counted over 10 s."""

POLL_S = 0.05

LAG_LIMIT_S = 0.3
"""No stall of the event loop is longer under any fault: the metric's bucket next above a jitter buffer's 200 ms."""

MEMORY_LIMIT_BYTES = 48 * 1024 * 1024
"""What a process may have grown by once a fault is over: allocators keep arenas, and the decoder its workspaces."""

MIB = 1024 * 1024


@dataclass(frozen=True)
class Vitals:
    """What a process holds."""

    fds: int
    rss_bytes: int
    threads: int
    tasks: Sequence[str]


class Node:
    """A server that was started for a test.

    Args:
        popen: its first process.
        url: where it listens.
        log: what it writes.
        folder: shared with what runs inside it.
    """

    def __init__(self, popen: subprocess.Popen[bytes], url: str, log: Path, folder: Path) -> None:
        self.popen = popen
        self.url = url
        self.process = psutil.Process(popen.pid)
        self._log = log
        self._folder = folder
        self._seen_bytes = 0

    # --- asking it

    def fetch(self, path: str, *, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Status and text of a GET; blocks for at most 10 s."""
        request = urllib.request.Request(self.url + path, headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return int(response.status), response.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode()

    async def metrics(self) -> Samples:
        """What /metrics says now."""
        status, text = await asyncio.to_thread(self.fetch, "/metrics")
        assert status == 200, text
        return Samples(text)

    def vitals(self) -> Vitals:
        """What the first process holds now."""
        return Vitals(self.process.num_fds(), self.process.memory_info().rss, self.process.num_threads(), self._tasks())

    def log_text(self) -> str:
        """All that it has written."""
        return self._log.read_text(errors="replace")

    def new_errors(self) -> list[str]:
        """Lines that tell of an exception or an error, since this was last asked."""
        text = self.log_text()
        fresh, self._seen_bytes = text[self._seen_bytes :], len(text)
        return [line for line in fresh.splitlines() if is_error(line)]

    async def until(self, *, sessions: int, limit_s: float = CALM_S) -> float:
        """Wait until so many sessions live; how long that took in seconds."""
        began_s = time.monotonic()
        while (live := (await self.metrics()).total("sessions")) != sessions:
            assert time.monotonic() - began_s < limit_s, f"{live} sessions after {limit_s} s, not {sessions}"
            await asyncio.sleep(POLL_S)
        return time.monotonic() - began_s

    async def at_ease(self) -> None:
        """Wait until nobody is there, and newcomers are taken: after late finals they are refused for a while yet."""
        await self.until(sessions=0)
        began_s = time.monotonic()
        while (await self.metrics()).total("engine_overloaded"):
            assert time.monotonic() - began_s < EASE_S, f"overloaded {EASE_S} s after its last session"
            await asyncio.sleep(POLL_S)

    # --- doing something to it

    def step_clock(self, offset_s: float) -> None:
        """Set the wall clock of all its processes off by so much."""
        (self._folder / "clock_offset_s").write_text(str(offset_s), encoding="utf-8")
        self._signal_and_wait(signal.SIGUSR2, "stepped")

    def stop(self) -> int:
        """As an operator does; the exit status."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise

    def _tasks(self) -> list[str]:
        written = self._signal_and_wait(signal.SIGUSR1, "tasks")
        return list(json.loads(written.read_text(encoding="utf-8")))

    def _signal_and_wait(self, number: signal.Signals, name: str) -> Path:
        written = self._folder / f"{self.process.pid}.{name}"
        written.unlink(missing_ok=True)
        self.process.send_signal(number)
        deadline_s = time.monotonic() + CALM_S
        while not written.exists():
            assert time.monotonic() < deadline_s, f"the server does not answer {number.name}"
            time.sleep(0.005)
        return written


class Samples:
    """One look at /metrics."""

    def __init__(self, text: str) -> None:
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels; `voiceforge_` is left out of its name."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == f"voiceforge_{name}" and labels.items() <= sample.labels.items()
        )

    def slower(self, name: str, limit_s: float, **labels: str) -> float:
        """How many observations of a histogram were above the first bound that is not below `limit_s`."""
        buckets = [
            sample
            for sample in self._samples
            if sample.name == f"voiceforge_{name}_bucket" and labels.items() <= sample.labels.items()
        ]
        bounds = sorted(bound for bound in {float(sample.labels["le"]) for sample in buckets} if bound >= limit_s)
        within = sum(sample.value for sample in buckets if float(sample.labels["le"]) == bounds[0])
        return self.total(f"{name}_count", **labels) - within


def is_error(line: str) -> bool:
    """Whether a line of the log tells of something that must not happen."""
    return "Traceback" in line or re.search(r'"level": ?"(error|critical)"', line) is not None


@contextmanager
def served(
    folder: Path,
    *flags: str,
    prefix: Sequence[str] = (),
    is_quick_to_stop: bool = True,
    **settings: object,
) -> Iterator[Node]:
    """`voiceforge serve` on a free port of the loopback interface, with its models loaded.

    Args:
        folder: for its data, its log, and what runs inside it.
        flags: of `serve`.
        prefix: a program that starts it, for example `unshare`.
        is_quick_to_stop: kill it in the end, as tests that have seen how it stops need not wait for that again.
        settings: that differ from the default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    chosen = {"data_dir": folder / "data", "log_format": "json", "calibrate": False, **settings}
    environment = {f"VOICEFORGE_{name.upper()}": _as_text(value) for name, value in chosen.items()}
    with log.open("wb") as file:
        popen = subprocess.Popen(
            [*prefix, sys.executable, "-m", "signaling.cli", "serve", "--host", "127.0.0.1", "--port", "0", *flags],
            env={**os.environ, "PYTHONPATH": str(INSIDE), "FAULTS_FOLDER": str(folder), **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        node = Node(popen, _until_ready(popen, log), log, folder)
        yield node
        if popen.poll() is None and not is_quick_to_stop:
            assert node.stop() == 0, node.log_text()[-3000:]
    finally:
        if popen.poll() is None:
            family = psutil.Process(popen.pid).children(recursive=True)
            popen.kill()
            for child in family:
                if child.is_running():
                    child.kill()
        popen.wait()


@asynccontextmanager
async def unharmed(
    node: Node,
    pulse: Pulse,
    *,
    memory_bytes: int = MEMORY_LIMIT_BYTES,
    calm_s: float = CALM_S,
    lag_limit_s: float = LAG_LIMIT_S,
    expected: str = "",
) -> AsyncIterator[None]:
    """Whatever is done meanwhile: the event loop never stalls, nothing fails, and afterwards all is as it was.

    Args:
        node: the server.
        pulse: what the machine itself was late by counts as nobody's fault.
        memory_bytes: by how much it may have grown.
        calm_s: within this its sessions, files and tasks are gone.
        lag_limit_s: the longest stall.
        expected: an error that the log is to tell of.
    """
    await node.at_ease()
    before, counted = node.vitals(), await node.metrics()
    node.new_errors()
    began_s = time.monotonic()
    yield
    await node.until(sessions=0, limit_s=calm_s)
    deadline_s = time.monotonic() + calm_s
    while _left(before, after := node.vitals()):
        assert time.monotonic() < deadline_s, _left(before, after)
        await asyncio.sleep(POLL_S)
    errors = node.new_errors()
    assert not (wrong := [line for line in errors if not expected or expected not in line]), "\n".join(wrong)
    grown_bytes = after.rss_bytes - before.rss_bytes
    assert grown_bytes < memory_bytes, f"grown by {grown_bytes / MIB:.0f} MiB"
    limit_s = lag_limit_s + pulse.latest_s(since_s=began_s)
    stalls = (await node.metrics()).slower("loop_lag_seconds", limit_s) - counted.slower("loop_lag_seconds", limit_s)
    assert stalls == 0, f"{stalls:.0f} stalls of more than {limit_s:.2f} s"


def _left(before: Vitals, after: Vitals) -> str:
    """What is there that was not; empty if nothing is."""
    left: list[Any] = [task for task in after.tasks if after.tasks.count(task) > before.tasks.count(task)]
    if after.fds > before.fds + FD_SLACK:
        left.append(f"{after.fds} files, {before.fds} before")
    return ", ".join(map(str, left))


FD_SLACK = 4
"""Connections to the database are pooled (5 at most, one of them open before), and HTTP's are kept alive."""


def _until_ready(popen: subprocess.Popen[bytes], log: Path) -> str:
    deadline_s = time.monotonic() + READY_S
    url = None
    while time.monotonic() < deadline_s and popen.poll() is None:
        text = log.read_text(errors="replace")
        if url is None and (found := re.search(r"open (http://\S+)", text)) is not None:
            url = found[1]
        if url is not None and _is_ready(url):
            return url
        time.sleep(POLL_S)
    raise AssertionError(f"the server did not start:\n{log.read_text(errors='replace')[-3000:]}")


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as response:
            return int(response.status) == 200
    except (OSError, urllib.error.URLError):
        return False


def _as_text(value: object) -> str:
    return json.dumps(value) if isinstance(value, list | dict | bool) else str(value)
