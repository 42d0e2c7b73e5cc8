"""Jobs through programs that are killed: a server and its database, a worker behind Redis."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import FormData, web
from aiohttp.test_utils import TestServer

from mediaserver.decoder.catalogue import ModelFiles
from tests.conftest import Speech
from tests.integration.programs import ended, long_recording, url_of, voiceforge
from tests.scoring import word_errors

pytestmark = pytest.mark.timeout(170)


class Told:
    """A receiver of webhooks."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.events.append((request.headers["X-VoiceForge-Event"], request.headers["X-VoiceForge-Delivery"], body))
        return web.Response()


@pytest_asyncio.fixture
async def told() -> AsyncIterator[Told]:
    it = Told()
    app = web.Application()
    app.router.add_post("/hook", it.take)
    async with TestServer(app) as server:
        it.url = str(server.make_url("/hook"))
        yield it


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def form(path: Path, **options: object) -> FormData:
    data = FormData()
    data.add_field("options", json.dumps(options))
    data.add_field("file", path.open("rb"), filename=path.name)
    return data


async def test_a_job_that_ran_when_the_power_went_is_run_again_once(
    model_files: ModelFiles,
    vad_model_path: Path,
    speeches: dict[str, Speech],
    tmp_path: Path,
    http: aiohttp.ClientSession,
    told: Told,
) -> None:
    text = long_recording(tmp_path / "long.wav", speeches["darwin-rms"], 4)
    settings = {"data_dir": tmp_path / "data", "outbound_allow_private": "true", "port": 0, "log_format": "console"}
    async with voiceforge("serve", settings=settings) as server:
        url = await url_of(server)
        data = form(tmp_path / "long.wav", language="en", webhook_url=told.url, webhook_secret="long enough")
        async with http.post(f"{url}/api/v1/transcriptions", data=data) as response:
            assert response.status == 201, await response.text()
            job = await response.json()
        await server.until("job begun")
        await server.kill()
    async with voiceforge("serve", settings=settings) as server:
        url = await url_of(server)
        done = await ended(http, f"{url}/api/v1/transcriptions/{job['id']}")
        assert (done["state"], done["attempts"]) == ("completed", 2), done
        async with http.get(f"{url}/api/v1/transcriptions/{job['id']}/result?format=txt") as response:
            assert word_errors(text, await response.text()) <= 0.2
        async with asyncio.timeout(10):
            while not told.events:
                await asyncio.sleep(0.05)
        await server.stop()
    assert [(event, body["job"]["id"]) for event, _, body in told.events] == [("transcription.completed", job["id"])]


@pytest.fixture
def redis_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.needs("redis-server")
async def test_a_worker_behind_redis_does_what_a_server_takes_in(
    model_files: ModelFiles,
    vad_model_path: Path,
    speech: Speech,
    speeches: dict[str, Speech],
    tmp_path: Path,
    http: aiohttp.ClientSession,
    told: Told,
    redis_port: int,
) -> None:
    redis = await asyncio.create_subprocess_exec(
        *("redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)),
        stdout=asyncio.subprocess.DEVNULL,
    )
    long_recording(tmp_path / "long.wav", speeches["darwin-rms"], 12)
    settings = {
        "data_dir": tmp_path / "data",
        "jobs_broker_url": f"redis://127.0.0.1:{redis_port}/0",
        "outbound_allow_private": "true",
        "jobs_concurrency": 1,
        "port": 0,
        "log_format": "console",
    }
    try:
        async with voiceforge("serve", settings=settings) as server, voiceforge("worker", settings=settings) as worker:
            url = await url_of(server)
            jobs = f"{url}/api/v1/transcriptions"
            async with http.post(jobs, data=form(speech.path, webhook_url=told.url)) as response:
                job = await response.json()
            done = await ended(http, f"{jobs}/{job['id']}")
            assert done["state"] == "completed", worker.lines[-20:]
            async with http.get(f"{jobs}/{job['id']}/result?format=txt") as response:
                assert word_errors(speech.text, await response.text()) <= 0.2

            async with http.post(jobs, data=form(tmp_path / "long.wav")) as response:
                running = await response.json()
            await worker.until("job=2")
            async with http.post(f"{jobs}/{running['id']}/cancel") as response:
                assert response.status in (200, 202)
            async with asyncio.timeout(5):
                assert (await ended(http, f"{jobs}/{running['id']}"))["state"] == "cancelled"

            async with http.post(jobs, data=form(tmp_path / "long.wav")) as response:
                put_back = await response.json()
            await worker.until("job=3")
            assert await worker.stop() == 0
            async with http.get(f"{jobs}/{put_back['id']}") as response:
                body = await response.json()
            assert (body["state"], body["attempts"]) == ("queued", 0)  # it waits for the next worker
            async with asyncio.timeout(10):
                while not told.events:
                    await asyncio.sleep(0.05)
        assert [(event, body["job"]["id"]) for event, _, body in told.events] == [
            ("transcription.completed", job["id"])
        ]
    finally:
        redis.terminate()
        await redis.wait()
