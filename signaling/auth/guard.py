"""The guard: before any handler runs, and so before anything is opened, it asks who is there.

Until the first key is made, programs of this machine are served and nobody else. From then on every request needs a
key or a token, those of this machine too. What a route asks for stands in its description (`Operation.access`).
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from aiohttp import hdrs, web

from mediaserver.errors import ConfigError
from mediaserver.metrics import Metrics
from mediaserver.settings import KeylessAccess, Settings
from signaling.auth.addresses import HIDDEN, client_address
from signaling.auth.credentials import Credentials, credentials_of
from signaling.auth.keys import PREFIX, Keys
from signaling.auth.principal import ANYBODY, LOCAL, NOBODY, Principal, Scope, TokenKind, set_principal
from signaling.auth.tokens import Token, Tokens, is_token
from signaling.cluster.leases import Leases, set_lease
from signaling.cluster.state import StateAwayError
from signaling.limits import is_loopback
from signaling.openapi.operation import Access, Operation, Tag, Undescribed, description_of
from signaling.problems import Handler, HttpError, LimitError
from signaling.usage.meter import Meter

_BEHIND_A_PROXY = "The request came by a proxy that is not one of `trusted_proxies`, or does not say from whom."

SECRET_PREFIX = "ek_"  # noqa: S105 - what secrets begin with

OPENED_BY: dict[TokenKind, frozenset[Tag]] = {
    TokenKind.JOIN: frozenset({Tag.NATIVE, Tag.WHIP, Tag.SERVER}),
    TokenKind.GRANT: frozenset({Tag.DEEPGRAM, Tag.SERVER}),
    TokenKind.SECRET: frozenset({Tag.OPENAI, Tag.SERVER}),
}
"""Which protocols a token opens: those that know what it says of the session."""


class Secrets(Protocol):
    """Secrets of another kind than tokens, which carry whom they stand for (OpenAI's)."""

    async def issuer_of(self, value: str) -> Principal | None:
        """For whom a secret was made; None: it is unknown or has expired."""
        ...


@dataclass(frozen=True, slots=True)
class _Found:
    """Who is there, and the token to use up; or nobody, and why."""

    principal: Principal | None = None
    why: str = ""
    token: Token | None = None


class Guard:
    """Who comes in.

    Args:
        settings: of the node.
        keys: of the node.
        tokens: of the node.
        secrets: OpenAI's.
        leases: how many sessions keys have.
        meter: how much keys have used.
        metrics: refusals by code.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        keys: Keys,
        tokens: Tokens,
        secrets: Secrets,
        leases: Leases,
        meter: Meter,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._tokens = tokens
        self._secrets = secrets
        self._leases = leases
        self._meter = meter
        self._metrics = metrics

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Find out who is there; refuse, or call the handler."""
        set_principal(request, NOBODY)  # a connection's requests share their context
        set_lease(None)
        operation = self._guarded(request)
        if operation is None:
            return await handler(request)
        try:
            found = await self._admitted(request, operation)
            assert found.principal is not None
            lease = await self._leases.take(found.principal) if operation.opens_session else None
        except (HttpError, LimitError, StateAwayError) as exc:
            self._metrics.refused_total.labels(exc.code).inc()
            raise
        set_principal(request, found.principal)
        set_lease(lease)
        try:
            if found.token is None or not operation.opens_session:
                return await handler(request)
            return await self._with_token(request, handler, operation, found.token)
        finally:
            if lease is not None:
                await self._leases.settle(lease)

    def _guarded(self, request: web.Request) -> Operation | None:
        """What is asked for; None where it is open to anybody."""
        if request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
            return None  # a browser asks for a page's sake, and may not say whose page it is
        if request.match_info.http_exception is not None:
            return None  # there is no such address
        description = description_of(request.match_info.handler)
        if isinstance(description, Undescribed):
            return None
        if description is None:
            raise RuntimeError(f"{request.method} {request.match_info.route.resource} does not say who may call it")
        if description.access in (Access.OPEN, Access.URL):
            return None
        if description.access is Access.METRICS and not self._settings.metrics_need_key:
            return None
        return description

    async def _admitted(self, request: web.Request, operation: Operation) -> _Found:
        address = client_address(request, self._settings.trusted_proxies)
        given = credentials_of(request, in_query=operation.tag is Tag.NATIVE)
        exist = await self._keys.exist()
        keyless = self._keyless(address, exist=exist)
        found = await self._found(given, address)
        if keyless is not None and not is_token(given.value) and (not exist or not given.value.startswith(PREFIX)):
            # Whoever needs no key may send anything in its place, as vendors' SDKs do; but a token counts.
            found = found if found.principal is not None else _Found(keyless)
        if found.principal is None:
            why = found.why if address != HIDDEN or exist else _BEHIND_A_PROXY
            raise _unauthorized(operation, given, why, exist=exist)
        if found.principal.token is not None and found.principal.key_id is None and keyless is None:
            raise _unauthorized(operation, given, "The temporary token was given out without a key.", exist=exist)
        _require(found.principal, operation)
        if operation.opens_session or (operation.access is Access.JOBS and request.method == hdrs.METH_POST):
            await self._meter.require_minutes(found.principal)
        return found

    def _keyless(self, address: str, *, exist: bool) -> Principal | None:
        """Who somebody is that comes without a key; None: nobody."""
        way = self._settings.keyless_access
        if is_loopback(address) and (way is not KeylessAccess.AUTO or not exist):
            return LOCAL
        return ANYBODY if way is KeylessAccess.EVERYONE else None

    async def _found(self, given: Credentials, address: str) -> _Found:
        value = given.value
        if not value:
            return _Found(why="The request has no key.")
        if is_token(value):
            token, why = await self._tokens.read(value, address=address)
            return _Found(None if token is None else token.principal, why, token)
        if value.startswith(SECRET_PREFIX):
            issuer = await self._secrets.issuer_of(value)
            if issuer is not None and issuer.key_id is not None:
                issuer = await self._keys.principal_of_id(issuer.key_id, address=address)
            if issuer is None or (issuer.key_id is None and await self._keys.exist()):
                return _Found(why="The client secret is unknown or has expired.")
            return _Found(_by_secret(issuer))
        return _Found(*await self._keys.find(value, address=address))

    async def _with_token(
        self, request: web.Request, handler: Handler, operation: Operation, token: Token
    ) -> web.StreamResponse:
        """Serve one session for a join token; where it is refused, the token stays good."""
        if token.principal.token is not TokenKind.JOIN:
            return await handler(request)
        try:
            is_first = await self._tokens.spend(token)
        except StateAwayError as exc:
            self._metrics.refused_total.labels(exc.code).inc()
            raise
        if not is_first:
            self._metrics.refused_total.labels("INVALID_API_KEY").inc()
            raise _unauthorized(operation, Credentials("bearer"), "The join token has been used.", exist=True)
        try:
            response = await handler(request)
        except Exception:
            await self._tokens.give_back(token)
            raise
        if response.status >= HTTPStatus.BAD_REQUEST:
            await self._tokens.give_back(token)
        return response


async def require_keys(settings: Settings, keys: Keys) -> None:
    """Refuse to listen for strangers where nobody could be told from anybody.

    Raises:
        ConfigError: NO_KEYS.
        VoiceForgeError: what `Database.reading` raises.
    """
    if is_loopback(settings.host) or settings.keyless_access is KeylessAccess.EVERYONE or await keys.exist():
        return
    raise ConfigError(
        "NO_KEYS",
        f"{settings.host} can be reached from the network, and there are no keys: everybody could come in.",
        "Make a key: `voiceforge keys create NAME`. Or listen on 127.0.0.1, or set `keyless_access` to `everyone`.",
    )


def _by_secret(issuer: Principal) -> Principal:
    scopes = issuer.scopes & {Scope.STREAM}
    return Principal(issuer.tenant, issuer.key_id, scopes, issuer.limits, token=TokenKind.SECRET)


def _require(principal: Principal, operation: Operation) -> None:
    """Refuse what this principal may not do.

    Raises:
        HttpError: INSUFFICIENT_PERMISSIONS (403).
    """
    if principal.token is not None and operation.tag not in OPENED_BY[principal.token]:
        raise _forbidden("The temporary token is for another protocol.", "Get one for this protocol, or use a key.")
    if operation.access in (Access.ANY, Access.METRICS):
        return
    scope = Scope(operation.access.value)
    if scope not in principal.scopes:
        raise _forbidden(
            f"The key has no scope `{scope}`.", "Use a key that has it; `voiceforge keys list` shows them."
        )


def _forbidden(message: str, hint: str) -> HttpError:
    return HttpError(HTTPStatus.FORBIDDEN, "INSUFFICIENT_PERMISSIONS", message, hint)


def _unauthorized(operation: Operation, given: Credentials, why: str, *, exist: bool) -> HttpError:
    code = "INVALID_AUTH" if operation.tag is Tag.DEEPGRAM else "INVALID_API_KEY"
    challenge = 'Bearer realm="voiceforge"'
    if given.scheme:  # RFC 6750 section 3.1: only to who has shown something
        challenge += ', error="invalid_token"'
    hint = "Send `Authorization: Bearer <key>`." if exist else "This server has no keys yet and serves its own machine."
    return HttpError(
        HTTPStatus.UNAUTHORIZED, code, why, hint, headers={"WWW-Authenticate": challenge, "Cache-Control": "no-store"}
    )
