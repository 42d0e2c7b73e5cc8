"""What workers are called, so that one that was killed can be told from one that lives.

A name says which system, which process and which start of it. Processes are asked for only where their numbers mean
the same: on the same host since its last start, and in the same container. Of the others the lease tells.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

_SEPARATOR = "/"

_BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Each start of each machine has its own: hosts that were cloned have the same name."""


def this_process(nonce: str) -> str:
    """A name for a worker of this process; `nonce` tells one start from another."""
    return _SEPARATOR.join((_system(), str(os.getpid()), nonce))


def is_dead(owner: str, mine: str) -> bool:
    """Whether a worker is known to be gone: a process of this system that is not there, or its number is ours now.

    Args:
        owner: a name of `this_process`.
        mine: the caller's own.
    """
    system, _, rest = owner.rpartition(_SEPARATOR)[0].rpartition(_SEPARATOR)
    if system != _system() or not rest.isdigit() or owner == mine:
        return False
    pid = int(rest)
    if pid == os.getpid():
        return owner.rpartition(_SEPARATOR)[2] != mine.rpartition(_SEPARATOR)[2]
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False  # it is somebody else's, and lives
    return False


def _system() -> str:
    """The host, its start, and the namespace that its process numbers are in."""
    namespace = boot = "-"
    with suppress(OSError):
        boot = _BOOT.read_text().strip().replace(_SEPARATOR, "-")
    with suppress(OSError):
        namespace = Path("/proc/self/ns/pid").readlink().name.replace(_SEPARATOR, "-")
    return f"{socket.gethostname().replace(_SEPARATOR, '-')}:{boot}:{namespace}"
