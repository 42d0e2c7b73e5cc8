"""Firefox, as Debian has it, hears recorded speech by a sound card of software, and talks to the real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web

from signaling.own_server import own_server
from tests.conftest import Speech
from tests.faults.udp_proxy import Network, UdpProxy
from tests.integration.browser import TcpWay
from tests.integration.firefox import PATIENCE_S, Tab, firefox
from tests.integration.sound_card import SoundCard, sound_card
from tests.scoring import word_errors

pytestmark = [pytest.mark.needs("firefox-esr", "pulseaudio", "pacat"), pytest.mark.timeout(120)]

ON_LOOPBACK = {"media.peerconnection.ice.loopback": True}
"""Without it Firefox sends no media to addresses of loopback, and tests have no others."""

CUT_AFTER_S = 2.0
"""In the middle of the sentence."""

PAUSE_S = 1.0
"""After speech, so that it ends for those who listen too."""

PASSED_BACK = ("Content-Type", "Location", "ETag")
"""Of an answer's headers: what WHIP and the page need."""

STATE = "() => document.querySelector('[data-testid=state]').dataset.state"
CLICK = "(name) => document.querySelector(`[data-testid=${name}]`).click()"
TEXT = "(name) => document.querySelector(`[data-testid=${name}]`).textContent"
FINALS = "() => [...document.querySelectorAll('[data-testid=final] [data-testid=stable]')].map((e) => e.textContent)"

# A client of WHIP (RFC 9725) that somebody wrote: both directions, a data channel too many, and all candidates later.
WHIP_CLIENT = """async (whip) => {
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const microphone = await navigator.mediaDevices.getUserMedia({ audio });
  const pc = new RTCPeerConnection();
  const told = [];
  for (const name of ["another", "transcripts"]) {
    pc.createDataChannel(name).onmessage = ({ data }) => told.push(JSON.parse(data));
  }
  pc.addTransceiver(microphone.getAudioTracks()[0], { direction: "sendrecv" });
  const gathered = new Promise((done) => (pc.onicecandidate = ({ candidate }) => candidate === null && done()));
  await pc.setLocalDescription();
  await gathered;
  const offer = pc.localDescription.sdp;
  const lines = (text, pattern) => text.match(pattern).map((line) => `${line}\\r\\n`).join("");
  const headers = { "Content-Type": "application/sdp" };
  const body = offer.replaceAll(/^a=candidate:.*\\r\\n|^a=end-of-candidates\\r\\n/gm, "");
  const made = await fetch(whip, { method: "POST", headers, body });
  const resource = new URL(made.headers.get("Location"), whip).href;
  await pc.setRemoteDescription({ type: "answer", sdp: await made.text() });
  const [audioSection] = offer.split("m=application");
  const trickled = await fetch(resource, {
    method: "PATCH",
    headers: { "Content-Type": "application/trickle-ice-sdpfrag", "If-Match": made.headers.get("ETag") },
    body: lines(audioSection, /^a=ice-(ufrag|pwd):.*$/gm) + "m=audio 9 UDP/TLS/RTP/SAVPF 0\\r\\na=mid:0\\r\\n" +
      lines(audioSection, /^a=candidate:.*$/gm) + "a=end-of-candidates\\r\\n",
  });
  window.call = { pc, told };
  return { resource, statuses: [made.status, trickled.status] };
}"""


@pytest_asyncio.fixture
async def server(model_files: object, vad_model_path: object) -> AsyncIterator[str]:
    async with own_server(()) as url:
        yield url


@pytest_asyncio.fixture
async def card() -> AsyncIterator[SoundCard]:
    async with sound_card() as card:
        yield card


class WhipWay:
    """The server by another address, where each peer connection's media goes through a proxy that can be cut."""

    def __init__(self, url: str, http: ClientSession) -> None:
        self._url = url
        self._http = http
        self.proxies: list[UdpProxy] = []
        self.offered = asyncio.Event()
        self.deleted = asyncio.Event()

    async def carry(self, request: web.Request) -> web.Response:
        """Pass a request on, and its answer back."""
        body = await request.text()
        proxy: UdpProxy | None = None
        if request.method == "PATCH":  # candidates that would lead around the proxy
            return web.Response(status=204)
        if request.method == "POST":
            proxy = UdpProxy(Network())
            self.proxies.append(proxy)
            self.offered.set()
            await proxy.open()
            body = proxy.offer(body)
        headers = {name: value for name, value in request.headers.items() if name != "Content-Length"}
        url = self._url + request.path_qs
        async with self._http.request(request.method, url, headers=headers, data=body) as answer:
            if request.method == "DELETE":
                self.deleted.set()
            content = await answer.read()
            if proxy is not None and answer.status == 201:
                content = proxy.answer(content.decode()).encode()
            kept = {name: value for name, value in answer.headers.items() if name in PASSED_BACK}
            return web.Response(status=answer.status, body=content, headers=kept)


@asynccontextmanager
async def whip_way(url: str) -> AsyncIterator[tuple[str, WhipWay]]:
    """Its address, and itself."""
    async with ClientSession(auto_decompress=True) as http:
        way = WhipWay(url, http)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", way.carry)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}", way
        finally:
            await runner.cleanup()
            for proxy in way.proxies:
                proxy.close()


async def start(tab: Tab, url: str) -> None:
    """Press the button of the page, and wait until it listens."""
    await tab.goto(url)
    await tab.activate()
    await tab.call(CLICK, "start")
    await until(tab, "connected")


async def until(tab: Tab, state: str) -> None:
    """Wait for a state of the page's connection."""
    await tab.until(f"(wanted) => ({STATE})() === wanted", state)


async def stop(tab: Tab) -> str:
    """Press it again; all that was said, once the last of it is there."""
    await tab.call(CLICK, "stop")
    await until(tab, "closed")
    return " ".join(await tab.call(FINALS))


async def reasons(http: ClientSession, resource: str) -> list[str]:
    """Why a session ended, once it has, as those hear it who read along."""
    async with http.get(f"{resource}/events") as response:
        lines = [
            line.removeprefix("data: ") for line in (await response.text()).splitlines() if line.startswith("data")
        ]
    events: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [event["reason"] for event in events if event["type"] == "closed"]


async def test_whoever_speaks_is_understood_by_every_way_and_comes_back(
    server: str, card: SoundCard, speech: Speech, tmp_path: Path
) -> None:
    async with (
        ClientSession() as http,
        whip_way(server) as (webrtc_url, webrtc_way),
        TcpWay(int(server.rpartition(":")[2])) as socket_way,
        firefox(tmp_path / "profile", card, ON_LOOPBACK) as browser,
    ):
        page, socket_page, other = [await browser.tab() for _ in range(3)]
        await start(page, f"{webrtc_url}/?raw=1&transport=webrtc")
        await start(socket_page, f"{socket_way.url}/?raw=1&transport=websocket")
        await other.goto(server)
        await other.activate()
        call = await other.call(WHIP_CLIENT, f"{server}/whip")
        assert call["statuses"] == [201, 204]
        await other.until("() => call.told.some(({ type }) => type === 'ready')")

        # All three hear it; the WebSocket's cable is pulled while they do.
        speaking = asyncio.create_task(card.says(speech, PAUSE_S))
        await asyncio.sleep(CUT_AFTER_S)
        socket_way.cut()
        await until(socket_page, "resuming")
        socket_way.mend()
        await until(socket_page, "connected")
        await socket_page.has_shown("progress", "Nothing was lost")
        await speaking
        finals = "() => call.told.filter(({ type }) => type === 'final').map(({ transcript }) => transcript).join(' ')"
        heard = await other.until(finals)
        assert word_errors(speech.text, heard) <= 0.25, heard
        text = await stop(socket_page)
        assert word_errors(speech.text, text) <= 0.25, text
        await other.call("() => call.pc.close()")
        assert await reasons(http, call["resource"]) == ["client"]

        # No packet of the WebRTC call passes any more.
        await page.until(f"() => ({FINALS})().join('') !== ''")
        await page.offline(is_offline=True)
        webrtc_way.proxies[0].cut()
        webrtc_way.offered.clear()
        await page.offline(is_offline=False)
        await asyncio.wait_for(webrtc_way.offered.wait(), PATIENCE_S)  # it may be back before anybody has looked
        await until(page, "connected")
        await card.says(speech, PAUSE_S)
        text = await stop(page)
        assert word_errors(f"{speech.text} {speech.text}", text) <= 0.25, text
        assert len(webrtc_way.proxies) == 2

        # Whoever reloads the page in the middle of a call ends it, and can make another.
        webrtc_way.deleted.clear()
        await start(page, f"{webrtc_url}/?raw=1&transport=webrtc")
        await page.reload()
        await page.activate()
        await asyncio.wait_for(webrtc_way.deleted.wait(), PATIENCE_S)
        assert await page.call(STATE) == "idle"
        await page.call(CLICK, "start")
        await until(page, "connected")
        await stop(page)


async def test_to_its_own_computer_it_goes_over_a_websocket_at_once(
    server: str, card: SoundCard, tmp_path: Path
) -> None:
    async with firefox(tmp_path / "profile", card, {"media.peerconnection.ice.loopback": False}) as browser:
        page = await browser.tab()
        await page.goto(f"{server}/?transport=webrtc")
        await page.activate()
        await page.call(CLICK, "start")
        await page.until("() => !document.querySelector('[data-testid=error]').hidden")
        assert "on its own computer" in await page.call(TEXT, "error")  # known, not waited for
        await start(page, server)
        assert await page.call(TEXT, "transport") == "WebSocket"
        assert "WebSocket" in await page.call(TEXT, "progress")
        await stop(page)
