"""What is deployed agrees with what runs: settings that exist, metrics that exist, one set of alerts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.limits import Gate

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
WITH_SETTINGS = ["Dockerfile", "compose/compose.yaml", "helm/voiceforge/templates/deployment.yaml"]
SUFFIXES = ("_bucket", "_sum", "_count", "_total", "")


def served() -> set[str]:
    """Names of all series that /metrics shows."""
    return {
        family.name + suffix
        for family in Metrics().registry.collect()
        for suffix in (SUFFIXES if family.type in ("histogram", "counter") else ("",))
    }


def expressions(value: object) -> Iterator[str]:
    """Every PromQL expression of a dashboard, of its variables too."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("expr", "query") and isinstance(inner, str):
                yield inner
            else:
                yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_every_setting_that_a_deployment_sets_is_one(name: str) -> None:
    text = (DEPLOY / name).read_text()
    found = set(re.findall(r"VOICEFORGE_([A-Z_]*[A-Z])(?=[=:,}\s])(?!\})", text)) - {"IMAGE"}
    found |= set(re.findall(r'"([A-Z_]+)"', text)) if name.startswith("helm") else set()
    assert len(found) > 5
    assert {item.lower() for item in found} <= set(Settings.model_fields)


def test_the_server_behind_the_proxy_of_compose_answers_to_its_public_name() -> None:
    block = (DEPLOY / "compose/compose.yaml").read_text()
    found = dict(re.findall(r"^      VOICEFORGE_([A-Z_]+): (.+)$", block, re.MULTILINE))
    listed = json.loads(re.sub(r"\$\{DOMAIN[^}]*\}", "voice.example.org", found["CORS_ORIGINS"].strip("'")))
    gate = Gate(bound_host=found["HOST"].split()[0], cors_origins=listed)
    gate.check(host="voice.example.org", origin=None)  # as Caddy passes it on
    gate.check(host="voice.example.org", origin="https://voice.example.org")


def test_the_service_sets_settings() -> None:
    text = (DEPLOY / "systemd/voiceforge.service").read_text()
    found = set(re.findall(r"VOICEFORGE_([A-Z_]+)=", text))
    assert found
    assert {item.lower() for item in found} <= set(Settings.model_fields)
    assert "KillMode=mixed" in text  # the server stops its own workers


def test_the_charts_own_settings_are_settings() -> None:
    text = (DEPLOY / "helm/voiceforge/values.yaml").read_text()
    block = re.search(r"^settings:\n((?:  .*\n)+)", text, re.MULTILINE)
    assert block is not None
    assert set(re.findall(r"^  (\w+):", block[1], re.MULTILINE)) <= set(Settings.model_fields)


def test_alerts_and_dashboards_ask_for_metrics_that_there_are() -> None:
    asked = [*expressions(json.loads((DEPLOY / "grafana/dashboards/voiceforge.json").read_text()))]
    asked += re.findall(r"expr: (.*)", (DEPLOY / "prometheus/voiceforge.rules.yml").read_text())
    names = set(re.findall(r"\bvoiceforge_\w+", " ".join(asked)))
    assert len(names) > 25
    assert names <= served()


def test_the_chart_has_the_same_alerts() -> None:
    assert (DEPLOY / "helm/voiceforge/files/voiceforge.rules.yml").read_text() == (
        DEPLOY / "prometheus/voiceforge.rules.yml"
    ).read_text()


def test_alerts_ask_for_codes_and_fates_that_there_are() -> None:
    text = (DEPLOY / "prometheus/voiceforge.rules.yml").read_text()
    codes = re.findall(r'code=~"([A-Z_|]+)"', text)[0].split("|")
    sources = "".join(path.read_text() for room in ("signaling", "mediaserver") for path in (ROOT / room).rglob("*.py"))
    for code in codes:
        assert f'"{code}"' in sources, code
