"""A process that this one runs: started, watched, started again when it dies.

The child gets its order as one line on its standard input, which stays open: its end tells the child that its parent
is gone, however that ended. On its standard output it says, a line of JSON each, first that it is ready or why it
cannot be, then whatever else it has to say. Its log lines go to the parent's standard error.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import structlog

from mediaserver.errors import VoiceForgeError
from mediaserver.local.pauses import Pauses

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0
"""Between a child's death and the next start, doubling: one that dies at once is not started hundreds of times."""

HEALTHY_S = 60.0
"""One that lived so long is not one that dies at once: the pauses begin anew."""

STOP_WORD = b"stop\n"

LINE_BYTES = 64 * 1024
"""Longest line of the child's standard output that is read."""


Said = Mapping[str, object]
"""A line of a child, as it was read."""


class Child:
    """A child process. Its owner awaits `close`.

    Args:
        name: what it is called in logs.
        command: program and arguments.
        order: what it reads as its first line: JSON, without a line break.
        cannot_start: the error of a start that failed, by a few words on why.
        on_died: called whenever it has died and is to be started again.
        on_said: called with what it says once it is ready; also `{"ready": true}` itself, at each start.
        start_limit_s, stop_limit_s: bounds on a start and on an end.
        silence_limit_s: one that says nothing for so long hangs, and is killed; None: it need not say anything.
        pass_fds: open files that it inherits.
        by_word: whether it is asked to end by a line `stop` on its standard input, and hears no second time what
            reaches all processes of a service; else by that input's end, and SIGTERM.
        about: said with each line of this process's log on it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        order: str,
        cannot_start: Callable[[str], VoiceForgeError],
        start_limit_s: float,
        stop_limit_s: float,
        on_died: Callable[[], object] = lambda: None,
        on_said: Callable[[Said], object] = lambda _: None,
        silence_limit_s: float | None = None,
        pass_fds: Sequence[int] = (),
        by_word: bool = False,
        about: Mapping[str, object] | None = None,
    ) -> None:
        self._command = tuple(command)
        self._order = order
        self._cannot_start = cannot_start
        self._on_died = on_died
        self._on_said = on_said
        self._start_limit_s = start_limit_s
        self._stop_limit_s = stop_limit_s
        self._silence_limit_s = silence_limit_s
        self._pass_fds = tuple(pass_fds)
        self._by_word = by_word
        self._log = structlog.get_logger(__name__).bind(child=name, **(about or {}))
        self._name = name
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
            VoiceForgeError: why it cannot start, in its own words if it said some.
        """
        await self._launch()
        self._watcher = asyncio.create_task(self._watch(), name=f"{self._name}-process")

    def kill(self) -> None:
        """End a child that hangs; it is started again."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def ask_to_end(self) -> None:
        """Ask it to end; `close` does this too, and waits for it."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            if self._by_word:
                process.stdin.write(STOP_WORD)
            else:
                process.stdin.close()
        if process.returncode is None and not self._by_word:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

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
                pass_fds=self._pass_fds,
                start_new_session=True,  # Ctrl-C is for this process, which knows in which order all is ended
            )
        except OSError as exc:
            raise self._cannot_start(exc.strerror or str(exc)) from exc
        self._process = process
        try:
            async with asyncio.timeout(self._start_limit_s):
                await self._introduce(process)
        except TimeoutError as exc:
            await self._end()
            raise self._cannot_start(f"it was not ready after {self._start_limit_s:g} s") from exc
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
                self._on_said(said)
                return
            if isinstance(failed := said.get("failed"), dict):
                code, message, hint = (str(failed.get(part, "")) for part in ("code", "message", "hint"))
                raise VoiceForgeError(code, message, hint)
        await process.wait()
        raise self._cannot_start(f"it ended with status {process.returncode}")

    async def _watch(self) -> None:
        """Start another child whenever one dies."""
        pauses = Pauses(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        started_s = time.monotonic()
        while True:
            process = self._process
            assert process is not None
            assert process.stdout is not None
            await self._listen(process.stdout)
            await process.wait()
            lived_s = time.monotonic() - started_s
            if lived_s >= HEALTHY_S:
                pauses.begin_anew()
            pause_s = pauses.next_s()
            self._log.error(
                f"{self._name} died",
                status=process.returncode,
                lived_s=round(lived_s, 1),
                next_in_s=round(pause_s, 1),
            )
            self._on_died()
            await asyncio.sleep(pause_s)
            started_s = time.monotonic()
            try:
                await self._launch()
                self._log.info(f"{self._name} is back", after_s=round(time.monotonic() - started_s, 1))
            except VoiceForgeError as exc:
                self._log.error(f"{self._name} did not start", code=exc.code, message=exc.message, hint=exc.hint)

    async def _listen(self, stdout: asyncio.StreamReader) -> None:
        """Hear what the child says, until its end; a child that has hung is killed."""
        while True:
            try:
                async with asyncio.timeout(self._silence_limit_s):
                    line = await _line(stdout)
            except TimeoutError:
                self._log.error(f"{self._name} hangs", silent_s=self._silence_limit_s)
                self.kill()
                continue  # until its pipe ends
            if not line:
                return
            self._on_said(_said(line))

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        self.ask_to_end()
        if process.returncode is None:
            try:
                async with asyncio.timeout(self._stop_limit_s):
                    await process.wait()
            except TimeoutError:
                self._log.warning(f"{self._name} killed", after_s=self._stop_limit_s)
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
