"""This process as one of several: what it tells of itself, whom it passes requests on to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from aiohttp import web

from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.cluster.hop import Hop
from signaling.cluster.hop_origin import HopOrigin
from signaling.cluster.places import BEAT_S, Place, Places
from signaling.cluster.state import State
from signaling.limits import Admission, ServedEngine
from signaling.registry import Registry

LEAVING_S = 1.2 * BEAT_S
"""How long others may take to see that a place has left: they look every `BEAT_S`."""


class Membership:
    """A place, kept among others.

    Args:
        state: what they share.
        place: this one.
        settings: of the node; `token_secret` is the same for all places.
        registry, admission, engine: how loaded it is.
        metrics: what is passed on.
        on_refused: as of `Hop`.
    """

    def __init__(
        self,
        state: State,
        place: Place,
        *,
        settings: Settings,
        registry: Registry,
        admission: Admission,
        engine: Callable[[], ServedEngine | None],
        metrics: Metrics,
        on_refused: Callable[[web.Request, str], None],
    ) -> None:
        self.state = state
        self._registry = registry
        self._admission = admission
        self._engine = engine
        self.places = Places(state, place, update=self._as_it_is)
        secret = "" if settings.token_secret is None else settings.token_secret.get_secret_value()
        self.hop = Hop(
            places=self.places,
            look=self._look,
            origin=HopOrigin(secret, place.place_id),
            trusted_proxies=settings.trusted_proxies,
            metrics=metrics,
            on_refused=on_refused,
        )
        self._looking = asyncio.Lock()
        self._looks = 0
        self._leaving = asyncio.Event()
        self._has_left = asyncio.Event()

    @property
    def has_successor(self) -> bool:
        """Whether another server could go on with this one's sessions; workers of one server end together."""
        node = self.places.own.node
        return any(place.is_taking and place.node != node for place in self.places.others())

    def others_of_node_take(self) -> bool:
        """Whether another worker of this server takes sessions."""
        node = self.places.own.node
        return any(place.is_taking and place.node == node for place in self.places.others())

    async def run(self) -> None:
        """Tell the others, until cancelled or `leave`."""
        while not self._leaving.is_set():
            await self.places.beat()
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._leaving.wait()
        await self.places.leave()
        self._has_left.set()

    async def tell(self) -> None:
        """Tell the others now, for something has changed."""
        if not self._leaving.is_set():
            await self.places.beat()

    async def leave(self) -> None:
        """Be no place any more, and wait until the others know: whoever comes back there finds them, not this one."""
        self._leaving.set()
        await self._has_left.wait()
        if not self.places.is_alone:
            await asyncio.sleep(LEAVING_S)

    async def close(self) -> None:
        """Hang up on the others."""
        await self.hop.close()

    async def _look(self) -> None:
        """See who is there now. One look at a time, shared by all who asked before it began."""
        wanted = self._looks + 1
        async with self._looking:
            if self._looks < wanted and not self.places.is_away():
                self._looks += 1
                await self.tell()

    def _as_it_is(self, place: Place) -> Place:
        engine = self._engine()
        return replace(
            place,
            sessions=self._registry.channels,
            is_taking=not self._admission.not_ready(),
            retry_after_s=None if engine is None else engine.overload_retry_after_s(),
        )
