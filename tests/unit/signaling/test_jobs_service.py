"""Recordings of a server over restarts and failures: fetched, told of, expired, and a disk or database that fails."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from mediaserver.jobs import files as files_module
from mediaserver.jobs import ledger as ledger_module
from mediaserver.jobs.service import Jobs
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from mediaserver.storage import database as database_module
from tests.unit.signaling.jobs_door import Door, FakeTranscriber, open_door
from tests.waiting import until

HOOK = {"webhook_secret": "long enough"}


class Site:
    """Somebody else's server: a recording to fetch, and a receiver of webhooks that answers as told."""

    def __init__(self) -> None:
        self.statuses = [200]
        self.told: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def recording(self, _request: web.Request) -> web.Response:
        return web.Response(body=b"fetched words")

    async def redirect(self, _request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/recording?signature=secret"})

    async def slow(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000000"})
        await response.prepare(request)
        await response.write(bytes(500_000))
        await asyncio.sleep(60)
        return response

    async def hook(self, request: web.Request) -> web.Response:
        self.told.append((dict(request.headers), await request.read()))
        return web.Response(status=self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0])


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    it = Site()
    app = web.Application()
    for handler in (it.recording, it.redirect, it.slow):
        app.router.add_get(f"/{handler.__name__}", handler)
    app.router.add_post("/hook", it.hook)
    async with TestServer(app, shutdown_timeout=0.1) as server:
        it.url = str(server.make_url("")).rstrip("/")
        yield it


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", outbound_allow_private=True)


@pytest_asyncio.fixture
async def door(settings: Settings, no_leaked_tasks: None) -> AsyncIterator[Door]:
    async for opened in open_door(settings, FakeTranscriber()):
        yield opened


def audio_files(settings: Settings) -> list[Path]:
    return list((settings.data_dir / "recordings").rglob("audio"))


async def test_a_recording_is_fetched_through_redirects_and_its_query_stays_here(door: Door, site: Site) -> None:
    url = f"{site.url}/redirect?token=secret"
    _, job = await door.ask("POST", "/transcriptions", json={"url": url})
    assert job["source"] == f"{site.url}/redirect"
    done = await door.ended(job["id"])
    assert (done["state"], done["size_bytes"]) == ("completed", len(b"fetched words"))
    _, text = await door.ask("GET", f"/transcriptions/{job['id']}/result?format=txt")
    assert text == "fetched words\n"


async def test_a_fetch_is_seen_and_cancelled(door: Door, site: Site, settings: Settings) -> None:
    _, job = await door.ask("POST", "/transcriptions", json={"url": f"{site.url}/slow"})
    async with door.client.get(f"/api/v1/transcriptions/{job['id']}/events") as response:
        async for line in response.content:
            if b'"stage":"fetching"' in line:
                break
    await door.ask("POST", f"/transcriptions/{job['id']}/cancel")
    assert (await door.ended(job["id"]))["state"] == "cancelled"
    assert audio_files(settings) == []


async def test_the_end_of_a_job_is_told_and_signed(door: Door, site: Site) -> None:
    job = await door.submit("so it goes", webhook_url=f"{site.url}/hook", metadata='{"caller": "7"}', **HOOK)
    assert job["webhook"] == site.url
    failed = await door.submit("noise", webhook_url=f"{site.url}/hook", **HOOK)
    await until(lambda: len(site.told) == 2)
    for (headers, body), expected, event in zip(
        sorted(site.told, key=lambda one: one[0]["X-VoiceForge-Event"]),
        (job, failed),
        ("transcription.completed", "transcription.failed"),
        strict=True,
    ):
        assert headers["X-VoiceForge-Event"] == event
        signed = headers["X-VoiceForge-Timestamp"].encode() + b"." + body
        mac = hmac.new(b"long enough", signed, hashlib.sha256).hexdigest()
        assert headers["X-VoiceForge-Signature"] == f"sha256={mac}"
        assert expected["id"].encode() in body
        assert b"long enough" not in body
    await until(lambda: secret_of(door, job["id"]) is None)  # nothing is left to sign


def secret_of(door: Door, job_id: str) -> Any:
    path = Path(str(door.jobs._database.url.database))
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT webhook_secret FROM jobs WHERE id = ?", (job_id,)).fetchone()[0]


async def test_a_webhook_that_is_owed_survives_a_restart(settings: Settings, site: Site) -> None:
    site.statuses = [500]
    async for door in open_door(settings, FakeTranscriber()):
        await door.submit("so it goes", webhook_url=f"{site.url}/hook", **HOOK)
        await until(lambda: len(site.told) >= 1)
    in_vain = len(site.told)
    site.statuses = [200]
    async for _door in open_door(settings, FakeTranscriber()):
        await until(lambda: len(site.told) > in_vain)
        await asyncio.sleep(0.1)
    async for _door in open_door(settings, FakeTranscriber()):
        await asyncio.sleep(0.1)
    assert len(site.told) == in_vain + 1
    assert len({headers["X-VoiceForge-Delivery"] for headers, _ in site.told}) == 1


async def test_a_stop_puts_jobs_back_and_a_start_goes_on_with_them(settings: Settings) -> None:
    async for door in open_door(settings, FakeTranscriber()):
        job = await door.submit("wait for me")
        waiting = await door.submit("waits too")
        await door.transcriber.began.wait()
    transcriber = FakeTranscriber()
    transcriber.go.set()
    async for door in open_door(settings, transcriber):
        for one in (job, waiting):
            done = await door.ended(one["id"])
            assert (done["state"], done["attempts"]) == ("completed", 1)


async def test_a_crash_is_noticed_at_the_next_start_and_a_second_one_fails_the_job(settings: Settings) -> None:
    jobs_file = settings.data_dir / "jobs.db"

    def crash() -> None:
        """Leave the job as a process does that was killed: another start of this very process number."""
        with sqlite3.connect(jobs_file) as connection:
            connection.execute("UPDATE jobs SET state = 'running', attempts = attempts + 1, owner = ?", (dead,))
            connection.execute("UPDATE jobs SET lease_until = ?", (time.time() + 1000,))

    transcriber = FakeTranscriber()
    async for door in open_door(settings, transcriber):
        job = await door.submit("wait for me")
        await transcriber.began.wait()
        held = await door.jobs.store.get(job["id"])
        assert held is not None
        assert held.owner is not None
        dead = f"{held.owner.rpartition('/')[0]}/dead"
    crash()
    transcriber = FakeTranscriber()
    async for door in open_door(settings, transcriber):
        await transcriber.began.wait()  # it is run again, at once, not when its lease is over
        _, body = await door.ask("GET", f"/transcriptions/{job['id']}")
        assert body["attempts"] == 2
    crash()
    async for door in open_door(settings, FakeTranscriber()):
        done = await door.ended(job["id"])
        assert (done["state"], done["error"]["code"]) == ("failed", "WORKER_CRASHED")


async def test_what_is_taken_away_is_given_up(door: Door) -> None:
    job = await door.submit("wait for me")
    await door.transcriber.began.wait()
    path = Path(str(door.jobs._database.url.database))

    def take_away() -> None:
        with sqlite3.connect(path) as connection:  # another worker thought this one dead
            connection.execute("UPDATE jobs SET owner = 'another'")

    await asyncio.to_thread(take_away)  # on the loop it would wait for those who wait for the loop
    await until(lambda: door.transcriber.running == 0)
    _, body = await door.ask("GET", f"/transcriptions/{job['id']}")
    assert body["state"] == "running"  # by the other one


async def test_jobs_wait_for_a_model_to_be_loaded(settings: Settings) -> None:
    loaded: list[FakeTranscriber] = []
    jobs = Jobs(settings, metrics=Metrics(), transcriber=lambda: loaded[0] if loaded else None)
    async for door in open_door(settings, FakeTranscriber()):
        door.jobs._transcriber = lambda: loaded[0] if loaded else None
        job = await door.submit("so it goes")
        _, body = await door.ask("GET", f"/transcriptions/{job['id']}")
        assert body["state"] == "queued"
        loaded.append(door.transcriber)
        assert (await door.ended(job["id"]))["state"] == "completed"
    await jobs.close()


async def test_nothing_is_written_before_there_is_a_recording(settings: Settings) -> None:
    jobs = Jobs(settings, metrics=Metrics(), transcriber=lambda: None)
    await jobs.start()
    await jobs.close()
    assert not settings.data_dir.exists()


async def test_ended_jobs_and_strays_are_deleted_in_time(settings: Settings, door: Door, site: Site) -> None:
    job = await door.submit("so it goes", expires_in_s="60")
    await door.ended(job["id"])
    stray = settings.data_dir / "recordings" / "job_stray"
    stray.mkdir()
    (stray / "audio").write_bytes(b"x")
    old_s = time.time() - 7200
    os.utime(stray / "audio", (old_s, old_s))
    os.utime(stray, (old_s, old_s))
    running = door.jobs._running
    assert running is not None
    await running.upkeep.sweep()
    assert not stray.exists()
    await running.upkeep.expire()
    assert (await door.ask("GET", f"/transcriptions/{job['id']}"))[0] == 200
    running.upkeep._wall_s = lambda: time.time() + 61
    await running.upkeep.expire()
    assert (await door.ask("GET", f"/transcriptions/{job['id']}"))[0] == 404


async def test_a_full_disk_is_said_and_leaves_nothing(
    door: Door, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "RESERVE_BYTES", 1 << 60)
    for given in ({"data": {"file": b"x"}},):
        status, body = await door.ask("POST", "/transcriptions", **given)
        assert (status, body["error"]["code"]) == (507, "DISK_FULL")
    async with door.client.post("/api/v1/uploads", headers={"Upload-Length": "5"}) as response:
        assert response.status == 507
    monkeypatch.undo()

    def full(*_given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files_module, "_finish", full)
    status, body = await door.ask("POST", "/transcriptions", data={"file": b"x"})
    assert (status, body["error"]["code"]) == (507, "DISK_FULL")
    assert audio_files(settings) == []
    assert (await door.ask("GET", "/transcriptions"))[1]["jobs"] == []


async def test_a_locked_database_is_said_and_leaves_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.2)
    async for door in open_door(settings, FakeTranscriber()):
        await door.ended((await door.submit("so it goes"))["id"])
        other = sqlite3.connect(settings.data_dir / "jobs.db", isolation_level=None, check_same_thread=False)
        await asyncio.to_thread(other.execute, "BEGIN EXCLUSIVE")
        async with door.client.post("/api/v1/transcriptions", json={"url": "https://example.org/a.wav"}) as response:
            assert response.status == 503
            assert response.headers["Retry-After"]
            assert (await response.json())["error"]["code"] == "DATABASE_BUSY"
        status, body = await door.ask("POST", "/transcriptions", data={"file": b"x"})
        assert (status, body["error"]["code"]) == (503, "DATABASE_BUSY")
        assert audio_files(settings) == []
        other.execute("ROLLBACK")
        other.close()
        await door.ended((await door.submit("and on"))["id"])


async def test_a_database_that_comes_back_loses_no_end(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await door.submit("wait for me")
    await door.transcriber.began.wait()
    real = ledger_module.Ledger.complete
    failures = 2

    async def complete(*given: Any, **more: Any) -> bool:
        nonlocal failures
        if failures:
            failures -= 1
            raise database_module._busy()
        return await real(*given, **more)

    monkeypatch.setattr(ledger_module.Ledger, "complete", complete)
    door.transcriber.go.set()
    assert (await door.ended(job["id"]))["state"] == "completed"
    assert failures == 0
