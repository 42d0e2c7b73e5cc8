"""Traces of real sessions, as an OTLP receiver gets them over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.settings import Settings
from signaling.app import METRICS
from signaling.caller import Call, RecordingTrack
from tests.conftest import Speech
from tests.integration.real_server import serving
from tests.scoring import word_errors

pytestmark = pytest.mark.timeout(120)

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CALLER_UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-00"


class Collector:
    """An OTLP/HTTP receiver that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.raw = b""
        self.told = asyncio.Event()
        self._server: TestServer | None = None

    async def start(self) -> str:
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        app.router.add_post("/told", self._hear)
        self._server = TestServer(app)
        await self._server.start_server()
        return str(self._server.make_url("")).rstrip("/")

    async def _hear(self, _request: web.Request) -> web.Response:
        self.told.set()
        return web.Response()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.close()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.raw += body
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append({item.key: item.value.string_value for item in of_resource.resource.attributes})
            for of_scope in of_resource.scope_spans:
                self.spans.extend(of_scope.spans)
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def the(self, name: str) -> Span:
        (span,) = self.named(name)
        return span


def attributes(span: Span) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


def seconds(span: Span) -> float:
    return float(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


@pytest_asyncio.fixture
async def collector() -> AsyncIterator[Collector]:
    collector = Collector()
    yield collector


StartNode = Callable[..., Awaitable[TestServer]]


@pytest_asyncio.fixture
async def start_node(
    model_files: ModelFiles, vad_model_path: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[StartNode]:
    """Starts a server in this process; keywords are settings."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    async with AsyncExitStack() as running:

        async def start(**given: Any) -> TestServer:
            return await running.enter_async_context(serving(model_files, vad_model_path, settings=Settings(**given)))

        yield start


async def call(server: TestServer, speech: Speech) -> tuple[str, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    caller = Call(
        url=str(server.make_url("")),
        track=RecordingTrack(speech.path),
        language=None,
        on_event=lambda event: events.append(dict(event)),
    )
    await caller.run(asyncio.Event())
    return " ".join(event["transcript"] for event in events if event["type"] == "final"), events


async def test_a_call_is_one_trace(collector: Collector, start_node: StartNode, speech: Speech, tmp_path: Path) -> None:
    endpoint = await collector.start()
    server = await start_node(otlp_endpoint=endpoint, otlp_headers="authorization=Bearer%20abc", data_dir=tmp_path)
    before_ns = time.time_ns()
    text, events = await call(server, speech)
    assert word_errors(speech.text, text) <= 0.2
    words = sum(len(event["words"]) for event in events if event["type"] == "final")
    assert timed(server, "word") >= words / 2  # those that were stable before; the others with their final
    assert timed(server, "final") == sum(event["type"] == "final" for event in events)
    await server.close()
    await collector.stop()

    root = collector.the("session")
    inner = [span for span in collector.spans if span is not root]
    assert {span.trace_id for span in collector.spans} == {root.trace_id}
    assert {span.parent_span_id for span in inner} == {root.span_id}
    assert not root.parent_span_id
    assert {span.name for span in inner} == {"signaling", "ice", "first_packet", "first_text", "utterance"}

    told = attributes(root)
    assert told["voiceforge.door"] == "whip"
    assert told["voiceforge.model"] == "tiny.en"
    assert told["voiceforge.codec"] == "opus"
    assert told["voiceforge.end_reason"] == "client"
    assert told["voiceforge.session_id"] == events[0]["session_id"]
    assert told["voiceforge.audio_s"] >= speech.duration_s

    order = [collector.the(name) for name in ("signaling", "ice", "first_packet")]
    assert before_ns <= root.start_time_unix_nano == order[0].start_time_unix_nano
    assert attributes(order[0])["http.response.status_code"] == 201
    assert order[1].start_time_unix_nano <= order[0].end_time_unix_nano <= order[1].end_time_unix_nano
    assert order[1].end_time_unix_nano <= order[2].start_time_unix_nano <= order[2].end_time_unix_nano
    assert all(span.end_time_unix_nano <= root.end_time_unix_nano for span in inner)
    assert seconds(root) >= speech.duration_s

    finals = [event for event in events if event["type"] == "final"]
    utterances = [span for span in collector.named("utterance") if "voiceforge.words" in attributes(span)]
    assert len(utterances) == len(finals)
    for span, final in zip(sorted(utterances, key=lambda span: span.start_time_unix_nano), finals, strict=True):
        told = attributes(span)
        assert told["voiceforge.utterance_id"] == final["utterance_id"]
        assert told["voiceforge.duration_s"] == pytest.approx(final["duration"], abs=0.01)
        assert told["voiceforge.words"] == len(final["words"])
        assert told["voiceforge.decode_s"] > 0
        assert told["voiceforge.queue_wait_s"] >= 0
        assert seconds(span) >= final["duration"] - 1.0  # speech is noticed after its start
    revisions = sum(event["type"] == "revision" for event in events)
    assert sum(attributes(span)["voiceforge.revisions"] for span in utterances) == revisions

    assert collector.resources[0]["service.name"] == "voiceforge"
    assert collector.headers[0]["authorization"] == "Bearer abc"
    for secret in (final["transcript"] for final in finals):
        assert secret.encode() not in collector.raw
    assert b"127.0.0.1" not in collector.raw


def timed(server: TestServer, what: str) -> float:
    """How many of them the latency was counted of."""
    registry = server.app[METRICS].registry
    return registry.get_sample_value(f"voiceforge_{what}_seconds_count") or 0.0


async def test_what_comes_faster_than_it_is_spoken_says_nothing_of_latency(
    start_node: StartNode, speech: Speech
) -> None:
    server = await start_node()
    url = server.make_url("/ws/v1/transcribe").with_query(encoding="linear16", sample_rate="16000")
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as ws:
        await ws.send_bytes((speech.samples() * 32767).astype("<i2").tobytes())
        await ws.send_str('{"type":"close_stream"}')
        told = [json.loads(message.data) async for message in ws]
    assert any(event["type"] == "final" and event["words"] for event in told)
    assert timed(server, "final") == timed(server, "word") == timed(server, "first_text") == 0


async def stream(server: TestServer, headers: dict[str, str] | None = None) -> str:
    """A second of silence over a WebSocket; the session's id."""
    url = server.make_url("/ws/v1/transcribe").with_query(encoding="linear16", sample_rate="16000")
    async with aiohttp.ClientSession() as http, http.ws_connect(url, headers=headers) as ws:
        await ws.send_bytes(bytes(32_000))
        await ws.send_str('{"type":"close_stream"}')
        told = [json.loads(message.data) async for message in ws]
    return str(told[0]["session_id"])


async def test_coming_back_is_in_the_trace_and_in_the_audit_log(
    collector: Collector, start_node: StartNode, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    server = await start_node(otlp_endpoint=await collector.start(), audit_log=str(path))
    url = server.make_url("/ws/v1/transcribe").with_query(encoding="linear16", sample_rate="16000", prompt="secret")
    async with aiohttp.ClientSession() as http:
        ws = await http.ws_connect(url)
        ready = json.loads((await ws.receive()).data)
        await ws.send_bytes(bytes(32_000))
        assert ws._response.connection is not None
        assert ws._response.connection.transport is not None
        ws._response.connection.transport.abort()
        back = server.make_url(ready["resume"]["path"]).with_query(after=str(ready["seq"]))
        async with http.ws_connect(back) as again:
            assert json.loads((await again.receive()).data)["type"] == "resumed"
            await again.send_str('{"type":"close_stream"}')
            async for _ in again:
                pass
    await server.close()
    await collector.stop()
    root, resume = collector.the("session"), collector.the("resume")
    assert resume.parent_span_id == root.span_id
    assert attributes(resume)["voiceforge.is_elsewhere"] is False
    assert attributes(root)["voiceforge.end_reason"] == "client"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    of_session = [record for record in records if record["action"].startswith("session.")]
    assert [record["action"] for record in of_session] == ["session.open", "session.resume", "session.end"]
    assert {record["object"]["session"] for record in of_session} == {ready["session_id"]}
    assert of_session[0]["details"]["config"]["prompt"] == len("secret")
    assert of_session[2]["details"]["reason"] == "client"
    assert "secret" not in path.read_text()
    assert ready["resume"]["path"].rpartition("/")[2] not in path.read_text()
    assert ready["resume"]["path"].encode() not in collector.raw


async def test_a_callers_trace_is_continued(collector: Collector, start_node: StartNode) -> None:
    server = await start_node(otlp_endpoint=await collector.start())
    await stream(server, {"traceparent": CALLER})
    await stream(server, {"traceparent": CALLER_UNSAMPLED})
    await stream(server, {"traceparent": "nonsense"})
    await server.close()
    await collector.stop()
    continued, own = sorted(collector.named("session"), key=lambda span: not span.parent_span_id)
    assert continued.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert continued.parent_span_id.hex() == "b7ad6b7169203331"
    assert not own.parent_span_id
    assert own.trace_id != continued.trace_id


async def test_a_share_is_traced(collector: Collector, start_node: StartNode) -> None:
    server = await start_node(otlp_endpoint=await collector.start(), trace_sample_ratio=0.0)
    await stream(server)
    await stream(server, {"traceparent": CALLER})
    await server.close()
    await collector.stop()
    assert [span.trace_id.hex() for span in collector.named("session")] == ["0af7651916cd43dd8448eb211c80319c"]


async def test_a_refused_session_is_a_trace_too(collector: Collector, start_node: StartNode) -> None:
    server = await start_node(otlp_endpoint=await collector.start())
    async with (
        aiohttp.ClientSession() as http,
        http.post(server.make_url("/whip"), data="v=0", headers={"Content-Type": "application/sdp"}) as response,
    ):
        assert response.status == 422
    await server.close()
    await collector.stop()
    root, request = collector.the("session"), collector.the("signaling")
    assert attributes(root)["voiceforge.end_reason"] in ("refused", "setup_failed")
    assert attributes(request)["http.response.status_code"] == 422
    assert request.status.message == "NO_USABLE_AUDIO"


async def test_lines_of_the_log_have_the_trace(
    collector: Collector, start_node: StartNode, capsys: pytest.CaptureFixture[str]
) -> None:
    from signaling.seeing.telemetry import configure_logging

    root_logger = logging.getLogger()
    handlers, level = root_logger.handlers[:], root_logger.level
    configure_logging(level="info", log_format="json")
    try:
        server = await start_node(otlp_endpoint=await collector.start())
        session_id = await stream(server, {"X-Request-ID": "call-9"})
        await server.close()
        await collector.stop()
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    finally:
        root_logger.handlers[:], root_logger.level = handlers, level
    of_session = [line for line in lines if line.get("session") == session_id]
    assert {line["event"] for line in of_session} >= {"session opened", "session closed"}
    assert {line.get("trace_id") for line in of_session} == {collector.the("session").trace_id.hex()}
    assert {line.get("request") for line in of_session} == {"call-9"}


async def test_a_collector_that_is_away_is_said_once_and_hurts_nobody(
    start_node: StartNode, unused_tcp_port: int
) -> None:
    with capture_logs() as lines:
        server = await start_node(otlp_endpoint=f"http://127.0.0.1:{unused_tcp_port}")
        for _ in range(3):
            await stream(server)
        async with asyncio.timeout(10):
            await server.close()
    assert [line["event"] for line in lines].count("traces cannot be sent") <= 1  # it may be at its first attempt


async def test_a_recording_is_one_trace(
    collector: Collector, start_node: StartNode, speech: Speech, tmp_path: Path
) -> None:
    endpoint = await collector.start()
    server = await start_node(otlp_endpoint=endpoint, data_dir=tmp_path, outbound_allow_private=True)
    form = aiohttp.FormData({"webhook_url": f"{endpoint}/told"})
    form.add_field("file", speech.path.read_bytes(), filename="speech.flac")
    url = server.make_url("/api/v1/transcriptions")
    async with aiohttp.ClientSession() as http:
        async with http.post(url, data=form, headers={"traceparent": CALLER}) as response:
            assert response.status == 201, await response.text()
        await asyncio.wait_for(collector.told.wait(), 60)
    await server.close()
    await collector.stop()
    root = collector.the("recording")
    assert {span.trace_id for span in collector.spans} == {root.trace_id}
    assert {span.parent_span_id for span in collector.spans if span is not root} == {root.span_id}
    submit, queued, decode, webhook = (collector.the(name) for name in ("submit", "queued", "decode", "webhook"))
    assert [link.trace_id.hex() for link in submit.links] == [CALLER.split("-")[1]]
    assert queued.end_time_unix_nano <= decode.start_time_unix_nano
    assert decode.end_time_unix_nano == root.end_time_unix_nano
    assert webhook.start_time_unix_nano >= root.end_time_unix_nano
    assert attributes(root)["voiceforge.outcome"] == "completed"
    assert attributes(webhook)["voiceforge.event"] == "transcription.completed"


async def test_without_an_endpoint_nothing_is_imported() -> None:
    program = (
        "import sys; from mediaserver.metrics import Metrics; from mediaserver.settings import Settings\n"
        "from signaling.seeing.trace_setup import open_traces; assert open_traces(Settings(), Metrics()) is None\n"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)"
    )
    import sys

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await process.wait() == 0
