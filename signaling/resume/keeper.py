"""Keeps a record of each session in the state that processes share, so that another one can go on with it.

Written where there are other processes, off the hot path: as soon as a final has been told, but not more often than
`FINAL_S`; while audio comes every two seconds; otherwise often enough that it does not expire. What cannot be written
is counted, and hurts nobody: only this session cannot be taken up elsewhere, or from further back. A final that was
told just before a process died may so be told again elsewhere, under the same `utterance_id`; where it cannot be heard
again, nothing else gets its number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import structlog

from mediaserver.metrics import Metrics
from mediaserver.session.channels import Channels
from mediaserver.session.eventlog import EventLog
from mediaserver.session.resumption import MOVED
from signaling.cluster.state import State, StateAwayError
from signaling.registry import LivePeer, LiveSession, Registry
from signaling.resume.record import Asked, Claim, Owner, Resumption, name_of

log = structlog.get_logger(__name__)

LOOK_S = 0.5
"""How often it is looked which sessions have news."""

FINAL_S, AUDIO_S, REFRESH_S = 0.25, 2.0, 5.0
"""Least time between two writes of a session: after a final, while audio comes, while nothing does."""

GRACE_S = 10.0
"""A record outlives the time for which a client may be away by this much: that its process is gone is noticed late."""

SETTLE_SHARE = 0.7
"""Of the time to hand a session over: what was said is made final in it; the rest is for writing it down."""

WRITES_AT_ONCE = 16
"""A thousand sessions with news are written within a second where each write takes 10 ms."""

CLOSE_S = 2.0
"""How long a session that goes on elsewhere may take to let go here."""


@runtime_checkable
class MovablePeer(LivePeer, Protocol):
    """The server's end of a connection whose session another process may go on with."""

    @property
    def can_resume(self) -> bool:
        """Whether its client may come back."""
        ...

    def chosen(self) -> dict[str, Any]:
        """What its client chose, as its door reads it."""
        ...

    @property
    def channels(self) -> Channels | None:
        """Its sessions."""
        ...

    @property
    def log(self) -> EventLog | None:
        """What it was told."""
        ...

    @property
    def age_s(self) -> float:
        """For how long it has lasted."""
        ...

    async def prepare_move(self, *, deadline_s: float) -> None:
        """Have said what is over, and what could not be heard again elsewhere."""
        ...

    def move(self) -> None:
        """Tell the client to come back, and hang up."""
        ...


@dataclass(slots=True, eq=False)
class _Kept:
    """One session's record."""

    live: LiveSession
    peer: MovablePeer
    name: str
    value: bytes | None = None
    """As it was written last."""
    at_s: float = float("-inf")
    pointed_s: float = float("-inf")
    """When the URLs that it had before were last made to lead here."""
    finals: int = -1
    samples: int = -1
    is_over: bool = False
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """An older value never takes the place of a newer one."""


class Keeper:
    """The records of this process's sessions.

    Args:
        state: what processes share.
        place_id: which of them this is.
        has_others: whether there is another that could go on with a session.
        registry: whose sessions are kept.
        window_s: for how long a client may be away.
        metrics: writes by outcome.
    """

    def __init__(
        self,
        state: State,
        *,
        place_id: str,
        has_others: Callable[[], bool],
        registry: Registry,
        window_s: float,
        metrics: Metrics,
    ) -> None:
        self._state = state
        self._place_id = place_id
        self._has_others = has_others
        self._registry = registry
        self._ttl_s = window_s + GRACE_S
        self._is_on = window_s > 0
        self._metrics = metrics
        self._kept: dict[str, _Kept] = {}  # by session id; bound: the registry's sessions
        self._told: dict[str, _Kept] = {}  # by session id, with a final that is not written down; bound: likewise
        self._has_told = asyncio.Event()
        self._ended: set[asyncio.Task[None]] = set()  # bound: likewise, each as long as an answer of the state takes
        if self._is_on:
            registry.on_added.append(self._added)

    async def run(self) -> None:
        """Write until cancelled."""
        loop = asyncio.get_running_loop()
        look_s = loop.time() + LOOK_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(look_s):
                    await self._has_told.wait()
            self._has_told.clear()
            told, self._told = self._told, {}
            if loop.time() >= look_s:
                look_s = loop.time() + LOOK_S
                told = self._kept
            if self._has_others():
                await self._write_due(told.values())

    async def write(self) -> None:
        """Write the records of all sessions that have news."""
        await self._write_due(self._kept.values())

    async def _write_due(self, those: Iterable[_Kept]) -> None:
        now_s = asyncio.get_running_loop().time()
        due = [kept for kept in those if self._is_due(kept, now_s)]
        for start in range(0, len(due), WRITES_AT_ONCE):
            await asyncio.gather(*(self._write(kept) for kept in due[start : start + WRITES_AT_ONCE]))

    async def hand_over(self, live: LiveSession, *, deadline_s: float) -> bool:
        """Have another process go on with a session; its client is told to come back.

        Returns:
            Whether it left this one. Otherwise it goes on here, and is to be closed.
        """
        kept = self._kept.get(live.session_id)
        if kept is None or live.closing is not None or not self._has_others():
            return False
        try:
            async with asyncio.timeout(deadline_s):
                await kept.peer.prepare_move(deadline_s=deadline_s * SETTLE_SHARE)
                # What is told after this would be told again elsewhere; what is heard after it is not heard at all.
                self._seal(kept, is_sealed=True)
                is_written = await self._write(kept)
        except TimeoutError:
            is_written = False
        if not is_written:
            self._seal(kept, is_sealed=False)
            return False
        kept.is_over = True  # what is written stays
        kept.peer.move()
        self._metrics.resumes_total.labels(live.door, "handed_over").inc()
        return True

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._ended, return_exceptions=True)

    def _added(self, live: LiveSession) -> None:
        if isinstance(live.peer, MovablePeer) and live.peer.can_resume:
            kept = self._kept[live.session_id] = _Kept(live, live.peer, name_of(live.secret))
            live.on_gone.append(lambda: self._gone(live))
            if live.peer.log is not None:
                live.peer.log.on_final = lambda: self._has_final(kept)

    def _has_final(self, kept: _Kept) -> None:
        """It has told one; one that comes too soon after the last write waits for the next look."""
        if asyncio.get_running_loop().time() - kept.at_s >= FINAL_S:
            self._told[kept.live.session_id] = kept
            self._has_told.set()

    def _gone(self, live: LiveSession) -> None:
        """It has ended: nobody goes on with it."""
        kept = self._kept.pop(live.session_id, None)
        if kept is None:
            return
        if kept.peer.log is not None:
            kept.peer.log.on_final = None  # it may be read for longer than the session lives
        self._told.pop(live.session_id, None)
        if kept.is_over or kept.at_s == float("-inf"):  # else one may stand there, also where its write was cut off
            return
        kept.is_over = True
        task = asyncio.create_task(self._forget(kept), name="resumption-forget")
        self._ended.add(task)
        task.add_done_callback(self._ended.discard)

    @staticmethod
    def _seal(kept: _Kept, *, is_sealed: bool) -> None:
        if kept.peer.channels is not None:
            kept.peer.channels.is_sealed = is_sealed

    async def _forget(self, kept: _Kept) -> None:
        with suppress(StateAwayError):  # then it expires
            for name in (kept.name, *kept.live.former):
                await self._state.delete(name)

    def _is_due(self, kept: _Kept, now_s: float) -> bool:
        channels = kept.peer.channels
        if channels is None or kept.live.closing is not None:
            return False
        age_s = now_s - kept.at_s
        if age_s >= REFRESH_S:
            return True
        finals = sum(position.utterances for position in channels.positions)
        return age_s >= (FINAL_S if finals != kept.finals else AUDIO_S) and (
            finals != kept.finals or channels.received_samples(0) != kept.samples
        )

    async def _write(self, kept: _Kept) -> bool:
        """Write a session's record; whether it stands there now."""
        async with kept.writing:
            return await self._write_in_turn(kept)

    async def _write_in_turn(self, kept: _Kept) -> bool:
        channels = kept.peer.channels
        if channels is None or kept.is_over:
            return False
        value = Resumption.of(
            channels,
            session_id=kept.live.session_id,
            door=kept.live.door,
            place_id=self._place_id,
            owner=Owner.of(kept.live.principal),
            asked=Asked(config=kept.peer.chosen(), door=kept.live.asked),
            log=kept.peer.log,
            age_s=kept.peer.age_s,
            ttl_s=self._ttl_s,
            former=kept.live.former,
        ).written()
        kept.at_s = asyncio.get_running_loop().time()
        kept.finals = sum(position.utterances for position in channels.positions)
        kept.samples = channels.received_samples(0)
        try:
            is_written = await self._put(kept, value)
        except StateAwayError:
            self._metrics.resumptions_total.labels("away").inc()
            return False
        if is_written and kept.live.session_id not in self._kept:  # it ended meanwhile, perhaps before this was there
            await self._forget(kept)
            return False
        if is_written:
            kept.value = value
            await self._point(kept)
        self._metrics.resumptions_total.labels("written" if is_written else "claimed").inc()
        return is_written

    async def _point(self, kept: _Kept) -> None:
        """Have the URLs that the session had before lead to it, for as long as it lives."""
        now_s = asyncio.get_running_loop().time()
        if not kept.live.former or now_s - kept.pointed_s < REFRESH_S:
            return
        claim = Claim(self._place_id, kept.name).written()
        with suppress(StateAwayError):  # then at the next write
            for name in kept.live.former:
                await self._state.put(name, claim, ttl_s=self._ttl_s)
            kept.pointed_s = now_s

    async def _put(self, kept: _Kept, value: bytes) -> bool:
        """Set the value unless another process has taken the session."""
        if kept.value is not None and await self._state.swap(kept.name, kept.value, value, ttl_s=self._ttl_s):
            return True
        if await self._state.add(kept.name, value, ttl_s=self._ttl_s):
            return True
        stands = await self._state.get(kept.name)
        if stands is None:
            return await self._state.add(kept.name, value, ttl_s=self._ttl_s)
        if Claim.of(stands) is None:  # ours: written while its answer was lost
            return await self._state.swap(kept.name, stands, value, ttl_s=self._ttl_s)
        kept.is_over = True
        log.warning("session goes on elsewhere", session=kept.live.session_id)
        self._seal(kept, is_sealed=True)
        task = asyncio.create_task(self._registry.close(kept.live, MOVED, deadline_s=CLOSE_S), name="resumption-moved")
        self._ended.add(task)
        task.add_done_callback(self._ended.discard)
        return False
