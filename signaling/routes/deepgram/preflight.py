"""Preflights (CORS): what pages of other origins, which the setting `cors_origins` lets in, may send here."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from signaling.limits import PREFLIGHT_MAX_AGE_S
from signaling.openapi.operation import described
from signaling.routes.deepgram.door_operations import PREFLIGHT

HEADERS = "Authorization, *"
"""The vendor's SDK sends half a dozen of its own; `*` stands for all but the first."""


@described(PREFLIGHT)
async def preflight(_request: web.Request) -> web.Response:
    """OPTIONS: what may be sent."""
    return web.Response(
        status=HTTPStatus.NO_CONTENT,
        headers={
            "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
            "Access-Control-Allow-Headers": HEADERS,
            "Access-Control-Max-Age": str(PREFLIGHT_MAX_AGE_S),
        },
    )
