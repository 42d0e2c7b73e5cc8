"""The engine's process, if it is this media process that runs it: started, watched, started again when it dies.

The child gets its order as one line on its standard input, which stays open: its end tells the child that its parent
is gone, however that ended. On its standard output it says once, as one line of JSON, that it listens or why it cannot.
Its log lines go to the parent's standard error.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress

import structlog

from mediaserver.decoder.remote import failures
from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics

log = structlog.get_logger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0
"""Between an engine's death and the next start, doubling: one that dies at once is not started hundreds of times."""

HEALTHY_S = 60.0
"""An engine that lived so long is not one that dies at once: the pauses begin anew."""

JITTER = 0.5
"""Share of a pause that is left to chance."""

START_LIMIT_S = 120.0
"""How long a start may take: the largest model from a slow disk, and a calibration."""

STOP_LIMIT_S = 3.0
"""How long the child may take to end by itself. It has nothing to save: whoever still waits keeps the audio."""

LINE_BYTES = 64 * 1024
"""Longest line of the child's standard output that is read."""


class EngineProcess:
    """A child that serves an engine on a socket. Its owner awaits `close`.

    Args:
        command: program and arguments.
        order: what the child reads as its first line: JSON, without a line break.
        metrics: where restarts are counted.
        start_limit_s, stop_limit_s: bounds on a start and on an end.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        order: str,
        metrics: Metrics,
        start_limit_s: float = START_LIMIT_S,
        stop_limit_s: float = STOP_LIMIT_S,
    ) -> None:
        self._command = tuple(command)
        self._order = order
        self._metrics = metrics
        self._start_limit_s = start_limit_s
        self._stop_limit_s = stop_limit_s
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the child and wait until it listens; from then on it is watched.

        Raises:
            VoiceForgeError: why it cannot start, in its own words; ENGINE_FAILED if it said none.
        """
        await self._launch()
        self._watcher = asyncio.create_task(self._watch(), name="engine-process")

    def kill(self) -> None:
        """End a child that hangs; it is started again."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def close(self) -> None:
        """End the child: asked first, killed when it takes too long. Nothing of it is left."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self._end()

    async def _launch(self) -> None:
        """Start a child and wait for its word.

        Raises:
            VoiceForgeError: it cannot start; it is gone then.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_BYTES,
                start_new_session=True,  # Ctrl-C is for this process, which flushes finals before it ends the engine
            )
        except OSError as exc:
            raise failures.start_failed(exc.strerror or str(exc)) from exc
        self._process = process
        try:
            async with asyncio.timeout(self._start_limit_s):
                await self._introduce(process)
        except TimeoutError as exc:
            await self._end()
            raise failures.start_failed(f"it was not ready after {self._start_limit_s:g} s") from exc
        except BaseException:
            await self._end()
            raise

    async def _introduce(self, process: asyncio.subprocess.Process) -> None:
        """Give the child its order and wait until it says that it listens."""
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(ConnectionError):  # it ended at once; what it said is still to be read
            process.stdin.write(self._order.encode() + b"\n")
            await process.stdin.drain()
        while line := await _line(process.stdout):
            said = _said(line)
            if said.get("ready") is True:
                return
            if isinstance(failed := said.get("failed"), dict):
                code, message, hint = (str(failed.get(part, "")) for part in ("code", "message", "hint"))
                raise VoiceForgeError(code, message, hint)
        await process.wait()
        raise failures.start_failed(f"it ended with status {process.returncode}")

    async def _watch(self) -> None:
        """Start another child whenever one dies."""
        pause_s = FIRST_PAUSE_S
        started_s = time.monotonic()
        while True:
            process = self._process
            assert process is not None
            assert process.stdout is not None
            while await _line(process.stdout):
                pass  # nothing more is expected; read, so that its pipe never fills
            await process.wait()
            lived_s = time.monotonic() - started_s
            if lived_s >= HEALTHY_S:
                pause_s = FIRST_PAUSE_S
            log.error("engine died", status=process.returncode, lived_s=round(lived_s, 1), next_in_s=round(pause_s, 1))
            self._metrics.engine_restarts_total.inc()
            await asyncio.sleep(pause_s * (1 - JITTER * random.random()))  # noqa: S311 - no secret
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            started_s = time.monotonic()
            try:
                await self._launch()
                log.info("engine is back", after_s=round(time.monotonic() - started_s, 1))
            except VoiceForgeError as exc:
                log.error("engine did not start", code=exc.code, message=exc.message, hint=exc.hint)

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(self._stop_limit_s):
                    await process.wait()
            except TimeoutError:
                log.warning("engine killed", after_s=self._stop_limit_s)
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or nothing at the end; one that is too long is nothing that was expected."""
    try:
        return await stream.readline()
    except ValueError:
        return b"\n"


def _said(line: bytes) -> dict[str, object]:
    """A line of the child; libraries may print there, too."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
