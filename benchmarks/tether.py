"""Ties a process to the one that started it: when that dies, however it does, this one is told to end.

A benchmark that is ended in order ends its server and its peers itself. This is for one that is killed: Linux sends a
signal to the children of a process that dies (PR_SET_PDEATHSIG, prctl(2)), if they asked for it; that outlives `exec`.
Elsewhere nothing is tied. As a program: `tether.py PARENT COMMAND …` ties itself and becomes that command.

Run by itself, without this package, in whatever environment a server has: it imports the standard library alone.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def tie(number: signal.Signals) -> None:
    """Have this process sent a signal when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def tied(command: list[str]) -> list[str]:
    """A command line that runs `command` until this process is gone: SIGTERM ends it then."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), *command]


def main() -> None:
    """Become the command of the arguments."""
    parent, *command = sys.argv[1:]
    tie(signal.SIGTERM)
    if os.getppid() == int(parent):  # else it died before it could be asked for
        os.execvp(command[0], command)  # noqa: S606 - the command is the benchmark's own


if __name__ == "__main__":
    main()
