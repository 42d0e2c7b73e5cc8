"""What this process uses of the machine, as the system says it. Linux; elsewhere what is not known is 0."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

STATM = Path("/proc/self/statm")
OPEN_FILES = Path("/proc/self/fd")


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """A process in a moment.

    Args:
        cpu_s: seconds of processor time since it began, of all its threads.
        resident_bytes: memory that is not swapped out.
        open_files: file descriptors, sockets among them.
        files_max: most that it may have.
    """

    cpu_s: float
    resident_bytes: int
    open_files: int
    files_max: int


def process_use() -> ProcessUse:
    """How it is now. Takes some 20 µs, and 0.2 µs for each open file."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        pages = int(STATM.read_text().split()[1])
        open_files = len(os.listdir(OPEN_FILES)) - 1  # noqa: PTH208 - names are enough; less the one that is read
    except OSError:
        pages = open_files = 0
    return ProcessUse(time.process_time(), pages * resource.getpagesize(), open_files, limit)
