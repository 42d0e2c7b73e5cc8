"""What the server tells its operator: one stream of log lines, and how late its event loop runs."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TextIO

import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError
from structlog.types import EventDict, Processor

from mediaserver.metrics import Metrics
from signaling.problems import route_of

log = structlog.get_logger(__name__)

LIBRARY_LOGGERS = ("aioice", "aiortc", "alembic", "asyncio", "faster_whisper", "huggingface_hub", "httpx", "numba")
"""They tell of every STUN check and every file; only their warnings are news. At `debug`, their infos too."""

REQUEST_HEADER = "X-Request-ID"
"""Where a response says how its request is called (`signaling.seeing.requests`)."""

LAG_PERIOD_S = 0.2
"""How often the loop's lateness is measured: a stall of a packet's length is seen, and idling costs nothing."""

LAG_WARNING_S = 0.1
"""A stall that a jitter buffer of 40–60 ms does not cover."""

LAG_WARNING_PERIOD_S = 10.0
"""At most one warning in this time: an overloaded node should not also write logs."""


def configure_logging(
    *,
    level: str,
    log_format: Literal["auto", "json", "console"],
    stream: TextIO | None = None,
    about: Mapping[str, object] | None = None,
) -> None:
    """Send every line of the process, structlog's and the standard library's, to one stream in one form.

    Args:
        level: least severe line: debug, info, warning or error.
        log_format: `json` one object a line, `console` for people, `auto` console on a terminal.
        stream: where lines go; standard error if None.
        about: said in each line: which of several processes this is.
    """
    target = sys.stderr if stream is None else stream
    named = dict(about or {})

    def add_name(_logger: object, _method: str, line: EventDict) -> EventDict:
        return {**line, **named}

    terminal = target.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,  # the session's id, bound where its tasks were started
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([add_name] if named else []),
    ]
    as_json = log_format == "json" or (log_format == "auto" and not terminal)
    rendered: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback)]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    handler.addFilter(_MalformedRequests())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    libraries = logging.INFO if level == "debug" else max(logging.WARNING, root.level)
    for name in LIBRARY_LOGGERS:
        logging.getLogger(name).setLevel(libraries)


class _MalformedRequests(logging.Filter):
    """Leaves out aiohttp's traceback for every request that is not HTTP: any port scan would fill the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name != "aiohttp.server" or not isinstance(record.exc_info, tuple):
            return True
        return not isinstance(record.exc_info[1], HttpProcessingError)


class AccessLogger(AbstractAccessLogger):
    """One line a request, at `debug`. It names the route's pattern: the path of a session is its secret."""

    @property
    def enabled(self) -> bool:
        """Whether aiohttp should measure requests at all."""
        return self.logger.isEnabledFor(logging.DEBUG)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Called by aiohttp when a response is out; `time` is its duration in seconds."""
        self.logger.debug(
            "request",
            extra={
                "method": request.method,
                "route": route_of(request),
                "status": response.status,
                "duration_ms": round(time * 1000, 1),
                "remote": request.remote,
                "request": response.headers.get(REQUEST_HEADER, ""),
            },
        )


@dataclass(frozen=True, slots=True)
class LagReport:
    """Stalls worth a warning: the longest since the last report, and how many there were."""

    longest_s: float
    stalls: int


class LagWatch:
    """Decides which stalls of the event loop are reported (sans-IO)."""

    def __init__(self) -> None:
        self._reported_at_s: float | None = None
        self._longest_s = 0.0
        self._stalls = 0

    def observe(self, lag_s: float, *, now_s: float) -> LagReport | None:
        """Take one measurement; a report when there is something to say and the last one is long enough ago."""
        if lag_s > LAG_WARNING_S:
            self._stalls += 1
            self._longest_s = max(self._longest_s, lag_s)
        quiet = self._reported_at_s is None or now_s - self._reported_at_s >= LAG_WARNING_PERIOD_S
        if not self._stalls or not quiet:
            return None
        report = LagReport(self._longest_s, self._stalls)
        self._reported_at_s, self._longest_s, self._stalls = now_s, 0.0, 0
        return report


async def monitor_loop(metrics: Metrics, on_lag: Callable[[float], None] = lambda _: None) -> None:
    """Measure until cancelled how late the event loop wakes up; `on_lag` is told, in seconds."""
    loop = asyncio.get_running_loop()
    watch = LagWatch()
    while True:
        due_s = loop.time() + LAG_PERIOD_S
        await asyncio.sleep(LAG_PERIOD_S)
        now_s = loop.time()
        lag_s = max(0.0, now_s - due_s)
        metrics.loop_lag_seconds.observe(lag_s)
        on_lag(lag_s)
        report = watch.observe(lag_s, now_s=now_s)
        if report is not None:
            log.warning("event loop stalled", longest_ms=round(report.longest_s * 1000), stalls=report.stalls)


async def run_monitor(metrics: Metrics, on_lag: Callable[[float], None] = lambda _: None) -> AsyncIterator[None]:
    """`monitor_loop` as a cleanup context of an application: owned, cancelled and awaited."""
    task = asyncio.create_task(monitor_loop(metrics, on_lag), name="loop-monitor")
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
