"""Passes a request on to another place, and its answer back: both as streams, as fast as the slower end takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from http import HTTPStatus
from typing import TypeVar

import aiohttp
import structlog
from aiohttp import hdrs, web
from yarl import URL

from mediaserver.errors import CapacityError
from signaling.cluster.hop_headers import ORIGIN, passed_on
from signaling.cluster.hop_origin import HopOrigin
from signaling.cluster.hop_tunnel import tunnel
from signaling.cluster.places import Place

log = structlog.get_logger(__name__)

T = TypeVar("T")

CONNECT_S = 1.5
"""How long a connection to another place may take, on one machine or in one network."""

HOPS_MAX = 2000
"""Requests and sockets that are passed on at once, some 100 KB each at worst; one more is refused."""

LOOK_S = 0.5
"""How often it is looked whether the client still waits: the other place is to know when it does not."""

LOST_RETRY_AFTER_S = 1
"""By then it is known whether that place is gone, and the request finds another."""

UNIX = "unix:"


class PlaceGone(Exception):  # noqa: N818 - no fault, but what the caller acts on
    """It does not listen there, and nothing of the request's body has been read."""


class HopProxy:
    """Requests to other places. The owner awaits `close`.

    Args:
        origin: says for whom.
    """

    def __init__(self, origin: HopOrigin) -> None:
        self._origin = origin
        self._sessions: dict[str, aiohttp.ClientSession] = {}  # by place; bound: those that live
        self._hops = 0

    async def pass_on(self, request: web.Request, place: Place, address: str, *, request_id: str) -> web.StreamResponse:
        """Have another place handle a request.

        Args:
            request: nothing of its body has been read.
            place: where to.
            address: of the client.
            request_id: what the request is called in logs.

        Raises:
            PlaceGone: it can be handled here as if it had not been tried.
            CapacityError: PLACE_LOST, PLACE_BUSY or TOO_MANY_HOPS.
            ConnectionError: the client is gone, or that place broke off in the middle, which the client sees too.
        """
        if self._hops >= HOPS_MAX:
            raise _busy("TOO_MANY_HOPS", "Too many requests are being passed on.")
        self._hops += 1
        try:
            return await _while_there(request, self._pass_on(request, place, address, request_id))
        finally:
            self._hops -= 1

    def forget(self, place_id: str) -> None:
        """A place is gone for good."""
        session = self._sessions.pop(place_id, None)
        if session is not None:
            session.detach()  # its connections end with their requests; it keeps none

    async def close(self) -> None:
        """Hang up."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def text_of(self, place: Place, path: str, *, accept: str, limit_bytes: int, limit_s: float) -> str:
        """What a place answers to a GET of this place's own.

        Raises:
            OSError, aiohttp.ClientError, TimeoutError, ValueError: nothing that can be used.
        """
        signature = self._origin.sign(hdrs.METH_GET, path, "127.0.0.1", to=place.place_id)
        headers = {hdrs.ACCEPT: accept, ORIGIN: signature}
        async with asyncio.timeout(limit_s), self._to(place).get(_url(place, path), headers=headers) as answer:
            body = await answer.content.read(limit_bytes)
            while len(body) < limit_bytes and (more := await answer.content.read(limit_bytes - len(body))):
                body += more
            if answer.status != HTTPStatus.OK or len(body) >= limit_bytes:
                raise ValueError(f"{answer.status}, {len(body)} bytes")
            return body.decode()

    async def _pass_on(self, request: web.Request, place: Place, address: str, request_id: str) -> web.StreamResponse:
        target = str(request.rel_url.with_fragment(None))  # which is not sent, and so is not signed either
        wants_upgrade = hdrs.UPGRADE in request.headers and request.method == hdrs.METH_GET
        signature = self._origin.sign(request.method, target, address, to=place.place_id)
        add = {ORIGIN: signature, "X-Request-ID": request_id}
        if wants_upgrade:
            add |= {hdrs.CONNECTION: "Upgrade", hdrs.UPGRADE: request.headers[hdrs.UPGRADE]}
        try:
            answer = await self._to(place).request(
                request.method,
                _url(place, target),
                headers=passed_on(request.headers, add=add),
                data=_body_of(request) if request.can_read_body and not wants_upgrade else None,
                allow_redirects=False,
                read_until_eof=not wants_upgrade,
            )
        except aiohttp.ClientConnectorError as exc:
            log.info("place gone", to_place=place.place_id, reason=str(exc.os_error))
            raise PlaceGone from exc
        except aiohttp.ConnectionTimeoutError as exc:
            raise _busy("PLACE_BUSY", "The server that has this session does not answer.") from exc
        except (aiohttp.ClientError, web.RequestPayloadError) as exc:
            if request.transport is None:
                raise ConnectionResetError("the client is gone") from exc
            log.warning("place lost", to_place=place.place_id, failure=type(exc).__name__)
            raise _busy("PLACE_LOST", "The server that had this request broke off.") from exc
        try:
            if answer.status == HTTPStatus.MISDIRECTED_REQUEST:  # there is another in its stead, which was just started
                log.info("place gone", to_place=place.place_id, reason="its address is another's")
                if request.body_exists:  # and has been sent
                    raise _busy("PLACE_LOST", "The server that had this request is gone.")
                raise PlaceGone
            return await _answered(request, answer)
        finally:
            answer.close()

    def _to(self, place: Place) -> aiohttp.ClientSession:
        session = self._sessions.get(place.place_id)
        if session is None:
            # A new connection for each: it costs 0.1 ms here, and one that was kept may just be being closed.
            if place.address.startswith(UNIX):
                path = place.address.removeprefix(UNIX)
                connector: aiohttp.BaseConnector = aiohttp.UnixConnector(path, limit=0, force_close=True)
            else:
                connector = aiohttp.TCPConnector(limit=0, force_close=True)
            session = self._sessions[place.place_id] = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE),
            )
        return session


def _url(place: Place, target: str) -> URL:
    base = "http://place" if place.address.startswith(UNIX) else place.address
    return URL(base + target, encoded=True)


async def _body_of(request: web.Request) -> AsyncIterator[bytes]:
    async for chunk in request.content.iter_any():
        yield chunk


async def _answered(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    headers = passed_on(answer.headers)
    if answer.status == HTTPStatus.SWITCHING_PROTOCOLS:
        return await tunnel(request, answer, headers)
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    await response.prepare(request)
    try:
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
    except aiohttp.ClientError as exc:
        if request.transport is not None:
            request.transport.abort()  # or the client would take what it has for all
        raise ConnectionAbortedError("the place broke off") from exc
    await response.write_eof()
    return response


async def _while_there(request: web.Request, work: Coroutine[object, object, T]) -> T:
    """Do something for a client as long as it waits for it.

    Raises:
        ConnectionResetError: it has hung up.
    """
    task = asyncio.create_task(work, name="hop")
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=LOOK_S)
            if not task.done() and request.transport is None:
                raise ConnectionResetError("the client is gone")
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _busy(code: str, message: str) -> CapacityError:
    return CapacityError(code, message, f"Try again in {LOST_RETRY_AFTER_S} s.", retry_after_s=LOST_RETRY_AFTER_S)
