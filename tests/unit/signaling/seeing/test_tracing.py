"""Traces without a network: which spans there are, when they are sent, and what is dropped."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from structlog.testing import capture_logs

from mediaserver.errors import ConfigError
from mediaserver.events import Final, Interim, Revision, SpeechStarted, UtteranceBegan, UtteranceSettled
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.auth.principal import ANYBODY, LOCAL, NOBODY, Principal, Scope, TokenKind
from signaling.seeing.spans import Value
from signaling.seeing.trace_export import OtlpSpans
from signaling.seeing.trace_setup import open_traces
from signaling.seeing.tracing import OPEN_UTTERANCES_MAX, SessionTrace, _is_followed

ON = Settings(otlp_endpoint="http://collector.invalid:4318")


class FakeSpan:
    """A span that keeps a diary."""

    def __init__(self, name: str, start_ns: int, attributes: Mapping[str, Value]) -> None:
        self.trace_id = "0" * 32
        self.name = name
        self.start_ns = start_ns
        self.end_ns: int | None = None
        self.attributes = dict(attributes)
        self.error: str | None = None
        self.children: list[FakeSpan] = []
        self.events: list[str] = []

    def child(self, name: str, start_ns: int, attributes: Mapping[str, Value]) -> FakeSpan:
        self.children.append(FakeSpan(name, start_ns, attributes))
        return self.children[-1]

    def set(self, attributes: Mapping[str, Value]) -> None:
        self.attributes.update(attributes)

    def event(self, name: str, at_ns: int, attributes: Mapping[str, Value]) -> None:
        self.events.append(name)

    def end(self, at_ns: int, *, error: str | None = None) -> None:
        assert self.end_ns is None, "ended twice"
        self.end_ns, self.error = at_ns, error


class Clock:
    def __init__(self) -> None:
        self.ns = 1_000

    def __call__(self) -> int:
        self.ns += 1
        return self.ns


@pytest.fixture
def trace() -> SessionTrace:
    root = FakeSpan("session", 0, {})
    return SessionTrace(root, root.child("signaling", 0, {}), Clock())


def root_of(trace: SessionTrace) -> FakeSpan:
    assert isinstance(trace.root, FakeSpan)
    return trace.root


def final(number: int) -> Final:
    return Final(number, "so it goes", 1.0, 0.0, 2.0, 2.5, "en", 1.0, [])


def revision(number: int) -> Revision:
    return Revision(number, "so it went", 1.0, 0.0, 2.0, 2.5, [])


def say(trace: SessionTrace, number: int, *, channel: int = 0) -> None:
    trace.hear(SpeechStarted(0.5), channel)
    trace.hear(UtteranceBegan(number), channel)
    trace.hear(Interim(number, "so", "", 1.0, 0.0, 1.0, 1.0, []), channel)
    trace.hear(final(number), channel)
    trace.hear(UtteranceSettled(number, None, 0.25, 0.5), channel)


def test_an_utterance_is_sent_once_it_can_change_no_more(trace: SessionTrace) -> None:
    trace.answered(201, None)
    say(trace, 1)
    _, utterance, first_text = root_of(trace).children
    assert utterance.end_ns is None
    trace.hear(revision(1), 0)
    trace.ended("client", {})
    assert utterance.attributes["voiceforge.revisions"] == 1
    assert utterance.attributes["voiceforge.interims"] == 1
    assert utterance.attributes["voiceforge.queue_wait_s"] == 0.25
    assert utterance.attributes["voiceforge.decode_s"] == 0.5
    assert utterance.start_ns == first_text.start_ns
    end_ns = root_of(trace).end_ns
    assert utterance.end_ns is not None
    assert end_ns is not None
    assert utterance.end_ns < end_ns


def test_a_long_session_keeps_few_utterances_open(trace: SessionTrace) -> None:
    trace.answered(201, None)
    for number in range(1, OPEN_UTTERANCES_MAX + 11):
        say(trace, number)
    utterances = [span for span in root_of(trace).children if span.name == "utterance"]
    assert sum(span.end_ns is None for span in utterances) == OPEN_UTTERANCES_MAX
    trace.hear(revision(1), 0)
    assert root_of(trace).events == ["revision"]


def test_channels_do_not_mix(trace: SessionTrace) -> None:
    say(trace, 1, channel=0)
    say(trace, 1, channel=1)
    utterances = [span for span in root_of(trace).children if span.name == "utterance"]
    assert [span.attributes["voiceforge.channel"] for span in utterances] == [0, 1]


def test_a_failed_decode_is_an_error(trace: SessionTrace) -> None:
    trace.answered(201, None)
    trace.hear(SpeechStarted(0.5), 0)
    trace.hear(UtteranceBegan(1), 0)
    trace.hear(UtteranceSettled(1, {"code": "DECODE_FAILED"}), 0)
    trace.ended("client", {})
    (utterance,) = [span for span in root_of(trace).children if span.name == "utterance"]
    assert utterance.error == "DECODE_FAILED"


def test_a_session_that_fails_before_its_answer_ends_after_it(trace: SessionTrace) -> None:
    trace.ended("setup_failed", {}, error="setup_failed")
    assert root_of(trace).end_ns is None
    trace.answered(422, "INVALID_SDP")
    (signaling,) = root_of(trace).children
    assert signaling.error == "INVALID_SDP"
    assert root_of(trace).error == "setup_failed"


def test_only_the_first_reason_counts(trace: SessionTrace) -> None:
    trace.ended("setup_failed", {})
    trace.ended("refused", {}, error="INVALID_SDP")
    trace.answered(422, "INVALID_SDP")
    trace.ended("refused", {})
    assert root_of(trace).attributes["voiceforge.end_reason"] == "setup_failed"


def test_stages_follow_each_other(trace: SessionTrace) -> None:
    for stage in ("answered", "connected", "first_packet"):
        trace.reached(stage)
    _, ice, first_packet = root_of(trace).children
    assert (ice.name, first_packet.name) == ("ice", "first_packet")
    assert ice.end_ns is not None
    assert first_packet.end_ns is not None


class Gated(SpanExporter):
    """An exporter that can be slow, or fail."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.may_send = threading.Event()
        self.is_sending = threading.Event()
        self.outcome = SpanExportResult.SUCCESS

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.is_sending.set()
        self.may_send.wait(10)
        self.names += [span.name for span in spans]
        return self.outcome

    def shutdown(self) -> None:
        self.may_send.set()


def sent(metrics: Metrics, outcome: str) -> float:
    return metrics.registry.get_sample_value("voiceforge_trace_spans_total", {"outcome": outcome}) or 0.0


def end_one(spans: OtlpSpans, name: str) -> None:
    spans.begin(name, 1, {}, traceparent=None).end(2)


def test_a_slow_collector_loses_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "3")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    exporter, metrics = Gated(), Metrics()
    spans = OtlpSpans(ON, metrics=metrics, exporter=exporter)
    end_one(spans, "hangs")
    assert exporter.is_sending.wait(10)
    for number in range(5):
        end_one(spans, str(number))
    assert sent(metrics, "dropped") == 2
    exporter.may_send.set()
    spans.close()
    assert exporter.names == ["hangs", "2", "3", "4"]
    assert sent(metrics, "exported") == 4


def test_a_collector_that_is_away_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    exporter, metrics = Gated(), Metrics()
    exporter.outcome = SpanExportResult.FAILURE
    exporter.may_send.set()
    with capture_logs() as lines:
        spans = OtlpSpans(ON, metrics=metrics, exporter=exporter)
        for number in range(5):
            end_one(spans, str(number))
        spans.close()
    assert [line["event"] for line in lines] == ["traces cannot be sent"]
    assert sent(metrics, "failed") == 5


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_the_parts_of_a_known_trace_are_sampled_alike(ratio: float) -> None:
    exporter = Gated()
    exporter.may_send.set()
    spans = OtlpSpans(ON.model_copy(update={"trace_sample_ratio": ratio}), metrics=Metrics(), exporter=exporter)
    for number in range(1, 40):
        ids: dict[str, Any] = {"trace_id": number * 0x0123456789ABCDEF << 60 | number * 0x9E3779B97F4A7C15 % 2**64}
        ids["trace_id"] %= 2**128
        spans.begin_known("recording", 1, {}, span_id=number, **ids).end(2)
        spans.add_to("webhook", 1, {}, span_id=number, **ids).end(2)
    spans.close()
    assert exporter.names.count("recording") == exporter.names.count("webhook")
    if ratio in (0.0, 1.0):
        assert len(exporter.names) == 78 * ratio


def test_who_is_followed() -> None:
    key = Principal("acme", "aa", frozenset({Scope.STREAM}))
    assert all(map(_is_followed, (LOCAL, key)))
    tokens = [replace(key, token=kind) for kind in TokenKind]
    assert not any(map(_is_followed, (ANYBODY, NOBODY, *tokens)))


@pytest.mark.parametrize("sampler", [None, "traceidratio", "parentbased_traceidratio"])
@pytest.mark.parametrize("trace_id", ["0" * 31 + "1", "f" * 32])
def test_strangers_are_not_traced_more_than_others(
    monkeypatch: pytest.MonkeyPatch, sampler: str | None, trace_id: str
) -> None:
    """Whatever they say and whichever id they choose; who is followed is, and who wants none gets none."""
    settings = ON.model_copy(update={"trace_sample_ratio": 0.1})
    if sampler is not None:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.1")
        settings = ON
    exporter = Gated()
    exporter.may_send.set()
    spans = OtlpSpans(settings, metrics=Metrics(), exporter=exporter)
    for number in range(400):
        root = spans.begin("stranger", 1, {}, traceparent=f"00-{trace_id}-00000000000000aa-01")
        assert root.trace_id == trace_id
        root.child("child", 1, {}).end(2)
        root.end(2)
        if number < 20:
            spans.begin("known", 1, {}, traceparent=f"00-{trace_id}-00000000000000aa-01", is_followed=True).end(2)
            spans.begin("silent", 1, {}, traceparent=f"00-{trace_id}-00000000000000aa-00").end(2)
    spans.close()
    assert 10 <= exporter.names.count("stranger") <= 90  # 40 ± 8
    assert exporter.names.count("child") == exporter.names.count("stranger")
    if sampler != "traceidratio":  # which asks nobody
        assert (exporter.names.count("known"), exporter.names.count("silent")) == (20, 0)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (Settings(otlp_endpoint="collector:4318"), "OTLP_ENDPOINT_INVALID"),
        (Settings(otlp_endpoint="http://"), "OTLP_ENDPOINT_INVALID"),
        (Settings(otlp_endpoint="http://c:4318", otlp_headers="no header"), "OTLP_HEADERS_INVALID"),
    ],
)
def test_what_cannot_be_is_said(settings: Settings, code: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        open_traces(settings, Metrics())
    assert refusal.value.code == code


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "signaling.seeing.trace_export")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError) as refusal:
        open_traces(ON, Metrics())
    assert refusal.value.code == "TELEMETRY_MISSING"
    assert "voiceforge[telemetry]" in refusal.value.hint


def test_the_standard_switch_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert open_traces(ON, Metrics()) is None
