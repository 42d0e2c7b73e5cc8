"""Tells browsers to come by HTTPS only (RFC 6797), where the operator wants it and where they came by it.

What follows from whether a request came by HTTPS is this alone. There are no cookies; `Location` and `Link` are paths,
which a browser takes for the scheme that it came by; a page's origin is compared without its scheme (`limits.Gate`).
"""

from __future__ import annotations

from aiohttp import web

from mediaserver.settings import Settings
from signaling.auth.addresses import origin_of

HEADER = "Strict-Transport-Security"


class Hsts:
    """Puts the header on responses.

    Args:
        settings: `hsts_max_age_s` and `trusted_proxies`.
    """

    def __init__(self, settings: Settings) -> None:
        self._max_age_s = settings.hsts_max_age_s
        self._trusted = settings.trusted_proxies

    async def on_response(self, request: web.Request, response: web.StreamResponse) -> None:
        """Before a response leaves. Over plain HTTP nothing is said: it could be anybody's invention (section 7.2)."""
        if self._max_age_s and origin_of(request, self._trusted).is_secure:
            response.headers[HEADER] = f"max-age={self._max_age_s}"
