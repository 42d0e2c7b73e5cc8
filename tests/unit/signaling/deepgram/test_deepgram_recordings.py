"""Recordings at the vendor's route: what is refused and how, and that none is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from signaling.routes.deepgram import rest
from tests.unit.signaling.deepgram.vendors_door import FOREIGN_TOKEN, RAW, Node, a_second, told

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")


async def test_a_recording_of_silence_has_no_words_and_leaves_no_file(node: Node, scratch: Path) -> None:
    status, body, response = await node.post({"utterances": "true", "tag": "a"}, data=a_second())
    assert status == 200
    assert body["metadata"]["request_id"] == response.headers["dg-request-id"]
    assert (body["metadata"]["duration"], body["metadata"]["tags"]) == (1.0, ["a"])
    assert body["results"]["channels"][0]["alternatives"][0]["transcript"] == ""
    assert body["results"]["utterances"] == []
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("query", "sent", "status", "code"),
    [
        ({"sentiment": "true"}, {"data": b"x"}, 400, "INVALID_PARAMETER"),
        ({"model": "large-v3"}, {"data": b"x"}, 400, "MODEL_NOT_LOADED"),
        ({"detect_language": "true"}, {"data": b"x"}, 400, "UNKNOWN_LANGUAGE"),
        ({"language": "tlh"}, {"data": b"x"}, 400, "UNKNOWN_LANGUAGE"),
        ({"callback": "nowhere"}, {"data": b"x"}, 400, "INVALID_URL"),
        ({"callback": "http://10.0.0.1/"}, {"data": b"x"}, 400, "ADDRESS_NOT_ALLOWED"),
        ({}, {"data": b"this is no recording" * 100}, 400, "NOT_AUDIO"),
        ({}, {"data": b""}, 400, "EMPTY_BODY"),
        ({}, {"data": b"{", "headers": {"Content-Type": "application/json"}}, 400, "INVALID_JSON"),
        ({}, {"json": {"uri": "https://example.org"}}, 400, "INVALID_CONFIG"),
        ({}, {"json": {"url": "file:///etc/passwd"}}, 400, "INVALID_URL"),
        ({}, {"json": {"url": "http://169.254.169.254/latest"}}, 400, "ADDRESS_NOT_ALLOWED"),
        ({}, {"json": {"url": "http://localhost:1/a.wav"}}, 400, "ADDRESS_NOT_ALLOWED"),
        (RAW, {"json": {"url": "https://example.org/a.raw"}}, 400, "INVALID_PARAMETER"),
        ({}, {"data": bytes(5000)}, 413, "TOO_LARGE"),
        ({}, {"data": b"x", "headers": {"Authorization": f"Bearer {FOREIGN_TOKEN}"}}, 401, "INVALID_AUTH"),
    ],
)
async def test_a_recording_is_refused_by_name_in_both_shapes(
    start: Any, scratch: Path, query: dict[str, str], sent: dict[str, Any], status: int, code: str
) -> None:
    node = await start(upload_max_bytes=4000)
    refused, body, _ = await node.post(query, **sent)
    assert (refused, body["category"]) == (status, code), body
    assert list(scratch.iterdir()) == []


async def test_a_body_that_turns_out_too_large_is_refused_too(start: Any, scratch: Path) -> None:
    node = await start(upload_max_bytes=4000)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(1000)

    status, body, _ = await node.post(data=pieces())
    assert (status, body["category"]) == (413, "TOO_LARGE")
    assert list(scratch.iterdir()) == []


async def test_raw_audio_is_read_as_the_query_says(node: Node) -> None:
    query = {"encoding": "mulaw", "sample_rate": "8000", "channels": "2", "multichannel": "true"}
    status, body, _ = await node.post(query, data=b"\xff" * 16_000)
    assert status == 200
    assert (body["metadata"]["duration"], body["metadata"]["channels"]) == (1.0, 2)


async def test_too_many_recordings_are_told_when_to_come_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "REQUESTS_MAX", 0)
    status, body, response = await node.post(data=a_second())
    assert (status, body["category"]) == (429, "RECORDINGS_FULL")
    assert int(response.headers["Retry-After"]) > 0


async def test_other_methods_and_faults_are_told_in_the_vendors_shape(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.http.delete(node.url()) as response:
        status, body, _ = await told(node, response)
    assert (status, body["category"]) == (405, "METHOD_NOT_ALLOWED")
    monkeypatch.setattr(rest, "recorded", lambda *_: 1 / 0)
    status, body, _ = await node.post(data=a_second())
    assert (status, body["category"]) == (500, "INTERNAL_ERROR")


@pytest.mark.parametrize(("recording", "kind"), [(a_second(), "results"), (b"this is no recording" * 100, "category")])
async def test_a_recording_by_url_is_fetched_and_what_comes_of_it_posted(
    start: Any, scratch: Path, recording: bytes, kind: str
) -> None:
    node = await start(outbound_allow_private=True)
    got: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()

    async def hook(request: web.Request) -> web.Response:
        await got.put((request.headers["dg-request-id"], await request.json()))
        return web.Response()

    async def file(_request: web.Request) -> web.Response:
        return web.Response(body=recording)

    elsewhere = web.Application()
    elsewhere.add_routes([web.post("/hook", hook), web.get("/a.wav", file)])
    async with TestServer(elsewhere) as server:
        status, body, _ = await node.post(
            {"callback": str(server.make_url("/hook"))}, json={"url": str(server.make_url("/a.wav"))}
        )
        assert (status, list(body)) == (200, ["request_id"])
        async with asyncio.timeout(5):
            request_id, posted = await got.get()
    assert request_id == body["request_id"]
    assert kind in posted
    assert list(scratch.iterdir()) == []


async def test_who_hangs_up_is_not_transcribed_for(node: Node, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "LOOK_S", 0.02)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def transcribe(*_: Any, **__: Any) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    monkeypatch.setattr("mediaserver.jobs.recording.Recorder.transcribe", transcribe)
    asking = asyncio.create_task(node.post(data=a_second()))
    async with asyncio.timeout(3):
        await begun.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await ended.wait()
        while list(scratch.iterdir()):
            await asyncio.sleep(0.01)


async def test_what_was_to_be_posted_ends_with_the_server(start: Any, scratch: Path, monkeypatch: Any) -> None:
    node = await start(outbound_allow_private=True)
    begun = asyncio.Event()

    async def transcribe(*_: Any, **__: Any) -> None:
        begun.set()
        await asyncio.sleep(60)

    monkeypatch.setattr("mediaserver.jobs.recording.Recorder.transcribe", transcribe)
    status, _, _ = await node.post({"callback": "http://127.0.0.1:9/"}, data=a_second())
    assert status == 200
    await begun.wait()
    await node.http.close()
    await node.server.close()
    assert list(scratch.iterdir()) == []


async def test_pages_of_listed_origins_may_send_the_sdks_headers(start: Any) -> None:
    node = await start(cors_origins=["https://app.example.org"])
    for path in ("/v1/listen", "/v1/auth/grant", "/v1/models"):
        async with node.http.options(node.url(path), headers={"Origin": "https://app.example.org"}) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == "https://app.example.org"
            assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
            assert "POST" in response.headers["Access-Control-Allow-Methods"]
            assert "dg-request-id" in response.headers["Access-Control-Expose-Headers"]
