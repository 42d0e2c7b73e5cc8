"""The port that the public calls: opened before anything is served, so that what is wrong with it is said at once."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence

from mediaserver.errors import VoiceForgeError
from mediaserver.settings import Settings

WAITING_MAX = 512
"""Connections that wait to be taken; a burst of clients after a restart. Further ones try again by themselves."""


async def open_port(settings: Settings) -> list[socket.socket]:
    """Listening sockets: one, or one for each address that a name stands for.

    Raises:
        VoiceForgeError: PORT_IN_USE, PORT_NOT_PERMITTED or ADDRESS_UNAVAILABLE.
    """
    try:
        return await listen_at(settings.host, settings.port)
    except OSError as exc:
        raise _cannot_listen(exc, settings) from exc


async def listen_at(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at all addresses of a host.

    Raises:
        OSError: not all of them can; none is left open.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    opened: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            opened.append(socket.create_server(address[:2], family=family, backlog=WAITING_MAX))
            opened[-1].setblocking(False)
    except OSError:
        for one in opened:
            one.close()
        raise
    return opened


def url_of(sockets: Sequence[socket.socket], settings: Settings) -> str:
    """The URL to look at."""
    host, port = sockets[0].getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    scheme = "http" if settings.tls_certificate is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _cannot_listen(exc: OSError, settings: Settings) -> VoiceForgeError:
    if exc.errno == errno.EADDRINUSE:
        return VoiceForgeError(
            "PORT_IN_USE",
            f"Port {settings.port} is already in use on {settings.host}.",
            "Stop the other program, or choose another port with `--port`.",
            retryable=True,
        )
    if exc.errno == errno.EACCES:
        return VoiceForgeError(
            "PORT_NOT_PERMITTED",
            f"Port {settings.port} may not be opened by this user.",
            "Choose a port above 1023 with `--port`.",
        )
    return VoiceForgeError(
        "ADDRESS_UNAVAILABLE",
        f"The server cannot listen on {settings.host}.",
        "Give `--host` an address of this machine, for example 127.0.0.1.",
    )
