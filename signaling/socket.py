"""WebSockets, as every protocol over them needs them: a bounded sending end, and a conversation that always ends."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus

import structlog
from aiohttp import ClientConnectionResetError, WSCloseCode, WSMessage, WSMsgType, hdrs, web

from mediaserver.ingest.feed import Feed
from mediaserver.metrics import Metrics
from mediaserver.session.dialect import Telling
from signaling.problems import HttpError

log = structlog.get_logger(__name__)

DROPPING_LETTERS = 16 * 1024
"""With more than this unsent, interims are left out: it is some ten of them, and older ones would only come late."""

STALLED_LETTERS = 1024 * 1024
"""With more than this unsent, some half an hour of finals, nobody reads: the connection is cut."""

CLOSE_S = 2.0
"""How long a client may take to answer a close frame; then the connection is cut."""

REASON_BYTES = 123
"""Longest reason of a close frame (RFC 6455 section 5.5)."""

PING_S = 20.0
"""How often a client is pinged; where it is always read, one that has not answered after half of it counts as gone."""

VANISHED_S = 60.0
"""How long a client's kernel may leave what was sent unacknowledged (RFC 5482); then the connection is cut. It answers
for a client that is held back too: nothing that such a client says, answers to pings neither, is read."""

NO_STATUS = 0
"""What aiohttp has for a close frame without a code (1005), as browsers send for `close()`."""

CLOSED_BY_CLIENT = (WSCloseCode.OK, WSCloseCode.GOING_AWAY, NO_STATUS)

SAID_GOODBYE = (WSCloseCode.OK, NO_STATUS)
"""What ends a session that would wait for its client. Browsers send 1001 for a page that is reloaded or left."""

VIOLATIONS = (WSCloseCode.PROTOCOL_ERROR, WSCloseCode.INVALID_TEXT, WSCloseCode.MESSAGE_TOO_BIG)
"""With what aiohttp ends a connection: whoever sends that would send it again."""

Ending = tuple[int, str]
"""Code (RFC 6455 section 7.4.1) and reason of a close frame. What is no UTF-8 (1007) and what is too long (1009)
aiohttp closes itself."""

OnMessage = Callable[[WSMessage], Awaitable[bool]]
"""Acts on a text or binary message; False: the client has said all that it will. Never raises."""


def is_handshake(request: web.Request, *, protocols: Iterable[str] = ()) -> bool:
    """Whether a request can be upgraded (RFC 6455 section 4.2.1).

    Args:
        request: whatever it is.
        protocols: subprotocols that are spoken.
    """
    try:
        return web.WebSocketResponse(protocols=protocols).can_prepare(request).ok
    except ValueError:  # aiohttp decodes the client's key, quotes it in its refusal, and fails where it is no ASCII
        return False


def offered_protocols(request: web.BaseRequest) -> list[str]:
    """The subprotocols that a client offers (RFC 6455 section 11.3.4); browsers' clients put keys there.

    Raises:
        HttpError: INVALID_SUBPROTOCOL (400): several headers, of which aiohttp reads the first, and logs it where it
            knows none of it.
    """
    headers = request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, [])
    if len(headers) > 1:
        raise HttpError(
            HTTPStatus.BAD_REQUEST,
            "INVALID_SUBPROTOCOL",
            "The subprotocols come in several headers.",
            "Offer them in one, separated by commas.",
        )
    return [part.strip() for part in ",".join(headers).split(",") if part.strip()]


async def open_socket(
    request: web.Request,
    *,
    max_message_bytes: int,
    protocols: Iterable[str] = (),
    headers: Mapping[str, str] | None = None,
    ping_s: float | None = PING_S,
) -> web.WebSocketResponse:
    """Upgrade a request. Nothing is compressed: audio does not shrink, and texts are short.

    Args:
        request: to be upgraded.
        max_message_bytes: a longer message ends the connection with 1009.
        protocols: subprotocols that are spoken; the first of the client's among them is answered. Where none is,
            aiohttp logs what the client offered: doors whose clients put keys there refuse others before.
        headers: further ones of the response.
        ping_s: how often the client is pinged, and must answer; None: never, for doors that hold clients back. Their
            `Outgoing` pings instead and waits for no answer: `VANISHED_S` notices who is gone.

    Raises:
        web.HTTPBadRequest: it is no WebSocket handshake (RFC 6455 section 4.2.1).
    """
    ws = web.WebSocketResponse(
        timeout=CLOSE_S, heartbeat=ping_s, protocols=protocols, compress=False, max_msg_size=max_message_bytes
    )
    ws.headers.update(headers or {})
    try:
        await ws.prepare(request)
    except ValueError as exc:  # as in `is_handshake`
        raise web.HTTPBadRequest from exc
    cut_when_vanished(request)
    return ws


def cut_when_vanished(request: web.Request) -> None:
    """Have the kernel end the connection of a client that acknowledges nothing for `VANISHED_S`."""
    connection = None if request.transport is None else request.transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux; elsewhere the kernel gives up after some 15 minutes
    if connection is not None and option is not None:
        with suppress(OSError):  # no TCP
            connection.setsockopt(socket.IPPROTO_TCP, option, int(VANISHED_S * 1000))


class Outgoing:
    """Text messages to one WebSocket, sent by a task of its own.

    A slow client loses interims first (`DROPPING_LETTERS`) and nothing else; one that does not read at all is cut
    (`STALLED_LETTERS`).

    Args:
        request: whose connection it is.
        ws: prepared; nobody else sends on it.
        metrics: counts what is dropped.
    """

    def __init__(self, request: web.Request, ws: web.WebSocketResponse, metrics: Metrics) -> None:
        self.gone = asyncio.Event()
        """Set once the client does not read or is not there: nothing more can be told."""
        self._transport = request.transport
        self._ws = ws
        self._metrics = metrics
        self._queue: deque[str] = deque()  # bound: STALLED_LETTERS, beyond which the connection is cut
        self._unsent_letters = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._gone = False
        self._task: asyncio.Task[None] | None = asyncio.create_task(self._run(), name="socket-outgoing")

    def send(self, telling: Telling) -> None:
        """Queue a message. Never blocks, never raises."""
        if self._gone:
            return
        if telling.droppable and self._unsent_letters > DROPPING_LETTERS:
            self._metrics.events_dropped_total.inc()
            return
        self._queue.append(telling.text)
        self._unsent_letters += len(telling.text)
        self._idle.clear()
        if self._unsent_letters > STALLED_LETTERS:
            log.warning("socket stalled", unsent_letters=self._unsent_letters)
            self._abandon()
            return
        self._wake.set()

    async def close(self, code: int = WSCloseCode.OK, reason: str = "", *, deadline_s: float = CLOSE_S) -> None:
        """Send what is queued, then the close frame; whatever the client does, it is over after twice `deadline_s`.

        Args:
            code: of the close frame (RFC 6455 section 7.4).
            reason: for people; cut to `REASON_BYTES`.
            deadline_s: for what is queued, and again for the client's answer.
        """
        try:
            async with asyncio.timeout(deadline_s):
                await self._idle.wait()
        except TimeoutError:
            log.info("socket closed with messages unsent", unsent_letters=self._unsent_letters)
        self._gone = True
        sending, self._task = self._task, None
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        try:
            async with asyncio.timeout(deadline_s):
                message = reason.encode()[:REASON_BYTES].decode(errors="ignore").encode()
                await self._ws.close(code=code, message=message)
        except TimeoutError:
            self._cut()
        finally:
            self._untie()

    def _untie(self) -> None:
        """What a socket keeps of a connection that was lost refers to all that it passed through, the socket too.

        Such a circle is found by a search through all objects only, and it holds the session.
        """
        lost = self._ws.exception()
        if lost is not None:
            lost.__traceback__ = lost.__context__ = lost.__cause__ = None

    async def _run(self) -> None:
        try:
            while True:
                while self._queue:
                    text = self._queue.popleft()
                    # Clients can make us quote what no encoding takes (half a surrogate pair): it leaves as `?`.
                    await self._ws.send_frame(text.encode(errors="replace"), WSMsgType.TEXT)
                    self._unsent_letters -= len(text)
                self._idle.set()
                self._wake.clear()
                await self._wake_or_ping()
        except (ConnectionError, ClientConnectionResetError, RuntimeError):  # RuntimeError: it is closing
            self._abandon()

    async def _wake_or_ping(self) -> None:
        try:
            async with asyncio.timeout(PING_S):
                await self._wake.wait()
        except TimeoutError:
            await self._ws.ping()  # proxies keep the connection, and a client that has vanished is noticed

    def _abandon(self) -> None:
        """Nobody reads: nothing more is sent, and the reading end hears that it is over."""
        self.gone.set()
        self._gone = True
        self._queue.clear()
        self._unsent_letters = 0
        self._idle.set()
        self._cut()

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Visit:
    """One connection of a session that waits for its client when a connection drops.

    Args:
        on_lost: given this visit, once, where the connection is over and the client did not say that the session is.
    """

    def __init__(self, on_lost: Callable[[Visit], None]) -> None:
        self.on_lost = on_lost
        self.over = asyncio.Event()
        """Set once the connection is of no more use, though the session goes on."""
        self.ending: Ending | None = None
        """The close frame then."""

    def end(self, code: int, reason: str) -> None:
        """The session goes on without this connection."""
        self.ending = self.ending or (code, reason)
        self.over.set()


async def converse(
    ws: web.WebSocketResponse,
    feed: Feed,
    on_message: OnMessage,
    *,
    gone: asyncio.Event | None = None,
    visit: Visit | None = None,
) -> None:
    """Read a client's messages until it has said all, is gone, or the feed ends for a reason of its own.

    Afterwards the feed has ended, with its last finals told where somebody is left to hear them; or, with a visit, its
    owner has been told that the connection was lost. The socket is the caller's to close.

    Args:
        ws: prepared.
        feed: what the client's audio goes to.
        on_message: acts on each text or binary message.
        gone: `Outgoing.gone`; without it a client that goes while it is held back is missed until it is read again.
        visit: where the session waits for its client when the connection drops.
    """
    gone = gone or asyncio.Event()
    said_all = asyncio.Event()
    reading = asyncio.create_task(_read(ws, feed, on_message, said_all, visit), name="socket-reading")
    ended = asyncio.create_task(feed.ended.wait(), name="socket-ended")
    others = [ended, asyncio.create_task(gone.wait(), name="socket-gone")]
    if visit is not None:
        others.append(asyncio.create_task(visit.over.wait(), name="socket-over"))
    try:
        await asyncio.wait({reading, *others}, return_when=asyncio.FIRST_COMPLETED)
        if said_all.is_set():  # and perhaps left: callbacks and webhooks still hear it out
            await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        reading.cancel()
        for task in others:
            task.cancel()
        results = await asyncio.gather(reading, *others, return_exceptions=True)
        has_failed = isinstance(results[0], Exception)
        if visit is not None and not said_all.is_set() and not has_failed:
            visit.on_lost(visit)  # nothing where the feed has ended
        else:
            await feed.close("error" if has_failed and visit is not None else "peer_lost")  # nothing where it has ended
    if isinstance(results[0], Exception):
        raise results[0]


async def _read(
    ws: web.WebSocketResponse, feed: Feed, on_message: OnMessage, said_all: asyncio.Event, visit: Visit | None
) -> None:
    async for message in ws:
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY) and not await on_message(message):
            said_all.set()
            await feed.finish()
            return
    # A close frame ends the conversation in both directions: what would still come can reach nobody.
    if visit is None:
        await feed.close("client" if ws.close_code in CLOSED_BY_CLIENT else "peer_lost")
    elif not visit.over.is_set() and ws.close_code in (*SAID_GOODBYE, *VIOLATIONS):
        await feed.close("client" if ws.close_code in SAID_GOODBYE else "peer_lost")
