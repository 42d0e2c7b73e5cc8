"""A deletion of a tenant's data where several processes have its sessions, and receivers that are still to be told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from front_door import OFFER, SDP
from pydantic import TypeAdapter
from two_places import One, Two, two_places

from mediaserver.errors import CapacityError
from mediaserver.events import Final
from mediaserver.session.tap import Tap
from signaling.app import ACCOUNTS
from signaling.auth.keys import NewKey
from signaling.auth.principal import Scope
from signaling.cluster.places import GROUP, Place
from signaling.privacy import service
from signaling.privacy.endings import Endings
from signaling.session_webhooks import URL_HEADER

GHOST = Place("aaaaaaaa", "elsewhere", "http://192.0.2.1:1")
"""One that is there and never answers."""


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LOOK_PERIOD_S", 0.7)
    monkeypatch.setattr(service, "OTHERS_S", 30.0)


async def key_of(two: Two, tenant: str) -> dict[str, str]:
    _, value = await two.first.app[ACCOUNTS].keys.create(NewKey("x", tenant, scopes=(Scope.STREAM, Scope.JOBS)))
    return {"Authorization": f"Bearer {value}"}


async def opens(two: Two, one: One, key: dict[str, str], **headers: str) -> None:
    async with two.http.post(one.url("/whip"), data=OFFER, headers={**SDP, **key, **headers}) as response:
        assert response.status == 201


async def erased(two: Two, key: dict[str, str], *, until_s: float = 60) -> dict[str, Any]:
    async with two.http.delete(two.first.url("/api/v1/data"), headers=key) as response:
        location = two.first.url(response.headers["Location"])
    async with asyncio.timeout(until_s):
        while True:
            async with two.http.get(location, headers=key) as response:
                erasure = await response.json()
            if erasure["state"] == "completed":
                statement = erasure["certificate"]["statement"]
                assert statement["deleted"] == erasure["deleted"]
                return dict(statement)
            await asyncio.sleep(0.05)


async def test_a_certificate_waits_for_sessions_of_other_processes_and_counts_them(tmp_path: Path) -> None:
    async with two_places(tmp_path) as two:
        own = await key_of(two, "acme")
        await opens(two, two.first, own)
        for _ in range(2):
            await opens(two, two.second, own)
        said = await erased(two, own, until_s=20)  # not for as long as it may take
        assert (two.first.sessions, two.second.sessions) == (0, 0)
        assert [peer.closed for peer in two.second.peers] == [["data_deleted"]] * 2
        assert said["deleted"]["sessions_ended"] == 3
        assert (said["processes_not_heard"], said["is_complete"]) == (0, True)
        assert said["found_afterwards"]["rows"]["usage_rows"] == 0


async def test_a_process_that_does_not_tell_in_time_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "OTHERS_S", 1.0)
    async with two_places(tmp_path) as two:
        own = await key_of(two, "acme")
        await two.first.member.state.join(GROUP, GHOST.place_id, TypeAdapter(Place).dump_json(GHOST), ttl_s=60)
        await two.look()
        said = await erased(two, own)
        assert (said["processes_not_heard"], said["is_complete"]) == (1, False)
        assert said["not_covered"][0].startswith("1 other processes did not tell in time")


async def test_what_cannot_be_counted_yet_is_counted_later_and_only_then_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, failures = Endings.__init__, [2]
    made: list[Endings] = []

    def with_a_flush_that_fails(endings: Endings, **given: Any) -> None:
        make(endings, **given)
        made.append(endings)
        really = endings.flush

        async def fails_twice_elsewhere() -> None:
            if endings is made[1] and failures[0]:
                failures[0] -= 1
                raise CapacityError("DATABASE_BUSY", "x", "y", retry_after_s=1)
            await really()

        endings.flush = fails_twice_elsewhere

    monkeypatch.setattr(Endings, "__init__", with_a_flush_that_fails)
    async with two_places(tmp_path) as two:
        own = await key_of(two, "acme")
        await opens(two, two.second, own)
        said = await erased(two, own)
        assert failures == [0]
        assert (said["deleted"]["sessions_ended"], said["processes_not_heard"]) == (1, 0)


class Hook:
    """A receiver that refuses what one tenant says, and keeps another's waiting until it may come."""

    def __init__(self) -> None:
        self.has_refused = asyncio.Event()
        self.may_come = asyncio.Event()
        self.got: list[str] = []

    async def take(self, request: web.Request) -> web.Response:
        body = await request.text()
        if "acme" in body:
            self.has_refused.set()
            return web.Response(status=503, headers={"Retry-After": "1"})
        await self.may_come.wait()
        self.got.append(body)
        return web.Response()


def say(tap: Tap, text: str) -> None:
    tap.send(Final(1, text, 1.0, 0.0, 1.0, 1.0, None, None, []), 0, 0)


def deliveries() -> int:
    return len([task for task in asyncio.all_tasks() if task.get_name() == "session-webhooks"])


async def test_what_a_receiver_is_still_to_be_told_is_dropped_in_every_process(tmp_path: Path) -> None:
    hook = Hook()
    app = web.Application()
    app.router.add_post("/hook", hook.take)
    async with TestServer(app) as site, two_places(tmp_path, outbound_allow_private=True) as two:
        receiver = {URL_HEADER: str(site.make_url("/hook"))}
        own, other = await key_of(two, "acme"), await key_of(two, "other")
        for one, key in ((two.first, own), (two.second, own), (two.second, other)):
            await opens(two, one, key, **receiver)
        taps = [tap for one in (two.first, two.second) for peer in one.peers for tap in peer.taps]
        for tap, whose in zip(taps, ("acme", "acme", "other"), strict=True):
            for number in range(3):
                say(tap, f"{whose} {number}")
        await hook.has_refused.wait()
        assert deliveries() == 3
        said = await erased(two, own)
        assert said["deleted"]["session_webhooks"] == 6
        say(taps[1], "acme, after its end")
        assert deliveries() == 1, "of the other tenant"
        hook.may_come.set()
        async with asyncio.timeout(60):
            while len(hook.got) < 3:
                await asyncio.sleep(0.05)
