"""How late the machine itself is: on busy cores every process stalls at times, and that is no fault of the server's."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PERIOD_S = 0.05

LATE_S = 0.02
"""Less is what any sleep is late by."""


class Pulse:
    """What a process has noticed that does nothing but sleep."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def latest_s(self, *, since_s: float) -> float:
        """The most that it was late by, in seconds, since that time of the monotonic clock."""
        pairs = [line.split() for line in self._path.read_text(encoding="ascii").splitlines()]
        return max((float(late_s) for at_s, late_s in pairs if float(at_s) >= since_s), default=0.0)


@contextmanager
def pulse_at(path: Path) -> Iterator[Pulse]:
    """A pulse that is written to a file."""
    path.touch()
    with path.open("wb") as file, subprocess.Popen([sys.executable, __file__], stdout=file) as process:
        try:
            yield Pulse(path)
        finally:
            process.terminate()


def beat() -> None:
    """Sleep, and write down each time that the sleep was too long."""
    while True:
        due_s = time.monotonic() + PERIOD_S
        time.sleep(PERIOD_S)
        late_s = time.monotonic() - due_s
        if late_s > LATE_S:
            sys.stdout.write(f"{due_s:.3f} {late_s:.3f}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    beat()
