"""Folders in the system's temporary one: gone with what they are for, and where the process was killed, soon.

A folder is locked while it is in use. The lock goes with the process, however that ends, so whoever can take it has
found what a crash left.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

RECORDING = "voiceforge-recording-"
"""Recordings that somebody waits for."""

ENGINE = "voiceforge-engine-"
"""The socket of an engine's process."""

WORKERS = "voiceforge-workers-"
"""The sockets of workers and their supervisor."""

PREFIXES = (RECORDING, ENGINE, WORKERS)

LOCK = ".in-use"


class Scratch:
    """A folder of one's own (mode 0700). Blocks for a moment.

    Args:
        prefix: how its name begins, one of `PREFIXES`.
    """

    def __init__(self, prefix: str = RECORDING) -> None:
        self.path, lock = _made(prefix)
        self._lock: int | None = lock

    def remove(self) -> None:
        """Delete it with what is in it; once it is gone, nothing. Blocks: a gigabyte takes half a second."""
        lock, self._lock = self._lock, None
        if lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(lock)


@asynccontextmanager
async def scratch_folder() -> AsyncIterator[Path]:
    """A folder that is deleted at the end, also where the task is cancelled meanwhile."""
    scratch = Scratch()
    try:
        yield scratch.path
    finally:
        await asyncio.shield(asyncio.to_thread(scratch.remove))


async def sweep_scratch() -> int:
    """Delete the folders that killed processes of this user left behind; how many."""
    return await asyncio.to_thread(_sweep, Path(tempfile.gettempdir()))


def remove_left(folder: Path) -> bool:
    """Delete a folder of this user that nobody uses any more; whether it was one. No link is followed."""
    if not folder.name.startswith(PREFIXES):
        return False
    with suppress(OSError), _opened(folder, os.O_RDONLY | os.O_DIRECTORY) as opened:
        if os.fstat(opened).st_uid != os.geteuid():  # root may open anybody's
            return False
        with _opened(LOCK, os.O_RDWR, dir_fd=opened) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            return True
    return False


def _sweep(root: Path) -> int:
    return sum(remove_left(folder) for prefix in PREFIXES for folder in root.glob(f"{prefix}*"))


def _made(prefix: str) -> tuple[Path, int]:
    """A new folder, and what holds its lock."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix))
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            return path, lock
        os.close(lock)  # somebody swept before it was locked: the folder is gone


@contextmanager
def _opened(path: str | Path, flags: int, *, dir_fd: int | None = None) -> Iterator[int]:
    handle = os.open(path, flags | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        yield handle
    finally:
        os.close(handle)
