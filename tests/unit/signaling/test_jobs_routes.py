"""Recordings through HTTP, with a transcriber that does as it is told: what comes in and out, what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mediaserver.jobs import store, watch
from mediaserver.settings import Settings
from signaling import body as body_module
from tests.unit.signaling.jobs_door import Door, FakeRecorder, FakeTranscriber, open_door


@pytest_asyncio.fixture
async def door(tmp_path: Path, no_leaked_tasks: None) -> AsyncIterator[Door]:
    settings = Settings(data_dir=tmp_path / "data", upload_max_bytes=100_000, jobs_concurrency=1)
    async for opened in open_door(settings, FakeTranscriber()):
        yield opened


def files_of(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "data" / "recordings").rglob("*")]


async def test_a_recording_becomes_a_transcript(door: Door, tmp_path: Path) -> None:
    job = await door.submit("so it goes", language="en", metadata='{"caller": "7"}')
    assert job["state"] in ("queued", "running")
    assert (job["language"], job["metadata"], job["priority"]) == ("en", {"caller": "7"}, "normal")
    done = await door.ended(job["id"])
    assert (done["state"], done["progress"], done["attempts"]) == ("completed", 100.0, 1)
    assert done["result"] == {
        "duration_s": 3.0,
        "speech_s": 0.0,
        "model": "fake",
        "language": "en",
        "channels": 1,
        "words": 3,
    }
    assert done["created_at"] <= done["started_at"] <= done["finished_at"] < done["expires_at"]
    _, body = await door.ask("GET", f"/transcriptions/{job['id']}/result")
    assert body["text"] == "so it goes"
    assert body["channels"][0]["segments"][0]["words"][1] == {
        "word": "it",
        "start": 0.5,
        "end": 0.9,
        "confidence": 0.9,
    }
    assert files_of(tmp_path) == []  # the recording is not needed any more


@pytest.mark.parametrize(
    ("form", "accept", "content_type", "beginning"),
    [
        ("txt", "", "text/plain", "so it goes\n"),
        ("srt", "", "application/x-subrip", "1\n00:00:00,000 --> "),
        ("vtt", "", "text/vtt", "WEBVTT\n"),
        ("tsv", "", "text/tab-separated-values", "start\tend\ttext\n"),
        ("json", "text/vtt", "application/json", '{"text":"so it goes"'),
        (None, "", "application/json", "{"),
        (None, "*/*", "application/json", "{"),
        (None, "text/vtt", "text/vtt", "WEBVTT"),
        (None, "text/*", "text/plain", "so it goes"),
        (None, "text/html, text/vtt;q=0.5, application/x-subrip;q=0.7", "application/x-subrip", "1\n"),
        (None, "application/json;q=0, */*;q=0.1", "text/plain", "so it goes"),
    ],
)
async def test_results_come_in_the_format_that_is_asked_for(
    door: Door, form: str | None, accept: str, content_type: str, beginning: str
) -> None:
    job = await door.submit("so it goes")
    await door.ended(job["id"])
    query = {} if form is None else {"format": form}
    path = f"/api/v1/transcriptions/{job['id']}/result"
    async with door.client.get(path, params=query, headers={"Accept": accept}) as response:
        assert response.content_type == content_type
        assert (await response.text()).startswith(beginning)


async def test_channels_have_their_own_transcripts(door: Door) -> None:
    job = await door.submit("so it goes", multichannel="true")
    await door.ended(job["id"])
    path = f"/transcriptions/{job['id']}/result"
    _, body = await door.ask("GET", path)
    assert [channel["text"] for channel in body["channels"]] == ["so it goes", "the other side"]
    _, text = await door.ask("GET", f"{path}?format=txt")
    assert text == "Channel 0: so it goes\nChannel 1: the other side\n"
    _, text = await door.ask("GET", f"{path}?format=txt&channel=1")
    assert text == "the other side\n"
    _, body = await door.ask("GET", f"{path}?channel=1")
    assert [channel["channel"] for channel in body["channels"]] == [1]
    status, body = await door.ask("GET", f"{path}?channel=2")
    assert (status, body["error"]["code"]) == (400, "INVALID_CHANNEL")


@pytest.mark.parametrize(("content", "code"), [("noise", "NOT_AUDIO"), ("crash", "INTERNAL_ERROR")])
async def test_what_cannot_be_done_fails_with_a_reason(door: Door, content: str, code: str) -> None:
    job = await door.submit(content)
    done = await door.ended(job["id"])
    assert (done["state"], done["error"]["code"]) == ("failed", code)
    assert "bug" not in json.dumps(done)
    status, body = await door.ask("GET", f"/transcriptions/{job['id']}/result")
    assert (status, body["error"]["code"]) == (409, "NO_RESULT")


async def test_a_running_job_is_cancelled(door: Door, tmp_path: Path) -> None:
    job = await door.submit("wait for me")
    await door.transcriber.began.wait()
    status, body = await door.ask("GET", f"/transcriptions/{job['id']}/result")
    assert (status, body["error"]["code"]) == (409, "RESULT_NOT_READY")
    status, body = await door.ask("POST", f"/transcriptions/{job['id']}/cancel")
    assert (status, body["id"]) == (202, job["id"])
    async with asyncio.timeout(5):
        done = await door.ended(job["id"])
    assert done["state"] == "cancelled"
    assert door.transcriber.running == 0
    assert files_of(tmp_path) == []
    status, body = await door.ask("POST", f"/transcriptions/{job['id']}/cancel")
    assert (status, body["error"]["code"]) == (409, "JOB_ENDED")


async def test_waiting_jobs_are_run_by_priority_one_at_a_time_and_can_be_cancelled(door: Door, tmp_path: Path) -> None:
    await door.submit("wait first")
    await door.transcriber.began.wait()
    low = await door.submit("low", priority="low")
    normal = await door.submit("normal")
    express = await door.submit("express", priority="express")
    gone = await door.submit("gone")
    status, body = await door.ask("POST", f"/transcriptions/{gone['id']}/cancel")
    assert (status, body["state"]) == (200, "cancelled")
    door.transcriber.go.set()
    for job in (low, normal, express):
        assert (await door.ended(job["id"]))["state"] == "completed"
    assert door.transcriber.begun == ["wait first", "express", "normal", "low"]
    assert door.transcriber.most_at_once == 1
    async with asyncio.timeout(5):  # the last recording goes after the end of its job is written down
        while files_of(tmp_path):
            await asyncio.sleep(0.02)


async def test_a_deleted_job_is_gone_whatever_it_did(door: Door, tmp_path: Path) -> None:
    running = await door.submit("wait for me")
    await door.transcriber.began.wait()
    waiting = await door.submit("waits")
    for job in (running, waiting):
        assert (await door.ask("DELETE", f"/transcriptions/{job['id']}"))[0] == 204
        for method, path in (("GET", ""), ("GET", "/result"), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")):
            status, body = await door.ask(method, f"/transcriptions/{job['id']}{path}")
            assert (status, body["error"]["code"]) == (404, "JOB_NOT_FOUND"), (method, path)
    async with asyncio.timeout(5):
        while door.transcriber.running:
            await asyncio.sleep(0.01)
    assert files_of(tmp_path) == []


async def test_jobs_are_listed(door: Door) -> None:
    jobs = [await door.submit(f"number {n}") for n in range(3)]
    for job in jobs:
        await door.ended(job["id"])
    ids = [job["id"] for job in jobs][::-1]
    _, page = await door.ask("GET", "/transcriptions?limit=2")
    assert [job["id"] for job in page["jobs"]] == ids[:2]
    _, rest = await door.ask("GET", f"/transcriptions?limit=2&before={page['next']}")
    assert ([job["id"] for job in rest["jobs"]], rest["next"]) == (ids[2:], None)
    _, none = await door.ask("GET", "/transcriptions?state=failed")
    assert none == {"jobs": [], "next": None}


async def test_events_tell_of_a_job_to_its_end(door: Door) -> None:
    job = await door.submit("wait for me")
    await door.transcriber.began.wait()
    async with door.client.get(f"/api/v1/transcriptions/{job['id']}/events") as response:
        assert response.content_type == "text/event-stream"
        names, last = [], ""
        async for line in response.content:
            text = line.decode().strip()
            if text.startswith("event: "):
                names.append(text[7:])
                door.transcriber.go.set()
            elif text.startswith("data: "):
                last = text[6:]
    assert names[0] == "progress"
    assert names[-1] == "completed"
    assert json.loads(last)["progress"] == 100.0


async def test_events_of_a_deleted_job_end(door: Door) -> None:
    job = await door.submit("wait for me")
    async with door.client.get(f"/api/v1/transcriptions/{job['id']}/events") as response:
        await response.content.readline()
        await door.ask("DELETE", f"/transcriptions/{job['id']}")
        async with asyncio.timeout(5):
            assert "completed" not in (await response.content.read()).decode()


REFUSED_FORMS: list[tuple[dict[str, Any], int, str, str]] = [
    ({"file": b"x", "diarize": "true"}, 400, "INVALID_CONFIG", "diarize"),
    ({"file": b"x", "redact": "pci"}, 400, "INVALID_CONFIG", "redact"),
    ({"file": b"x", "priority": "urgent"}, 400, "INVALID_CONFIG", "priority"),
    ({"file": b"x", "multichannel": "maybe"}, 400, "INVALID_CONFIG", "multichannel"),
    ({"file": b"x", "expires_in_s": "1"}, 400, "INVALID_CONFIG", "expires_in_s"),
    ({"file": b"x", "metadata": "nonsense"}, 400, "INVALID_JSON", "metadata"),
    ({"file": b"x", "metadata": "[1]"}, 400, "INVALID_CONFIG", "metadata"),
    ({"file": b"x", "options": "{"}, 400, "INVALID_JSON", "options"),
    ({"file": b"x", "options": '{"speed": 2}'}, 400, "INVALID_CONFIG", "speed"),
    ({"file": b"x", "options": '{"language": "en"}', "language": "de"}, 400, "INVALID_FORM", "language"),
    ({"file": b"x", "webhook_secret": "long enough"}, 400, "INVALID_CONFIG", "webhook_url"),
    ({"file": b"x", "webhook_url": "http://127.0.0.1/"}, 400, "ADDRESS_NOT_ALLOWED", "public"),
    ({"file": b"x", "webhook_url": "ftp://example.org/"}, 400, "INVALID_URL", "http"),
    ({"file": b""}, 400, "EMPTY_RECORDING", "empty"),
    ({"language": "en"}, 400, "INVALID_FORM", "file"),
    ({"file": b"x" * 100_001}, 413, "TOO_LARGE", "larger"),
    ({"file": b"x" * 2_000_000}, 413, "TOO_LARGE", "larger"),
]


@pytest.mark.parametrize(("form", "status", "code", "named"), REFUSED_FORMS)
async def test_forms_are_refused_by_name_and_leave_nothing(
    door: Door, tmp_path: Path, form: dict[str, Any], status: int, code: str, named: str
) -> None:
    got, body = await door.ask("POST", "/transcriptions", data=form)
    assert (got, body["error"]["code"]) == (status, code), body
    assert named in body["error"]["message"] + body["error"]["hint"]
    assert files_of(tmp_path) == []
    assert (await door.ask("GET", "/transcriptions"))[1]["jobs"] == []


REFUSED_JSON: list[tuple[Any, int, str]] = [
    ({}, 400, "INVALID_CONFIG"),
    ({"url": "https://example.org/a.wav", "upload_id": "upl_x"}, 400, "INVALID_CONFIG"),
    ({"url": 7}, 400, "INVALID_CONFIG"),
    ([], 400, "INVALID_CONFIG"),
    ({"url": "https://example.org/a.wav", "multichannel": "true"}, 400, "INVALID_CONFIG"),
    ({"url": "https://example.org/a.wav", "summarize": True}, 400, "INVALID_CONFIG"),
    ({"url": "file:///etc/passwd"}, 400, "INVALID_URL"),
    ({"url": "http://169.254.169.254/latest"}, 400, "ADDRESS_NOT_ALLOWED"),
    ({"url": "http://[::ffff:10.0.0.1]/"}, 400, "ADDRESS_NOT_ALLOWED"),
    ({"upload_id": "x" * 65}, 400, "INVALID_CONFIG"),
    ({"upload_id": "upl_none"}, 404, "UPLOAD_NOT_FOUND"),
]


@pytest.mark.parametrize(("body", "status", "code"), REFUSED_JSON)
async def test_json_is_refused_by_name(door: Door, body: Any, status: int, code: str) -> None:
    got, answer = await door.ask("POST", "/transcriptions", json=body)
    assert (got, answer["error"]["code"]) == (status, code), answer


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({"data": b"RIFF", "headers": {"Content-Type": "audio/wav"}}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"data": b"{", "headers": {"Content-Type": "application/json"}}, 400, "INVALID_JSON"),
        ({"data": b"[" * 20_000, "headers": {"Content-Type": "application/json"}}, 400, "INVALID_JSON"),
        ({"data": b" " * 1_100_000, "headers": {"Content-Type": "application/json"}}, 413, "BODY_TOO_LARGE"),
        ({"data": b"nonsense", "headers": {"Content-Type": "multipart/form-data"}}, 400, "INVALID_FORM"),
        (
            {"data": b"nonsense", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            400,
            "INVALID_FORM",
        ),
        (
            {
                "data": b"--x\r\nTrue--x--\r\n",
                "headers": {"Content-Type": "multipart/form-data; boundary=x"},
            },
            400,
            "INVALID_FORM",
        ),
        ({"params": {"language": "en"}, "data": {"file": b"x"}}, 400, "INVALID_CONFIG"),
    ],
)
async def test_what_is_no_submission_is_refused(door: Door, given: dict[str, Any], status: int, code: str) -> None:
    got, body = await door.ask("POST", "/transcriptions", **given)
    assert (got, body["error"]["code"]) == (status, code), body


async def test_a_batch_is_taken_in_whole_or_not_at_all(door: Door) -> None:
    items = [{"url": f"https://recordings.invalid/{n}.wav"} for n in range(3)]
    items[1]["language"] = "de"
    status, body = await door.ask(
        "POST", "/transcriptions/batch", json={"items": items, "options": {"language": "en", "priority": "low"}}
    )
    assert status == 201, body
    assert [job["language"] for job in body["jobs"]] == ["en", "de", "en"]
    _, listed = await door.ask("GET", f"/transcriptions?batch_id={body['batch_id']}")
    assert len(listed["jobs"]) == 3
    for job in body["jobs"]:
        done = await door.ended(job["id"])
        assert (done["state"], done["error"]["code"]) == ("failed", "FETCH_FAILED")
    status, refused = await door.ask(
        "POST", "/transcriptions/batch", json={"items": [*items, {"url": "http://10.0.0.1/"}]}
    )
    assert (status, refused["error"]["code"]) == (400, "ADDRESS_NOT_ALLOWED")
    for wrong in ({"items": []}, {"items": items * 40}, {"items": [{"url": "https://a.example/", "speed": 2}]}, {}):
        status, refused = await door.ask("POST", "/transcriptions/batch", json=wrong)
        assert (status, refused["error"]["code"]) == (400, "INVALID_CONFIG")
    assert len((await door.ask("GET", "/transcriptions"))[1]["jobs"]) == 3


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1000", "state=done", "page=2", "before=" + "x" * 65, "limit=1&limit=2"]
)
async def test_wrong_queries_are_refused(door: Door, query: str) -> None:
    status, body = await door.ask("GET", f"/transcriptions?{query}")
    assert (status, body["error"]["code"]) == (400, "INVALID_CONFIG")


async def test_a_format_that_is_not_there_is_refused(door: Door) -> None:
    job = await door.submit("so it goes")
    await door.ended(job["id"])
    path = f"/transcriptions/{job['id']}/result"
    assert (await door.ask("GET", f"{path}?format=pdf"))[1]["error"]["code"] == "INVALID_CONFIG"
    status, body = await door.ask("GET", path, headers={"Accept": "application/pdf"})
    assert (status, body["error"]["code"]) == (406, "NOT_ACCEPTABLE")


async def test_pages_of_other_origins_may_ask_first(door: Door) -> None:
    for path in ("", "/job_x", "/batch", "/job_x/cancel"):
        async with door.client.options(
            f"/api/v1/transcriptions{path}", headers={"Origin": "https://page.example"}
        ) as response:
            assert response.status == 204
            assert "POST" in response.headers["Access-Control-Allow-Methods"]


async def test_what_the_model_cannot_do_is_refused_once_it_is_loaded(door: Door) -> None:
    assert (await door.submit("so it goes", language="tlh"))["state"] in ("queued", "running")
    door.loaded.append(FakeRecorder())
    status, body = await door.ask("POST", "/transcriptions", data={"file": b"x", "language": "tlh"})
    assert (status, body["error"]["code"]) == (400, "UNKNOWN_LANGUAGE")


async def test_a_server_that_stops_takes_nothing_in(door: Door) -> None:
    door.admission.stop()
    for method, path, given in (
        ("POST", "/transcriptions", {"data": {"file": b"x"}}),
        ("POST", "/transcriptions/batch", {"json": {"items": [{"url": "https://a.example/"}]}}),
        ("POST", "/uploads", {"headers": {"Upload-Length": "5"}}),
        ("PATCH", "/uploads/upl_x", {"headers": {"Upload-Offset": "0"}}),
    ):
        status, body = await door.ask(method, path, **given)
        assert (status, body["error"]["code"]) == (503, "SHUTTING_DOWN"), path


async def test_so_many_may_watch(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WATCHERS_MAX", 0)
    job = await door.submit("wait for me")
    status, body = await door.ask("GET", f"/transcriptions/{job['id']}/events")
    assert (status, body["error"]["code"]) == (503, "TOO_MANY_WATCHERS")


async def test_a_tenant_has_its_share(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """429, not 503: others come in."""
    monkeypatch.setattr(watch, "WATCHERS_MAX", 3)
    monkeypatch.setattr(store, "UPLOADS_MAX", 3)
    monkeypatch.setattr(store, "QUEUED_MAX", 2)
    job = await door.submit("wait for me")
    async with door.client.get(f"/api/v1/transcriptions/{job['id']}/events") as watching:
        assert watching.status == 200
        async with door.client.get(f"/api/v1/transcriptions/{job['id']}/events") as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (429, "30")
            assert (await refused.json())["error"]["code"] == "WATCHER_SHARE_USED_UP"
    created = {"headers": {"Upload-Length": "5"}}
    await door.ask("POST", "/uploads", **created)
    status, body = await door.ask("POST", "/uploads", **created)
    assert (status, body["error"]["code"]) == (429, "UPLOAD_SHARE_USED_UP")


async def test_a_body_that_stops_coming_is_given_up(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_module, "IDLE_TIMEOUT_S", 0.2)

    async def stuck() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(5):
            yield bytes(1000)
        await asyncio.sleep(1.0)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    status, body = await door.ask("POST", "/transcriptions", data=stuck(), headers=headers)
    assert (status, body["error"]["code"]) == (408, "BODY_TIMEOUT")
    assert files_of(tmp_path) == []
