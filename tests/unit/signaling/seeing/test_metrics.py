"""The metrics as Prometheus wants them, and their page as the code has them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mediaserver.metrics import LARGEST, SMALLEST, Metrics
from signaling.cli.metrics import metrics_reference

DOCUMENT = Path(__file__).parents[4] / "docs" / "metrics.md"

PERSONAL = {"session", "session_id", "key", "key_id", "tenant", "address", "remote", "path", "url", "job", "user"}
"""Labels that would have as many values as there are clients, or say who they are."""

UNITS = re.compile(r"_(ms|milliseconds|minutes|kb|kib|mb|percent)(_|$)")


def test_the_page_is_what_the_code_says() -> None:
    assert DOCUMENT.read_text() == metrics_reference(), "voiceforge metrics --output docs/metrics.md"


def test_names_follow_the_conventions() -> None:
    for family in Metrics().families():
        assert re.fullmatch(r"voiceforge_[a-z][a-z0-9_]*", family.name)
        assert not UNITS.search(family.name), family.name  # base units
        assert (family.kind == "counter") == family.name.endswith("_total"), family.name
        assert not PERSONAL & set(family.labels), family.name
        assert family.text.endswith("."), family.name
        assert "|" not in family.text


def test_what_is_shared_exists() -> None:
    assert {family.name for family in Metrics().families() if family.kind == "gauge"} >= LARGEST | SMALLEST


def test_what_is_shown_is_what_is_listed() -> None:
    metrics = Metrics()
    shown = {family.name for family in metrics.registry.collect() if family.name.startswith("voiceforge_")}
    assert shown == {family.name.removesuffix("_total") for family in metrics.families()}


async def test_they_are_written_off_the_event_loop_and_gauges_are_set_on_it() -> None:
    metrics, threads = Metrics(), list[threading.Thread]()

    class Witness(Collector):
        def collect(self) -> Iterator[Metric]:
            threads.append(threading.current_thread())
            return iter(())

    metrics.on_scrape.append(lambda: threads.append(threading.current_thread()))
    metrics.registry.register(Witness())
    threads.clear()
    body, content_type = await metrics.exposed("")
    assert b"voiceforge_ready 0.0" in body
    assert content_type.startswith("text/plain")
    looked, written = threads
    assert looked is threading.main_thread()
    assert written is not threading.main_thread()


def test_gauges_are_set_when_they_are_read() -> None:
    metrics = Metrics()
    metrics.on_scrape.append(lambda: metrics.ready.set(1))
    body, content_type = metrics.exposition("")
    assert b"voiceforge_ready 1.0" in body
    assert content_type.startswith("text/plain")
    assert metrics.exposition("application/openmetrics-text; version=1.0.0")[0].endswith(b"# EOF\n")


def test_reading_them_takes_milliseconds() -> None:
    metrics = Metrics()
    for door in ("whip", "websocket", "deepgram", "openai"):
        for reason in (
            "client",
            "shutdown",
            "peer_lost",
            "timeout",
            "session_max",
            "error",
            "no_media",
            "setup_failed",
        ):
            metrics.sessions_ended_total.labels(door, reason).inc()
    began_s = time.perf_counter()
    metrics.exposition("")
    assert time.perf_counter() - began_s < 0.5  # 5 ms on an idle machine; the event loop waits for it
