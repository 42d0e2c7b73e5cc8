"""Real speech is transcribed and deleted, and then its words are in no file of the server, packed or not."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import pytest_asyncio
from aiohttp import FormData
from aiohttp.test_utils import TestServer
from click.testing import CliRunner

from mediaserver.audio.clock import SAMPLE_RATE
from mediaserver.decoder.catalogue import ModelFiles
from signaling.app import ACCOUNTS
from signaling.auth.keys import NewKey
from signaling.auth.principal import Scope
from signaling.cli import main
from tests.conftest import Speech
from tests.integration.deepgram_served import served
from tests.scoring import word_errors

pytestmark = pytest.mark.timeout(180)

ZLIB = b"\x78\x9c"
CALLER = "Mississippi Smith"


@pytest_asyncio.fixture
async def node(model_files: ModelFiles, vad_model_path: Path, tmp_path: Path) -> AsyncIterator[TestServer]:
    async with served(model_files, vad_model_path, tmp_path / "data") as server:
        yield server


def readings(content: bytes) -> Iterator[str]:
    """What a file says: as it is, and what can be unpacked anywhere in it."""
    yield content.decode(errors="ignore")
    for place in re.finditer(re.escape(ZLIB), content):
        try:
            yield zlib.decompressobj().decompress(content[place.start() :]).decode(errors="ignore")
        except zlib.error:
            continue


def said_in(folder: Path, words: list[str]) -> set[str]:
    """Those of these words that stand in any file of a folder."""
    found: set[str] = set()
    for path in folder.rglob("*"):
        if path.is_file():
            for text in readings(path.read_bytes()):
                lower = text.lower()
                found |= {word for word in words if word in lower}
    return found


class Client:
    """A tenant's."""

    def __init__(self, http: aiohttp.ClientSession, node: TestServer, key: str) -> None:
        self.http, self.node = http, node
        self.headers = {"Authorization": f"Bearer {key}"}

    async def ask(self, method: str, path: str, **given: Any) -> Any:
        async with self.http.request(method, self.node.make_url(path), headers=self.headers, **given) as response:
            assert response.status < 400, await response.text()
            return await response.json()

    async def until(self, path: str, state: str) -> Any:
        async with asyncio.timeout(120):
            while (body := await self.ask("GET", path))["state"] != state:
                await asyncio.sleep(0.1)
        return body

    async def record(self, speech: Speech) -> tuple[Any, str]:
        form = FormData()
        form.add_field("file", speech.path.read_bytes(), filename="call.flac")
        form.add_field("metadata", json.dumps({"caller": CALLER}))
        job = await self.ask("POST", "/api/v1/transcriptions", data=form)
        ended = await self.until(f"/api/v1/transcriptions/{job['id']}", "completed")
        result = await self.ask("GET", f"/api/v1/transcriptions/{job['id']}/result")
        return ended, str(result["text"])

    async def speak(self, speech: Speech) -> str:
        """The same over a WebSocket; what was heard."""
        pcm = (speech.samples() * 32767).astype(np.int16).tobytes()
        url = self.node.make_url(f"/ws/v1/transcribe?encoding=linear16&sample_rate={SAMPLE_RATE}")
        texts = []
        async with self.http.ws_connect(url, headers=self.headers) as ws:
            await ws.send_bytes(pcm)
            await ws.send_str('{"type": "close_stream"}')
            async for message in ws:
                event = json.loads(message.data)
                if event["type"] == "final":
                    texts.append(event["transcript"])
        return " ".join(texts)


async def test_what_was_said_is_nowhere_after_its_deletion(node: TestServer, speech: Speech, tmp_path: Path) -> None:
    keys = node.app[ACCOUNTS].keys
    _, value = await keys.create(NewKey("shop", "shop", scopes=[Scope.STREAM, Scope.JOBS]))
    words = [word for word in re.findall(r"[a-z]{6,}", speech.text.lower()) if word in speech.text]
    assert len(words) >= 3
    async with aiohttp.ClientSession() as http:
        client = Client(http, node, value)
        live = await client.speak(speech)
        assert word_errors(speech.text, live) <= 0.2, live
        assert said_in(tmp_path, words) == set(), "live speech is kept nowhere"
        job, text = await client.record(speech)
        assert word_errors(speech.text, text) <= 0.1, text
        assert 0.5 * speech.duration_s < job["result"]["speech_s"] <= job["result"]["duration_s"]
        heard = [word for word in words if word in text.lower()]
        assert said_in(tmp_path, [*heard, CALLER.lower()]) == {*heard, CALLER.lower()}, "or nothing could be missed"
        assert not list((tmp_path / "data" / "recordings").iterdir()), "its audio is gone with its end"
        used = await client.ask("GET", "/api/v1/usage?by=feature")
        assert [line["feature"] for line in used["lines"]] == ["recording", "streaming"]
        assert all(line["speech_s"] > 0.5 * speech.duration_s for line in used["lines"])

        request = await client.ask("DELETE", "/api/v1/data")
        done = await client.until(f"/api/v1/erasures/{request['id']}", "completed")
        assert said_in(tmp_path, [*heard, CALLER.lower()]) == set()
        assert (await client.ask("GET", "/api/v1/transcriptions"))["jobs"] == []
        kept = await client.ask("GET", "/api/v1/usage?by=feature")
        assert kept["audio_s"] == used["audio_s"], "totals stay"
    statement = done["certificate"]["statement"]
    assert statement["is_complete"]
    assert statement["deleted"]["transcripts"] == 1
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps(done["certificate"]))
    settings = {"VOICEFORGE_DATA_DIR": str(tmp_path / "data")}
    checked = await asyncio.to_thread(CliRunner().invoke, main, ["privacy", "verify", str(path)], env=settings)
    assert checked.exit_code == 0, checked.output
    assert "nothing was found afterwards" in checked.output
