"""What privacy asks for from time to time: requests to delete are carried out, old usage is added up, what crashes left
behind is swept away."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from mediaserver.errors import VoiceForgeError
from mediaserver.jobs.service import Jobs
from mediaserver.settings import Settings
from mediaserver.storage.database import Database
from mediaserver.storage.tenants import Erasure
from signaling.eventlogs import EventLogs
from signaling.privacy.certificate import Signer
from signaling.privacy.endings import ENDED_S, Endings
from signaling.privacy.eraser import Eraser, usage_of
from signaling.privacy.erasures import Erasures
from signaling.privacy.others import Others
from signaling.privacy.tenants import Tenants
from signaling.scratch import sweep_scratch
from signaling.seeing.audit import Audit
from signaling.usage.rollup import roll_up

log = structlog.get_logger(__name__)

LOOK_PERIOD_S = 2.0
"""How often it is looked for requests that another process took; those of this one wake it at once."""

OTHERS_S = LOOK_PERIOD_S + ENDED_S + 1.0
"""By then every process has seen a request, ended the sessions it is about, and written down what these used. It is not
waited for longer: the certificate says how many have not told that they are done."""

UPKEEP_PERIOD_S = 3600.0

SEEN_S = 60.0
"""For so long a request is looked at again: clocks of two machines differ, and so does when a row can be seen."""


@dataclass(slots=True)
class _Asked:
    """A request as this process heeds it: what it has ended and not yet counted, whether what was used until then is
    written down, and whether it has told that it is done."""

    seen_s: float
    ended: Counter[str] = field(default_factory=Counter)
    is_written: bool = False
    is_told: bool = False


class Privacy:
    """The privacy of one process's tenants.

    Args:
        settings: of the node.
        database: of keys, usage and recordings.
        jobs: whose recordings are deleted, and stopped.
        logs: events of sessions that have ended, which requests of other processes concern too.
        endings: ends sessions.
        others: the other processes that have sessions; None: there are none.
        audit: hears what was deleted.
        wall_s: seconds since 1970.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        jobs: Jobs,
        logs: EventLogs,
        audit: Audit,
        endings: Endings,
        others: Others | None = None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._logs = logs
        self._audit = audit
        self._endings = endings
        self._others = others
        self._wall_s = wall_s
        self._wake = asyncio.Event()
        self._asked: dict[str, _Asked] = {}  # bound: requests of SEEN_S, and UNFINISHED_MAX that wait
        self._heeding = asyncio.Lock()  # what is ended is counted by one who ends it
        self.tenants = Tenants(database, usage_keep_days=settings.usage_keep_days, wall_s=wall_s)
        self.erasures = Erasures(database, wall_s=wall_s)
        self._eraser = Eraser(
            database,
            jobs.files,
            self.erasures,
            signer=lambda: Signer.of(settings),
            stop_jobs=jobs.stop_deleted,
            end_sessions=self._end_everywhere,
            forget=logs.forget_tenant,
            wall_s=wall_s,
        )

    def wake(self) -> None:
        """There is a new request."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; what fails is tried again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._carry_out())
            tasks.create_task(self._heed())  # also while this one works on a request: others wait for it

    async def _carry_out(self) -> None:
        loop = asyncio.get_running_loop()
        upkeep_s = loop.time()
        while True:
            if loop.time() >= upkeep_s:
                upkeep_s = loop.time() + UPKEEP_PERIOD_S
                await self._surely("upkeep", self._upkeep)
            await self._surely("deletion", self.look)
            self._wake.clear()
            try:
                async with asyncio.timeout(LOOK_PERIOD_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _heed(self) -> None:
        while True:
            await self._surely("ending", self.heed)
            await asyncio.sleep(LOOK_PERIOD_S)

    async def look(self) -> None:
        """Carry out what waits.

        Raises:
            VoiceForgeError: the database fails.
            OSError: a file cannot be deleted.
        """
        if not self._database.exists:
            return
        while (claimed := await self.erasures.claim()) is not None:
            try:
                await self._eraser.erase(claimed)
            except asyncio.CancelledError:  # one that failed keeps its lease for a while: others have their turn
                await asyncio.shield(self._give_back(claimed.id))
                raise
            self._audit.record(
                "data.deleted", object={"tenant": claimed.tenant, "erasure": claimed.id}, details=claimed.deleted
            )

    async def heed(self) -> None:
        """End and forget here what any process was asked to delete.

        Raises:
            VoiceForgeError: the database fails; what was ended is counted later.
        """
        now_s = self._wall_s()
        for erasure in await self.erasures.current(since_s=now_s - SEEN_S):
            await self._end_here(erasure)  # again and again: one may come back here that was held elsewhere
        self._asked = {name: asked for name, asked in self._asked.items() if abs(now_s - asked.seen_s) < 2 * SEEN_S}

    async def _end_here(self, erasure: Erasure) -> None:
        async with self._heeding:
            is_new = erasure.id not in self._asked
            asked = self._asked.setdefault(erasure.id, _Asked(self._wall_s()))
            asked.seen_s = self._wall_s()
            ended = await self._endings.end(erasure)
            asked.ended += Counter(sessions_ended=ended.sessions, session_webhooks=ended.untold)
            if is_new or ended.sessions:
                asked.ended += Counter(event_logs=self._logs.forget_tenant(erasure.tenant))
            asked.is_written = asked.is_written and not ended.sessions
            if not asked.is_written:  # also what sessions and recordings used that ended a moment before
                await self._endings.flush()
                rolled = await roll_up(self._database, *usage_of(erasure), keeps_totals=erasure.keeps_totals)
                asked.ended += Counter(usage_rows=rolled)
                asked.is_written = True
            if asked.ended:
                await self.erasures.count_ended(erasure.id, asked.ended)
                asked.ended.clear()
            if self._others is not None and not asked.is_told:
                asked.is_told = await self._others.tell_done(erasure.id)

    async def _end_everywhere(self, erasure: Erasure) -> int | None:
        """End a request's sessions here, and give other processes the time to do so; as `Others.unheard`."""
        await self._end_here(erasure)
        return 0 if self._others is None else await self._others.unheard(erasure.id, limit_s=OTHERS_S)

    async def _give_back(self, erasure_id: str) -> None:
        try:
            await self.erasures.give_back(erasure_id)
        except VoiceForgeError as exc:  # its lease ends by itself
            log.warning("a deletion cannot be given back", code=exc.code)

    async def _upkeep(self) -> None:
        swept = await sweep_scratch()
        rolled = await self.tenants.roll_up()
        if swept or rolled:
            log.info("privacy's upkeep", folders_swept=swept, usage_rolled_up=rolled)

    async def _surely(self, what: str, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        except VoiceForgeError as exc:
            log.warning("privacy waits", what=what, code=exc.code)
        except Exception:
            log.exception("privacy failed", what=what)
