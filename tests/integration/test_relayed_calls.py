"""Calls that get through nothing but a TURN server: a browser and an aiortc peer, real coturn, real speech."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiortc import RTCConfiguration, RTCIceServer, RTCIceTransportPolicy, RTCPeerConnection
from playwright.async_api import expect
from test_browser import LEAD_IN_S, browser_page, microphone, spoken
from turn_server import SECRET, TurnServer, plan, run_coturn

from signaling import caller
from signaling.caller import Call, RecordingTrack
from signaling.own_server import own_server
from tests.conftest import Speech
from tests.scoring import word_errors

pytestmark = [pytest.mark.needs("turnserver"), pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

RELAY_ONLY = """
const Original = RTCPeerConnection;
window.peers = [];
window.RTCPeerConnection = class extends Original {
  constructor(configuration) {
    super({ ...configuration, iceTransportPolicy: "relay" });
    window.peers.push(this);
  }
};
"""
"""The page's peer connection as it is in a network that lets nothing through but the way to the TURN server."""

PAIRS = """
async () => {
  const stats = [...(await window.peers[0].getStats()).values()];
  const pair = stats.find((entry) => entry.type === "candidate-pair" && entry.nominated);
  return stats.find((entry) => entry.id === pair.localCandidateId);
}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def turn(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TurnServer]:
    folder = tmp_path_factory.mktemp("coturn")
    async with run_coturn(plan(folder), folder) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(turn: TurnServer, model_files: object, vad_model_path: object) -> AsyncIterator[str]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("VOICEFORGE_TURN_SECRET", SECRET)
        async with own_server(("--turn-urls", turn.text)) as url:
            yield url


@pytest.mark.needs("chromium")
async def test_a_browser_that_may_only_relay_gets_the_right_words(
    turn: TurnServer, url: str, speech: Speech, tmp_path: Path
) -> None:
    async with browser_page(microphone(tmp_path / "microphone.wav", LEAD_IN_S, speech)) as page:
        await page.add_init_script(RELAY_ONLY)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url) if "/api/v1/config" in request.url else None)
        await page.goto(f"{url}/?raw=1")
        await page.get_by_test_id("start").click()
        await expect(page.get_by_test_id("state")).to_have_attribute("data-state", "connected")
        used: dict[str, Any] = await page.evaluate(PAIRS)
        await page.wait_for_timeout((speech.duration_s + LEAD_IN_S + 2.0) * 1000)
        await page.get_by_test_id("stop").click()
        await expect(page.get_by_test_id("start")).to_be_visible()
        text = await spoken(page)
    assert used["candidateType"] == "relay"
    assert word_errors(speech.text, text) <= 0.25, text
    assert ":new-" in turn.log()
    assert len(asked) == 2, "when it opens, and again when it connects: credentials expire"


async def test_a_peer_that_may_only_relay_gets_the_right_words(
    turn: TurnServer, url: str, speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    (server,) = turn.servers().for_session("peer")
    relay_only = RTCConfiguration(
        iceServers=[RTCIceServer(urls=list(server.urls), username=server.username, credential=server.credential)],
        iceTransportPolicy=RTCIceTransportPolicy.RELAY,
    )
    offers: list[str] = []

    class Watched(RTCPeerConnection):
        async def setLocalDescription(self, sessionDescription: Any = None) -> None:  # noqa: N803 - aiortc's name
            await super().setLocalDescription(sessionDescription)
            offers.append(self.localDescription.sdp)

    monkeypatch.setattr(caller, "new_peer_connection", lambda: Watched(relay_only))
    monkeypatch.setattr(caller, "configure_ice", lambda pc, options, *, on_lost: None)
    finals: list[str] = []

    def hear(event: Any) -> None:
        if event["type"] == "final":
            finals.append(event["transcript"])

    await Call(url=url, track=RecordingTrack(speech.path), language=None, on_event=hear).run(asyncio.Event())
    candidates = [line for line in offers[0].splitlines() if line.startswith("a=candidate:")]
    assert candidates
    assert all(" typ relay" in line for line in candidates), candidates
    assert word_errors(speech.text, " ".join(finals)) <= 0.25, finals


async def test_the_doctor_finds_nothing_wrong(turn: TurnServer, url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "signaling.cli", "doctor", "--url", url, "--turn-urls", turn.text, "--json"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "VOICEFORGE_TURN_SECRET": SECRET, "VOICEFORGE_PORT": "0"},
    )
    output, _ = await process.communicate()
    told = json.loads(output)
    # Whoever tries the server out has neither keys nor a second node.
    unasked = {check["name"] for check in told["checks"] if check["status"] == "skipped"}
    assert unasked == {"database", "redis"}
    wrong = {check["name"]: check["message"] for check in told["checks"] if check["status"] not in ("ok", "skipped")}
    assert wrong == {}
    assert told["ok"] is True
    assert process.returncode == 0
    assert SECRET not in output.decode()
