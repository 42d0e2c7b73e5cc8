"""Headless Firefox, driven by WebDriver BiDi, as anybody installs it.

Playwright drives a Firefox of its own making only. What Debian, Mozilla and everybody else ship speaks WebDriver BiDi
(https://www.w3.org/TR/webdriver-bidi/): JSON over a WebSocket.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp

from tests.integration.browser import HAS_SHOWN, HISTORY
from tests.integration.sound_card import SoundCard

START_S = 60.0
"""Until Firefox listens: two seconds, more on a busy machine that starts it for the first time."""

STOP_S = 10.0
"""Until it is killed: it saves a profile that nobody wants."""

POLL_S = 0.1
PATIENCE_S = 30.0
"""How long the page may take for what is waited for."""

LARGEST_MESSAGE = 64 * 2**20
"""Messages have no bound of their own; a page's whole text is far smaller."""

PREFERENCES: dict[str, bool | int | str] = {
    # Nobody is there to be asked: 1 allows, 2 denies.
    "permissions.default.microphone": 1,
    # Names would have to be looked up on a network that is not there.
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    # It is to ask nothing of the internet, and to change nothing while a test runs.
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.contentblocking.introCount": 99,
    "browser.newtabpage.enabled": False,
    "browser.safebrowsing.downloads.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.search.update": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.startup.page": 0,
    "captivedetect.canonicalURL": "",
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.push.connection.enabled": False,
    "extensions.getAddons.cache.enabled": False,
    "extensions.update.enabled": False,
    "media.gmp-manager.updateEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}

NONE: Mapping[str, bool | int | str] = MappingProxyType({})


class BidiError(AssertionError):
    """Firefox refused a command, or a script threw."""


class Tab:
    """One page, in a window of its own: what lies behind another is slowed down.

    Args:
        browser: that shows it.
        context: what WebDriver BiDi calls it by.
    """

    def __init__(self, browser: Firefox, context: str) -> None:
        self._browser = browser
        self._context = context

    async def goto(self, url: str) -> None:
        """Open an address, and wait until it is loaded."""
        await self._browser.command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def activate(self) -> None:
        """Put it before the others: only there a microphone is opened."""
        await self._browser.command("browsingContext.activate", context=self._context)

    async def reload(self) -> None:
        """As by F5."""
        await self._browser.command("browsingContext.reload", context=self._context, wait="complete")

    async def offline(self, *, is_offline: bool) -> None:
        """As if there were no network, as far as the page is told and what goes by HTTP."""
        conditions = {"type": "offline"} if is_offline else None
        await self._browser.command(
            "emulation.setNetworkConditions", networkConditions=conditions, contexts=[self._context]
        )

    async def call(self, function: str, *arguments: object) -> Any:
        """What a JavaScript function (which may be async) gives for these arguments, all of them JSON."""
        listed = ", ".join(json.dumps(argument) for argument in arguments)
        result = await self._browser.command(
            "script.evaluate",
            expression=f"(async () => JSON.stringify((await ({function})({listed})) ?? null))()",
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        if result["type"] != "success":
            raise BidiError(result["exceptionDetails"]["text"])
        return json.loads(result["result"]["value"])

    async def until(self, function: str, *arguments: object, within_s: float = PATIENCE_S) -> Any:
        """Wait until a JavaScript function gives something true, and return that."""
        until = time.monotonic() + within_s
        while not (found := await self.call(function, *arguments)):
            if time.monotonic() > until:
                page = await self.call("() => document.body.innerText")
                raise BidiError(f"not within {within_s} s: {function} {arguments}; the page says: {page}")
            await asyncio.sleep(POLL_S)
        return found

    async def has_shown(self, name: str, text: str) -> None:
        """As `tests.integration.browser.has_shown`."""
        await self.until(f"(name, text) => ({HAS_SHOWN})([name, text])", name, text)


class Firefox:
    """A browser, by what it says on a WebSocket.

    Args:
        socket: on which it speaks WebDriver BiDi.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.requests: list[str] = []
        """Every address asked for, oldest first."""
        self.problems: list[str] = []
        """Errors that nobody caught in a page."""

    async def begin(self) -> None:
        """Open the session."""
        await self.command("session.new", capabilities={})
        await self.command("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        await self.command("script.addPreloadScript", functionDeclaration=HISTORY)

    async def tab(self) -> Tab:
        """A further page."""
        made = await self.command("browsingContext.create", type="window")
        return Tab(self, made["context"])

    async def command(self, method: str, **params: object) -> Any:
        """What it answers a command.

        Raises:
            BidiError: it refused.
        """
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        return await asyncio.wait_for(answer, START_S)

    async def read(self) -> None:
        """Take what it says until it is gone."""
        async for message in self._socket:
            told = json.loads(message.data)
            answer = self._answers.pop(told.get("id"), None)
            if told["type"] == "event":
                self._on_event(told["method"], told["params"])
            elif answer is not None and not answer.done():
                if told["type"] == "success":
                    answer.set_result(told["result"])
                else:
                    answer.set_exception(BidiError(f"{told['error']}: {told['message']}"))
        for answer in self._answers.values():
            answer.cancel()

    def _on_event(self, method: str, params: dict[str, Any]) -> None:
        if method == "network.beforeRequestSent":
            self.requests.append(params["request"]["url"])
        # What has no stack was not thrown: Firefox tells here too of WebSockets whose server does not answer.
        elif params.get("type") == "javascript" and params.get("level") == "error" and "stackTrace" in params:
            self.problems.append(params["text"])


@asynccontextmanager
async def firefox(
    profile: Path, card: SoundCard, preferences: Mapping[str, bool | int | str] = NONE
) -> AsyncIterator[Firefox]:
    """A headless Firefox; errors in its pages and requests to other hosts fail the test.

    Args:
        profile: a directory for it, to be made.
        card: what it hears and plays by.
        preferences: further ones.
    """
    profile.mkdir()
    wanted = {**PREFERENCES, **preferences}
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in wanted.items()]
    (profile / "user.js").write_text("\n".join(lines))
    process = await asyncio.create_subprocess_exec(
        *("firefox-esr", "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        # As root Firefox wants a home of root's; and there is no sound, and no desktop, to look for.
        env={
            **os.environ,
            **card.environment,
            "HOME": str(profile),
            "MOZ_DISABLE_AUTO_SAFE_MODE": "1",
            "MOZ_CRASHREPORTER_DISABLE": "1",
        },
        start_new_session=True,
    )
    try:
        url = await asyncio.wait_for(_address(process), START_S)
        draining = asyncio.create_task(_drain(process))
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(f"{url}/session", max_msg_size=LARGEST_MESSAGE) as socket,
        ):
            browser = Firefox(socket)
            reading = asyncio.create_task(browser.read())
            try:
                await browser.begin()
                yield browser
            finally:
                await socket.close()
                await reading
    finally:
        await _end(process)
        await draining
    strangers = [url for url in browser.requests if re.match(r"(https?|wss?)://(?!127\.0\.0\.1)", url)]
    assert (browser.problems, strangers) == ([], []), f"{browser.problems} {strangers}"


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said: list[str] = []
    while line := (await process.stderr.readline()).decode(errors="replace"):
        said.append(line)
        if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", line):
            return found[1]
    raise BidiError(f"Firefox does not start: {''.join(said[-10:])}")


async def _drain(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    while await process.stderr.read(64 * 1024):
        pass


async def _end(process: asyncio.subprocess.Process) -> None:
    """It and its children, of which it has six."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
