"""`POST /v1/auth/grant`: a temporary token, for a browser or a phone that should not have the key."""

from __future__ import annotations

import uuid
from http import HTTPStatus

from aiohttp import web

from mediaserver.errors import VoiceForgeError
from signaling.auth.principal import TokenKind, principal_of
from signaling.auth.tokens import Tokens
from signaling.body import read_json
from signaling.openapi.operation import described
from signaling.problems import HttpError
from signaling.routes.deepgram.credentials import TTL_DEFAULT_S, GrantBody, Granted
from signaling.routes.deepgram.door_operations import GRANT
from signaling.routes.deepgram.refusals import REQUEST_ID, refusal_response

PATH = "/v1/auth/grant"


class Grant:
    """The endpoint.

    Args:
        tokens: makes them.
    """

    def __init__(self, *, tokens: Tokens) -> None:
        self._tokens = tokens

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        return [web.post(PATH, self.create)]

    @described(GRANT)
    async def create(self, request: web.Request) -> web.Response:
        """POST `{"ttl_seconds": 30}`, or nothing: a token."""
        request_id = str(uuid.uuid4())
        try:
            if principal_of(request).token is not None:
                raise HttpError(
                    HTTPStatus.FORBIDDEN,
                    "INSUFFICIENT_PERMISSIONS",
                    "A temporary token cannot get another.",
                    "Ask with your key.",
                )
            body = await read_json(request, GrantBody) if request.body_exists else GrantBody()
        except VoiceForgeError as exc:
            return refusal_response(exc, request_id)
        ttl_s = TTL_DEFAULT_S if body.ttl_seconds is None else body.ttl_seconds
        granted = Granted(
            access_token=self._tokens.issue(principal_of(request), kind=TokenKind.GRANT, ttl_s=ttl_s), expires_in=ttl_s
        )
        headers = {"Cache-Control": "no-store", REQUEST_ID: request_id}
        return web.json_response(text=granted.model_dump_json(), headers=headers)
