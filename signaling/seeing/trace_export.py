"""Spans by OpenTelemetry's SDK, sent by OTLP over HTTP: an extra, imported where `otlp_endpoint` is set.

Sending has a thread and a bounded queue of its own; a collector that is away costs spans and one line in the log.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from urllib.parse import unquote

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_BSP_SCHEDULE_DELAY,
    OTEL_RESOURCE_ATTRIBUTES,
    OTEL_SERVICE_NAME,
)
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from yarl import URL

from mediaserver.errors import ConfigError
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from mediaserver.version import VERSION
from signaling.seeing.spans import Span, Value
from signaling.seeing.trace_share import OwnShare, of_stranger

log = structlog.get_logger(__name__)

TRACES_PATH = "/v1/traces"

QUEUE_MAX = 2048
BATCH_MAX = 512
DELAY_MS = 5000
"""OpenTelemetry's own defaults. Two thousand spans are some hundred sessions' worth, 4 MB at most."""

CLOSE_S = 3.0
"""How long the end waits for a collector."""


class OtlpSpans:
    """Where spans are begun, and what sends them.

    Args:
        settings: `otlp_endpoint`, `otlp_headers` and `trace_sample_ratio`.
        metrics: spans by what became of them.
        exporter: sends them; by OTLP if None.

    Raises:
        ConfigError: OTLP_ENDPOINT_INVALID, or OTLP_HEADERS_INVALID.
    """

    def __init__(self, settings: Settings, *, metrics: Metrics, exporter: SpanExporter | None = None) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # what fails is said here, once
        self._sender = _Sender(exporter if exporter is not None else _exporter(settings), metrics)
        ratio = settings.trace_sample_ratio
        self._provider = TracerProvider(
            resource=_resource(),
            sampler=None if ratio is None else ParentBased(TraceIdRatioBased(ratio)),
            id_generator=_Ids(),
            shutdown_on_exit=False,
        )
        # Without a ratio the SDK has asked OTEL_TRACES_SAMPLER.
        self._provider.sampler = OwnShare(self._provider.sampler)
        self._provider.add_span_processor(self._sender)
        self._tracer = self._provider.get_tracer("voiceforge", VERSION)
        self._propagator = TraceContextTextMapPropagator()

    def begin(
        self,
        name: str,
        start_ns: int,
        attributes: Mapping[str, Value],
        *,
        traceparent: str | None,
        is_followed: bool = False,
    ) -> Span:
        """As `Spans.begin`."""
        caller = self._propagator.extract({} if traceparent is None else {"traceparent": traceparent})
        return _OtlpSpan(
            self._tracer,
            self._tracer.start_span(
                name,
                context=caller if is_followed else of_stranger(caller),
                kind=trace.SpanKind.SERVER,
                attributes=dict(attributes),
                start_time=start_ns,
            ),
        )

    def begin_known(
        self, name: str, start_ns: int, attributes: Mapping[str, Value], *, trace_id: int, span_id: int
    ) -> Span:
        """Begin a trace whose ids follow from what it is about, so that other processes can add to it."""
        token = _KNOWN.set(_Known(trace_id, span_id))
        try:
            return _OtlpSpan(
                self._tracer,
                self._tracer.start_span(
                    name,
                    context=trace.set_span_in_context(trace.INVALID_SPAN),
                    attributes=dict(attributes),
                    start_time=start_ns,
                ),
            )
        finally:
            _KNOWN.reset(token)

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
        """Begin a span in such a trace, whose root another process may send; a caller's trace is linked."""
        sampled = self._provider.sampler.should_sample(None, trace_id, name).decision is Decision.RECORD_AND_SAMPLE
        flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
        parent = trace.NonRecordingSpan(SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags))
        caller = trace.get_current_span(
            self._propagator.extract({} if traceparent is None else {"traceparent": traceparent})
        ).get_span_context()
        return _OtlpSpan(
            self._tracer,
            self._tracer.start_span(
                name,
                context=trace.set_span_in_context(parent),
                links=[Link(caller)] if caller.is_valid else [],
                attributes=dict(attributes),
                start_time=start_ns,
            ),
        )

    def close(self) -> None:
        """Send what waits, within `CLOSE_S`. Blocks."""
        self._provider.shutdown()


class _OtlpSpan:
    """A span of the SDK's."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span
        self.trace_id = trace.format_trace_id(span.get_span_context().trace_id)

    def child(self, name: str, start_ns: int, attributes: Mapping[str, Value]) -> Span:
        """As `Span.child`."""
        within = trace.set_span_in_context(self._span)
        return _OtlpSpan(
            self._tracer,
            self._tracer.start_span(name, context=within, attributes=dict(attributes), start_time=start_ns),
        )

    def set(self, attributes: Mapping[str, Value]) -> None:
        """As `Span.set`."""
        self._span.set_attributes(dict(attributes))

    def event(self, name: str, at_ns: int, attributes: Mapping[str, Value]) -> None:
        """As `Span.event`."""
        self._span.add_event(name, dict(attributes), timestamp=at_ns)

    def end(self, at_ns: int, *, error: str | None = None) -> None:
        """As `Span.end`."""
        if error is not None:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end(at_ns)


@dataclass(frozen=True, slots=True)
class _Known:
    trace_id: int
    span_id: int


_KNOWN: ContextVar[_Known | None] = ContextVar("known_trace", default=None)


class _Ids(IdGenerator):
    """Random ids, but where they follow from something."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()

    def generate_trace_id(self) -> int:
        known = _KNOWN.get()
        return self._random.generate_trace_id() if known is None else known.trace_id

    def generate_span_id(self) -> int:
        known = _KNOWN.get()
        return self._random.generate_span_id() if known is None else known.span_id


class _Sender(SpanProcessor):
    """Sends ended spans from a thread of its own. With `QUEUE_MAX` waiting the oldest is dropped for each new one."""

    def __init__(self, exporter: SpanExporter, metrics: Metrics) -> None:
        self._exporter = exporter
        self._count = metrics.trace_spans_total
        self._batch_max = _number(OTEL_BSP_MAX_EXPORT_BATCH_SIZE, BATCH_MAX)
        self._queue: deque[ReadableSpan] = deque(maxlen=_number(OTEL_BSP_MAX_QUEUE_SIZE, QUEUE_MAX))
        self._delay_s = _number(OTEL_BSP_SCHEDULE_DELAY, DELAY_MS) / 1000
        self._wake = threading.Event()
        self._is_closing = False
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        """Called where a span ends, on the event loop."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if len(self._queue) == self._queue.maxlen:
            self._count.labels("dropped").inc()
        self._queue.append(span)
        if len(self._queue) >= self._batch_max:
            self._wake.set()

    def shutdown(self) -> None:
        """Send what waits. Blocks, for `CLOSE_S` at most."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(CLOSE_S)
        self._exporter.shutdown()  # also wakes one that waits before it tries again

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing but the end asks for it."""
        return True

    def _run(self) -> None:
        is_over = False
        while not is_over:
            self._wake.wait(self._delay_s)
            self._wake.clear()
            is_over = self._is_closing
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(self._batch_max, len(self._queue)))]
                if not self._send(batch) and not is_over:
                    break  # a collector that is away is not asked again for every batch

    def _send(self, batch: list[ReadableSpan]) -> bool:
        try:
            is_sent = self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception:  # whatever it is, the sessions go on
            is_sent = False
        self._count.labels("exported" if is_sent else "failed").inc(len(batch))
        if is_sent == self._is_failing:
            self._is_failing = not is_sent
            if is_sent:
                log.info("traces are sent again")
            else:
                log.warning("traces cannot be sent", hint="Is the collector at `otlp_endpoint` there?")
        return is_sent


def _exporter(settings: Settings) -> SpanExporter:
    endpoint = settings.otlp_endpoint or ""
    try:
        url = URL(endpoint)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(
            "OTLP_ENDPOINT_INVALID",
            "`otlp_endpoint` is not an HTTP URL.",
            "Give the collector's, for example http://localhost:4318.",
        )
    if url.path == "/":
        url = url.with_path(TRACES_PATH)
    return OTLPSpanExporter(endpoint=str(url), headers=_headers(settings))


def _headers(settings: Settings) -> dict[str, str] | None:
    if settings.otlp_headers is None:
        return None  # then OTEL_EXPORTER_OTLP_HEADERS holds
    headers = {}
    for part in filter(None, map(str.strip, settings.otlp_headers.get_secret_value().split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise ConfigError(
                "OTLP_HEADERS_INVALID", "`otlp_headers` is no list of headers.", "Write `name=value,name=value`."
            )
        headers[name.strip()] = unquote(value.strip())
    return headers


def _resource() -> Resource:
    named = OTEL_SERVICE_NAME in os.environ or SERVICE_NAME in os.environ.get(OTEL_RESOURCE_ATTRIBUTES, "")
    # Each process is an instance of its own; OTEL_RESOURCE_ATTRIBUTES may name it otherwise.
    own: dict[str, str] = {SERVICE_VERSION: VERSION}
    if SERVICE_INSTANCE_ID not in os.environ.get(OTEL_RESOURCE_ATTRIBUTES, ""):
        own[SERVICE_INSTANCE_ID] = str(uuid.uuid4())
    return Resource.create(own if named else {**own, SERVICE_NAME: "voiceforge"})


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() and int(text) > 0 else default
