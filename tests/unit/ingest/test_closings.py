"""Peers that close at once: a few begin in each turn of the event loop, and each keeps its deadline."""

from __future__ import annotations

import asyncio

import pytest
from aiortc import RTCPeerConnection

from mediaserver.ingest import link as link_module
from mediaserver.ingest.ice import IceOptions, close_peer_connection, configure_ice, new_peer_connection
from mediaserver.ingest.peer import CLOSINGS_EACH_TURN, DRAIN_SHARE, Peer, new_closings
from mediaserver.metrics import Metrics
from mediaserver.pace import Pace
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from tests.loop_turns import LoopTurns

PEERS = 15

SLOW_S = 0.05

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")


class SilentSession:
    """One channel that hears nothing, and is noted when it is closed."""

    received_samples = 0
    stream_time_s = concealed_s = 0.0

    def __init__(self, crowd: Crowd) -> None:
        self.config = SessionConfig()
        self._crowd = crowd

    def start(self) -> None:
        pass

    async def close(self, reason: str, *, deadline_s: float) -> None:
        self._crowd.turns.note("session")
        self._crowd.deadlines_s.append(deadline_s)
        if len(self._crowd.deadlines_s) == len(self._crowd.peers):
            self._crowd.all_flush.set()
        await self._crowd.may_end.wait()


class SlowPace(Pace):
    """Everybody waits for so long."""

    async def turn(self) -> None:
        await asyncio.sleep(SLOW_S)


class Crowd:
    """Peers of one process whose offers are answered, and that never connect."""

    def __init__(self, closings: Pace) -> None:
        self.turns = LoopTurns()
        self.deadlines_s: list[float] = []
        self.ended: list[str] = []
        self.all_flush, self.may_end = asyncio.Event(), asyncio.Event()
        self.may_end.set()
        self.peers: list[Peer] = []
        self._closings = closings
        self._metrics = Metrics()

    async def come(self, count: int) -> None:
        offer = await an_offer()
        for number in range(count):
            peer = Peer(
                session_id=f"s{number}",
                settings=Settings(),
                metrics=self._metrics,
                make_session=lambda _sink: SilentSession(self),  # type: ignore[arg-type,return-value]
                closings=self._closings,
            )
            peer.on_ended = self.ended.append
            self.peers.append(peer)
            await peer.accept(offer)

    async def go(self, *, deadline_s: float) -> None:
        """All at once."""
        self.turns.begin()
        await asyncio.gather(*(peer.close("shutdown", deadline_s=deadline_s) for peer in self.peers))
        self.turns.end()


async def an_offer() -> str:
    pc = new_peer_connection()
    pc.addTransceiver("audio", direction="sendonly")
    configure_ice(pc, IceOptions(("127.0.0.1",), None, range(0), 1.0), on_lost=lambda: None)
    await pc.setLocalDescription(await pc.createOffer())
    sdp: str = pc.localDescription.sdp
    await close_peer_connection(pc)
    return sdp


async def test_of_peers_that_close_at_once_a_few_begin_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their connections, too: one batch of the decoder, or one deadline, ends the flushes of all in one moment."""
    crowd = Crowd(new_closings())
    await crowd.come(PEERS)

    async def noted(pc: RTCPeerConnection) -> None:
        crowd.turns.note("connection")
        await close_peer_connection(pc)

    monkeypatch.setattr(link_module, "close_peer_connection", noted)
    crowd.may_end.clear()
    going = asyncio.create_task(crowd.go(deadline_s=60.0))
    await crowd.all_flush.wait()
    crowd.may_end.set()
    await going
    assert crowd.ended == ["shutdown"] * PEERS
    assert len(crowd.turns.noted["session"]) == len(crowd.turns.noted["connection"]) == PEERS
    assert crowd.turns.most("session") <= CLOSINGS_EACH_TURN
    assert crowd.turns.most("connection") <= CLOSINGS_EACH_TURN


async def test_the_last_of_a_crowd_begins_to_flush_before_the_first_connection_closes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crowd = Crowd(new_closings())
    await crowd.come(PEERS)
    flushing: list[int] = []

    async def noted(pc: RTCPeerConnection) -> None:
        flushing.append(len(crowd.deadlines_s))
        await close_peer_connection(pc)

    monkeypatch.setattr(link_module, "close_peer_connection", noted)
    await crowd.go(deadline_s=60.0)
    assert min(flushing) >= PEERS - CLOSINGS_EACH_TURN  # but those that begin in the same turn


async def test_the_wait_for_ones_turn_is_part_of_the_deadline() -> None:
    crowd = Crowd(SlowPace(1))
    await crowd.come(2)
    await crowd.go(deadline_s=1.0)
    assert all(deadline_s <= (1.0 - SLOW_S) * (1.0 - DRAIN_SHARE) for deadline_s in crowd.deadlines_s)


async def test_one_that_has_waited_for_too_long_is_closed_all_the_same() -> None:
    crowd = Crowd(SlowPace(1))
    await crowd.come(2)
    await crowd.go(deadline_s=SLOW_S / 2)
    assert crowd.deadlines_s == [0.0, 0.0]  # the session too: it lets go of the VAD
    assert [peer.describe()["state"] for peer in crowd.peers] == ["closed", "closed"]
    assert crowd.ended == ["shutdown"] * 2
