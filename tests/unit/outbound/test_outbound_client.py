"""Fetching from a real server on this machine, as the policy allows, and what the policy does not."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from mediaserver.errors import ConfigError
from mediaserver.outbound.client import OutboundError, OutboundPolicy, fetch_to_file, outbound_session, parse_url, shown

RECORDING = bytes(range(256)) * 20_000
MAX_BYTES = 8_000_000


@dataclass(frozen=True)
class OnlyThisHost(OutboundPolicy):
    """Stands for the internet: 127.0.0.1 is public, all else is not."""

    def allows(self, address: str) -> bool:
        return address == "127.0.0.1"


@pytest_asyncio.fixture
async def server() -> AsyncIterator[TestServer]:
    async def recording(_request: web.Request) -> web.Response:
        return web.Response(body=RECORDING, content_type="audio/wav")

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(100_000))

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "10"})
        await response.prepare(request)
        await response.write(b"1")
        await asyncio.sleep(30)
        return response

    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"1")
        assert request.transport is not None
        request.transport.abort()
        return response

    async def packed(_request: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(bytes(1000)), headers={"Content-Encoding": "gzip"})

    async def to(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.query.get("to", "")})

    async def around(request: web.Request) -> web.Response:
        steps = int(request.query["n"])
        return web.Response(status=307, headers={"Location": f"/around?n={steps - 1}" if steps else "/call.wav"})

    async def missing(_request: web.Request) -> web.Response:
        return web.Response(status=404)

    app = web.Application()
    for handler in (endless, slow, broken, packed, to, around, missing):
        app.router.add_get(f"/{handler.__name__}", handler)
    app.router.add_get("/call.wav", recording)
    served = TestServer(app, host="127.0.0.1", shutdown_timeout=0.1)
    await served.start_server()
    yield served
    await served.close()


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with outbound_session(OnlyThisHost()) as opened:
        yield opened


async def fetched(session: aiohttp.ClientSession, url: object, path: Path, **given: Any) -> Any:
    return await fetch_to_file(session, str(url), path, **{"max_bytes": MAX_BYTES, "timeout_s": 10.0, **given})


async def test_a_recording_is_fetched_with_progress(
    server: TestServer, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    told: list[tuple[int, int | None]] = []
    path = tmp_path / "call"
    done = await fetched(session, server.make_url("/call.wav"), path, on_progress=lambda *at: told.append(at))
    assert path.read_bytes() == RECORDING
    assert (done.size_bytes, done.content_type, done.name) == (len(RECORDING), "audio/wav", "call.wav")
    assert [at for at, _ in told] == sorted(at for at, _ in told)
    assert told[-1] == (len(RECORDING), len(RECORDING))


@pytest.mark.parametrize(
    ("path", "code", "given"),
    [
        ("/call.wav", "FETCH_TOO_LARGE", {"max_bytes": 1000}),
        ("/endless", "FETCH_TOO_LARGE", {}),
        ("/slow", "FETCH_TIMEOUT", {"timeout_s": 0.3}),
        ("/broken", "FETCH_FAILED", {}),
        ("/packed", "FETCH_REFUSED", {}),
        ("/missing", "FETCH_REFUSED", {}),
        ("/around?n=6", "FETCH_REFUSED", {}),
        ("/to?to=ftp://example.org/", "FETCH_REFUSED", {}),
        ("/to?to=http://user:pass@example.org/", "FETCH_REFUSED", {}),
        ("/to?to=file:///etc/passwd", "FETCH_REFUSED", {}),
        ("/to?to=http://[::1", "FETCH_REFUSED", {}),
        ("/to?to=http://127.0.0.2/", "ADDRESS_NOT_ALLOWED", {}),
        ("/to?to=http://169.254.169.254/latest/meta-data/", "ADDRESS_NOT_ALLOWED", {}),
        ("/to?to=http://[::ffff:127.0.0.2]/", "ADDRESS_NOT_ALLOWED", {}),
        ("/to?to=http://0x7f.2/", "ADDRESS_NOT_ALLOWED", {}),
        ("/to?to=http://2130706434/", "FETCH_REFUSED", {}),
    ],
)
async def test_what_goes_wrong_is_named_and_leaves_no_file(
    server: TestServer, session: aiohttp.ClientSession, tmp_path: Path, path: str, code: str, given: dict[str, Any]
) -> None:
    with pytest.raises(OutboundError) as failure:
        await fetched(session, server.make_url("/").join(URL(path, encoded=True)), tmp_path / "call", **given)
    assert failure.value.code == code
    assert not list(tmp_path.iterdir())


async def test_redirects_are_followed_within_a_limit(
    server: TestServer, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    assert (await fetched(session, server.make_url("/around?n=4"), tmp_path / "call")).size_bytes == len(RECORDING)


async def test_a_name_that_answers_differently_the_second_time_is_refused(
    server: TestServer, session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ["127.0.0.1", "127.0.0.2", "10.0.0.1"]

    def getaddrinfo(_host: str, port: int, *_given: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers.pop(0), port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    url = server.make_url("/call.wav").with_host("rebinding.example")
    async with outbound_session(OnlyThisHost()) as first, outbound_session(OnlyThisHost()) as second:
        assert (await fetched(first, url, tmp_path / "call")).size_bytes == len(RECORDING)
        with pytest.raises(OutboundError, match="not public"):
            await fetched(second, url, tmp_path / "again")
        with pytest.raises(OutboundError, match="not public") as failure:
            await fetched(session, url, tmp_path / "again")
    assert "10.0.0.1" not in str(failure.value)  # what a name resolves to in here is not told


async def test_this_machine_is_refused_by_default_and_open_on_request(server: TestServer, tmp_path: Path) -> None:
    url = server.make_url("/call.wav")
    async with outbound_session(OutboundPolicy()) as session:
        with pytest.raises(OutboundError, match="not public"):
            await fetched(session, url, tmp_path / "call")
        with pytest.raises(OutboundError, match="not public"):
            await fetched(session, url.with_host("localhost"), tmp_path / "call")
    async with outbound_session(OutboundPolicy(allow_private=True)) as session:
        assert (await fetched(session, url, tmp_path / "call")).size_bytes == len(RECORDING)


async def test_a_cancelled_fetch_leaves_no_file(
    server: TestServer, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    task = asyncio.create_task(fetched(session, server.make_url("/slow"), tmp_path / "call"))
    while not list(tmp_path.iterdir()):
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "call.wav",
        "/call.wav",
        "ftp://example.org/call.wav",
        "file:///etc/passwd",
        "gopher://example.org/",
        "http://",
        "http:///call.wav",
        "http://example.org:0/",
        "http://example.org:99999/",
        "http://user@example.org/",
        "http://user:secret@example.org/",
        "http://[::1",
        "http://example..org/",
        "http://.example.org/",
        f"http://{'a' * 64}.example.org/",
        "https://example.org/" + "a" * 2048,
    ],
)
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as failure:
        parse_url(text)
    assert failure.value.code == "INVALID_URL"
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "10.0.0.1", "169.254.169.254", "[fe80::1]", "[::ffff:10.0.0.1]"]
)
def test_an_address_that_is_written_out_is_refused_at_once(host: str) -> None:
    with pytest.raises(ConfigError) as failure:
        parse_url(f"http://{host}:8000/call.wav", OutboundPolicy())
    assert failure.value.code == "ADDRESS_NOT_ALLOWED"


def test_logs_see_no_path_and_no_query() -> None:
    assert shown("https://hooks.example.org/T0/secret?sig=secret") == "https://hooks.example.org"
    assert shown("nonsense") == "-"


async def test_a_fetch_that_would_fill_the_disk_is_given_up(
    server: TestServer, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    path = tmp_path / "audio"
    with pytest.raises(OSError, match="No space left"):
        await fetched(session, server.make_url("/endless"), path, max_bytes=1 << 40, reserve_bytes=1 << 60)
    assert not path.exists()


async def test_names_that_nobody_answers_for_do_not_hold_up_the_threads_of_files(
    session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def silent(*_given: object) -> list[Any]:
        answered.wait(10)
        raise socket.gaierror("nobody answers")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    urls = [f"http://h{n}.example/" for n in range(64)]
    asked = [asyncio.create_task(fetched(session, url, tmp_path / str(n))) for n, url in enumerate(urls)]
    await asyncio.sleep(0.1)
    try:
        async with asyncio.timeout(5):
            await asyncio.to_thread(str)
    finally:
        answered.set()
    ended = await asyncio.gather(*asked, return_exceptions=True)
    assert {error.code for error in ended if isinstance(error, OutboundError)} == {"FETCH_FAILED"}
