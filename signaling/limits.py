"""Who may come in: from which pages, with how many bytes, and whether there is room for one more session."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urlsplit

from aiohttp import web

from mediaserver.audio.denoise import preload
from mediaserver.decoder.window import Decoder
from mediaserver.errors import CapacityError
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Denoise
from signaling.problems import Handler, HttpError

SDP_MAX_BYTES = 64 * 1024
"""An offer of a browser is 2–10 KiB; what is larger is not an offer of one microphone."""

SDPFRAG_MAX_BYTES = 16 * 1024
"""A fragment carries at most a few dozen candidates of 100–150 bytes."""

BODY_TIMEOUT_S = 10.0
"""64 KiB on a link of 64 kbit/s take 8 s; a body that takes longer is held open on purpose."""

ACCEPT_TIMEOUT_S = 10.0
"""Within this an offer is answered. Gathering takes milliseconds; more means that a STUN or TURN server is silent."""

IDLE_CONNECTION_S = 30.0
"""A connection without a complete request for so long is closed: the bound on slow and missing headers, too."""

PREFLIGHT_MAX_AGE_S = 600
"""How long a browser may remember what a preflight said."""

LOADING_RETRY_AFTER_S = 5
ENGINE_RETRY_AFTER_S = 5
"""A decoder that died is back in 2 or 3 s."""

STOPPING_RETRY_AFTER_S = 5
"""By then a load balancer has noticed that this node is leaving."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why sessions should go elsewhere.

    Args:
        code: for programs.
        sentence: for people.
    """

    code: str
    sentence: str


STOPPING = Reason("stopping", "the server is shutting down")
LOADING = Reason("loading", "the model is loading")
ENGINE_DOWN = Reason("engine_down", "the decoder is down")


class ServedEngine(Decoder, Protocol):
    """The engine as the front door sees it."""

    @property
    def ready(self) -> bool:
        """Whether the model is loaded and warm."""
        ...

    def overload_retry_after_s(self) -> int | None:
        """Seconds after which a new session may be let in, or None while finals are on time."""
        ...


class Admission:
    """Whether a new session may come in now (design decision 3: refuse one rather than slow everyone).

    Args:
        engine: gives the engine, None until one is loaded.
        require_room: raises CapacityError when no further session fits.
    """

    def __init__(self, *, engine: Callable[[], ServedEngine | None], require_room: Callable[[], None]) -> None:
        self._engine = engine
        self._require_room = require_room
        self._stopping = False
        self.further: Callable[[], Sequence[Reason]] = tuple
        """Gives further reasons why sessions should go elsewhere (`signaling.seeing.node_watch`)."""

    @property
    def stopping(self) -> bool:
        """Whether the node is on its way out."""
        return self._stopping

    def stop(self) -> None:
        """Admit nobody from now on."""
        self._stopping = True

    def not_ready(self) -> list[Reason]:
        """Why a load balancer should look elsewhere; empty when ready. A full node is still ready: it answers 503."""
        engine = self._engine()
        reasons = []
        if self._stopping:
            reasons.append(STOPPING)
        if engine is None:
            reasons.append(LOADING)
        elif not engine.ready:
            reasons.append(ENGINE_DOWN)
        return [*reasons, *self.further()]

    def check_up(self) -> ServedEngine:
        """The engine, where the node works at all: what a recording needs, which gives way to every session.

        Raises:
            CapacityError: SHUTTING_DOWN, MODEL_LOADING or ENGINE_DOWN.
        """
        engine = self._engine()
        if self._stopping:
            raise shutting_down()
        if engine is None:
            raise loading()
        if not engine.ready:
            raise CapacityError(
                "ENGINE_DOWN",
                "The decoder is being started again.",
                f"Try again in {ENGINE_RETRY_AFTER_S} s; sessions that run keep their audio until it is there.",
                retry_after_s=ENGINE_RETRY_AFTER_S,
            )
        return engine

    def check(self) -> None:
        """Let a session in, or say when to come back.

        Raises:
            CapacityError: SHUTTING_DOWN, MODEL_LOADING, ENGINE_DOWN, SERVER_FULL or OVERLOADED.
        """
        engine = self.check_up()
        self._require_room()
        self._check_load(engine)

    def check_returning(self) -> None:
        """Let a session in that another process had. It is no new one to its key's limits; whether there is a place for
        it the registry says. An engine that is overloaded takes none: those that are there would pay for it.

        Raises:
            CapacityError: SHUTTING_DOWN, MODEL_LOADING, ENGINE_DOWN or OVERLOADED.
        """
        self._check_load(self.check_up())

    @staticmethod
    def _check_load(engine: ServedEngine) -> None:
        retry_after_s = engine.overload_retry_after_s()
        if retry_after_s is not None:
            raise CapacityError(
                "OVERLOADED",
                "Finals would be late with one more session.",
                f"Try again in {retry_after_s} s, or on another node.",
                retry_after_s=retry_after_s,
            )

    async def check_once_loaded(self, config: SessionConfig) -> None:
        """As `check`, once what the configuration wants is there; no await may lie between this and `Registry.add`.

        Raises:
            CapacityError: as `check`.
            VoiceForgeError: DENOISER_NOT_INSTALLED.
        """
        await load_denoiser(config)
        self.check()  # also where it was asked before, for loading took time


async def load_denoiser(config: SessionConfig) -> None:
    """Import the suppressor that a client wants: it may take seconds, once; this client waits for it, nobody else.

    Raises:
        VoiceForgeError: DENOISER_NOT_INSTALLED.
    """
    if config.denoise is not None:
        await asyncio.to_thread(preload, Denoise(config.denoise))


def loading() -> CapacityError:
    """The refusal of a node that is not there yet."""
    return CapacityError(
        "MODEL_LOADING",
        "The speech model is still loading.",
        f"Try again in {LOADING_RETRY_AFTER_S} s; /readyz says when it is there.",
        retry_after_s=LOADING_RETRY_AFTER_S,
    )


def shutting_down() -> CapacityError:
    """The refusal of a node that is on its way out."""
    return CapacityError(
        "SHUTTING_DOWN",
        "The server is shutting down.",
        "Connect again: another node, or this one restarted, takes the session.",
        retry_after_s=STOPPING_RETRY_AFTER_S,
    )


class Gate:
    """Which pages may call this server, decided from `Host` and `Origin` alone.

    Bound to loopback, the server is reached by every page in the user's browser whose name resolves to 127.0.0.1
    (DNS rebinding): such a page sends its own name as `Host`, so only loopback names are let in. An `Origin` other
    than the server's own needs a place in `cors_origins`, wherever the server is bound. Credentials are never
    allowed across origins.

    Args:
        bound_host: the address that the server listens on.
        cors_origins: further origins (`scheme://host:port`), or `*` for every one.
    """

    def __init__(self, *, bound_host: str, cors_origins: Sequence[str]) -> None:
        self._loopback = is_loopback(bound_host)
        self._any_origin = "*" in cors_origins
        self._origins = {origin.lower().rstrip("/") for origin in cors_origins}
        # Behind a proxy the public name arrives as Host; a name that the operator listed is no rebinding.
        self._listed_hosts = {_netloc(origin) for origin in self._origins}

    def check(self, *, host: str, origin: str | None) -> None:
        """Refuse what a foreign page sends.

        Raises:
            HttpError: HOST_NOT_ALLOWED or ORIGIN_NOT_ALLOWED, both 403.
        """
        if self._loopback and not (is_loopback(_hostname(host)) or host.lower() in self._listed_hosts):
            raise HttpError(
                HTTPStatus.FORBIDDEN,
                "HOST_NOT_ALLOWED",
                "This server listens on loopback and was called by another name.",
                "Use http://localhost or http://127.0.0.1; behind a proxy, list its public origin in `cors_origins`.",
            )
        if origin is not None and not self._is_own(origin, host) and not self._is_listed(origin):
            raise HttpError(
                HTTPStatus.FORBIDDEN,
                "ORIGIN_NOT_ALLOWED",
                "Pages of this origin may not call this server.",
                "List the origin in `cors_origins`.",
            )

    def cors_headers(self, *, host: str, origin: str | None) -> dict[str, str]:
        """What a browser needs to see in order to hand the response to a page of `origin`."""
        if origin is None:
            return {"Vary": "Origin"}
        if not (self._is_own(origin, host) or self._is_listed(origin)):
            return {"Vary": "Origin"}
        return {
            "Access-Control-Allow-Origin": "*" if self._any_origin else origin,
            "Access-Control-Expose-Headers": "Location, ETag, Link, Retry-After, Accept-Post, Accept-Patch, "
            "Upload-Offset, Upload-Length, Upload-Expires, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, "
            "dg-request-id, dg-error, X-Request-ID",
            "Vary": "Origin",
        }

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """`check` before every handler."""
        self.check(host=request.headers.get("Host", ""), origin=request.headers.get("Origin"))
        return await handler(request)

    async def on_response(self, request: web.Request, response: web.StreamResponse) -> None:
        """Puts `cors_headers` on every response, refusals included: a page should be able to read why."""
        response.headers.update(
            self.cors_headers(host=request.headers.get("Host", ""), origin=request.headers.get("Origin"))
        )

    def _is_own(self, origin: str, host: str) -> bool:
        # The scheme is left out: behind a proxy that ends TLS, a page of https://name reaches us as http.
        return bool(host) and _netloc(origin.lower()) == host.lower()

    def _is_listed(self, origin: str) -> bool:
        return self._any_origin or origin.lower().rstrip("/") in self._origins


def is_loopback(host: str) -> bool:
    """Whether a host name or address literal never leaves this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _netloc(origin: str) -> str:
    try:
        parts = urlsplit(origin)
    except ValueError:  # an unclosed bracket, for example
        return ""
    return parts.netloc if parts.scheme in ("http", "https") else ""


def _hostname(host: str) -> str:
    if "@" in host:
        return ""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def read_text(request: web.Request, *, limit_bytes: int, invalid_code: str) -> str:
    """The body as text, hardly more than `limit_bytes` of it in memory.

    Raises:
        HttpError: BODY_TOO_LARGE (413), BODY_TIMEOUT (408), or `invalid_code` (400) if it is empty, broken off or
            not UTF-8.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            if (request.content_length or 0) <= limit_bytes:
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > limit_bytes:
                        break
    except TimeoutError as exc:
        raise HttpError(
            HTTPStatus.REQUEST_TIMEOUT,
            "BODY_TIMEOUT",
            f"The body did not arrive within {BODY_TIMEOUT_S:g} s.",
            "Send it in one piece.",
            retryable=True,
        ) from exc
    except web.RequestPayloadError as exc:
        raise _bad_body(invalid_code, "is broken off or garbled") from exc
    if max(len(body), request.content_length or 0) > limit_bytes:
        raise HttpError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "BODY_TOO_LARGE",
            f"The body is larger than {limit_bytes // 1024} KiB.",
            "Offer one audio track and a data channel, nothing else.",
        )
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        raise _bad_body(invalid_code, "is not UTF-8 text") from exc
    if not text.strip():
        raise _bad_body(invalid_code, "is empty")
    return text


def _bad_body(code: str, problem: str) -> HttpError:
    return HttpError(HTTPStatus.BAD_REQUEST, code, f"The body {problem}.", "Send the SDP as plain UTF-8 text.")
