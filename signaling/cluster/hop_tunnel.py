"""A WebSocket passed on: after the handshake, bytes both ways as they come. Frames are not looked into, so pings, close
frames and what is malformed reach the one whom they are for, and a message costs two copies and no parsing.

This uses how aiohttp takes its own WebSockets: `set_parser` of its protocols gives whoever is set all bytes behind a
handshake, on the server's side and on the client's. It may go when aiohttp hands over upgraded connections.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Protocol, cast

import aiohttp
from aiohttp import hdrs, web
from aiohttp.base_protocol import BaseProtocol
from multidict import CIMultiDict

from signaling.socket import cut_when_vanished

HELD_BYTES = 64 * 1024
"""What is held of one direction where the other end reads slowly; then the sender is not read from either."""

FLUSH_S = 5.0
"""How long the rest may take to reach one end when the other is gone."""


class _Parsing(Protocol):
    """Of aiohttp's protocols: who gets the bytes behind a handshake. The client's wants one argument more."""

    def set_parser(self, *arguments: object) -> None: ...

    async def _drain_helper(self) -> None: ...


class End:
    """One end of a tunnel: what came from it, and where to write to it.

    Args:
        protocol: aiohttp's, of an upgraded connection.
        transport: of the same.
    """

    def __init__(self, protocol: BaseProtocol, transport: asyncio.Transport) -> None:
        self._protocol = protocol
        self._transport = transport
        self._came: deque[bytes] = deque()  # bound: HELD_BYTES and what one read of the socket gives
        self._held_bytes = 0
        self._is_over = False
        self._wake = asyncio.Event()

    def take(self, *, as_server: bool) -> None:
        """Get what comes from now on, and what came meanwhile."""
        arguments = (self,) if as_server else (self, self)
        cast(_Parsing, self._protocol).set_parser(*arguments)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Called by aiohttp."""
        if data:
            self._came.append(bytes(data))
            self._held_bytes += len(data)
            if self._held_bytes > HELD_BYTES:
                self._protocol.pause_reading()
            self._wake.set()
        return False, b""

    def feed_eof(self) -> None:
        """Called by aiohttp: nothing more comes."""
        self._is_over = True
        self._wake.set()

    def set_exception(self, _exc: BaseException, _cause: BaseException | None = None) -> None:
        """Called by aiohttp: nothing more comes, for a reason."""
        self.feed_eof()

    async def read(self) -> bytes:
        """What has come, at least a byte; nothing at the end."""
        while not self._came and not self._is_over:
            self._wake.clear()
            await self._wake.wait()
        data = b"".join(self._came)
        self._came.clear()
        if self._held_bytes > HELD_BYTES and not self._is_over:
            self._protocol.resume_reading()
        self._held_bytes = 0
        return data

    async def write(self, data: bytes) -> None:
        """Send, no faster than it is taken.

        Raises:
            ConnectionError: it is gone.
        """
        if self._transport.is_closing():
            raise ConnectionResetError("the other end is gone")
        self._transport.write(data)
        await cast(_Parsing, self._protocol)._drain_helper()

    def close(self) -> None:
        """Hang up once what was written is sent."""
        self._transport.close()

    def abort(self) -> None:
        """Hang up at once."""
        self._transport.abort()


class _Switched(web.StreamResponse):
    """101 to the client; what is behind it is not aiohttp's."""

    _length_check = False


async def tunnel(request: web.Request, answer: aiohttp.ClientResponse, headers: CIMultiDict[str]) -> web.StreamResponse:
    """Answer a handshake as another place has answered it, and pass on all that is said, until either hangs up.

    Args:
        request: the client's.
        answer: 101, of that place.
        headers: of the answer, without those of its connection.

    Raises:
        ConnectionError: the client, or that place, is gone already.
    """
    connection = answer.connection
    if connection is None or connection.protocol is None or connection.transport is None or request.transport is None:
        raise ConnectionResetError("gone in the handshake")
    place = End(connection.protocol, connection.transport)
    headers[hdrs.CONNECTION], headers[hdrs.UPGRADE] = "Upgrade", answer.headers.get(hdrs.UPGRADE, "websocket")
    response = _Switched(status=answer.status, reason=answer.reason, headers=headers)
    response.force_close()
    await response.prepare(request)
    cut_when_vanished(request)
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("gone in the handshake")
    client = End(request.protocol, transport)
    request.protocol.keep_alive(False)
    client.take(as_server=True)
    place.take(as_server=False)
    ways = [
        asyncio.create_task(_pump(client, place), name="hop-to-place"),
        asyncio.create_task(_pump(place, client), name="hop-to-client"),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        # One has hung up. What it had said is with the other, which now hears of it and may still say a word.
        await asyncio.wait(ways, timeout=FLUSH_S)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        client.abort()
        place.abort()
    return response


async def _pump(source: End, sink: End) -> None:
    with suppress(ConnectionError):
        while data := await source.read():
            await sink.write(data)
    sink.close()
