"""Headless Chromium with recorded speech as its microphone, and networks for it that fail."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import av
import numpy as np
from playwright.async_api import Page, Route, async_playwright, expect

from tests.conftest import Speech
from tests.faults.udp_proxy import Network, UdpProxy

MICROPHONE_RATE = 48_000
"""Chromium's fake microphone wants this, or it plays at the wrong speed."""

PATIENCE_MS = 30_000
"""How long a page may take for what is expected of it, where a test says nothing else: playwright's 5 s are too few for
a busy machine."""

expect.set_options(timeout=PATIENCE_MS)

LEAD_IN_S = 2.0
"""The fake microphone begins before the connection stands: without silence first, words would be lost."""

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--allow-loopback-in-peer-connection",
)


def microphone(path: Path, *parts: Speech | float) -> Path:
    """A WAV file for Chromium's fake microphone: recordings, and seconds of silence between them."""
    sounds = [_at_microphone_rate(part) for part in parts]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(MICROPHONE_RATE)
        file.writeframes(np.concatenate(sounds).astype("<i2").tobytes())
    return path


def _at_microphone_rate(part: Speech | float) -> np.ndarray:
    if not isinstance(part, Speech):
        return np.zeros(int(part * MICROPHONE_RATE), dtype=np.int16)
    resampler = av.AudioResampler(format="s16", layout="mono", rate=MICROPHONE_RATE)
    frame = av.AudioFrame.from_ndarray(part.samples()[None, :], format="fltp", layout="mono")
    frame.sample_rate = 16_000
    return np.concatenate([out.to_ndarray()[0] for out in (*resampler.resample(frame), *resampler.resample(None))])


HISTORY = """() => {
  window.history_of = { state: [], progress: [] };
  const note = () => {
    const state = document.querySelector("[data-testid=state]")?.dataset.state;
    const progress = document.querySelector("[data-testid=progress]")?.textContent;
    for (const [name, now] of Object.entries({ state, progress })) {
      const before = window.history_of[name];
      if (now && before.at(-1) !== now) before.push(now);
    }
  };
  const everything = { attributes: true, childList: true, characterData: true, subtree: true };
  new MutationObserver(note).observe(document, everything);
}"""
"""Keeps what the page's connection was and what it said of it: some of it lasts less than it takes to look."""

HAS_SHOWN = "([name, text]) => window.history_of[name].some((shown) => shown.includes(text))"


async def has_shown(page: Page, name: str, text: str, *, within_s: float) -> None:
    """Wait until the page's `state` or `progress` has been this, or has had it in it, for however short a time."""
    await page.wait_for_function(HAS_SHOWN, arg=[name, text], timeout=within_s * 1000)


@asynccontextmanager
async def browser_page(sound: Path | None, *, flags: Sequence[str] = FLAGS) -> AsyncIterator[Page]:
    """A page of headless Chromium that hears `sound`; what it asks of other hosts fails the test."""
    flags = [*flags]
    if sound is not None:
        flags.append(f"--use-file-for-fake-audio-capture={sound}%noloop")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        context = await browser.new_context(permissions=["microphone"] if sound is not None else [])
        page = await context.new_page()
        await page.add_init_script(f"({HISTORY})()")
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(f"error in the page: {error}"))
        page.on("request", lambda request: problems.append(request.url) if "127.0.0.1" not in request.url else None)
        try:
            yield page
        finally:
            await browser.close()
        assert [problem for problem in problems if not problem.startswith("blob:")] == []


async def spoken(page: Page) -> str:
    """All finals on the page, as one text."""
    return " ".join(await page.get_by_test_id("final").locator("[data-testid=stable]").all_inner_texts())


class UdpWays:
    """Puts a proxy between the page and the server for each peer connection that the page makes.

    Args:
        page: before it has made any.
        is_blocked: whether nothing passes at all, as behind a firewall that knows HTTP only.
    """

    def __init__(self, page: Page, *, is_blocked: bool = False) -> None:
        self._page = page
        self._is_blocked = is_blocked
        self.proxies: list[UdpProxy] = []

    async def __aenter__(self) -> UdpWays:
        await self._page.route("**/whip*", self._on_request)
        await self._page.route("**/whip/*", self._on_request)
        return self

    async def __aexit__(self, *_: object) -> None:
        for proxy in self.proxies:
            proxy.close()

    async def _on_request(self, route: Route) -> None:
        if route.request.method == "PATCH":  # candidates that would lead around the proxy
            await route.fulfill(status=204)
        elif route.request.method == "POST":
            proxy = UdpProxy(Network())
            self.proxies.append(proxy)
            await proxy.open()
            if self._is_blocked:
                proxy.cut()
            response = await route.fetch(post_data=proxy.offer(route.request.post_data or ""))
            answer = await response.text()
            await route.fulfill(response=response, body=proxy.answer(answer) if response.status == 201 else answer)
        else:
            await route.continue_()


class TcpWay:
    """A proxy before a server, whose cables can be pulled.

    Args:
        port: of the server, on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.is_cut = False

    async def __aenter__(self) -> TcpWay:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    @property
    def url(self) -> str:
        """Where the server is to be found behind it."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Every connection breaks without a word, and none is taken."""
        self.is_cut = True
        for writer in list(self._writers):
            writer.transport.abort()

    def mend(self) -> None:
        """Connections are taken again."""
        self.is_cut = False

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        to_server = await asyncio.open_connection("127.0.0.1", self._port)
        both = {writer, to_server[1]}
        self._writers |= both
        try:
            await asyncio.gather(_pump(reader, to_server[1]), _pump(to_server[0], writer))
        finally:
            self._writers -= both
            for each in both:
                each.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(64 * 1024):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
