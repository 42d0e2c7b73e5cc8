"""A deletion of a tenant's data drops what its callbacks were still to be told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlalchemy import select

from mediaserver.storage.database import Database
from mediaserver.storage.usage import Usage
from signaling.app import ACCOUNTS, PRIVACY
from signaling.auth.keys import NewKey
from signaling.auth.principal import Scope
from signaling.usage.meter import Meter
from tests.unit.signaling.deepgram.vendors_door import RAW, SECOND, Node, a_second

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")


class Hook:
    """A receiver that is away."""

    def __init__(self, server: TestServer, tried: asyncio.Queue[str]) -> None:
        self.url = str(server.make_url("/hook"))
        self.tried = tried


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    tried: asyncio.Queue[str] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        await tried.put(await request.text())
        return web.Response(status=503, headers={"Retry-After": "600"})

    app = web.Application()
    app.router.add_post("/hook", take)
    async with TestServer(app) as server:
        yield Hook(server, tried)


async def tenant_of(node: Node) -> dict[str, str]:
    """A key of a tenant, by which all that follows is asked."""
    _, value = await node.server.app[ACCOUNTS].keys.create(NewKey("x", "acme", scopes=(Scope.STREAM, Scope.JOBS)))
    return {"Authorization": f"Token {value}"}


async def erased(node: Node) -> dict[str, Any]:
    privacy = node.server.app[PRIVACY]
    request = await privacy.erasures.request("acme", requested_by="x")
    privacy.wake()
    async with asyncio.timeout(60):
        while (row := await privacy.erasures.get(request.id)) is None or row.certificate is None:
            await asyncio.sleep(0.05)
    return dict(row.certificate["statement"]["deleted"])


def callbacks() -> list[str]:
    names = ("deepgram-", "webhook-deepgram")
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith(names)]


async def test_what_a_session_was_to_post_is_dropped_with_it(start: Any, hook: Hook) -> None:
    node: Node = await start(outbound_allow_private=True)
    key = await tenant_of(node)
    async with node.connect({**RAW, "callback": hook.url}, headers=key) as line:
        await line.ws.send_bytes(SECOND)
        await line.say(type="CloseStream")
        async with asyncio.timeout(60):
            await hook.tried.get()
            deleted = await erased(node)
            assert deleted["session_webhooks"] >= 1
            assert await line.rest() == [], "nobody waits for a receiver that is told nothing more"
    assert callbacks() == []


async def test_a_result_that_waits_to_be_posted_again_is_dropped(start: Any, hook: Hook, scratch: Path) -> None:
    node: Node = await start(outbound_allow_private=True)
    key = await tenant_of(node)
    status, _, _ = await node.post({"callback": hook.url}, data=a_second(), headers=key)
    assert status == 200
    async with asyncio.timeout(60):
        await hook.tried.get()
    assert len(callbacks()) == 1
    assert (await erased(node))["session_webhooks"] == 1
    assert callbacks() == []
    assert list(scratch.iterdir()) == []


async def test_a_recording_whose_result_was_to_be_posted_is_transcribed_no_further(
    start: Any, hook: Hook, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node: Node = await start(outbound_allow_private=True)
    key, begun = await tenant_of(node), asyncio.Event()

    async def transcribe(*_: Any, **__: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("mediaserver.jobs.recording.Recorder.transcribe", transcribe)
    status, _, _ = await node.post({"callback": hook.url}, data=a_second(), headers=key)
    assert status == 200
    await begun.wait()
    assert (await erased(node))["session_webhooks"] == 1
    assert callbacks() == []
    assert list(scratch.iterdir()) == []
    assert hook.tried.empty()


async def test_what_a_recording_used_and_is_not_written_down_yet_is_not_written_afterwards(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def waits(_meter: Meter) -> None:
        """As after a database that was busy."""
        await asyncio.Event().wait()

    monkeypatch.setattr(Meter, "run", waits)
    node: Node = await start()
    status, _, _ = await node.post(data=a_second(), headers=await tenant_of(node))
    assert status == 200
    assert (await erased(node))["usage_rows"] == 1
    await node.server.close()  # what is not written down yet is written now
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    async with database.reading() as session:
        assert (await session.scalars(select(Usage.id))).all() == []
    await database.close()
