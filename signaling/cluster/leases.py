"""How many sessions a key has, over all processes: each session holds a lease, which expires with its process.

The guard takes a lease before a handler runs, `Registry.add` takes it over for the session, and it ends with that. Only
keys that are limited have leases. One that no session took over is given back, and so is its share of the minute.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum, auto

from mediaserver.settings import StateAway
from signaling.auth.limiter import too_many_new_sessions, too_many_sessions
from signaling.auth.principal import Principal
from signaling.cluster.state import State, StateAwayError

TTL_S = 45.0
"""After which the sessions of a process that died no longer count; until then its keys may be refused."""

RENEW_S = 15.0
"""How often a session's lease is renewed: two renewals may be lost. A process with 300 makes 20 calls a second."""

LOOK_S = 1.0
"""How often it is looked which are due."""

LEASE_ID_BYTES = 9


class _Stage(Enum):
    OPEN = auto()
    HELD = auto()
    OVER = auto()


@dataclass(eq=False, slots=True)
class Lease:
    """The right to one session. `hold` it for a session, and `release` it once that is over."""

    key_id: str
    leases: Leases = field(repr=False)
    is_counted: bool
    """Whether the key's sessions at once are limited: else there is nothing to renew."""
    per_minute: int | None
    is_joined: bool = True
    """Whether it is in the state by now."""
    lease_id: str = field(default_factory=lambda: secrets.token_urlsafe(LEASE_ID_BYTES))
    stage: _Stage = _Stage.OPEN

    @property
    def is_open(self) -> bool:
        """Whether no session has it yet, and it is good."""
        return self.stage is _Stage.OPEN

    def hold(self) -> None:
        """A session has it now."""
        self.stage = _Stage.HELD
        self.leases.held(self)

    def release(self) -> None:
        """The session is over."""
        self.stage = _Stage.OVER
        self.leases.released(self)


class Leases:
    """The leases of this process's sessions.

    Args:
        state: where they are counted.
        when_away: what becomes of new sessions while that cannot be reached.
        is_away: whether it is known not to be.
        now_s: any clock in seconds that is never set.
    """

    def __init__(
        self,
        state: State,
        *,
        when_away: StateAway = StateAway.REFUSE,
        is_away: Callable[[], bool] = lambda: False,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._when_away = when_away
        self._is_away = is_away
        self._now_s = now_s
        self._held: OrderedDict[Lease, float] = OrderedDict()  # by when it is due; bound: the process's sessions
        self._over: deque[tuple[Lease, float]] = deque()  # to be left, and until when; bound: those that ended in TTL_S
        self._wake = asyncio.Event()
        self._leaving = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._held)

    async def take(self, principal: Principal) -> Lease | None:
        """The right to one more session.

        Returns:
            None where nothing limits this principal, or where this process counts by itself.

        Raises:
            LimitError: TOO_MANY_SESSIONS or TOO_MANY_NEW_SESSIONS.
            StateAwayError: it cannot be counted, and is not to be opened then.
        """
        if self._is_away():
            if self._when_away is StateAway.SERVE:
                return None
            raise StateAwayError
        limits = principal.limits
        if principal.key_id is None or (limits.sessions is None and limits.sessions_per_minute is None):
            return None
        lease = Lease(principal.key_id, self, limits.sessions is not None, limits.sessions_per_minute)
        try:
            return await self._taken(lease, limits.sessions)
        except StateAwayError:
            self._leave_later(lease)  # it may have been counted all the same
            if self._when_away is StateAway.SERVE:
                return None
            raise
        except asyncio.CancelledError:  # the client is gone
            self._leave_later(lease)
            raise

    def resumed(self, principal: Principal) -> Lease | None:
        """The right of a session that goes on here and began elsewhere: it is counted, and never refused."""
        if principal.key_id is None or principal.limits.sessions is None:
            return None
        return Lease(principal.key_id, self, is_counted=True, per_minute=None, is_joined=False)

    async def settle(self, lease: Lease) -> None:
        """The request that it was taken for is over: where no session has it, it is given back."""
        if not lease.is_open:
            return
        lease.stage = _Stage.OVER
        self._leave_later(lease)
        with suppress(StateAwayError):
            await self._leave_all()
            if lease.per_minute is not None:
                await self._state.put_back(_bucket(lease.key_id), per_minute=lease.per_minute)

    def held(self, lease: Lease) -> None:
        """A session has it."""
        if not lease.is_counted:
            return
        self._held[lease] = self._now_s() + RENEW_S
        if not lease.is_joined:
            self._held[lease] = self._now_s()
            self._held.move_to_end(lease, last=False)
            self._wake.set()

    def released(self, lease: Lease) -> None:
        """Its session is over."""
        if self._held.pop(lease, None) is not None:
            self._leave_later(lease)

    async def run(self) -> None:
        """Renew and leave until cancelled. While the state is away leases are kept, and renewed when it is back."""
        while True:
            self._wake.clear()
            try:
                await self.renew()
            except StateAwayError:
                for lease in self._held:
                    self._held[lease] = self._now_s()  # it may have forgotten them all once it is back
                await asyncio.sleep(LOOK_S)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    async def renew(self) -> None:
        """Leave what is over, and renew what is due.

        Raises:
            StateAwayError: it could not be; what was not done is done the next time.
        """
        await self._leave_all()
        while self._held:
            lease, due_s = next(iter(self._held.items()))
            if due_s > self._now_s():
                return
            async with self._leaving:  # nobody leaves what is just joining
                # Without a limit: a session that runs goes on, also where the state had forgotten it.
                await self._state.join(_group(lease.key_id), lease.lease_id, b"", ttl_s=TTL_S)
            lease.is_joined = True
            if self._held.pop(lease, None) is None:  # it ended meanwhile
                await self._leave_all()
            else:
                self._held[lease] = self._now_s() + RENEW_S

    async def close(self) -> None:
        """Leave what is over, where that is possible; the rest expires."""
        with suppress(StateAwayError):
            await self._leave_all()

    async def _taken(self, lease: Lease, most: int | None) -> Lease:
        if most is not None and not await self._joined(lease, most):
            raise too_many_sessions(most)
        if lease.per_minute is not None:
            wait_s = await self._state.draw(_bucket(lease.key_id), per_minute=lease.per_minute)
            if wait_s > 0.0:
                self._leave_later(lease)
                await self._leave_all()
                raise too_many_new_sessions(lease.per_minute, wait_s)
        return lease

    async def _joined(self, lease: Lease, most: int) -> bool:
        group = _group(lease.key_id)
        if await self._state.join(group, lease.lease_id, b"", ttl_s=TTL_S, limit=most):
            return True
        if not self._over and not self._leaving.locked():
            return False
        await self._leave_all()  # one that has just ended may have its place still
        return await self._state.join(group, lease.lease_id, b"", ttl_s=TTL_S, limit=most)

    def _leave_later(self, lease: Lease) -> None:
        if not lease.is_counted:
            return
        now_s = self._now_s()
        while self._over and self._over[0][1] <= now_s:
            self._over.popleft()  # it has expired by itself
        self._over.append((lease, now_s + TTL_S))
        self._wake.set()

    async def _leave_all(self) -> None:
        async with self._leaving:
            while self._over:
                lease = self._over[0][0]
                await self._state.leave(_group(lease.key_id), lease.lease_id)
                if self._over and self._over[0][0] is lease:
                    self._over.popleft()


_CURRENT: ContextVar[Lease | None] = ContextVar("lease", default=None)


def current_lease() -> Lease | None:
    """The right to a session that the request in hand came with, where no session has it yet."""
    lease = _CURRENT.get()
    return lease if lease is not None and lease.is_open else None


def set_lease(lease: Lease | None) -> None:
    """Say with which right a request came; the guard does, and whoever takes a session up that began elsewhere."""
    _CURRENT.set(lease)


def _group(key_id: str) -> str:
    return f"sessions:{key_id}"


def _bucket(key_id: str) -> str:
    return f"new-sessions:{key_id}"
