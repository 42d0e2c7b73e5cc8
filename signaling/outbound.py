"""Requests that the application makes for its clients: one HTTP session and its webhooks, made at the first need; and
what is still to be told by them, so that it can be dropped when its tenant's data is deleted."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, Self
from weakref import WeakSet

import aiohttp

from mediaserver.metrics import Metrics
from mediaserver.outbound.client import OutboundPolicy, outbound_session
from mediaserver.outbound.webhooks import Webhooks
from mediaserver.settings import Settings
from signaling.auth.principal import current_principal

CLOSE_S = 1.0
"""What callbacks under way may still take when the application ends."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is told of.

    Args:
        session_id: a session, or a recording's request.
        tenant: whose it is.
        began_at: when it was opened here, in seconds since 1970.
    """

    session_id: str
    tenant: str
    began_at: float

    @classmethod
    def now(cls, session_id: str) -> Self:
        """Of who asks, from now on."""
        return cls(session_id, current_principal().tenant, time.time())


class Untold(Protocol):
    """What waits in memory for a receiver."""

    source: Source

    def drop(self) -> int:
        """Drop what waits and what is under way, and take no more; how many were dropped."""
        ...


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
        self._untold: WeakSet[Untold] = WeakSet()  # bound: those that live, which their owners bound

    def owes(self, untold: Untold) -> None:
        """There is something to tell, for as long as its owner has it."""
        self._untold.add(untold)

    def drop(self, tenant: str, *, until_s: float, also: Collection[str] = (), spared: Collection[str] = ()) -> int:
        """Drop what is not yet told of a tenant; how many.

        Args:
            tenant: whose.
            until_s: of what began here until then, in seconds since 1970.
            also: names of sessions that began elsewhere until then, and go on here.
            spared: names of sessions that began later, however close.
        """
        return sum(
            untold.drop()
            for untold in list(self._untold)
            if (source := untold.source).tenant == tenant
            and (source.session_id in also or (source.began_at <= until_s and source.session_id not in spared))
        )

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
