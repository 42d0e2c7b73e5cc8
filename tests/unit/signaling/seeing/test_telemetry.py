"""Log lines carry the session and no secret; a late event loop is said, but not too often."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog
from aiohttp.http_exceptions import BadHttpMessage
from front_door import OFFER, SDP, StartNode

from mediaserver.metrics import Metrics
from signaling.seeing.telemetry import LagReport, LagWatch, configure_logging, monitor_loop


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Logging is of the whole process: what a test configures must not reach the next."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def configured(level: str = "info", log_format: Literal["auto", "json", "console"] = "json") -> io.StringIO:
    stream = io.StringIO()
    configure_logging(level=level, log_format=log_format, stream=stream)
    return stream


async def test_a_line_carries_the_session_of_the_task_that_started_its_task() -> None:
    stream = configured()

    async def work() -> None:
        structlog.get_logger("mediaserver.x").info("working", part=1)
        logging.getLogger("aiortc.y").warning("late %s", "packet")

    with structlog.contextvars.bound_contextvars(session="s_1"):
        task = asyncio.create_task(work())
    structlog.get_logger("mediaserver.x").info("other")
    await task
    other, ours, theirs = lines(stream)
    assert "session" not in other
    assert (ours["event"], ours["session"], ours["part"], ours["level"]) == ("working", "s_1", 1, "info")
    assert (theirs["event"], theirs["session"], theirs["logger"]) == ("late packet", "s_1", "aiortc.y")


def test_libraries_are_quiet_and_less_so_at_debug() -> None:
    stream = configured()
    logging.getLogger("aioice.ice").info("check")
    assert not lines(stream)
    stream = configured("debug")
    logging.getLogger("aioice.ice").info("check")
    assert len(lines(stream)) == 1


def test_lines_below_the_level_are_left_out() -> None:
    stream = configured("warning")
    structlog.get_logger("x").info("no")
    structlog.get_logger("x").warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


def test_auto_is_json_where_nobody_watches() -> None:
    stream = configured(log_format="auto")
    structlog.get_logger("x").info("hello")
    assert lines(stream)[0]["event"] == "hello"


def test_console_is_for_people() -> None:
    stream = configured(log_format="console")
    structlog.get_logger("x").info("hello", session="s_1")
    assert "hello" in stream.getvalue()
    assert "session=s_1" in stream.getvalue()


def test_a_traceback_is_one_field_of_one_line() -> None:
    stream = configured()
    try:
        raise ValueError("inside")
    except ValueError:
        structlog.get_logger("x").exception("failed")
    (line,) = lines(stream)
    assert "ValueError: inside" in str(line["exception"])


def test_requests_that_are_not_http_do_not_fill_the_log() -> None:
    stream = configured()
    server = logging.getLogger("aiohttp.server")
    for error in (BadHttpMessage("scan"), RuntimeError("ours")):
        try:
            raise error
        except (BadHttpMessage, RuntimeError):
            server.exception("Error handling request")
    assert ["RuntimeError" in str(line["exception"]) for line in lines(stream)] == [True]


async def test_the_access_log_names_the_route_and_no_line_the_secret(start_node: StartNode) -> None:
    stream = configured("debug")  # before the server starts: aiohttp asks once whether requests are logged
    node = await start_node()
    url = (await node.client.post("/whip", data=OFFER, headers=SDP)).headers["Location"]
    assert (await node.client.get(url)).status == 200
    assert (await node.client.delete(url)).status == 200
    seen = [(line["method"], line["route"], line["status"]) for line in lines(stream) if line["event"] == "request"]
    assert seen == [("POST", "/whip", 201), ("GET", "/whip/{secret}", 200), ("DELETE", "/whip/{secret}", 200)]
    assert url.removeprefix("/whip/") not in stream.getvalue()


async def test_requests_are_not_logged_by_default(start_node: StartNode) -> None:
    stream = configured()
    node = await start_node()
    await node.client.get("/healthz")
    assert not lines(stream)


def test_a_stall_is_reported_at_once() -> None:
    assert LagWatch().observe(0.3, now_s=0.0) == LagReport(longest_s=0.3, stalls=1)


def test_small_lags_are_not_reported() -> None:
    watch = LagWatch()
    assert all(watch.observe(0.05, now_s=float(second)) is None for second in range(100))


def test_stalls_within_ten_seconds_become_one_report() -> None:
    watch = LagWatch()
    watch.observe(0.2, now_s=0.0)
    assert [watch.observe(lag, now_s=second) for lag, second in ((0.2, 1.0), (0.5, 2.0), (0.0, 9.9))] == [None] * 3
    assert watch.observe(0.0, now_s=10.0) == LagReport(longest_s=0.5, stalls=2)
    assert watch.observe(0.0, now_s=30.0) is None


async def test_the_monitor_sees_a_blocked_loop() -> None:
    stream, metrics = configured(), Metrics()
    task = asyncio.create_task(monitor_loop(metrics))
    await asyncio.sleep(0.05)
    time.sleep(0.4)
    await asyncio.sleep(0.25)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (metrics.registry.get_sample_value("voiceforge_loop_lag_seconds_count") or 0) >= 1
    assert [line["event"] for line in lines(stream)] == ["event loop stalled"]
