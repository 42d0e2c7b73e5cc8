"""Expositions of several workers as one."""

from __future__ import annotations

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from mediaserver.metrics import Metrics
from signaling.seeing.node_metrics import labelled, merged


def counted(sessions: int) -> Metrics:
    metrics = Metrics()
    metrics.sessions.labels("whip").set(sessions)
    metrics.refused_total.labels('odd "quoted" {braces}').inc(sessions)
    metrics.loop_lag_seconds.observe(0.01)
    return metrics


@pytest.mark.parametrize(
    ("generate", "parse"), [(generate_latest, parse_text), (generate_openmetrics, parse_openmetrics)]
)
def test_samples_of_all_stand_together_under_their_workers(generate: object, parse: object) -> None:
    assert callable(generate)
    assert callable(parse)
    text = merged([labelled(generate(counted(n).registry).decode(), str(n)) for n in (1, 2, 3)])
    families = list(parse(text))
    assert len({family.name for family in families}) == len(families)
    (sessions,) = (family for family in families if family.name == "voiceforge_sessions")
    assert {(sample.labels["worker"], sample.labels["door"], sample.value) for sample in sessions.samples} == {
        ("1", "whip", 1.0),
        ("2", "whip", 2.0),
        ("3", "whip", 3.0),
    }
    assert all("worker" in sample.labels for family in families for sample in family.samples)
    refused = {sample.labels["code"] for family in families for sample in family.samples if "code" in sample.labels}
    assert refused == {'odd "quoted" {braces}'}


def test_one_that_has_other_metrics_adds_them() -> None:
    text = merged(["# HELP a A.\n# TYPE a gauge\na 1.0\n", "# HELP b B.\n# TYPE b gauge\nb 2.0\n", ""])
    assert text == "# HELP a A.\n# TYPE a gauge\na 1.0\n# HELP b B.\n# TYPE b gauge\nb 2.0\n"
