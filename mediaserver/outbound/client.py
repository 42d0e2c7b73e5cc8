"""HTTP to addresses that a client named, made so that it cannot be turned against this server's own network.

The address is judged where the socket is made, after the name was resolved: a name that answers differently the second
time (DNS rebinding), a redirect, an odd spelling of 127.0.0.1, all come to the same check. No proxy of the environment
is used, for behind one the check would see the proxy. Cookies are not kept and nothing is decompressed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
from yarl import URL

from mediaserver.errors import ConfigError, MediaError
from mediaserver.outbound.addresses import Reach, reach_of
from mediaserver.outbound.names import Names
from mediaserver.version import VERSION

URL_MAX_LETTERS = 2048
"""Signed addresses of object stores are 500 to 1500 letters; servers refuse what is much longer."""

REDIRECTS_MAX = 5
"""A share link takes two or three."""

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
"""Without a byte for so long the other end is taken for dead."""

CONNECTIONS_MAX = 64
CONNECTIONS_PER_HOST_MAX = 8
"""Requests beyond these wait for a free connection."""

WRITE_BYTES = 1 << 20
"""Written at once: few trips to a thread, and hardly any memory."""

_REDIRECTS = {301, 302, 303, 307, 308}

OnFetched = Callable[[int, int | None], None]
"""Told of bytes fetched so far, and of all there are if the other end says so."""


@dataclass(frozen=True, slots=True)
class OutboundPolicy:
    """Where requests may go. `allow_private`: also into private networks and to this machine."""

    allow_private: bool = False

    def allows(self, address: str) -> bool:
        """Whether this IP address may be connected to; what is no address may not."""
        try:
            reach = reach_of(address)
        except ValueError:
            return False
        return reach is Reach.PUBLIC or (reach is Reach.PRIVATE and self.allow_private)


class AddressRefusedError(OSError):
    """A connection that the policy refuses. It does not say what the name resolved to: that is nobody's business."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "the address is not public")


class OutboundError(MediaError):
    """A recording that could not be fetched: where it is, what answered, or how large it is."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched: its size in bytes, and what the other end called it."""

    size_bytes: int
    content_type: str
    name: str


def outbound_session(policy: OutboundPolicy) -> aiohttp.ClientSession:
    """A client whose every connection is judged by the policy. The caller closes it."""

    def guarded_socket(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        if not policy.allows(str(address[0])):
            raise AddressRefusedError
        return socket.socket(family, kind, protocol)

    names = Names()
    return aiohttp.ClientSession(
        connector=_Connector(
            names, socket_factory=guarded_socket, limit=CONNECTIONS_MAX, limit_per_host=CONNECTIONS_PER_HOST_MAX
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # what is not decompressed cannot be a bomb
        trust_env=False,
        headers={"User-Agent": f"VoiceForge/{VERSION}", "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S),
    )


class _Connector(aiohttp.TCPConnector):
    """One that lets its resolver go."""

    def __init__(self, names: Names, **given: Any) -> None:
        super().__init__(resolver=names, **given)
        self._names = names

    async def close(self, *, abort_ssl: bool = False) -> None:
        await super().close(abort_ssl=abort_ssl)
        await self._names.close()


def parse_url(text: str, policy: OutboundPolicy | None = None) -> URL:
    """A URL that a client named.

    Args:
        text: as it came.
        policy: an address written out is judged at once, so that a client hears of it; names only when connecting.

    Raises:
        ConfigError: INVALID_URL, or ADDRESS_NOT_ALLOWED.
    """
    if len(text) > URL_MAX_LETTERS:
        raise _invalid_url(f"is longer than {URL_MAX_LETTERS} letters")
    try:
        url = URL(text)
        port = url.port
        (url.raw_host or "").encode("idna")  # as the resolver will: empty and overlong labels are found here
    except ValueError as exc:
        raise _invalid_url("cannot be read") from exc
    if url.scheme not in ("http", "https"):
        raise _invalid_url("begins with neither http:// nor https://")
    if not url.host or not port:
        raise _invalid_url("names no host and port")
    if url.user is not None or url.password is not None:
        raise _invalid_url("holds a user's name or password, which would end up in logs")
    if policy is not None and _is_address(url.host) and not policy.allows(url.host):
        raise ConfigError("ADDRESS_NOT_ALLOWED", "The URL leads to an address that is not public.", _PRIVATE_HINT)
    return url.with_fragment(None)


def shown(url: URL | str) -> str:
    """A URL for logs: scheme, host and port. Paths and queries of webhooks and signed links are secrets."""
    try:
        return str(URL(url).origin())
    except ValueError:
        return "-"


async def fetch_to_file(
    session: aiohttp.ClientSession,
    url: str,
    path: Path,
    *,
    max_bytes: int,
    timeout_s: float,
    reserve_bytes: int = 0,
    on_progress: OnFetched | None = None,
) -> Fetched:
    """Fetch a URL into a file, following redirects; nothing is left at `path` if that fails.

    Args:
        session: of `outbound_session`.
        url: http or https.
        path: of the file, made anew.
        max_bytes: beyond which it is given up.
        timeout_s: for all of it.
        reserve_bytes: to leave free on the disk: how much will come is not always said.
        on_progress: called after each piece.

    Raises:
        ConfigError: INVALID_URL.
        OutboundError: ADDRESS_NOT_ALLOWED, FETCH_FAILED, FETCH_REFUSED, FETCH_TOO_LARGE, FETCH_TIMEOUT.
        OSError: the file cannot be written; ENOSPC also where `reserve_bytes` are not free.
    """
    try:
        async with asyncio.timeout(timeout_s):
            async with _followed(session, parse_url(url)) as response:
                return await _save(response, path, max_bytes, reserve_bytes, on_progress)
    except (TimeoutError, aiohttp.ServerTimeoutError) as exc:
        raise OutboundError(
            "FETCH_TIMEOUT",
            f"The recording did not arrive from {shown(url)} in time.",
            f"It may take {timeout_s:g} s, and {READ_TIMEOUT_S:g} s without a byte.",
            retryable=True,
        ) from exc
    except aiohttp.ClientConnectorError as exc:
        if isinstance(exc.os_error, AddressRefusedError):
            raise OutboundError(
                "ADDRESS_NOT_ALLOWED", "The URL leads to an address that is not public.", _PRIVATE_HINT
            ) from exc
        raise _fetch_failed(url, "cannot be reached") from exc
    except aiohttp.InvalidURL as exc:  # an address in digits alone, for example
        raise OutboundError(
            "FETCH_REFUSED",
            f"The URL, or where {shown(url)} leads, is not one to fetch.",
            "Give the recording's own URL.",
        ) from exc
    except (aiohttp.ClientError, ConnectionError) as exc:
        raise _fetch_failed(url, "broke off") from exc


@asynccontextmanager
async def _followed(session: aiohttp.ClientSession, url: URL) -> AsyncIterator[aiohttp.ClientResponse]:
    """The response at the end of the redirects, whose every URL is parsed as the first one was."""
    for _ in range(REDIRECTS_MAX + 1):
        async with session.get(url, allow_redirects=False) as response:
            if response.status not in _REDIRECTS:
                yield response
                return
            target = response.headers.get("Location", "")
        try:
            following = parse_url(str(url.join(URL(target))))
        except (ValueError, ConfigError) as exc:
            raise _redirect_refused(url, "leads to no URL that may be fetched") from exc
        if url.scheme == "https" and following.scheme == "http":
            raise _redirect_refused(url, "leads from https to http")
        url = following
    raise _redirect_refused(url, f"goes on after {REDIRECTS_MAX} steps")


async def _save(
    response: aiohttp.ClientResponse, path: Path, max_bytes: int, reserve_bytes: int, on_progress: OnFetched | None
) -> Fetched:
    if response.status != HTTPStatus.OK:
        raise OutboundError(
            "FETCH_REFUSED",
            f"{shown(response.url)} answered {response.status} instead of the recording.",
            "Check that the URL can be opened without logging in.",
            retryable=response.status >= HTTPStatus.INTERNAL_SERVER_ERROR,
        )
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise OutboundError(
            "FETCH_REFUSED",
            f"{shown(response.url)} sent the recording compressed, though it was asked not to.",
            "Serve it without a Content-Encoding.",
        )
    total = response.content_length
    if total is not None and total > max_bytes:
        raise _too_large(max_bytes)
    done = 0
    file = path.open("wb")  # not in a thread: cancelled there, it would leave the file behind
    try:
        pending = bytearray()
        async for piece in response.content.iter_any():
            done += len(piece)
            if done > max_bytes:
                raise _too_large(max_bytes)
            pending += piece
            if len(pending) >= WRITE_BYTES:
                await asyncio.to_thread(_write, file, bytes(pending), reserve_bytes)
                pending.clear()
                if on_progress is not None:
                    on_progress(done, total)
        await asyncio.to_thread(_finish, file, bytes(pending))
    except BaseException:
        with suppress(OSError):
            file.close()
        await asyncio.shield(asyncio.to_thread(path.unlink, missing_ok=True))  # half a second for a gigabyte
        raise
    if on_progress is not None:
        on_progress(done, done)
    return Fetched(done, response.content_type, response.url.name)


def _write(file: BinaryIO, data: bytes, reserve_bytes: int) -> None:
    if shutil.disk_usage(file.fileno()).free - len(data) < reserve_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    file.write(data)


def _finish(file: BinaryIO, rest: bytes) -> None:
    file.write(rest)
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _is_address(host: str) -> bool:
    try:
        reach_of(host)
    except ValueError:
        return False
    return True


_PRIVATE_HINT = "Where recordings and webhooks live in your own network, set `outbound_allow_private`."


def _invalid_url(problem: str) -> ConfigError:
    return ConfigError("INVALID_URL", f"The URL {problem}.", "Give one such as https://example.org/call.wav.")


def _fetch_failed(url: str, problem: str) -> OutboundError:
    return OutboundError(
        "FETCH_FAILED", f"The connection to {shown(url)} {problem}.", "Check the URL, and try again.", retryable=True
    )


def _redirect_refused(url: URL, problem: str) -> OutboundError:
    return OutboundError("FETCH_REFUSED", f"The redirect at {shown(url)} {problem}.", "Give the recording's own URL.")


def _too_large(max_bytes: int) -> OutboundError:
    return OutboundError(
        "FETCH_TOO_LARGE",
        f"The recording is larger than {max_bytes / 1e6:.0f} MB.",
        "Send a compressed one, or raise `upload_max_bytes`.",
    )
