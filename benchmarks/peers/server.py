"""A server under test: a child process in a session of its own, with its log, its readiness and its costs."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

from benchmarks.tether import tied
from mediaserver.errors import VoiceForgeError

READY_S = 180.0
"""Within this a server answers. PyTorch and a model load in 10 s; a new environment on a slow disk takes far longer."""

POLL_S = 0.2
"""How often a starting server is asked."""

STOP_S = 15.0
"""How long a stop may take before the server is killed: VoiceForge's own deadline (10 s) and some room."""

KEPT_LINES = 3
"""Last lines of a log that explain a failure."""

Ready = Callable[[int], Awaitable[bool]]
"""Says whether a server on that port takes clients."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is started.

    Args:
        name: as it is told to people.
        command: with `{port}` where the port goes.
        environment: variables, beside those of this process.
        ready: asked until it says yes.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    ready: Ready


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds (user and system) and resident MiB of a server with its children."""

    cpu_s: float
    rss_mib: float


class Server:
    """A server that runs."""

    def __init__(self, launch: Launch, port: int, process: asyncio.subprocess.Process, log: Path) -> None:
        self.port = port
        self._launch = launch
        self._process = process
        self._log = log
        self._root = psutil.Process(process.pid)

    def usage(self) -> Usage:
        """What it has used since its start. Children that have ended are counted by none; no server here has such.

        Raises:
            VoiceForgeError: SERVER_FAILED: it is gone.
        """
        cpu_s = rss_mib = 0.0
        try:
            for process in self.processes():
                with process.oneshot():
                    times = process.cpu_times()
                    cpu_s += times.user + times.system
                    rss_mib += process.memory_info().rss / 2**20
        except psutil.Error as exc:
            raise self.failure("ended while it was measured") from exc
        return Usage(cpu_s, rss_mib)

    def processes(self) -> list[psutil.Process]:
        """The server and its children, as they are now.

        Raises:
            VoiceForgeError: SERVER_FAILED: it is gone.
        """
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.Error as exc:
            raise self.failure("ended while it was measured") from exc

    async def wait_ready(self) -> None:
        """Return once it takes clients.

        Raises:
            VoiceForgeError: SERVER_FAILED.
        """
        try:
            async with asyncio.timeout(READY_S):
                while self._process.returncode is None:
                    with suppress(OSError, aiohttp.ClientError, TimeoutError):
                        if await self._launch.ready(self.port):
                            return
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise self.failure(f"took no clients within {READY_S:.0f} s") from None
        raise self.failure(f"ended at its start with status {self._process.returncode}")

    def failure(self, what: str) -> VoiceForgeError:
        """A failure of this server, with the end of its log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-KEPT_LINES:]
        said = " ".join(line.strip() for line in lines)
        return VoiceForgeError("SERVER_FAILED", f"{self._launch.name} {what}. {said}".strip(), f"See {self._log}.")

    async def stop(self) -> None:
        """End it and what it started; killed if it does not go in time."""
        await self._signal(signal.SIGTERM, STOP_S)
        await self._signal(signal.SIGKILL, STOP_S)

    async def _signal(self, number: signal.Signals, wait_s: float) -> None:
        # The group is the server's own; it outlives the server while children of it run.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), wait_s)


@asynccontextmanager
async def serving(launch: Launch, log: Path) -> AsyncIterator[Server]:
    """Start a server on a free port of the loopback interface, give it once it is ready, and end it.

    It is also ended if this process is killed (Linux).

    Raises:
        VoiceForgeError: SERVER_FAILED, with the end of its log.
    """
    port = _free_port()
    command = [part.replace("{port}", str(port)) for part in launch.command]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        try:
            if shutil.which(command[0]) is None:  # what ties it would start, and fail with an error of its own
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            process = await asyncio.create_subprocess_exec(
                *tied(command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **launch.environment},
                start_new_session=True,
            )
        except OSError as exc:
            raise VoiceForgeError(
                "SERVER_FAILED", f"{launch.name} cannot be started: {exc.strerror}.", "Remove --home and try again."
            ) from exc
    server: Server | None = None
    try:
        server = Server(launch, port, process, log)
        await server.wait_ready()
        yield server
    finally:
        if server is not None:
            await server.stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
