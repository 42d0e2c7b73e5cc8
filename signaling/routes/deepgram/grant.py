"""`POST /v1/auth/grant`: a temporary token, for a browser or a phone that should not have the key."""

from __future__ import annotations

import uuid
from http import HTTPStatus

from aiohttp import web

from mediaserver.errors import VoiceForgeError
from signaling.body import read_json
from signaling.openapi.operation import described
from signaling.problems import HttpError
from signaling.routes.deepgram.credentials import TTL_DEFAULT_S, GrantBody, Granted, Grants, credentials_of
from signaling.routes.deepgram.door_operations import GRANT
from signaling.routes.deepgram.refusals import REQUEST_ID, refusal_response

PATH = "/v1/auth/grant"


class Grant:
    """The endpoint.

    Args:
        grants: tokens of this process.
    """

    def __init__(self, *, grants: Grants) -> None:
        self._grants = grants

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        return [web.post(PATH, self.create)]

    @described(GRANT)
    async def create(self, request: web.Request) -> web.Response:
        """POST `{"ttl_seconds": 30}`, or nothing: a token."""
        request_id = str(uuid.uuid4())
        try:
            if self._grants.check(credentials_of(request)):
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
        granted = Granted(access_token=self._grants.issue(ttl_s), expires_in=ttl_s)
        headers = {"Cache-Control": "no-store", REQUEST_ID: request_id}
        return web.json_response(text=granted.model_dump_json(), headers=headers)
