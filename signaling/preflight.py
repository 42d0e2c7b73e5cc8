"""Preflights (CORS): what a page of another origin may send, where `cors_origins` lets that origin in (`Gate`)."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from aiohttp import web

from signaling.limits import PREFLIGHT_MAX_AGE_S


def allowed(methods: str, headers: Iterable[str]) -> web.Response:
    """The answer to a preflight; the same whether or not there is what it is about.

    Args:
        methods: with commas.
        headers: what may be sent beside what any page may.
    """
    return web.Response(
        status=HTTPStatus.NO_CONTENT,
        headers={
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": ", ".join(headers),
            "Access-Control-Max-Age": str(PREFLIGHT_MAX_AGE_S),
        },
    )
