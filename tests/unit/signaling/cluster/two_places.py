"""Two servers in one process that know each other, each with an internal door."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from front_door import FakeEngine, FakePeer

from mediaserver.metrics import Metrics
from mediaserver.session.tap import Tap
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from signaling.app import ADMISSION, MEMBER, REGISTRY, make_app
from signaling.cluster.membership import Membership
from signaling.cluster.memory import MemoryState
from signaling.cluster.places import Place, new_place_id

SECRET = secrets.token_urlsafe(32)


class One:
    """A server under test."""

    def __init__(self, server: TestServer, peers: list[FakePeer], engine: FakeEngine, metrics: Metrics) -> None:
        self.server = server
        self.peers = peers
        self.engine = engine
        self.metrics = metrics

    @property
    def app(self) -> web.Application:
        return self.server.app

    @property
    def member(self) -> Membership:
        member = self.app[MEMBER]
        assert member is not None
        return member

    @property
    def place_id(self) -> str:
        return self.member.places.own.place_id

    @property
    def sessions(self) -> int:
        return len(self.app[REGISTRY])

    def url(self, path: str) -> str:
        return str(self.server.make_url(path))

    def hops(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("voiceforge_hops_total", {"outcome": outcome}) or 0.0

    def drain(self) -> None:
        self.app[ADMISSION].stop()


class Two:
    """Both, and a client."""

    def __init__(self, first: One, second: One, http: aiohttp.ClientSession) -> None:
        self.first = first
        self.second = second
        self.http = http

    async def look(self) -> None:
        """Have each see the other as it is now."""
        for one in (self.first, self.second, self.first):
            await one.member.tell()


@asynccontextmanager
async def one_place(
    state: MemoryState, folder: Path, number: int, *, add: Callable[[web.Application], None] | None, **settings: Any
) -> AsyncIterator[One]:
    peers: list[FakePeer] = []

    def make_peer(session_id: str, config: SessionConfig, *, taps: Sequence[Tap] = (), **_: Any) -> FakePeer:
        peers.append(FakePeer(session_id, config))
        peers[-1].taps = taps
        return peers[-1]

    engine, metrics = FakeEngine(), Metrics()
    path = folder / f"{number}.sock"
    kept = Settings(**{"shutdown_deadline_s": 1.0, "token_secret": SECRET, "data_dir": folder, **settings})
    place = Place(new_place_id(), "here", f"unix:{path}", max_sessions=kept.max_sessions)
    app = make_app(kept, metrics=metrics, engine=engine, make_peer=make_peer, state=state, place=place)
    if add is not None:
        add(app)
    server = TestServer(app)
    await server.start_server()
    assert server.runner is not None
    await web.UnixSite(server.runner, path).start()
    member = app[MEMBER]
    assert member is not None
    member.hop.listens_at(str(path))
    try:
        yield One(server, peers, engine, metrics)
    finally:
        await server.close()


@asynccontextmanager
async def two_places(
    folder: Path, *, add: Callable[[web.Application], None] | None = None, **settings: Any
) -> AsyncIterator[Two]:
    """Two servers with these settings; `add` gets each application before it starts."""
    state = MemoryState()
    async with (
        one_place(state, folder, 1, add=add, **settings) as first,
        one_place(state, folder, 2, add=add, **settings) as second,
        aiohttp.ClientSession() as http,
    ):
        two = Two(first, second, http)
        await two.look()
        yield two
    await state.close()
