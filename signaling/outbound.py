"""Requests that the application makes for its clients: one HTTP session and its webhooks, made at the first need."""

from __future__ import annotations

import aiohttp

from mediaserver.metrics import Metrics
from mediaserver.outbound.client import OutboundPolicy, outbound_session
from mediaserver.outbound.webhooks import Webhooks
from mediaserver.settings import Settings

CLOSE_S = 1.0
"""What callbacks under way may still take when the application ends."""


class Outbound:
    """The application's way out.

    Args:
        settings: of the node: where requests may go.
        metrics: webhooks by outcome.
    """

    def __init__(self, *, settings: Settings, metrics: Metrics) -> None:
        self.policy = OutboundPolicy(allow_private=settings.outbound_allow_private)
        self._metrics = metrics
        self._session: aiohttp.ClientSession | None = None
        self._webhooks: Webhooks | None = None

    def session(self) -> aiohttp.ClientSession:
        """The session, on the running event loop."""
        if self._session is None:
            self._session = outbound_session(self.policy)
        return self._session

    def webhooks(self) -> Webhooks:
        """What delivers."""
        if self._webhooks is None:
            self._webhooks = Webhooks(self.session(), metrics=self._metrics)
        return self._webhooks

    async def close(self) -> None:
        """Let go of connections; what is not delivered soon is given up."""
        if self._webhooks is not None:
            await self._webhooks.close(deadline_s=CLOSE_S)
        if self._session is not None:
            await self._session.close()
        self._session = self._webhooks = None
