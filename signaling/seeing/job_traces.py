"""Traces of recordings: one a job, whoever submits, runs and tells of it, in whichever process.

    recording            from its submission to its end
    ├─ submit            the HTTP request; linked to its caller's trace
    ├─ queued            submitted → claimed
    ├─ fetch             claimed → the recording is there (by URL)
    ├─ decode            the recording is there → its end is written down
    └─ webhook …         its client is told

The ids of such a trace follow from the job's id, so nothing has to be handed on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol

from mediaserver.jobs.models import Job
from mediaserver.jobs.observer import JobObserver
from signaling.seeing.spans import Span, Value

ENDS = frozenset({"completed", "failed", "cancelled"})

NS = 1_000_000_000


class KnownSpans(Protocol):
    """Where spans are begun whose trace is known (`signaling.seeing.trace_export`)."""

    def begin_known(
        self, name: str, start_ns: int, attributes: Mapping[str, Value], *, trace_id: int, span_id: int
    ) -> Span:
        """Begin a trace with these ids."""
        ...

    def add_to(
        self,
        name: str,
        start_ns: int,
        attributes: Mapping[str, Value],
        *,
        trace_id: int,
        span_id: int,
        traceparent: str | None = None,
    ) -> Span:
        """Begin a span within a trace with these ids."""
        ...


class JobTraces(JobObserver):
    """Traces jobs.

    Args:
        spans: where spans go.
    """

    def __init__(self, spans: KnownSpans) -> None:
        self._spans = spans

    def submitted(self, job_id: str, *, began_ns: int, ended_ns: int, traceparent: str | None) -> None:
        """A request has submitted a job.

        Args:
            job_id: its id.
            began_ns, ended_ns: of the request, in nanoseconds since 1970.
            traceparent: of its caller.
        """
        trace_id, span_id = ids_of(job_id)
        span = self._spans.add_to("submit", began_ns, {}, trace_id=trace_id, span_id=span_id, traceparent=traceparent)
        span.end(ended_ns)

    def ran(self, job: Job, outcome: str, *, began_s: float, decoding_s: float | None, ended_s: float) -> None:
        """As `JobObserver.ran`."""
        trace_id, span_id = ids_of(job.id)
        about: dict[str, Value] = {"voiceforge.attempt": job.attempts, "voiceforge.outcome": outcome}
        parts: list[tuple[str, float, float]] = []
        if job.attempts == 1:
            parts.append(("queued", job.created_at, began_s))
        if job.url is not None:
            parts.append(("fetch", began_s, decoding_s or ended_s))
        if decoding_s is not None:
            parts.append(("decode", decoding_s, ended_s))
        for name, start_s, end_s in parts:
            span = self._spans.add_to(name, _ns(start_s), about, trace_id=trace_id, span_id=span_id)
            is_last = end_s == ended_s
            span.end(_ns(end_s), error=outcome if is_last and outcome == "failed" else None)
        if outcome in ENDS:
            about["voiceforge.job"] = job.number
            root = self._spans.begin_known("recording", _ns(job.created_at), about, trace_id=trace_id, span_id=span_id)
            root.end(_ns(ended_s), error=outcome if outcome == "failed" else None)

    def delivered(self, job: Job, event: str, *, began_s: float, ended_s: float) -> None:
        """As `JobObserver.delivered`."""
        trace_id, span_id = ids_of(job.id)
        about = {"voiceforge.event": event}
        self._spans.add_to("webhook", _ns(began_s), about, trace_id=trace_id, span_id=span_id).end(_ns(ended_s))


def ids_of(job_id: str) -> tuple[int, int]:
    """Trace and span id of a job's root; neither is 0, which W3C Trace Context forbids."""
    digest = hashlib.sha256(f"voiceforge trace of {job_id}".encode()).digest()
    return int.from_bytes(digest[:16]) | 1, int.from_bytes(digest[16:24]) | 1


def _ns(seconds: float) -> int:
    return int(seconds * NS)
