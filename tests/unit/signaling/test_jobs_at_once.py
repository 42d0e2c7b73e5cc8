"""Recordings when two things happen at once: an upload that is submitted twice, a write that is cut, a slow client."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from mediaserver.errors import CapacityError, MediaError
from mediaserver.jobs import files as files_module
from mediaserver.jobs.files import WRITE_BYTES, Files
from mediaserver.jobs.ledger import Ledger
from mediaserver.jobs.models import State
from mediaserver.jobs.upkeep import STRAY_AGE_S, Upkeep
from mediaserver.settings import Settings
from mediaserver.storage.database import StorageFullError
from tests.unit.signaling.jobs_door import Door, FakeTranscriber, open_door


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async for it in open_door(Settings(data_dir=tmp_path), FakeTranscriber()):
        yield it


async def uploaded(door: Door, body: bytes) -> str:
    """The id of an upload that is complete."""
    made = await door.client.post("/api/v1/uploads", headers={"Upload-Length": str(len(body))})
    place = made.headers["Location"]
    headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    assert (await door.client.patch(place, data=body, headers=headers)).status == 204
    return place.rpartition("/")[2]


async def test_an_upload_that_is_submitted_twice_at_once_becomes_one_job(door: Door) -> None:
    upload_id = await uploaded(door, b"hello there")
    answers = await asyncio.gather(
        *(door.ask("POST", "/transcriptions", json={"upload_id": upload_id}) for _ in range(4))
    )
    statuses = sorted(status for status, _ in answers)
    assert statuses == [201, 404, 404, 404]
    assert {body["error"]["code"] for status, body in answers if status == 404} == {"UPLOAD_NOT_FOUND"}
    job = next(body for status, body in answers if status == 201)
    assert (await door.ended(job["id"]))["state"] == "completed"
    async with asyncio.timeout(5):  # the recording goes after the end of its job is written down
        while list(door.jobs.files.recording("x").parents[1].iterdir()):
            await asyncio.sleep(0.02)


async def test_a_write_that_is_cut_leaves_no_byte_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(tmp_path)
    await files.make_upload("upl_a")
    body = os.urandom(2 * WRITE_BYTES)
    slow, writing = threading.Event(), threading.Event()
    named = files_module._named

    async def on_a_slow_disk(act):  # type: ignore[no-untyped-def]
        def slowly() -> object:
            done = act()
            writing.set()
            slow.wait(5)
            return done

        return await named(slowly)

    monkeypatch.setattr(files_module, "_named", on_a_slow_disk)

    async def pieces() -> AsyncIterator[bytes]:
        yield body[:WRITE_BYTES]
        yield body[WRITE_BYTES:]

    task = asyncio.create_task(files.append("upl_a", pieces(), at=0, max_bytes=len(body)))
    await asyncio.to_thread(writing.wait, 5)
    task.cancel()
    slow.set()
    await asyncio.gather(task, return_exceptions=True)
    assert body.startswith(files.upload("upl_a").read_bytes())


async def test_a_recording_that_arrives_slowly_is_not_swept_away(tmp_path: Path, door: Door) -> None:
    ledger = Ledger(door.jobs._database)
    files = door.jobs.files
    arrived = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(WRITE_BYTES)
        arrived.set()
        await asyncio.sleep(0.1)
        yield b"the end"

    saving = asyncio.create_task(files.save("job_slow", pieces(), max_bytes=2 * WRITE_BYTES))
    await arrived.wait()
    folder = files.recording("job_slow").parent
    began_s = time.time() - 2 * STRAY_AGE_S
    os.utime(folder, (began_s, began_s))
    await Upkeep(ledger=ledger, store=door.jobs.store, files=files, on_reclaimed=()).sweep()
    await saving
    assert files.recording("job_slow").exists()


async def test_what_a_crash_left_of_an_ended_job_is_swept_away(door: Door) -> None:
    job = await door.submit("hello")
    await door.ended(job["id"])
    files = door.jobs.files
    await files.make_folder(job["id"])
    files.recording(job["id"]).write_bytes(b"hello")
    began_s = time.time() - 2 * STRAY_AGE_S
    for path in (files.recording(job["id"]), files.recording(job["id"]).parent):
        os.utime(path, (began_s, began_s))
    await Upkeep(ledger=Ledger(door.jobs._database), store=door.jobs.store, files=files, on_reclaimed=()).sweep()
    assert not files.recording(job["id"]).exists()


async def test_a_server_whose_database_was_busy_at_the_start_runs_jobs_later(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget, failures = (
        door.jobs.ledger.forget_dead,
        [CapacityError("DATABASE_BUSY", "Busy.", "Later.", retry_after_s=1)],
    )

    async def busy_once(is_dead):  # type: ignore[no-untyped-def]
        if failures:
            raise failures.pop()
        await forget(is_dead)

    monkeypatch.setattr(door.jobs.ledger, "forget_dead", busy_once)
    status, _ = await door.ask("POST", "/transcriptions", data={"file": b"hello"})
    assert status == 503
    job = await door.submit("hello")
    async with asyncio.timeout(3):
        assert (await door.ended(job["id"]))["state"] == "completed"


async def test_the_next_page_is_found_though_the_job_before_it_is_deleted(door: Door) -> None:
    ids = [(await door.submit("hello"))["id"] for _ in range(4)]
    _, page = await door.ask("GET", "/transcriptions?limit=2")
    for job in page["jobs"]:
        await door.ended(job["id"])
        await door.ask("DELETE", f"/transcriptions/{job['id']}")
    _, following = await door.ask("GET", f"/transcriptions?limit=2&before={page['next']}")
    assert [job["id"] for job in following["jobs"]] == [ids[1], ids[0]]


async def test_a_job_that_is_cancelled_while_its_server_stops_is_cancelled(door: Door) -> None:
    job = await door.submit("wait here")
    await door.transcriber.began.wait()
    assert await door.jobs.store.cancel(job["id"], now_s=time.time()) is not None
    await door.jobs.close()
    row = await door.jobs.store.get(job["id"])
    assert row is not None
    assert row.state == State.CANCELLED


async def test_what_comes_without_saying_how_much_leaves_room_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(tmp_path)
    await files.make_upload("upl_a")
    monkeypatch.setattr(files_module, "RESERVE_BYTES", shutil.disk_usage(tmp_path).free - 2 * WRITE_BYTES)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield bytes(WRITE_BYTES)

    with pytest.raises(StorageFullError):
        await files.append("upl_a", pieces(), at=0, max_bytes=1 << 40)
    assert files.upload("upl_a").stat().st_size < 900 * WRITE_BYTES


async def test_a_body_of_very_many_values_is_refused_before_it_is_read(door: Door) -> None:
    for body in ("[" + "[]," * 300_000 + "[]]", json.dumps({f"f{n}": 1 for n in range(30_000)})):
        headers = {"Content-Type": "application/json"}
        status, refused = await door.ask("POST", "/transcriptions", data=body.encode(), headers=headers)
        assert (status, refused["error"]["code"]) == (413, "BODY_TOO_LARGE")
    status, refused = await door.ask("POST", "/transcriptions", json={"url": "x", **{f"f{n}": 1 for n in range(9000)}})
    assert (status, refused["error"]["code"]) == (400, "INVALID_CONFIG")
    assert "more" in refused["error"]["message"]
    assert len(refused["error"]["message"]) < 5000


async def test_what_failed_is_removed_off_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed_in: list[threading.Thread] = []
    rmtree = shutil.rmtree

    def noting(path: Path, *, ignore_errors: bool) -> None:
        removed_in.append(threading.current_thread())
        rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(files_module.shutil, "rmtree", noting)
    files = Files(tmp_path)

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(10)

    with pytest.raises(MediaError):
        await files.save("job_a", pieces(), max_bytes=5)
    assert threading.main_thread() not in removed_in
    assert not files.recording("job_a").parent.exists()
