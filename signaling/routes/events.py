"""What a session tells, for those who are not its peer: server-sent events, and a WebSocket at the same address.

`GET /whip/<secret>/events` gives all events that are kept, then what happens, until `closed`. Whoever was cut off goes
on behind the last event that it knows: `Last-Event-ID`, which browsers send by themselves, or `?after=`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated

from aiohttp import WSMsgType, web
from pydantic import BaseModel, ConfigDict, Field

from mediaserver.errors import ConfigError, VoiceForgeError
from mediaserver.ingest.answer import MESSAGE_MAX_BYTES
from mediaserver.session.eventlog import LISTENERS_RETRY_AFTER_S, Entry, EventLog, Listener
from signaling.eventlogs import EventLogs
from signaling.openapi.operation import (
    Access,
    Answer,
    Conversation,
    Operation,
    Refusal,
    RetryAfter,
    ServerSentEvent,
    Tag,
    described,
)
from signaling.preflight import allowed
from signaling.problems import HttpError
from signaling.query import read_query
from signaling.registry import LiveSession
from signaling.routes.native_described import PEER_MESSAGES
from signaling.routes.native_events import NATIVE_EVENTS
from signaling.routes.whip_operations import PATH
from signaling.seeing.audit_door import concerning
from signaling.socket import open_socket

EVENT_STREAM = "text/event-stream"

HEARTBEAT_S = 15.0
"""Proxies close what is silent for 30 to 60 s; and so a listener that is gone is noticed."""

STALLED_S = 60.0
"""A listener that takes nothing for so long is cut. Until then it only falls behind."""

RECONNECT_MS = 2000
"""When a browser that was cut off comes again."""

OVER_S = 2.0
"""How long a WebSocket's listener may take to answer the close frame."""


class EventsQuery(BaseModel):
    """Where to begin."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    after: Annotated[
        int,
        Field(
            ge=-1,
            le=2**53,
            description="The `seq` of the last event that is known; -1 is the beginning. `Last-Event-ID` counts more: "
            "a browser that comes again sends it with the address that it has.",
        ),
    ] = -1


class EventsHeaders(BaseModel):
    """Headers that are read."""

    last_event_id: int | None = Field(
        None, alias="Last-Event-ID", description="The `id` of the last event that is known."
    )


EVENTS = Operation(
    summary="What a session tells",
    tag=Tag.WHIP,
    access=Access.URL,
    audited="transcript.watch",
    description="Events of the native protocol, as server-sent events (`id` is `seq`, `data` is the JSON object) or, "
    "where the request is a WebSocket handshake, one a message. Begins with what is kept, ends after `closed`. An "
    "`EVENTS_LOST` warning without an `id` says that older events are kept no more. Over the WebSocket the messages of "
    "the native protocol are heard too: `configure`, `finalize`, `keep_alive`, `close_stream`.",
    query=EventsQuery,
    path=PATH,
    headers=EventsHeaders,
    answers={
        HTTPStatus.OK: Answer("The events, as they happen.", {EVENT_STREAM: ServerSentEvent}),
        HTTPStatus.SWITCHING_PROTOCOLS: Answer("The same over a WebSocket."),
        HTTPStatus.NO_CONTENT: Answer("The session is over, and the client knows all of it: nothing more comes."),
    },
    refusals=[
        Refusal(HTTPStatus.BAD_REQUEST, ("INVALID_CONFIG", "INVALID_CURSOR", "HTTP_400")),
        Refusal(HTTPStatus.NOT_FOUND, ("SESSION_NOT_FOUND",)),
        Refusal(HTTPStatus.TOO_MANY_REQUESTS, ("TOO_MANY_LISTENERS",), headers={"Retry-After": RetryAfter}),
    ],
    conversations=[
        Conversation(
            name="events",
            title="What a session tells, over a WebSocket",
            description="Begins with what is kept, ends after `closed`.",
            carrier="ws",
            from_client=PEER_MESSAGES,
            from_server=NATIVE_EVENTS,
        )
    ],
)

PREFLIGHT = Operation(
    summary="Whether a page of another origin may read a session's events",
    tag=Tag.WHIP,
    access=Access.OPEN,
    description="CORS. The same whether or not there is a session.",
    path=PATH,
    answers={HTTPStatus.NO_CONTENT: Answer("In the headers.")},
)


class Events:
    """`/whip/<secret>/events`.

    Args:
        logs: of the sessions that live, and of those that ended lately.
        locate: the session of a URL that it had at another process.
        heartbeat_s: time without an event after which a comment is sent.
    """

    def __init__(
        self, *, logs: EventLogs, locate: Callable[[str], LiveSession | None], heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self._logs = logs
        self._locate = locate
        self._heartbeat_s = heartbeat_s

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router; other methods are 405 with `Allow`."""
        return [
            web.get("/whip/{secret}/events", self.events, allow_head=False),
            web.options("/whip/{secret}/events", self.preflight),
        ]

    @described(PREFLIGHT)
    async def preflight(self, _request: web.Request) -> web.Response:
        """OPTIONS: what a page of another origin may do (CORS)."""
        return allowed("GET, OPTIONS", ("Authorization", "Last-Event-ID"))

    @described(EVENTS)
    async def events(self, request: web.Request) -> web.StreamResponse:
        """GET: the events, over a WebSocket where the request asks for one."""
        log = self._found(request.match_info["secret"])
        if log is None:
            raise HttpError(
                HTTPStatus.NOT_FOUND,
                "SESSION_NOT_FOUND",
                "There is no such session, or it ended some time ago.",
                "Events can be read for `events_linger_s` after a session's end; POST an offer to /whip for a new one.",
            )
        concerning(request, session=log.session_id)
        after = _after(request, log)
        is_socket = request.headers.get("Upgrade", "").lower() == "websocket"
        with _listen(log, after) as listener:
            if is_socket:
                return await self._converse(request, log, listener)
            if listener.is_over:
                return web.Response(status=HTTPStatus.NO_CONTENT)  # a browser comes no more
            return await self._stream(request, listener)

    def _found(self, secret: str) -> EventLog | None:
        log = self._logs.find(secret)
        live = self._locate(secret) if log is None else None
        return log if live is None else self._logs.find(live.secret)

    async def _stream(self, request: web.Request, listener: Listener) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "Content-Type": f"{EVENT_STREAM}; charset=utf-8",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",  # proxies that hold responses back ask for this
            }
        )
        await response.prepare(request)
        try:
            await _unless_stalled(request, response.write(f"retry: {RECONNECT_MS}\n\n".encode()))
            while not listener.is_over:
                entries = await listener.read(timeout_s=self._heartbeat_s)
                if entries or not listener.is_over:
                    text = "".join(map(_as_sse, entries)) or ":\n\n"
                    await _unless_stalled(request, response.write(text.encode()))
            await _unless_stalled(request, response.write_eof())
        except ConnectionError:
            pass  # gone; the place is free again
        return response

    async def _converse(self, request: web.Request, log: EventLog, listener: Listener) -> web.StreamResponse:
        ws = await open_socket(request, max_message_bytes=MESSAGE_MAX_BYTES)
        telling = asyncio.create_task(self._tell(request, ws, listener), name="events-telling")
        hearing = asyncio.create_task(_hear(ws, log), name="events-hearing")
        try:
            await asyncio.wait({telling, hearing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            telling.cancel()
            hearing.cancel()
            results = await asyncio.gather(telling, hearing, return_exceptions=True)
        try:
            async with asyncio.timeout(OVER_S):
                await ws.close()
        except TimeoutError:
            _cut(request)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, ConnectionError):
                raise result
        return ws

    async def _tell(self, request: web.Request, ws: web.WebSocketResponse, listener: Listener) -> None:
        while not listener.is_over:
            for entry in await listener.read(timeout_s=self._heartbeat_s):
                await _unless_stalled(request, ws.send_str(entry.text))


async def _hear(ws: web.WebSocketResponse, log: EventLog) -> None:
    async for message in ws:
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            log.hear(message.data)


def _listen(log: EventLog, after: int) -> Listener:
    try:
        return log.listen(after=after)
    except VoiceForgeError as exc:
        raise HttpError(
            HTTPStatus.TOO_MANY_REQUESTS,
            exc.code,
            exc.message,
            exc.hint,
            retryable=True,
            headers={"Retry-After": str(LISTENERS_RETRY_AFTER_S)},
        ) from exc


def _after(request: web.Request, log: EventLog) -> int:
    """The number of the last event that the client knows.

    Raises:
        ConfigError: INVALID_CONFIG or INVALID_CURSOR.
    """
    query = read_query(EventsQuery, request.query)
    header = request.headers.get("Last-Event-ID")
    if header is None or not header.strip():
        after = query.after
    elif header.strip().isascii() and header.strip().isdigit() and len(header) < 17:
        after = int(header)
    else:
        raise _invalid_cursor(f"`Last-Event-ID` is {header!r:.40}, and no number of an event")
    if after > log.newest:
        raise _invalid_cursor(f"Event {after} has not been told; the newest one is {log.newest}")
    return after


def _invalid_cursor(problem: str) -> ConfigError:
    return ConfigError("INVALID_CURSOR", f"{problem}.", "Send the `seq` of the last event that you know, or nothing.")


def _as_sse(entry: Entry) -> str:
    """An event as the stream writes it; JSON holds no line break. What is no event of the session has no `id`."""
    return f"id: {entry.seq}\ndata: {entry.text}\n\n" if entry.is_event else f"data: {entry.text}\n\n"


async def _unless_stalled(request: web.Request, sending: Awaitable[None]) -> None:
    """Wait until the client has taken something.

    Raises:
        ConnectionError: it is gone, or has taken nothing for `STALLED_S`.
    """
    try:
        async with asyncio.timeout(STALLED_S):
            await sending
    except TimeoutError as exc:
        _cut(request)
        raise ConnectionAbortedError("the listener stalled") from exc


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
