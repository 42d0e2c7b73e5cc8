"""Preflights (CORS): what pages of other origins, which the setting `cors_origins` lets in, may send here."""

from __future__ import annotations

from aiohttp import web

from signaling.openapi.operation import described
from signaling.preflight import allowed
from signaling.routes.deepgram.door_operations import PREFLIGHT

HEADERS = ("Authorization", "*")
"""The vendor's SDK sends half a dozen of its own; `*` stands for all but the first."""


@described(PREFLIGHT)
async def preflight(_request: web.Request) -> web.Response:
    """OPTIONS: what may be sent."""
    return allowed("GET, POST, OPTIONS", HEADERS)
