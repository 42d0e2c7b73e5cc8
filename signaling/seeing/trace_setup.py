"""Whether there are traces, decided once: without `otlp_endpoint` nothing of OpenTelemetry is even imported."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from aiohttp import web

from mediaserver.errors import ConfigError
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.seeing.audit_door import submitted_jobs
from signaling.seeing.job_traces import JobTraces
from signaling.seeing.requests import REQUEST
from signaling.seeing.tracing import TRACEPARENT, Tracing

if TYPE_CHECKING:
    from signaling.seeing.trace_export import OtlpSpans

OTEL_SDK_DISABLED = "OTEL_SDK_DISABLED"


class Traces:
    """What sends traces, and who makes them of sessions.

    Args:
        spans: where they are begun.
    """

    def __init__(self, spans: OtlpSpans) -> None:
        self.spans = spans
        self.of_sessions = Tracing(spans)
        self.of_jobs = JobTraces(spans)

    async def on_response(self, request: web.Request, response: web.StreamResponse) -> None:
        """An answer leaves: of a request for a session, or of one that has submitted recordings."""
        await self.of_sessions.on_response(request, response)
        for job_id in submitted_jobs(request):
            self.of_jobs.submitted(
                job_id,
                began_ns=request[REQUEST].began_ns,
                ended_ns=time.time_ns(),
                traceparent=request.headers.get(TRACEPARENT),
            )

    async def close(self) -> None:
        """Send what waits."""
        await asyncio.to_thread(self.spans.close)


def open_traces(settings: Settings, metrics: Metrics) -> Traces | None:
    """Traces as the settings want them; None: there are none.

    Raises:
        ConfigError: TELEMETRY_MISSING, OTLP_ENDPOINT_INVALID, or OTLP_HEADERS_INVALID.
    """
    if settings.otlp_endpoint is None or os.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true":
        return None
    try:
        from signaling.seeing.trace_export import OtlpSpans  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as exc:
        raise ConfigError(
            "TELEMETRY_MISSING",
            f"`otlp_endpoint` needs the package `{exc.name}`, which is not installed.",
            "Install it: `pip install 'voiceforge[telemetry]'`.",
        ) from exc
    return Traces(OtlpSpans(settings, metrics=metrics))
