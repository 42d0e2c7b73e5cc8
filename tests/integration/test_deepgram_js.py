"""Deepgram's JavaScript SDK, unmodified, in Node and in Chromium, against the real server and real speech."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer

from mediaserver.decoder.catalogue import ModelFiles
from tests.conftest import Speech
from tests.integration.deepgram_served import finals_of, served, text_of
from tests.integration.test_browser import browser_page
from tests.integration.test_socket import linear16
from tests.scoring import word_errors

WEB = Path(__file__).parents[2] / "web"
SDK = WEB / "node_modules" / "@deepgram" / "sdk"

pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

IN_NODE = """
const fs = require("node:fs");
const { DeepgramClient } = require(process.argv[2]);
const [base, audio, recording] = process.argv.slice(3);
const environment = { base, production: base.replace("http", "ws"), agent: base, agentRest: base };
const client = new DeepgramClient({ apiKey: "any", environment });

async function live(options) {
  const connection = await client.listen.v1.connect(
    { model: "nova-3", language: "en-US", reconnectAttempts: 0, ...options });
  const messages = [];
  connection.on("message", message => messages.push(message));
  const closed = new Promise(done => connection.on("close", event => done(event.code)));
  connection.connect();
  await connection.waitForOpen();
  return { connection, messages, closed };
}

async function main() {
  const told = {};
  const pcm = fs.readFileSync(audio);
  const options = { encoding: "linear16", sample_rate: 16000, smart_format: "true", interim_results: "true",
    vad_events: "true", utterance_end_ms: 1000, keyterm: ["Alice", "bank"] };
  const stream = await live(options);
  for (let at = 0; at < pcm.length; at += 8000) stream.connection.sendMedia(pcm.subarray(at, at + 8000));
  stream.connection.sendKeepAlive({ type: "KeepAlive" });
  stream.connection.sendFinalize({ type: "Finalize" });
  stream.connection.sendCloseStream({ type: "CloseStream" });
  told.code = await stream.closed;
  told.messages = stream.messages;

  const recorded = await client.listen.v1.media.transcribeFile(fs.createReadStream(recording),
    { model: "nova-3", language: "en-US", smart_format: true, utterances: true, tag: ["a", "b"] });
  told.recorded = recorded;
  told.granted = await client.auth.v1.tokens.grant({ ttl_seconds: 60 });
  const bearer = new DeepgramClient({ accessToken: told.granted.access_token, environment });
  told.models = await bearer.manage.v1.models.list();
  try {
    await client.listen.v1.media.transcribeFile(fs.createReadStream(recording), { diarize: true });
  } catch (error) { told.refused = { status: error.statusCode, body: error.body }; }
  console.log(JSON.stringify(told));
  process.exit(0);
}
main().catch(error => { console.error(error); process.exit(1); });
"""

IN_A_PAGE = """async ({ base, audio, token }) => {
  const { DeepgramClient } = window.Deepgram;
  const environment = { base, production: base.replace("http", "ws"), agent: base, agentRest: base };
  const client = new DeepgramClient({ [token ? "accessToken" : "apiKey"]: token || "my-key", environment });
  const connection = await client.listen.v1.connect(
    { model: "nova-3", language: "en-US", smart_format: "true", encoding: "linear16", sample_rate: 16000,
      reconnectAttempts: 0 });
  const messages = [];
  connection.on("message", message => messages.push(message));
  const closed = new Promise(done => connection.on("close", event => done(event.code)));
  connection.connect();
  await connection.waitForOpen();
  const protocol = connection.socket.protocol;
  const pcm = Uint8Array.from(atob(audio), letter => letter.charCodeAt(0));
  for (let at = 0; at < pcm.length; at += 8000) connection.sendMedia(pcm.slice(at, at + 8000));
  connection.sendCloseStream({ type: "CloseStream" });
  return { code: await closed, messages, protocol };
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(
    model_files: ModelFiles, vad_model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[TestServer]:
    if not SDK.is_dir():
        pytest.skip("needs `npm ci` in web/")
    async with served(model_files, vad_model_path, tmp_path_factory.mktemp("data")) as server:
        yield server


async def test_the_sdk_in_node(node: TestServer, speech: Speech, tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("needs Node")
    script, audio = tmp_path / "client.cjs", tmp_path / "speech.raw"
    script.write_text(IN_NODE, encoding="utf-8")
    audio.write_bytes(linear16(speech.samples()[None, :]))
    process = await asyncio.create_subprocess_exec(
        *("node", str(script), str(SDK), str(node.make_url("")).rstrip("/"), str(audio), str(speech.path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0, err.decode()
    told: dict[str, Any] = json.loads(out)
    assert told["code"] == 1000
    finals = finals_of(told["messages"])
    assert word_errors(speech.text, text_of(finals)) <= 0.25, text_of(finals)
    assert sum(item["from_finalize"] for item in finals) == 1
    (channel,) = told["recorded"]["results"]["channels"]
    (alternative,) = channel["alternatives"]
    assert word_errors(speech.text, alternative["transcript"]) <= 0.15, alternative["transcript"]
    assert told["recorded"]["metadata"]["tags"] == ["a", "b"]
    assert told["recorded"]["results"]["utterances"]
    assert told["granted"]["expires_in"] == 60
    assert told["models"]["stt"][0]["canonical_name"] == "tiny.en"
    assert told["refused"]["status"] == 400
    assert "`diarize`" in told["refused"]["body"]["message"]


@pytest.mark.needs("chromium")
async def test_the_sdk_in_a_browser_with_its_key_or_a_temporary_token(node: TestServer, speech: Speech) -> None:
    base = str(node.make_url("")).rstrip("/")
    audio = base64.b64encode(linear16(speech.samples()[None, :])).decode()
    bundle = (SDK / "dist" / "browser" / "index.global.js").read_text(encoding="utf-8")
    async with browser_page(None) as page:
        await page.goto(f"{base}/healthz")
        await page.evaluate(f"() => {{ {bundle}; window.Deepgram = Deepgram; }}")
        granted = await page.evaluate("() => fetch('/v1/auth/grant', { method: 'POST' }).then(answer => answer.json())")
        for token, protocol in ((None, "token"), (granted["access_token"], "bearer")):
            told = await page.evaluate(IN_A_PAGE, {"base": base, "audio": audio, "token": token})
            assert (told["code"], told["protocol"]) == (1000, protocol)
            text = text_of(finals_of(told["messages"]))
            assert word_errors(speech.text, text) <= 0.25, text
