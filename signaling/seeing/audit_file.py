"""How lines of the audit log get to the disk: by one thread, in order, whole."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)

WAITING_MAX = 10_000
"""Lines that wait for a disk, some 4 MB; the oldest that nobody waits for is given up first, and counted."""

SYNC_PERIOD_S = 1.0
"""How soon also those lines are on disk that nobody waits for."""

AGAIN_S = 1.0
"""How often a disk that failed is tried again."""

CLOSE_S = 5.0
"""How long the end waits for a disk."""

FILE_MODE = 0o600
"""Who did what is for the operator."""


class Target(Protocol):
    """Where lines go. Blocking; used by one thread."""

    def write(self, line: bytes) -> None:
        """Append a line, all of it. Raises OSError."""
        ...

    def sync(self) -> None:
        """Return once all lines are on disk. Raises OSError."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class FileTarget:
    """A file that is opened anew when somebody has moved it away.

    Args:
        path: of the file; its folder is made.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._file: int | None = None
        self._is_torn = False

    def write(self, line: bytes) -> None:
        """As `Target.write`. What a full disk has cut off stays as it is, and the next line begins on its own."""
        self._follow()
        assert self._file is not None
        rest = memoryview(b"\n" + line if self._is_torn else line)
        while rest:
            written = os.write(self._file, rest)
            self._is_torn = written < len(rest)
            rest = rest[written:]

    def sync(self) -> None:
        """As `Target.sync`."""
        if self._file is not None:
            os.fsync(self._file)

    def close(self) -> None:
        """As `Target.close`."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _follow(self) -> None:
        """Open it, also where another file has its name now."""
        if self._file is not None:
            opened = os.fstat(self._file)
            try:
                named = self._path.stat()
            except FileNotFoundError:
                named = None
            if named is not None and (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino):
                return
            self.close()
            self._is_torn = False
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # a new file's name survives a power cut too
        finally:
            os.close(folder)


class StreamTarget:
    """The process' own output, which whoever started it keeps.

    Args:
        name: `stdout` or `stderr`.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def write(self, line: bytes) -> None:
        """As `Target.write`."""
        stream = sys.stdout if self._name == "stdout" else sys.stderr
        stream.write(line.decode())
        stream.flush()

    def sync(self) -> None:
        """There is no disk to wait for."""

    def close(self) -> None:
        """It stays open."""


@dataclass(slots=True, eq=False)
class _Waiting:
    line: bytes
    written: Future[bool] | None = None


class AuditWriter:
    """Writes lines in a thread of its own, begun with the first one.

    Args:
        target: where they go.
        on_outcome: told `written` or `lost` and of how many lines; in any thread.
    """

    def __init__(self, target: Target, *, on_outcome: Callable[[str, int], None]) -> None:
        self._target = target
        self._on_outcome = on_outcome
        self._waiting: deque[_Waiting] = deque()  # bound: WAITING_MAX, but for those that somebody waits for
        self._awaited = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._has_unsynced = False
        self.is_failing = False
        self.why = ""
        """What the last attempt that failed failed at, as the system says it."""

    def put(self, line: bytes) -> None:
        """Have a line written soon."""
        self._put(_Waiting(line + b"\n"))

    def put_surely(self, line: bytes) -> Future[bool]:
        """Have a line written; the future says whether it is on disk, after the first attempt."""
        written: Future[bool] = Future()
        self._put(_Waiting(line + b"\n", written))
        return written

    def close(self) -> None:
        """Write what waits, within `CLOSE_S`. Blocks."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(CLOSE_S)

    def _put(self, waiting: _Waiting) -> None:
        is_one_lost = False
        with self._changed:
            if len(self._waiting) >= WAITING_MAX:
                oldest = next((item for item in self._waiting if item.written is None), None)
                if oldest is not None:
                    self._waiting.remove(oldest)
                    is_one_lost = True
            self._waiting.append(waiting)
            self._awaited += waiting.written is not None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
                self._thread.start()
            self._changed.notify()
        if is_one_lost:
            self._on_outcome("lost", 1)

    def _run(self) -> None:
        is_over = False
        while not is_over:
            with self._changed:
                self._rest()
                taken = list(self._waiting)
                self._waiting.clear()
                self._awaited = 0
                is_over = self._is_closing
            if taken or self._has_unsynced:
                self._write(taken, sync=not taken or is_over or any(item.written is not None for item in taken))
        self._target.close()
        if self._waiting:
            self._on_outcome("lost", len(self._waiting))

    def _rest(self) -> None:
        """Wait until there is something to do; a disk that failed is left alone for a while."""
        if self.is_failing:
            self._changed.wait_for(lambda: self._is_closing or self._awaited, AGAIN_S)
        else:
            limit_s = SYNC_PERIOD_S if self._has_unsynced else None
            self._changed.wait_for(lambda: self._is_closing or self._waiting, limit_s)

    def _write(self, taken: list[_Waiting], *, sync: bool) -> None:
        written = 0
        try:
            for item in taken:
                self._target.write(item.line)
                written += 1
            if sync:
                self._target.sync()
        except (OSError, ValueError) as exc:  # ValueError: a stream that is closed
            if not self.is_failing:
                log.error("audit log cannot be written", failure=type(exc).__name__, said=str(exc)[:200])
            self.is_failing = True
            self.why = str(getattr(exc, "strerror", None) or exc)
            kept = [item for item in taken[written:] if item.written is None]  # who waited is told, and may try again
            with self._changed:
                self._waiting.extendleft(reversed(kept))
        else:
            if self.is_failing:
                log.warning("audit log is written again")
            self.is_failing = False
        self._has_unsynced = self.is_failing or not sync
        if written:
            self._on_outcome("written", written)
        for item in taken:
            # False: who waited does so no more, for its time was over.
            if item.written is not None and item.written.set_running_or_notify_cancel():
                item.written.set_result(not self.is_failing)
