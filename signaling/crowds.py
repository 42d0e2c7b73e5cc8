"""Requests that come in one moment are begun a few at a time, so that they hold up no session meanwhile."""

from __future__ import annotations

from aiohttp import web

from mediaserver.pace import Pace
from signaling.problems import Handler

REQUESTS_EACH_TURN = 2
"""Requests that begin in one turn of the event loop. An offer is 0.5 ms of work until it waits to be answered
(`signaling.answering`): fifty that came at once held the event loop for 25 ms, two hundred for 79. Beside two that are
being answered, whose steps take up to 4 ms each, there is time for no more."""


class Crowds:
    """Whoever asks in a crowd waits for a moment; whoever comes alone does not."""

    def __init__(self) -> None:
        self._pace = Pace(REQUESTS_EACH_TURN)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Before all others: each of them is work."""
        await self._pace.turn()
        return await handler(request)
