"""The page that shows the interface, in headless Chromium: it draws every operation and asks nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer
from playwright.async_api import ConsoleMessage, async_playwright, expect

from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.app import make_app
from signaling.openapi.walk import described_routes
from tests.integration.browser import PATIENCE_MS

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(60)]


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[TestServer]:
    server = TestServer(make_app(Settings(data_dir=tmp_path), metrics=Metrics()))
    await server.start_server()
    yield server
    await server.close()


async def test_every_operation_is_on_the_page_and_can_be_tried(server: TestServer) -> None:
    problems: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error":  # a violation of the content security policy is one
            problems.append(message.text)

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = await browser.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: problems.append(str(error)))
        own = str(server.make_url("/"))
        page.on("request", lambda request: None if request.url.startswith(own) else problems.append(request.url))
        await page.goto(str(server.make_url("/docs")))
        operations = page.locator(".opblock")
        await expect(operations).to_have_count(len(described_routes(server.app)), timeout=PATIENCE_MS)
        alive = page.locator("#operations-Server-get_healthz")
        await alive.locator("button.opblock-summary-control").click()
        await alive.get_by_role("button", name="Try it out").click()
        await alive.get_by_role("button", name="Execute").click()
        await expect(alive.locator(".live-responses-table tbody .response-col_status")).to_have_text(
            "200", timeout=PATIENCE_MS
        )
        await expect(alive.locator(".live-responses-table")).to_contain_text('"status": "alive"')
        opened = page.locator("#operations-WHIP-post_whip")
        await opened.locator("button.opblock-summary-control").click()
        await expect(opened).to_contain_text("INVALID_SDP", timeout=PATIENCE_MS)
        await expect(opened).to_contain_text("Silence in ms that ends an utterance.")
        await browser.close()
    assert [problem for problem in problems if not problem.startswith(("data:", "blob:"))] == []
