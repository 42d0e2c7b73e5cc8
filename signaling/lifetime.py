"""What runs as long as the application does, in the order in which it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import structlog
from aiohttp import web

from mediaserver.errors import VoiceForgeError
from mediaserver.jobs.service import Jobs
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from mediaserver.version import VERSION
from signaling.auth.accounts import Accounts
from signaling.eventlogs import EventLogs
from signaling.limits import Admission
from signaling.registry import Registry
from signaling.seeing.audit import Audit
from signaling.seeing.audit_door import told_settings
from signaling.seeing.telemetry import run_monitor
from signaling.usage.meter import Meter

log = structlog.get_logger(__name__)


class Closable(Protocol):
    """What has connections to let go of."""

    async def close(self) -> None:
        """Let go of them."""
        ...


class Background(Protocol):
    """What works from time to time."""

    async def run(self) -> None:
        """Work until cancelled. Raises nothing else."""
        ...


class Lifetime:
    """Starts what the doors stand on, and ends it.

    Args:
        settings: of the node.
        metrics: what the event loop's lag is told to.
        accounts, meter: who comes in, and what they have used: written last.
        admission, registry, logs: sessions, which end first.
        jobs: recordings.
        closed_last: connections outwards, in the order in which they are closed.
        background: what works meanwhile.
        audit: hears of the start and the end, and is closed when all else is.
        traces: likewise; None where there are none.
        on_lag: told how late the event loop wakes up, in seconds.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        metrics: Metrics,
        accounts: Accounts,
        meter: Meter,
        admission: Admission,
        registry: Registry,
        logs: EventLogs,
        jobs: Jobs,
        closed_last: Sequence[Closable],
        background: Sequence[Background],
        audit: Audit,
        traces: Closable | None = None,
        on_lag: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._accounts = accounts
        self._meter = meter
        self._admission = admission
        self._registry = registry
        self._logs = logs
        self._jobs = jobs
        self._closed_last = closed_last
        self._background = background
        self._audit = audit
        self._traces = traces
        self._on_lag = on_lag

    def of(self, app: web.Application) -> None:
        """Live as long as this application."""
        # Contexts end in the reverse of this order.
        app.cleanup_ctx.append(self._record)
        app.cleanup_ctx.append(self._count)
        app.cleanup_ctx.append(self._work)
        app.cleanup_ctx.append(self._monitor)
        app.cleanup_ctx.append(self._close_outbound)
        app.cleanup_ctx.append(self._run_jobs)
        app.on_shutdown.append(self._close_sessions)

    async def _close_sessions(self, _app: web.Application) -> None:
        # `serve` has closed them by now (signaling/shutdown.py); whoever runs the application otherwise has not.
        self._admission.stop()
        await self._registry.close_all("shutdown", deadline_s=self._settings.shutdown_deadline_s)
        self._logs.close()

    async def _record(self, _app: web.Application) -> AsyncIterator[None]:
        self._audit.record("server.start", details={"version": VERSION, "settings": told_settings(self._settings)})
        yield
        self._audit.record("server.stop")
        await self._audit.close()
        if self._traces is not None:
            await self._traces.close()

    async def _work(self, _app: web.Application) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(one.run(), name=type(one).__name__.lower()) for one in self._background]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_jobs(self, _app: web.Application) -> AsyncIterator[None]:
        await self._jobs.start()
        yield
        await self._jobs.close()

    async def _close_outbound(self, _app: web.Application) -> AsyncIterator[None]:
        yield
        for closable in self._closed_last:
            await closable.close()

    async def _monitor(self, _app: web.Application) -> AsyncIterator[None]:
        async for _ in run_monitor(self._metrics, self._on_lag):
            yield

    async def _count(self, _app: web.Application) -> AsyncIterator[None]:
        counting = asyncio.create_task(self._meter.run(), name="usage")
        yield
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)
        try:
            await self._meter.flush()
        except VoiceForgeError as exc:
            log.error("usage not written", code=exc.code)
        await self._accounts.close()
