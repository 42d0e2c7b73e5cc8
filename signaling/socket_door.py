"""A session over a WebSocket, from its place in the registry to the close frame, as every door opens one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import structlog
from aiohttp import WSCloseCode, web

from mediaserver.ingest.feed import Feed
from mediaserver.metrics import Metrics
from signaling.problems import HttpError
from signaling.registry import Registry
from signaling.socket import OnMessage, Outgoing, converse, is_handshake, open_socket

log = structlog.get_logger(__name__)

SETUP_DEADLINE_S = 1.0
"""How long a session may take to let go whose upgrade failed: it has heard nothing, so nothing is flushed."""

Ending = tuple[int, str]
"""Code (RFC 6455 section 7.4.1) and reason of a close frame. What is no UTF-8 (1007) and what is too long (1009)
aiohttp closes itself."""

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
) -> web.WebSocketResponse:
    """Serve an admitted client: from the upgrade to the close frame. There is no await before it is registered.

    Args:
        request: a handshake.
        terms: of its protocol.
        session_id: for logs and events.
        feed: what the client's audio goes to; it has ended afterwards.
        begin: called once there is somebody to tell: starts the channels, and gives what acts on messages.
        registry: where the session lives.
        metrics: counts what is dropped.
        protocols: subprotocols that are spoken.
        headers: further ones of the response.
        end: lets go of what the conversation holds beside the feed, before the close frame.

    Raises:
        CapacityError: the registry has no room.
        web.HTTPBadRequest: it is no handshake.
    """
    live = registry.add(session_id, feed, door=terms.door)
    try:
        # No pings that want answers: a client that sends faster than real time is held back, its answers with it.
        ws = await open_socket(
            request,
            max_message_bytes=terms.max_message_bytes,
            ping_s=None,
            protocols=protocols,
            headers=headers,
        )
    except BaseException:
        await registry.close(live, "setup_failed", deadline_s=SETUP_DEADLINE_S)
        raise
    log.info("session opened", door=terms.door, live=len(registry))
    outgoing = Outgoing(request, ws, metrics)
    code, why = terms.failed
    try:
        await converse(ws, feed, begin(outgoing), gone=outgoing.gone)
        code, why = terms.endings.get(feed.reason, terms.failed)
    except Exception:
        log.exception("session failed")
    finally:  # also where the request is cancelled, for its connection is lost or the server stops
        try:
            await feed.close("error")  # nothing where it has ended, as it has unless `begin` failed
            if end is not None:
                await end()
        finally:
            await outgoing.close(code, why)
    return ws
