"""The page as a person uses it: headless Chromium with recorded speech as its microphone, and the real server."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, ViewportSize, async_playwright, expect

from signaling.own_server import own_server
from tests.conftest import Speech, SpeechData
from tests.integration.browser import FLAGS, LEAD_IN_S, browser_page, microphone, spoken
from tests.scoring import word_errors

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(120)]


COUNTS_ASKING = """
  const devices = navigator.mediaDevices, ask = devices.getUserMedia.bind(devices);
  window.asked = 0;
  devices.getUserMedia = (wanted) => { window.asked += 1; return ask(wanted); };
"""

# A finger wants 44 px of a button.
HOW_IT_FITS = """() => ({
  page: [document.documentElement.scrollWidth, document.documentElement.scrollHeight],
  tooSmall: [...document.querySelectorAll("button")]
    .filter((button) => button.offsetParent !== null && button.getBoundingClientRect().height < 44)
    .map((button) => button.textContent.trim()),
  asked: window.asked,
})"""


@pytest_asyncio.fixture
async def server(model_files: object, vad_model_path: object) -> AsyncIterator[str]:
    async with own_server(()) as url:
        yield url


async def listen(page: Page, url: str, *, for_s: float) -> None:
    """Press the button, wait for the speech to be over, stop."""
    await page.goto(f"{url}/?raw=1")
    await page.get_by_test_id("start").click()
    await expect(page.get_by_test_id("state")).to_have_attribute("data-state", "connected")
    await page.wait_for_timeout(for_s * 1000)
    await page.get_by_test_id("stop").click()
    await expect(page.get_by_test_id("start")).to_be_visible()


async def test_a_spoken_sentence_appears_while_it_is_spoken_and_can_be_saved(
    server: str, speech: Speech, tmp_path: Path
) -> None:
    async with browser_page(microphone(tmp_path / "microphone.wav", LEAD_IN_S, speech, LEAD_IN_S)) as page:
        await page.goto(f"{server}/?raw=1")
        await page.get_by_test_id("start").click()
        # Interims come before the sentence ends, and what may change is marked.
        await expect(page.get_by_test_id("unstable").first).to_be_visible()
        await expect(page.get_by_test_id("final").first).to_be_visible()
        await expect(page.get_by_test_id("latency")).to_have_text(re.compile(r"\d+(\.\d+)? (ms|s)"))
        await page.wait_for_timeout(2500)
        async with page.expect_download() as download:
            await page.get_by_test_id("save-srt").click()
        saved = Path(await (await download.value).path()).read_text()
        await page.get_by_test_id("stop").click()
        await expect(page.get_by_test_id("start")).to_be_visible()
        text = await spoken(page)
    assert word_errors(speech.text, text) <= 0.25, text
    assert re.search(r"\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}", saved)
    assert word_errors(speech.text, re.sub(r"^[\d:, >-]+$", "", saved, flags=re.MULTILINE)) <= 0.3


async def test_real_speech_in_the_browser_gets_the_right_words(
    server: str, speech_data: SpeechData, tmp_path: Path
) -> None:
    chosen = next(
        speech
        for speech in speech_data.select(category="english-read")
        if "librispeech-train-clean" in str(speech.path) and 8 < speech.duration_s < 14
    )
    async with browser_page(microphone(tmp_path / "microphone.wav", LEAD_IN_S, chosen, LEAD_IN_S)) as page:
        await listen(page, server, for_s=chosen.duration_s + LEAD_IN_S + 2.0)
        text = await spoken(page)
    assert word_errors(chosen.text, text) <= 0.2, text


async def test_a_browser_without_a_microphone_is_told_what_to_do(server: str) -> None:
    flags_without_device = [flag for flag in FLAGS if "fake-device" not in flag]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags_without_device)
        page = await browser.new_page()
        await page.goto(server)
        await page.get_by_test_id("start").click()
        await expect(page.get_by_test_id("error")).to_be_visible()
        code: Any = await page.get_by_test_id("error").get_attribute("data-code")
        await browser.close()
    assert code == "MICROPHONE_NOT_FOUND"


async def test_the_page_fits_a_phone_and_asks_for_the_microphone_once(server: str, tmp_path: Path) -> None:
    sound = microphone(tmp_path / "microphone.wav", LEAD_IN_S)
    upright, on_its_side = ViewportSize(width=320, height=568), ViewportSize(width=750, height=342)
    async with async_playwright() as playwright:
        flags = [*FLAGS, f"--use-file-for-fake-audio-capture={sound}%noloop"]
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        phone = await browser.new_context(viewport=upright, is_mobile=True, has_touch=True, permissions=["microphone"])
        page = await phone.new_page()
        await page.add_init_script(COUNTS_ASKING)
        await page.goto(server)
        await page.get_by_test_id("start").tap()
        await expect(page.get_by_test_id("state")).to_have_attribute("data-state", "connected")
        for size in (upright, on_its_side):
            await page.set_viewport_size(size)
            await expect(page.get_by_role("button", name="Settings")).to_be_in_viewport(ratio=1)
            await expect(page.get_by_test_id("stop")).to_be_in_viewport(ratio=1)
            seen: Any = await page.evaluate(HOW_IT_FITS)
            assert seen == {"page": [size["width"], size["height"]], "tooSmall": [], "asked": 1}
        await page.get_by_test_id("stop").tap()
        await expect(page.get_by_test_id("start")).to_be_visible()
        await browser.close()
