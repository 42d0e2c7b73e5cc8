"""Two servers with one database, of each kind: each job is run once, and cancelled from either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest_asyncio

from mediaserver.settings import Settings
from mediaserver.storage.database import Database
from tests.unit.signaling.jobs_door import Door, FakeTranscriber, open_door

Two = tuple[Door, Door]


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Door]:
    async for door in open_door(settings, FakeTranscriber()):
        yield door


@pytest_asyncio.fixture
async def two(database: Database, database_url: str, tmp_path: Path, no_leaked_tasks: None) -> AsyncIterator[Two]:
    settings = Settings(data_dir=tmp_path / "data", database_url=database_url, jobs_concurrency=2)
    async with opened(settings) as first, opened(settings) as second:
        yield first, second


async def test_each_job_is_run_once_by_one_of_them(two: Two) -> None:
    first, second = two
    jobs = [await first.submit(f"number {n}") for n in range(12)]
    for job in jobs:
        done = await second.ended(job["id"])
        assert (done["state"], done["attempts"]) == ("completed", 1)
        _, text = await second.ask("GET", f"/transcriptions/{job['id']}/result?format=txt")
        assert text.startswith("number")
    assert sorted(first.transcriber.begun + second.transcriber.begun) == sorted(f"number {n}" for n in range(12))


async def test_a_job_is_cancelled_and_watched_from_the_other_side(two: Two) -> None:
    first, second = two
    job = await first.submit("wait for me")
    async with asyncio.timeout(10):
        while not first.transcriber.running + second.transcriber.running:
            await asyncio.sleep(0.01)
    other = second if first.transcriber.running else first
    async with other.client.get(f"/api/v1/transcriptions/{job['id']}/events") as response:
        status, _ = await other.ask("POST", f"/transcriptions/{job['id']}/cancel")
        assert status == 202
        async with asyncio.timeout(5):
            events = (await response.content.read()).decode()
    assert events.rpartition("event: ")[2].startswith("cancelled")
    assert first.transcriber.running + second.transcriber.running == 0


async def test_letters_that_a_database_does_not_keep_are_no_trouble(two: Two) -> None:
    door, _ = two
    for path in ("/transcriptions/%00", "/transcriptions/job%00/result", "/transcriptions/%F0%9F%98%80/events"):
        assert (await door.ask("GET", path))[0] == 404, path
    assert (await door.ask("POST", "/transcriptions/%00/cancel"))[0] == 404
    assert (await door.ask("DELETE", "/transcriptions/%00"))[0] == 404
    assert (await door.ask("DELETE", "/uploads/%00"))[0] == 404
    assert (await door.ask("GET", "/transcriptions?before=%00"))[0] == 400
    assert (await door.ask("GET", "/transcriptions?batch_id=%00"))[0] == 400
    for wrong in (
        {"upload_id": "\0"},
        {"url": "https://a.example/", "webhook_url": "https://a/", "webhook_secret": "\0" * 9},
    ):
        assert (await door.ask("POST", "/transcriptions", json=wrong))[0] == 400, wrong
    strange = {"prompt": "a\0b \ud83d\ude00", "metadata": {"a\0": "\0"}}
    status, body = await door.ask(
        "POST",
        "/transcriptions",
        json={"url": "https://recordings.invalid/\0a", "webhook_url": "https://a.invalid/\0", **strange},
    )
    assert status == 201, body
    assert (await door.ask("GET", f"/transcriptions/{body['id']}"))[1]["metadata"] == strange["metadata"]
