"""Unix sockets between processes of a node: who may open them, and what becomes of one that is left over."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from mediaserver.errors import VoiceForgeError

READ_BYTES = 256 * 1024
"""What one read takes at most: more than a socket's own buffer."""

MAX_PATH_BYTES = 103
"""Of a socket's path: the least of what the systems allow, with its closing zero."""


def bind_socket(path: Path, *, of: str = "engine") -> socket.socket:
    """A Unix socket that only this user may open.

    Args:
        path: where; a socket that is left over from a dead process is replaced.
        of: what listens there, for errors.

    Raises:
        VoiceForgeError: ENGINE_SOCKET_IN_USE (an engine answers there) or ENGINE_SOCKET_UNUSABLE; with the other name
            for something else.
    """
    require_usable(path, of=of)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_left_over(path, of)
        os.fchmod(listening.fileno(), 0o600)  # on Linux the file is made with it
        listening.bind(str(path))
        path.chmod(0o600)
    except OSError as exc:
        listening.close()
        raise VoiceForgeError(
            f"{of.upper()}_SOCKET_UNUSABLE",
            f"The socket {path} cannot be made: {exc.strerror or exc}.",
            "Name a path in a directory of your own, at which there is no other file.",
        ) from exc
    except VoiceForgeError:
        listening.close()
        raise
    return listening


def require_usable(path: Path, *, of: str = "engine") -> None:
    """Refuse a path that no socket can have.

    Raises:
        VoiceForgeError: ENGINE_SOCKET_UNUSABLE, or with another name than an engine's.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise VoiceForgeError(
            f"{of.upper()}_SOCKET_UNUSABLE",
            f"The path of the socket is longer than {MAX_PATH_BYTES} bytes.",
            "Name a shorter one, for example in /run or /tmp.",
        )


def _remove_left_over(path: Path, of: str) -> None:
    """Unlink the socket of a process that died; anything else at `path` makes `bind` fail."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise VoiceForgeError(
        f"{of.upper()}_SOCKET_IN_USE",
        f"Another process already listens at {path}.",
        "Stop it, or name another path.",
    )
