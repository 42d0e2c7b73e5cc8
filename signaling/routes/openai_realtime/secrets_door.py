"""`POST /v1/realtime/client_secrets`, and its legacy form `/v1/realtime/transcription_sessions`."""

from __future__ import annotations

import secrets
from http import HTTPStatus

from aiohttp import web

from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics
from signaling.auth.principal import principal_of
from signaling.limits import load_denoiser
from signaling.openapi.operation import described
from signaling.problems import HttpError
from signaling.routes.openai_realtime.access import Access
from signaling.routes.openai_realtime.calls_door import preflight_response
from signaling.routes.openai_realtime.client_secrets import PREFIX, ClientSecrets
from signaling.routes.openai_realtime.realtime_operations import LEGACY_SESSION, PREFLIGHT, SECRET
from signaling.routes.openai_realtime.requests import key_of, read_model, read_object
from signaling.routes.openai_realtime.session_models import ClientSecretRequest, ExpiresAfter, LegacySessionRequest
from signaling.routes.openai_realtime.session_state import SessionState, parse_session

PATH = "/v1/realtime/client_secrets"
LEGACY_PATH = "/v1/realtime/transcription_sessions"

ID_BYTES = 8
"""Of a session object that is none yet: unique among those that one client looks at."""


class SecretsDoor:
    """Client secrets.

    Args:
        client_secrets: where they are kept.
        access: knows what this node can meet.
        metrics: refusals by code.
    """

    def __init__(self, *, client_secrets: ClientSecrets, access: Access, metrics: Metrics) -> None:
        self._secrets = client_secrets
        self._access = access
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        return [
            web.post(PATH, self.create),
            web.options(PATH, self.preflight),
            web.post(LEGACY_PATH, self.create_legacy),
            web.options(LEGACY_PATH, self.preflight),
        ]

    @described(SECRET)
    async def create(self, request: web.Request) -> web.Response:
        """POST the parameters of a session: a secret that opens such sessions."""
        try:
            return await self._create(request)
        except VoiceForgeError as error:
            self._metrics.refused_total.labels(error.code).inc()
            raise

    @described(LEGACY_SESSION)
    async def create_legacy(self, request: web.Request) -> web.Response:
        """POST them in the legacy shape: the session, with a secret in it."""
        try:
            return await self._create_legacy(request)
        except VoiceForgeError as error:
            self._metrics.refused_total.labels(error.code).inc()
            raise

    @described(PREFLIGHT)
    async def preflight(self, _request: web.Request) -> web.Response:
        """OPTIONS: what a page of another origin may do, where its origin is let in."""
        return preflight_response()

    async def _create(self, request: web.Request) -> web.Response:
        _require_other_key(request)
        given = await read_object(request)
        if isinstance(session := given.get("session"), dict):
            given["session"] = parse_session(session, within="session.")
        asked = read_model(ClientSecretRequest, given)
        state = SessionState() if asked.session is None else SessionState().updated(asked.session)
        await self._check(state)
        issued = await self._secrets.issue(
            state, seconds=(asked.expires_after or ExpiresAfter()).seconds, issuer=principal_of(request)
        )
        session = state.told(
            _session_id(), settings=self._access.settings, model=self._access.loaded_model, expires_at=None
        )
        return _told({"value": issued.value, "expires_at": issued.expires_at, "session": session})

    async def _create_legacy(self, request: web.Request) -> web.Response:
        _require_other_key(request)
        asked = read_model(LegacySessionRequest, await read_object(request))
        state = SessionState().updated_legacy(asked)
        await self._check(state)
        wanted = asked.client_secret
        expires = (wanted.expires_at or wanted.expires_after) if wanted else None
        issued = await self._secrets.issue(
            state, seconds=(expires or ExpiresAfter()).seconds, issuer=principal_of(request)
        )
        return _told(
            state.told_legacy(
                _session_id(),
                settings=self._access.settings,
                model=self._access.loaded_model,
                secret={"value": issued.value, "expires_at": issued.expires_at},
            )
        )

    async def _check(self, state: SessionState) -> None:
        """Refuse now what its sessions would be refused for."""
        self._access.check(state)
        await load_denoiser(state.config())


def _require_other_key(request: web.Request) -> None:
    """A secret that was handed to a browser makes no further secrets."""
    key = key_of(request)
    if principal_of(request).token is not None or (key is not None and key.startswith(PREFIX)):
        raise HttpError(
            HTTPStatus.UNAUTHORIZED,
            "INVALID_API_KEY",
            "A client secret does not make others.",
            "Ask with your own key, from your server.",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _session_id() -> str:
    return f"sess_{secrets.token_hex(ID_BYTES)}"


def _told(body: dict[str, object]) -> web.Response:
    return web.json_response(body, headers={"Cache-Control": "no-store"})
