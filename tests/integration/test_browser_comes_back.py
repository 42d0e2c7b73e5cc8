"""The page where something is in the way: a key, a cable that is pulled, a firewall that lets no UDP through."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, expect

from mediaserver.settings import Settings
from signaling.auth.accounts import Accounts
from signaling.auth.keys import NewKey
from signaling.auth.principal import Scope
from signaling.own_server import own_server
from tests.conftest import Speech
from tests.integration.browser import LEAD_IN_S, TcpWay, UdpWays, browser_page, has_shown, microphone, spoken
from tests.scoring import word_errors

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(120)]

RESUMING_S = 30.0
RESUMING_MS = 1000 * RESUMING_S
"""Longer than any of it takes on a busy machine."""

FALLBACK_S = 9.0
"""The page gives WebRTC 6 s; nobody speaks meanwhile."""

AWAY_S = 3.0


@pytest_asyncio.fixture
async def server(model_files: object, vad_model_path: object) -> AsyncIterator[str]:
    async with own_server(()) as url:
        yield url


async def until(page: Page, state: str) -> None:
    """Wait for a state of the connection."""
    await expect(page.get_by_test_id("state")).to_have_attribute("data-state", state, timeout=RESUMING_MS)


async def resuming(page: Page) -> None:
    """Wait until it has noticed that its connection is lost; it may be back by now."""
    await has_shown(page, "state", "resuming", within_s=RESUMING_S)


async def stop(page: Page) -> None:
    """End the session, with its last finals."""
    await page.get_by_test_id("stop").click()
    await expect(page.get_by_test_id("start")).to_be_visible()


async def test_a_call_whose_packets_stop_goes_on_by_itself(server: str, speech: Speech, tmp_path: Path) -> None:
    sound = microphone(tmp_path / "microphone.wav", LEAD_IN_S, speech, 10.0, speech, LEAD_IN_S)
    async with browser_page(sound) as page, UdpWays(page) as ways:
        await page.goto(f"{server}/?raw=1&transport=webrtc")
        await page.get_by_test_id("start").click()
        await expect(page.get_by_test_id("final").first).to_be_visible()
        await page.context.set_offline(True)
        ways.proxies[0].cut()
        await page.context.set_offline(False)  # what a browser tells that went from one network to another
        await resuming(page)
        await has_shown(page, "progress", "is kept", within_s=RESUMING_S)
        await expect(page.get_by_test_id("final").first).to_be_visible()
        await until(page, "connected")
        await has_shown(page, "progress", "Connected again", within_s=RESUMING_S)
        await page.wait_for_timeout(1000 * (4.0 + speech.duration_s))
        await stop(page)
        text = await spoken(page)
        assert await page.locator(".new-session").count() == 0
        await expect(page.get_by_test_id("error")).to_be_hidden()
    assert len(ways.proxies) == 2
    assert word_errors(f"{speech.text} {speech.text}", text) <= 0.25, text


async def test_without_udp_a_websocket_takes_over_and_loses_no_word_when_its_cable_is_pulled(
    server: str, speech: Speech, tmp_path: Path
) -> None:
    sound = microphone(tmp_path / "microphone.wav", FALLBACK_S, speech, LEAD_IN_S)
    async with (
        TcpWay(int(server.rpartition(":")[2])) as way,
        browser_page(sound) as page,
        UdpWays(page, is_blocked=True),
    ):
        await page.goto(f"{way.url}/?raw=1")
        await page.get_by_test_id("start").click()
        await has_shown(page, "progress", "WebSocket", within_s=RESUMING_S)
        await until(page, "connected")
        await expect(page.get_by_test_id("transport")).to_have_text("WebSocket")
        await expect(page.get_by_test_id("interim").first).to_be_visible(timeout=RESUMING_MS)
        way.cut()  # in the middle of the sentence
        await resuming(page)
        await asyncio.sleep(AWAY_S)
        way.mend()
        await until(page, "connected")
        await has_shown(page, "progress", "Nothing was lost", within_s=RESUMING_S)
        await page.wait_for_timeout(1000 * (speech.duration_s + 1.0))
        await stop(page)
        text = await spoken(page)
    assert word_errors(speech.text, text) <= 0.25, text


async def test_workers_that_are_killed_take_no_word_with_them(
    model_files: object, vad_model_path: object, speech: Speech, tmp_path: Path
) -> None:
    sound = microphone(tmp_path / "microphone.wav", LEAD_IN_S, speech, LEAD_IN_S)
    before = set(psutil.Process().children())
    async with own_server(("--workers", "2")) as url, browser_page(sound) as page:
        (server,) = (child for child in psutil.Process().children() if child not in before and is_server(child))
        await page.goto(f"{url}/?raw=1&transport=websocket")
        await page.get_by_test_id("start").click()
        await expect(page.get_by_test_id("interim").first).to_be_visible(timeout=RESUMING_MS)
        workers = [child for child in server.children() if "signaling.workers" in child.cmdline()]
        assert len(workers) == 2
        for worker in workers:
            worker.kill()
        await resuming(page)
        await until(page, "connected")
        await has_shown(page, "progress", "Nothing was lost", within_s=RESUMING_S)
        await page.wait_for_timeout(1000 * (speech.duration_s + LEAD_IN_S))
        await stop(page)
        text = await spoken(page)
    assert word_errors(speech.text, text) <= 0.25, text


def is_server(process: psutil.Process) -> bool:
    """Whether it is `voiceforge serve`, not the browser."""
    return "signaling.cli" in process.cmdline()


async def give(page: Page, key: str) -> None:
    """Type a key in, and go on."""
    await page.get_by_test_id("key-value").fill(key)
    await page.get_by_test_id("key-give").click()


async def refuses(page: Page, error: dict[str, object]) -> None:
    """From now on there is no room, neither by the one way nor by the other."""

    async def answer(route: Route) -> None:
        await route.fulfill(status=503, headers={"Retry-After": "12"}, json={"error": error})

    await page.route(re.compile(r"/(whip|api/v1/tokens)"), answer)


async def test_the_page_asks_for_a_key_and_keeps_it_out_of_addresses(
    model_files: object, vad_model_path: object, tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    accounts = Accounts(Settings(data_dir=data_dir))
    _, key = await accounts.keys.create(NewKey("page", "page", scopes=[Scope.STREAM]))
    await accounts.close()
    sound = microphone(tmp_path / "microphone.wav", LEAD_IN_S)
    addresses: list[str] = []
    async with (
        own_server(("--keyless-access", "auto", "--data-dir", str(data_dir))) as url,
        browser_page(sound) as page,
    ):
        page.on("request", lambda request: addresses.append(request.url))
        page.on("websocket", lambda socket: addresses.append(socket.url))
        await page.goto(f"{url}/?raw=1&transport=webrtc")
        await page.get_by_test_id("start").click()
        await give(page, key[:-1] + ("A" if key[-1] != "A" else "B"))
        await expect(page.get_by_test_id("key-why")).to_contain_text("not one")
        await give(page, key)
        await until(page, "connected")
        assert await page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}])") == "[{},{}]"
        await page.goto(f"{url}/?raw=1&transport=websocket")
        await page.get_by_test_id("start").click()
        await page.get_by_test_id("key-keep").check()
        await give(page, key)
        await until(page, "connected")
        await page.reload()
        await page.get_by_test_id("start").click()
        await until(page, "connected")
        await expect(page.get_by_test_id("key-dialog")).to_be_hidden()
        await stop(page)
        await refuses(page, {"code": "NODE_FULL", "message": "Full.", "hint": "Wait.", "retryable": True})
        await page.get_by_test_id("start").click()
        await expect(page.get_by_test_id("error")).to_have_attribute("data-code", "NODE_FULL")
        await expect(page.get_by_test_id("wait")).to_contain_text(re.compile(r"in \d+ s"))
    assert len([address for address in addresses if address.startswith("ws:") and "&token=eyJ" in address]) == 2
    assert not [address for address in addresses if key in address]
