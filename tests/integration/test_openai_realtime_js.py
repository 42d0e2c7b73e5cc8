"""OpenAI's npm packages against the real server: `openai` in node, `@openai/agents-realtime` in Chromium."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from signaling.own_server import own_server
from tests.conftest import Speech, in_ci
from tests.integration.browser import LEAD_IN_S, browser_page, microphone
from tests.integration.test_openai_realtime import COMPLETED, DELTA, Heard, encoded
from tests.scoring import word_errors

pytestmark = [pytest.mark.needs("node"), pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

CLIENTS = Path(__file__).parent / "clients"
WEB = Path(__file__).parents[2] / "web"
MODULES = WEB / "node_modules"
PAGE = '<!doctype html><meta charset="utf-8"><title>agents</title><script src="/agents.js"></script>'


@pytest.fixture(scope="module")
def modules() -> None:
    """The npm packages, which `npm ci` in web installs."""
    if not (MODULES / "@openai" / "agents-realtime").is_dir():
        (pytest.fail if in_ci() else pytest.skip)("needs web/node_modules (npm ci in web)")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def origin(modules: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Another origin than the server's own, with a page that has the agents SDK in it."""
    bundle = tmp_path_factory.mktemp("bundle") / "agents.js"
    process = await asyncio.create_subprocess_exec(
        *(MODULES / ".bin" / "esbuild", CLIENTS / "agents_realtime.js"),
        *("--bundle", "--format=iife", "--platform=browser", f"--outfile={bundle}", "--log-level=error"),
        env={**os.environ, "NODE_PATH": str(MODULES)},
    )
    assert await process.wait() == 0

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def script(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(bundle)

    app = web.Application()
    app.add_routes([web.get("/", page), web.get("/agents.js", script), web.get("/favicon.ico", page)])
    server = TestServer(app)
    await server.start_server()
    yield str(server.make_url("")).rstrip("/")
    await server.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(origin: str, model_files: object, vad_model_path: object) -> AsyncIterator[str]:
    """A server that lets the page in."""
    async with own_server(("--cors-origins", origin)) as url:
        yield url


@pytest.mark.needs("chromium")
async def test_a_page_with_openais_agents_sdk_is_heard(url: str, origin: str, speech: Speech, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/realtime/client_secrets") as response:
        key = (await response.json())["value"]
    calls = f"{url}/v1/realtime/calls"
    async with browser_page(microphone(tmp_path / "microphone.wav", LEAD_IN_S, speech)) as page:
        await page.goto(origin)
        call_id = await page.evaluate("([url, key]) => listen(url, key, transcriptionOnly)", [calls, key])
        assert call_id.startswith("rtc_")
        await page.wait_for_function(f"told.some((event) => event.type === {COMPLETED!r})", timeout=30_000)
        await page.wait_for_function("told.some((event) => event.type === 'conversation.item.retrieved')")
        heard = Heard(await page.evaluate("told"))
        items = await page.evaluate("Object.values(items)")
        await page.evaluate("transport.close()")
        # As it comes, the SDK asks for a conversation: that is refused with a sentence.
        await page.evaluate("told.length = 0")
        listening = asyncio.create_task(page.evaluate("([url, key]) => listen(url, key)", [calls, key]))
        refused = await _told(page, "error")
        await page.evaluate("transport.close()")
        await asyncio.gather(listening, return_exceptions=True)
    assert heard.types[0] == "session.created"
    assert "session.updated" in heard.types
    assert DELTA in heard.types
    assert word_errors(speech.text, heard.text) <= 0.25, heard.text
    assert word_errors(speech.text, " ".join(item["content"][0]["transcript"] or "" for item in items)) <= 0.25
    assert refused["error"]["code"] == "unsupported_session_type"
    assert "does not converse" in refused["error"]["message"]


async def _told(page: Any, kind: str) -> Any:
    handle = await page.wait_for_function(f"told.find((event) => event.type === {kind!r})", timeout=15_000)
    return await handle.json_value()


async def test_openais_npm_package_is_heard_in_node(url: str, speech: Speech, tmp_path: Path) -> None:
    audio = tmp_path / "speech.pcm"
    audio.write_bytes(b"".join(encoded(speech)))
    async with behind_tls(url, tmp_path) as https:
        today, legacy = await asyncio.gather(
            *(in_node("openai_realtime.mjs", f"{https}/v1", shape, str(audio)) for shape in ("today", "legacy"))
        )
    assert {"session.created", "session.updated", "conversation.item.done"} <= set(today.types)
    assert {"session.created", "transcription_session.updated", "conversation.item.created"} <= set(legacy.types)
    for heard in (today, legacy):
        assert any("does not converse" in event.get("message", "") for event in heard.events)
        assert word_errors(speech.text, heard.text) <= 0.2, heard.text
        assert word_errors(heard.text, " ".join(heard.deltas().values())) <= 0.2


async def in_node(script: str, *arguments: str) -> Heard:
    """What a program of `clients` prints."""
    process = await asyncio.create_subprocess_exec(
        str(shutil.which("node")), CLIENTS / script, *arguments, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(40):
        out, _ = await process.communicate()
    return Heard([json.loads(line) for line in out.decode().splitlines()])


@asynccontextmanager
async def behind_tls(url: str, directory: Path) -> AsyncIterator[str]:
    """The server behind an end of TLS, as a proxy is: the npm package speaks nothing else."""
    host, port = "127.0.0.1", int(url.rsplit(":", 1)[1])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(directory))
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(host, port)
        for pair in ((reader, inner_writer), (inner_reader, writer)):
            task = asyncio.create_task(pump(*pair))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, host, 0, ssl=context)
    try:
        yield f"https://{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def certificate(directory: Path) -> Path:
    """A key and a certificate for 127.0.0.1 that nobody else signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "tls.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path
