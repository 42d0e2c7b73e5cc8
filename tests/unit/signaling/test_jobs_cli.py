"""`voiceforge jobs` against a door with a transcriber that does as it is told."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from mediaserver.errors import VoiceForgeError
from mediaserver.settings import Settings
from signaling import jobs_client
from signaling.cli import main
from signaling.jobs_client import JobsClient
from signaling.tls import tls_of
from tests.unit.signaling.jobs_door import FakeTranscriber, open_door
from tests.unit.signaling.test_tls import made


class Serving:
    """A door on an event loop of its own: the command line has one too."""

    def __init__(self, settings: Settings) -> None:
        self.transcriber: FakeTranscriber
        self.url = ""
        self._settings = settings
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(20)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self.transcriber = FakeTranscriber()
        async for door in open_door(self._settings, self.transcriber):
            self.url = str(door.client.make_url(""))
            self._ready.set()
            await self._stop.wait()


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with capture_logs():  # they would be in what the command line says
        it = Serving(Settings(data_dir=tmp_path / "data"))
        yield it
        it.close()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["jobs", *arguments], prog_name="voiceforge")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "call.wav"
    path.write_bytes(b"so it goes")
    return path


def test_a_file_is_uploaded_and_waited_for(serving: Serving, recording: Path, tmp_path: Path) -> None:
    done = run("submit", str(recording), "--url", serving.url, "--wait", "--language", "en", "--metadata", "caller=7")
    assert (done.exit_code, done.output) == (0, "so it goes\n")
    listed = run("list", "--url", serving.url, "--state", "completed")
    job_id = listed.output.splitlines()[1].split()[0]
    assert "call.wav" in listed.output
    assert "100 %" in listed.output
    shown = json.loads(run("show", job_id, "--url", serving.url).output)
    assert (shown["language"], shown["metadata"], shown["file_name"]) == ("en", {"caller": "7"}, "call.wav")
    output = tmp_path / "call.vtt"
    assert run("result", job_id, "--url", serving.url, "--format", "vtt", "--output", str(output)).exit_code == 0
    assert output.read_text().startswith("WEBVTT")
    assert run("delete", job_id, "--url", serving.url).exit_code == 0
    gone = run("show", job_id, "--url", serving.url)
    assert gone.exit_code == 1
    assert "There is no such job" in gone.output


def test_a_job_is_cancelled(serving: Serving, recording: Path) -> None:
    recording.write_bytes(b"wait for me")
    job_id = run("submit", str(recording), "--url", serving.url).output.strip()
    assert run("cancel", job_id, "--url", serving.url).exit_code == 0
    deadline_s = time.monotonic() + 10
    while json.loads(run("show", job_id, "--url", serving.url).output)["state"] != "cancelled":
        assert time.monotonic() < deadline_s
    assert "The job is cancelled already." in run("cancel", job_id, "--url", serving.url).output


def test_a_job_that_fails_says_why(serving: Serving, recording: Path) -> None:
    recording.write_bytes(b"noise")
    failed = run("submit", str(recording), "--url", serving.url, "--wait")
    assert failed.exit_code == 1
    assert "This is no audio." in failed.output


def test_what_the_server_refuses_is_told(serving: Serving) -> None:
    refused = run("submit", "http://10.0.0.1/call.wav", "--url", serving.url)
    assert refused.exit_code == 1
    assert "not public" in refused.output


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["submit", "/nowhere/call.wav"], 1, "cannot be read"),
        (["submit", "x", "--metadata", "caller"], 2, "NAME=VALUE"),
        (["show", "job_x", "--url", "example.org"], 2, "begins with http"),
        (["show", "job_x", "--url", f"http://127.0.0.1:{unused_port()}"], 1, "No server answers"),
    ],
)
def test_failures_are_sentences(arguments: list[str], status: int, said: str) -> None:
    done = run(*arguments)
    assert done.exit_code == status
    assert said in done.output
    assert "Traceback" not in done.output


def test_another_kind_of_server_is_noticed(tmp_path: Path) -> None:
    async def ask() -> None:
        import aiohttp
        from aiohttp.test_utils import TestServer

        from mediaserver.errors import VoiceForgeError

        async with TestServer(web.Application()) as other, aiohttp.ClientSession() as http:
            with pytest.raises(VoiceForgeError, match="answered 404"):
                await JobsClient(http, str(other.make_url(""))).show("job_x")

    asyncio.run(ask())


async def test_a_key_that_is_wanted_and_a_certificate_that_nobody_vouches_for_are_told(tmp_path: Path) -> None:
    async def refuse(request: web.Request) -> web.Response:
        error = {"code": "INVALID_API_KEY", "message": "The request has no key.", "hint": "Bearer", "retryable": False}
        return web.json_response({"error": error}, status=401)

    app = web.Application()
    app.router.add_get("/{path:.*}", refuse)
    files = made(tmp_path)
    plain, secure = TestServer(app), TestServer(app, scheme="https")
    await plain.start_server()
    await secure.start_server(ssl=tls_of(Settings(**files)))
    async with aiohttp.ClientSession() as http:
        with pytest.raises(VoiceForgeError) as keyless:
            await JobsClient(http, str(plain.make_url(""))).list({})
        with pytest.raises(VoiceForgeError) as untrusted:
            await JobsClient(http, str(secure.make_url(""))).list({})
    await secure.close()
    await plain.close()
    assert "VOICEFORGE_API_KEY" in keyless.value.hint
    assert untrusted.value.code == "CERTIFICATE_UNTRUSTED"


async def test_an_upload_goes_on_after_a_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_client, "PIECE_BYTES", 400_000)
    monkeypatch.setattr(jobs_client, "READ_BYTES", 100_000)
    path = tmp_path / "long.wav"
    path.write_bytes(bytes(range(250)) * 4000)
    real = JobsClient._request
    breaks = 2

    async def request(self: JobsClient, method: str, place: str, **given: Any) -> Any:
        nonlocal breaks
        if method == "PATCH" and breaks:
            breaks -= 1
            whole = given["data"]

            async def broken() -> Any:
                for _ in range(2):
                    yield await anext(whole)
                raise ConnectionResetError

            given["data"] = broken()
        return await real(self, method, place, **given)

    monkeypatch.setattr(JobsClient, "_request", request)
    import aiohttp

    async for door in open_door(Settings(data_dir=tmp_path / "data"), FakeTranscriber()):
        async with aiohttp.ClientSession() as http:
            reached: list[int] = []
            upload_id = await JobsClient(http, str(door.client.make_url(""))).upload(path, on_progress=reached.append)
        assert breaks == 0
        assert reached[-1] == 1_000_000
        assert (tmp_path / "data" / "uploads" / upload_id).read_bytes() == path.read_bytes()


def test_an_upload_of_which_no_job_may_be_made_does_not_stay(serving: Serving, recording: Path, tmp_path: Path) -> None:
    done = run("submit", str(recording), "--url", serving.url, "--expires-in", "1")
    assert done.exit_code == 1
    assert "expires_in_s" in done.output
    assert list((tmp_path / "data" / "uploads").iterdir()) == []


def test_a_file_whose_name_is_no_text_is_uploaded(serving: Serving, recording: Path, tmp_path: Path) -> None:
    odd = tmp_path / "call-\udcff.wav"
    recording.rename(odd)
    assert run("submit", str(odd), "--url", serving.url, "--wait").output == "so it goes\n"
