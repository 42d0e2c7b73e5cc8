"""Looks after the node from time to time: what `/readyz` and the gauges of `/metrics` say of a moment."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Mapping

import structlog
from sqlalchemy import text

from mediaserver.decoder.status import EngineStatus, Telling
from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings, StateAway
from mediaserver.storage.database import Database
from mediaserver.version import VERSION
from signaling.limits import Admission, Reason, ServedEngine
from signaling.registry import Registry
from signaling.seeing.machine_use import Sources, look
from signaling.seeing.readiness import Conditions

log = structlog.get_logger(__name__)

PERIOD_S = 1.0
"""How often what costs nothing is looked at."""

MACHINE_PERIOD_S = 5.0
"""How often the disk, the memory, the ports and the database are: in a thread, a millisecond's work."""

DATABASE_LIMIT_S = 4.0
"""A database that has not answered a question about nothing by then is down."""

JOBS_PERIOD_S = 15.0
"""How often jobs are counted: by an index, some milliseconds for thousands."""

MIB = 1 << 20

ALL_REASONS = (
    "stopping",
    "loading",
    "engine_down",
    "overloaded",
    "loop_lag",
    "disk_full",
    "database_down",
    "state_away",
    "files_used_up",
    "memory_used_up",
    "ports_used_up",
)


class NodeWatch:
    """Watches one process.

    Args:
        settings: of the node.
        metrics: what it sees.
        admission: is told why sessions should go elsewhere.
        registry: the sessions.
        engine: gives the engine, None until one is loaded.
        database: asked whether it is there, once there is one.
        usage_age_s: how long ago usage was written down.
        state_is_away: whether what processes share is away; None where they share nothing.
        sources: where to look; the machine's if None.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        metrics: Metrics,
        admission: Admission,
        registry: Registry,
        engine: Callable[[], ServedEngine | None],
        database: Database,
        usage_age_s: Callable[[], float],
        state_is_away: Callable[[], bool] | None = None,
        sources: Sources | None = None,
    ) -> None:
        self._metrics = metrics
        self._admission = admission
        self._registry = registry
        self._engine = engine
        self._database = database
        self._usage_age_s = usage_age_s
        self._state_is_away = state_is_away
        self._state_counts = settings.state_away is StateAway.REFUSE
        first, last = settings.udp_port_min, settings.udp_port_max
        self._sources = sources or Sources(settings.data_dir, range(first, last + 1) if first else range(0))
        self.conditions = Conditions(disk_reserve_bytes=settings.disk_reserve_mib * MIB)
        self._looked_s = self._counted_s = -math.inf
        self._jobs: Mapping[str, int] = {}
        self._held_back: tuple[str, ...] = ()
        self._built: tuple[str, ...] = ()
        admission.further = self._reasons
        metrics.on_scrape.append(self.show)

    def lagged(self, lag_s: float) -> None:
        """The event loop woke up late."""
        self.conditions.lag(lag_s, time.monotonic())

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self._round()
            except Exception:  # a system that writes something else than expected takes nothing with it
                log.exception("the node cannot be looked after")
            await asyncio.sleep(PERIOD_S)

    async def _round(self) -> None:
        now_s = time.monotonic()
        self._look()
        if now_s - self._looked_s >= MACHINE_PERIOD_S:
            self._looked_s = now_s
            await self._look_at_machine()
        if now_s - self._counted_s >= JOBS_PERIOD_S:
            self._counted_s = now_s
            await self._count_jobs()
        self._tell()

    def show(self) -> None:
        """Set the gauges, for they are about to be read."""
        metrics = self._metrics
        reasons = {reason.code for reason in self._admission.not_ready()}
        metrics.ready.set(not reasons)
        for code in ALL_REASONS:
            metrics.not_ready.labels(code).set(code in reasons)
        metrics.sessions_closing.set(len(self._registry) - len(self._registry.sessions()))
        for state, count in self._jobs.items():
            metrics.jobs_in_state.labels(state).set(count)
        metrics.usage_unwritten_seconds.set(self._usage_age_s())
        if self._state_is_away is not None:
            metrics.state_up.set(not self._state_is_away())
        self._show_engine()

    def _show_engine(self) -> None:
        metrics, engine = self._metrics, self._engine()
        status = engine.status() if isinstance(engine, Telling) else None
        metrics.engine_up.set(engine is not None and engine.ready)
        metrics.engine_overloaded.set(engine is not None and engine.overload_retry_after_s() is not None)
        model = "" if engine is None else engine.model_name
        built = (VERSION, model, *(("", "") if status is None else (status.device, status.compute_type)))
        if built != self._built and (status is not None or not self._built):
            metrics.build_info.clear()
            metrics.build_info.labels(*built).set(1)
            self._built = built
        if status is not None:
            self._show_status(status)

    def _show_status(self, status: EngineStatus) -> None:
        metrics = self._metrics
        metrics.engine_slots.set(status.slots)
        metrics.engine_busy_slots.set(status.busy_slots)
        for kind, count in status.queued.items():
            metrics.engine_queued_windows.labels(kind).set(count)
        is_own = status.process_id != os.getpid()  # else it is counted in this process' own
        metrics.engine_cpu_seconds.set(status.cpu_s if is_own else 0)
        metrics.engine_resident_bytes.set(status.resident_bytes if is_own else 0)
        metrics.engine_open_files.set(status.open_files if is_own else 0)

    def _reasons(self) -> list[Reason]:
        return self.conditions.reasons

    def _look(self) -> None:
        now_s, engine = time.monotonic(), self._engine()
        self.conditions.overload(engine is not None and engine.overload_retry_after_s() is not None, now_s)
        if self._state_is_away is not None:
            self.conditions.state(self._state_counts and self._state_is_away(), now_s)

    async def _look_at_machine(self) -> None:
        machine = await asyncio.to_thread(look, self._sources)
        self.conditions.machine(machine, time.monotonic())
        if self._database.exists:
            is_up = await self._answers()
            self._metrics.database_up.set(is_up)
            self.conditions.database(is_up, time.monotonic())

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(DATABASE_LIMIT_S), self._database.reading() as session:
                await session.execute(text("SELECT 1"))
        except (VoiceForgeError, TimeoutError):
            return False
        return True

    async def _count_jobs(self) -> None:
        if not self._database.exists:
            return
        try:
            async with asyncio.timeout(DATABASE_LIMIT_S), self._database.reading() as session:
                rows = await session.execute(text("SELECT state, count(*) FROM jobs GROUP BY state"))
                found = {str(state): int(count) for state, count in rows}
        except (VoiceForgeError, TimeoutError):
            return
        self._jobs = {**dict.fromkeys(self._jobs, 0), **found}

    def _tell(self) -> None:
        """A line when a reason begins or ends."""
        held_back = tuple(reason.code for reason in self.conditions.reasons)
        if held_back != self._held_back:
            (log.warning if held_back else log.info)("readiness changed", reasons=list(held_back))
            self._held_back = held_back
