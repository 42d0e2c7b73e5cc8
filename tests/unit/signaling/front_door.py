"""The front door with fakes behind it: a peer that answers as it is told, and an engine without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from mediaserver.decoder.window import Hypothesis, Window
from mediaserver.errors import MediaError
from mediaserver.metrics import Metrics
from mediaserver.session.eventlog import EventLog
from mediaserver.session.tap import Tap
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from signaling.app import make_app
from signaling.cluster.places import Place
from signaling.cluster.state import State
from signaling.seeing.telemetry import AccessLogger

ANSWER = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
OFFER = "v=0\r\no=- 2 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"
SDP = {"Content-Type": "application/sdp"}
FRAGMENT = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdef012345\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"

Client = TestClient[web.Request, web.Application]
MakeClient = Callable[..., Awaitable[Client]]


class FakePeer:
    """A peer that keeps a diary."""

    def __init__(self, session_id: str, config: SessionConfig) -> None:
        self.session_id = session_id
        self.config = config
        self.on_ended: Callable[[str], None] | None = None
        self.taps: Sequence[Tap] = ()
        self.is_stereo = False
        self.fragments: list[str] = []
        self.closed: list[str] = []
        self.accept_error: BaseException | None = None
        self.candidate_error: Exception | None = None
        self.close_error: Exception | None = None
        self.never_accepts = False
        self.ended = asyncio.Event()
        self.may_close = asyncio.Event()
        self.may_close.set()

    async def accept(self, offer_sdp: str) -> str:
        if self.accept_error is not None:
            raise self.accept_error
        if self.never_accepts:
            await self.ended.wait()
            raise MediaError("PEER_CLOSED", "The peer was closed while it was set up.", "Send a new offer.")
        return ANSWER

    async def add_candidates(self, sdpfrag: str) -> None:
        if self.candidate_error is not None:
            raise self.candidate_error
        self.fragments.append(sdpfrag)

    async def close(self, reason: str, *, deadline_s: float | None = None) -> None:
        await self.may_close.wait()
        self.closed.append(reason)
        self.ended.set()
        if self.close_error is not None:
            raise self.close_error

    def describe(self) -> dict[str, object]:
        return {"state": "connected"}


class FakeEngine:
    """An engine that is there and decodes nothing."""

    def __init__(self) -> None:
        self.ready = True
        self.retry_after_s: int | None = None
        self.model_name = "tiny.en"
        self.languages: tuple[str, ...] = ("en",)

    async def decode(self, window: Window) -> Hypothesis:
        return Hypothesis()

    def withdraw(self, session_id: str) -> None:
        pass

    def overload_retry_after_s(self) -> int | None:
        return self.retry_after_s


class Node:
    """A server under test, and what stands behind its door."""

    def __init__(self, client: Client, peers: list[FakePeer], engine: FakeEngine, metrics: Metrics) -> None:
        self.client = client
        self.peers = peers
        self.engine = engine
        self.metrics = metrics

    @property
    def app(self) -> web.Application:
        return self.client.app

    def refused(self, code: str) -> float:
        return self.metrics.registry.get_sample_value("voiceforge_refused_total", {"code": code}) or 0.0

    def sessions(self) -> float:
        return self.metrics.registry.get_sample_value("voiceforge_sessions", {"door": "whip"}) or 0.0


StartNode = Callable[..., Awaitable[Node]]


@pytest.fixture
def start_node(aiohttp_client: MakeClient, tmp_path: Path) -> StartNode:
    """Starts a server. Keywords are settings, but for `prepare` (called with each peer), `loaded` and those of
    `make_app`."""

    async def start(
        *,
        prepare: Callable[[FakePeer], None] | None = None,
        loaded: bool = True,
        static_dir: Path = tmp_path,
        state: State | None = None,
        place: Place | None = None,
        **settings: Any,
    ) -> Node:
        peers: list[FakePeer] = []

        def make_peer(
            session_id: str,
            config: SessionConfig,
            *,
            log: EventLog,
            taps: Sequence[Tap] = (),
            is_stereo: bool = False,
            door: str = "",
        ) -> FakePeer:
            peer = FakePeer(session_id, config)
            peer.taps, peer.is_stereo = [log, *taps], is_stereo
            if prepare is not None:
                prepare(peer)
            peers.append(peer)
            return peer

        engine, metrics = FakeEngine(), Metrics()
        app = make_app(
            Settings(**{"shutdown_deadline_s": 1.0, **settings}),
            metrics=metrics,
            engine=engine if loaded else None,
            make_peer=make_peer,
            static_dir=static_dir,
            state=state,
            place=place,
        )
        server = TestServer(app)
        await server.start_server(access_log_class=AccessLogger)
        return Node(await aiohttp_client(server), peers, engine, metrics)

    return start


@pytest.fixture
async def node(start_node: StartNode) -> Node:
    """A server with the default settings."""
    return await start_node()
