"""Unix sockets between processes of a node: who may open them, and how they are served."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import structlog

from mediaserver.errors import VoiceForgeError
from mediaserver.local.frames import LENGTHS, FrameError, Framing

log = structlog.get_logger(__name__)

MAX_PATH_BYTES = 103
"""Of a socket's path: the least of what the systems allow, with its closing zero."""


class SocketServer:
    """Serves whoever connects to a socket (mode 0600). Its owner awaits `close`.

    Args:
        path: of the socket. One that is left over from a dead process is replaced.
        serve: one connection, until it is of no further use; also told whether there is room for it. May raise
            FrameError, TimeoutError, OSError or EOFError.
        of: what listens there, for errors and logs.
        connections_max: for how many at once there is room.
    """

    def __init__(
        self,
        path: Path,
        serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter, bool], Awaitable[None]],
        *,
        of: str,
        connections_max: int,
    ) -> None:
        self._path = path
        self._serve = serve
        self._of = of
        self._connections_max = connections_max
        self._connections: set[asyncio.Task[None]] = set()  # few more than have room: `serve` sends those away
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            VoiceForgeError: ENGINE_SOCKET_IN_USE or ENGINE_SOCKET_UNUSABLE, where it is the socket `of` an engine.
        """
        listening = _bind(self._path, self._of)
        self._server = await asyncio.start_unix_server(self._accept, sock=listening)

    async def close(self) -> None:
        """Stop listening and hang up."""
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, in the task that asyncio made for it."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer, len(self._connections) <= self._connections_max)
        except (FrameError, TimeoutError) as exc:
            log.warning(f"{self._of} connection dropped", reason=str(exc) or "no hello")
        except (OSError, EOFError):
            pass  # the other end is gone
        except asyncio.CancelledError:
            pass  # `close`: nobody awaits this task but a gather
        finally:
            self._connections.discard(task)
            await hang_up(writer)


async def read_frame(reader: asyncio.StreamReader, framing: Framing) -> tuple[bytes, bytes]:
    """The next frame's header and body.

    Raises:
        FrameError: it is larger than a frame may be; then it is not read.
        IncompleteReadError, OSError: the other end is gone.
    """
    header_bytes, body_bytes = framing.lengths(await reader.readexactly(LENGTHS.size))
    return await reader.readexactly(header_bytes), await reader.readexactly(body_bytes)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """End a connection. What is not in the socket by now is for somebody who does not read."""
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


def _bind(path: Path, of: str) -> socket.socket:
    """A Unix socket that only this user may open."""
    require_usable(path, of)
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


def require_usable(path: Path, of: str) -> None:
    """Refuse a path that no socket can have.

    Raises:
        VoiceForgeError: ENGINE_SOCKET_UNUSABLE, where it is the socket `of` an engine.
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
