"""Folders for recordings that somebody waits for: gone with their request, and where the process was killed, soon.

A folder is locked while it is in use. The lock goes with the process, however that ends, so whoever can take it has
found what a crash left.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

PREFIX = "voiceforge-recording-"
LOCK = ".in-use"


class Scratch:
    """A folder of one's own (mode 0700). Blocks for a moment."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Delete it with what is in it. Blocks: a gigabyte takes half a second."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


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


def _sweep(root: Path) -> int:
    count = 0
    for folder in root.glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else's, or in use
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                count += 1
            finally:
                os.close(lock)
    return count
