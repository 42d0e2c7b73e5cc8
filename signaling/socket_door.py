"""A session over a WebSocket, from its place in the registry to the close frame, as every door opens one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import structlog
from aiohttp import WSCloseCode, web

from mediaserver.ingest.feed import Feed
from mediaserver.metrics import Metrics
from signaling.problems import HttpError
from signaling.registry import LivePeer, LiveSession, Registry
from signaling.socket import Ending, OnMessage, Outgoing, Visit, converse, is_handshake, open_socket

log = structlog.get_logger(__name__)

SETUP_DEADLINE_S = 1.0
"""How long a session may take to let go whose upgrade failed: it has heard nothing, so nothing is flushed."""

FAILED: Ending = (WSCloseCode.INTERNAL_ERROR, "The server failed at this session.")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a protocol says of its sockets.

    Args:
        door: its name in logs and metrics.
        max_message_bytes: a longer message ends the connection with 1009.
        endings: the close frame by why the feed ended.
        failed: the close frame of a fault of ours, and of what `endings` does not know.
    """

    door: str
    max_message_bytes: int
    endings: Mapping[str, Ending]
    failed: Ending = FAILED


def require_handshake(
    request: web.Request,
    hint: str,
    *,
    message: str = "This address speaks WebSocket only.",
    protocols: Iterable[str] = (),
) -> None:
    """Refuse what cannot be upgraded.

    Args:
        request: whatever it is.
        hint: what to do instead.
        message: what is wrong.
        protocols: subprotocols that are spoken.

    Raises:
        HttpError: UPGRADE_REQUIRED (426, RFC 9110 section 15.5.22).
    """
    if not is_handshake(request, protocols=protocols):
        raise HttpError(
            HTTPStatus.UPGRADE_REQUIRED,
            "UPGRADE_REQUIRED",
            message,
            hint,
            headers={"Upgrade": "websocket", "Connection": "Upgrade"},
        )


class Guest(LivePeer, Protocol):
    """A session that outlives its connections, as it stands in the registry."""

    def registered(self, live: LiveSession) -> None:
        """It has its place, and so its URL."""
        ...

    def visited(self, visit: Visit) -> None:
        """Its client is connected, there and nowhere else."""
        ...

    def lost(self, visit: Visit) -> None:
        """A connection is over, and the client did not say that the session is."""
        ...


async def serve(
    request: web.Request,
    terms: Terms,
    session_id: str,
    feed: Feed,
    begin: Callable[[Outgoing], OnMessage],
    *,
    registry: Registry,
    metrics: Metrics,
    protocols: Iterable[str] = (),
    headers: Mapping[str, str] | None = None,
    end: Callable[[], Awaitable[None]] | None = None,
    guest: Guest | None = None,
    age_s: float | None = None,
    channels: int = 1,
) -> web.WebSocketResponse:
    """Serve an admitted client: from the upgrade to the close frame. There is no await before it is registered.

    Args:
        request: a handshake.
        terms: of its protocol.
        session_id: for logs and events.
        feed: what the client's audio goes to; it has ended afterwards, unless there is a `guest`.
        begin: called once there is somebody to tell: starts the channels, and gives what acts on messages.
        registry: where the session lives.
        metrics: counts what is dropped.
        protocols: subprotocols that are spoken.
        headers: further ones of the response.
        end: lets go of what the conversation holds beside the feed, before the close frame.
        guest: the session where it waits for its client when the connection drops; it is what is registered then.
        age_s: for how long another process had the session; None: it is new.
        channels: how many the client sends.

    Raises:
        CapacityError: the registry has no room.
        web.HTTPBadRequest: it is no handshake.
    """
    live = registry.add(session_id, guest or feed, door=terms.door, age_s=age_s, channels=channels)
    if guest is not None:
        guest.registered(live)
    try:
        ws = await _upgraded(request, terms, protocols=protocols, headers=headers)
    except BaseException:
        await registry.close(live, "setup_failed", deadline_s=SETUP_DEADLINE_S)
        raise
    log.info("session opened", door=terms.door, live=len(registry))
    await attend(request, ws, terms, feed, begin, metrics=metrics, end=end, guest=guest)
    return ws


async def serve_again(
    request: web.Request,
    terms: Terms,
    feed: Feed,
    begin: Callable[[Outgoing], OnMessage],
    *,
    metrics: Metrics,
    guest: Guest,
) -> web.WebSocketResponse:
    """Serve a client that has come back, as `serve` does. Where its session ended meanwhile, it is told so and closed.

    Raises:
        web.HTTPBadRequest: it is no handshake.
    """
    ws = await _upgraded(request, terms)
    await attend(request, ws, terms, feed, begin, metrics=metrics, guest=guest)
    return ws


async def _upgraded(
    request: web.Request, terms: Terms, *, protocols: Iterable[str] = (), headers: Mapping[str, str] | None = None
) -> web.WebSocketResponse:
    # No pings that want answers: a client that sends faster than real time is held back, its answers with it.
    return await open_socket(
        request, max_message_bytes=terms.max_message_bytes, ping_s=None, protocols=protocols, headers=headers
    )


async def attend(
    request: web.Request,
    ws: web.WebSocketResponse,
    terms: Terms,
    feed: Feed,
    begin: Callable[[Outgoing], OnMessage],
    *,
    metrics: Metrics,
    end: Callable[[], Awaitable[None]] | None = None,
    guest: Guest | None = None,
) -> None:
    """One connection of a session, from its upgrade to its close frame; arguments as in `serve`."""
    outgoing = Outgoing(request, ws, metrics)
    visit = None if guest is None else Visit(guest.lost)
    code, why = terms.failed
    try:
        on_message = begin(outgoing)
        if guest is not None and visit is not None:
            guest.visited(visit)
        await converse(ws, feed, on_message, gone=outgoing.gone, visit=visit)
        code, why = terms.endings.get(feed.reason, terms.failed)
    except Exception:
        log.exception("session failed")
        await feed.close("error")
    finally:  # also where the request is cancelled, for its connection is lost or the server stops
        try:
            if visit is None:
                await feed.close("error")  # nothing where it has ended
            elif visit.ending is not None:
                code, why = visit.ending
            if end is not None:
                await end()
        finally:
            await outgoing.close(code, why)
