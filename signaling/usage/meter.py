"""Counts the audio of live sessions into the database: every few seconds, so that a crash loses no more than those.

Sessions without a key are not counted unless `usage_keyless` says so: a server that only its own machine uses writes
nothing to disk.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from sqlalchemy import case, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from mediaserver.errors import VoiceForgeError
from mediaserver.events import Event
from mediaserver.session.channels import Channels
from mediaserver.settings import Settings
from mediaserver.storage.database import Database
from mediaserver.storage.usage import RECORDING, STREAMING, Usage, UsageDay
from signaling.auth.principal import Principal
from signaling.problems import LimitError
from signaling.registry import LiveSession
from signaling.usage.features import joined, live_features, split

log = structlog.get_logger(__name__)

FLUSH_S = 3.0
"""How often: with the write itself well below the 5 s of audio that a crash may lose."""

WAITING_MAX = 1000
"""Sessions whose doors are not through yet; one that was refused in between is dropped when so many are there."""

KEPT_MAX = 50_000
"""Ended sessions kept while the database does not answer, 300 bytes each; the oldest is given up first, and logged."""


RECORDING_ID_BYTES = 12
"""Of a recording that is no job and so has no id of its own: no two are the same in a database's lifetime."""


@dataclass(slots=True, eq=False)
class _Counted:
    """One session."""

    session_id: str
    principal: Principal
    model: str
    began_at: float
    settings: Settings
    door: str = ""
    heard: str = STREAMING
    channels: Channels | None = None
    audio_s: float = 0.0
    speech_s: float = 0.0
    extras: frozenset[str] = frozenset()
    written: tuple[float, float, frozenset[str]] | None = None
    base_s: tuple[float, float] = (0.0, 0.0)  # of audio and of speech: what is in its day's total already
    has_ended: bool = False

    @property
    def present(self) -> tuple[float, float, frozenset[str]]:
        """What is to be written down of it: seconds of audio, of speech, and features."""
        return self.audio_s, self.speech_s, self.extras

    def begin(self, channels: Channels) -> None:
        """As `Tap.begin`."""
        self.channels = channels

    def send(self, event: Event, seq: int, channel: int) -> None:
        """As `Tap.send`: nothing of what is said is of interest here."""

    def look(self) -> None:
        """Take the present totals."""
        if self.channels is not None and not self.has_ended:
            self.audio_s = self.channels.stream_time_s * self.channels.count
            self.speech_s = self.channels.speech_s
            # A feature that was switched on for a while was used.
            self.extras |= live_features(self.channels.config, self.settings)


class Meter:
    """Counts sessions.

    Args:
        database: where usage is written down.
        settings: what sessions use that choose nothing, and whether those without a key are counted.
        wall_s: seconds since 1970.
    """

    def __init__(self, database: Database, settings: Settings, *, wall_s: Callable[[], float] = time.time) -> None:
        self._database = database
        self._settings = settings
        self._wall_s = wall_s
        self._waiting: dict[str, _Counted] = {}  # bound: WAITING_MAX
        self._counted: dict[str, _Counted] = {}  # bound: live sessions and KEPT_MAX
        self._ended = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._flushed_s = time.monotonic()

    def tap(self, session_id: str, principal: Principal, *, model: str) -> _Counted | None:
        """What hears of a new session; None where it is not counted."""
        if not self._counts(principal):
            return None
        while len(self._waiting) >= WAITING_MAX:
            del self._waiting[next(iter(self._waiting))]
        counted = _Counted(session_id, principal, model, self._wall_s(), self._settings)
        self._waiting[session_id] = counted
        return counted

    def opened(self, live: LiveSession) -> None:
        """A session has its place in the registry."""
        counted = self._waiting.pop(live.session_id, None)
        if counted is not None:
            counted.door = live.door
            self._counted[live.session_id] = counted
            live.on_gone.append(lambda: self._end(counted))

    def recorded(
        self,
        principal: Principal,
        *,
        door: str,
        model: str,
        audio_s: float,
        speech_s: float = 0.0,
        heard: str = RECORDING,
    ) -> None:
        """A recording has been transcribed, or translated."""
        if self._counts(principal):
            name = f"rec_{secrets.token_hex(RECORDING_ID_BYTES)}"
            counted = _Counted(
                name,
                principal,
                model,
                self._wall_s(),
                self._settings,
                door,
                heard,
                audio_s=audio_s,
                speech_s=min(speech_s, audio_s),  # three channels of a length are not always thrice it
                has_ended=True,
            )
            self._counted[name] = counted
            self._ended.set()

    async def used_s(self, key_id: str) -> float:
        """Seconds of audio that a key has used in this month. Raises what `Database.reading` does."""
        if not self._database.exists:
            return 0.0
        month = datetime.fromtimestamp(self._wall_s(), UTC).strftime("%Y-%m-01")
        async with self._database.reading() as session:
            queries = [
                select(func.sum(table.audio_s)).where(table.key_id == key_id, table.day >= month)
                for table in (Usage, UsageDay)
            ]
            return sum([float(await session.scalar(query) or 0.0) for query in queries])

    async def require_minutes(self, principal: Principal) -> None:
        """Refuse a key that has used up its month.

        Raises:
            LimitError: MINUTES_USED_UP.
            VoiceForgeError: what `Database.reading` raises.
        """
        minutes = principal.limits.minutes_per_month
        if minutes is None or principal.key_id is None or await self.used_s(principal.key_id) < minutes * 60:
            return
        raise LimitError(
            "MINUTES_USED_UP",
            f"The key's {minutes:g} minutes of this month are used up.",
            "Wait for the next month, by UTC, or ask for more.",
            retry_after_s=math.ceil(_next_month_s(self._wall_s()) - self._wall_s()),
        )

    async def run(self) -> None:
        """Write until cancelled; what failed is tried again."""
        while True:
            try:
                async with asyncio.timeout(FLUSH_S):
                    await self._ended.wait()
            except TimeoutError:
                pass
            self._ended.clear()
            try:
                await self.flush()
            except VoiceForgeError as exc:
                log.warning("usage not written yet", code=exc.code, sessions=len(self._counted))
                self._forget_oldest()
                await asyncio.sleep(FLUSH_S)

    @property
    def unwritten_s(self) -> float:
        """How long ago all was written down that had been used by then."""
        return time.monotonic() - self._flushed_s

    async def flush(self) -> None:
        """Write down what has changed. Raises what `Database.writing` does."""
        async with self._flushing:
            changed = []
            for counted in self._counted.values():
                counted.look()
                if counted.present != counted.written:
                    changed.append((counted, counted.present))
            ended = [counted for counted in self._counted.values() if counted.has_ended]
            if changed:
                now_s = self._wall_s()
                async with self._database.writing() as session:
                    for counted, _ in changed:
                        await _write(session, counted, now_s)
            for counted, written in changed:
                counted.written = written
            for counted in ended:
                del self._counted[counted.session_id]
            self._flushed_s = time.monotonic()

    def _counts(self, principal: Principal) -> bool:
        return principal.key_id is not None or self._settings.usage_keyless

    def _end(self, counted: _Counted) -> None:
        counted.look()
        counted.has_ended = True
        counted.channels = None
        self._ended.set()

    def _forget_oldest(self) -> None:
        ended = [name for name, counted in self._counted.items() if counted.has_ended]
        for name in ended[: max(0, len(ended) - KEPT_MAX)]:
            log.error("usage given up", session=name, audio_s=round(self._counted.pop(name).audio_s, 1))


async def _write(session: AsyncSession, counted: _Counted, now_s: float) -> None:
    """Write a session's totals over those that are there, where they are larger, and add what it used to what is
    there: another process may have gone on with it, whose totals hold these, and been quicker.
    """
    features = joined(counted.heard, counted.extras)
    audio_s, speech_s = counted.audio_s - counted.base_s[0], counted.speech_s - counted.base_s[1]
    known = (
        await session.execute(
            update(Usage)
            .where(Usage.id == counted.session_id)
            .values(
                audio_s=case((Usage.audio_s > audio_s, Usage.audio_s), else_=audio_s),
                speech_s=case((Usage.speech_s > speech_s, Usage.speech_s), else_=speech_s),
                updated_at=now_s,
            )
            .returning(Usage.features)
        )
    ).first()
    if known is not None:
        used = joined(counted.heard, counted.extras.union(split(known.features)[1:]))
        if used != known.features:  # rarely
            await session.execute(update(Usage).where(Usage.id == counted.session_id).values(features=used))
        return
    if counted.written is not None:
        # What was written of it has become part of its day's total: the rest is to be counted, and not all again.
        counted.base_s = counted.written[:2]
    session.add(
        Usage(
            id=counted.session_id,
            tenant=counted.principal.tenant,
            key_id=counted.principal.key_id,
            door=counted.door,
            model=counted.model,
            features=features,
            day=day_of(counted.began_at),
            began_at=counted.began_at,
            updated_at=now_s,
            audio_s=counted.audio_s - counted.base_s[0],
            speech_s=counted.speech_s - counted.base_s[1],
        )
    )


def day_of(seconds: float) -> str:
    """The day of a time, by UTC: `2026-11-21`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _next_month_s(now_s: float) -> float:
    now = datetime.fromtimestamp(now_s, UTC)
    return datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC).timestamp()
