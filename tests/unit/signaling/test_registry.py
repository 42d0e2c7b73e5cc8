"""Sessions come in while there is room, and leave once, whoever ends them."""

from __future__ import annotations

import asyncio

import pytest
from front_door import FakePeer

from mediaserver.errors import CapacityError
from mediaserver.metrics import Metrics
from mediaserver.session_config import SessionConfig
from signaling import registry as registry_module
from signaling.answering import channels_of
from signaling.registry import CLOSINGS_EACH_TURN, Registry
from tests.loop_turns import LoopTurns


def fake_peer(name: str = "s_1") -> FakePeer:
    return FakePeer(name, SessionConfig.model_validate({}))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def registry(metrics: Metrics) -> Registry:
    return Registry(max_sessions=2, metrics=metrics)


def ended(metrics: Metrics, reason: str) -> float:
    labels = {"door": "whip", "reason": reason}
    return metrics.registry.get_sample_value("voiceforge_sessions_ended_total", labels) or 0.0


async def test_a_session_is_found_by_its_secret_alone(registry: Registry) -> None:
    live = registry.add("s_1", fake_peer(), door="whip")
    assert registry.find(live.secret) is live
    assert registry.find("s_1") is None


async def test_the_secret_is_not_in_what_is_logged_of_a_session(registry: Registry) -> None:
    live = registry.add("s_1", fake_peer(), door="whip")
    assert live.secret not in repr(live)


async def test_one_more_than_fits_is_refused(registry: Registry) -> None:
    for name in ("s_1", "s_2"):
        registry.add(name, fake_peer(name), door="whip")
    with pytest.raises(CapacityError) as caught:
        registry.add("s_3", fake_peer("s_3"), door="whip")
    assert caught.value.code == "SERVER_FULL"
    assert len(registry) == 2


async def test_each_channel_of_a_session_takes_a_place(metrics: Metrics) -> None:
    registry = Registry(max_sessions=4, metrics=metrics)
    two = registry.add("s_1", fake_peer("s_1"), door="whip", channels=2)
    with pytest.raises(CapacityError) as caught:
        registry.add("s_2", fake_peer("s_2"), door="whip", channels=3)
    assert caught.value.code == "SERVER_FULL"
    assert "3 channels, and 2 of this server's 4" in caught.value.message
    registry.add("s_3", fake_peer("s_3"), door="whip", channels=2)
    with pytest.raises(CapacityError):
        registry.require_room()
    await registry.close(two, "client", deadline_s=1)
    assert registry.channels == 2
    registry.require_room(2)


@pytest.mark.parametrize(
    ("offer", "is_stereo", "channels"),
    [
        ("", False, 1),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", False, 1),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", True, 2),
        ("v=0\r\n" + "m=audio 9 X 111\r\na=x\r\n" * 3 + "m=audio 0 X 111\r\nm=video 9 X 96\r\n", False, 3),
        ("m=audio 9 X 111\r\n" * 900, True, 8),
    ],
)
def test_how_many_channels_an_offer_may_bring(offer: str, is_stereo: bool, channels: int) -> None:
    assert channels_of(offer, is_stereo=is_stereo) == channels


async def test_a_closing_session_keeps_its_room_but_is_not_found(registry: Registry, metrics: Metrics) -> None:
    peer = fake_peer()
    live = registry.add("s_1", peer, door="whip")
    peer.may_close.clear()
    closing = asyncio.create_task(registry.close(live, "client", deadline_s=1.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert registry.find(live.secret) is None
    assert len(registry) == 1
    peer.may_close.set()
    await closing
    assert len(registry) == 0
    assert ended(metrics, "client") == 1


async def test_two_who_close_wait_for_the_same_end(registry: Registry) -> None:
    peer = fake_peer()
    live = registry.add("s_1", peer, door="whip")
    await asyncio.gather(*(registry.close(live, reason, deadline_s=1.0) for reason in ("client", "shutdown")))
    assert peer.closed == ["client"]


async def test_a_caller_who_is_cancelled_does_not_stop_the_closing(registry: Registry) -> None:
    peer = fake_peer()
    live = registry.add("s_1", peer, door="whip")
    peer.may_close.clear()
    caller = asyncio.create_task(registry.close(live, "client", deadline_s=1.0))
    await asyncio.sleep(0.01)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    peer.may_close.set()
    await registry.close(live, "again", deadline_s=1.0)
    assert peer.closed == ["client"]
    assert len(registry) == 0


async def test_a_peer_that_never_closes_is_left_behind(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "CUT_GRACE_S", 0.05)
    peer = fake_peer()
    live = registry.add("s_1", peer, door="whip")
    peer.may_close.clear()
    await registry.close(live, "client", deadline_s=0.05)
    assert len(registry) == 0


async def test_a_peer_that_ends_by_itself_leaves_once(registry: Registry, metrics: Metrics) -> None:
    peer = fake_peer()
    live = registry.add("s_1", peer, door="whip")
    assert peer.on_ended is not None
    peer.on_ended("timeout")
    peer.on_ended("timeout")
    assert registry.find(live.secret) is None
    assert ended(metrics, "timeout") == 1


async def test_close_all_closes_all_at_once(registry: Registry) -> None:
    peers = [fake_peer(name) for name in ("s_1", "s_2")]
    for peer in peers:
        registry.add(peer.session_id, peer, door="whip")
        peer.may_close.clear()
    peers[0].close_error = RuntimeError("broken")
    closing = asyncio.create_task(registry.close_all("shutdown", deadline_s=1.0))
    await asyncio.sleep(0.01)
    for peer in peers:
        peer.may_close.set()
    await closing
    assert [peer.closed for peer in peers] == [["shutdown"], ["shutdown"]]
    assert len(registry) == 0


async def test_of_those_that_are_closed_at_once_a_few_begin_in_each_turn(metrics: Metrics) -> None:
    registry, turns, begun = Registry(max_sessions=15, metrics=metrics), LoopTurns(), list[float]()

    class NotingPeer(FakePeer):
        async def close(self, reason: str, *, deadline_s: float | None = None) -> None:
            assert deadline_s is not None
            begun.append(deadline_s)
            turns.note("close")
            if len(begun) == 15:
                everybody.set()
            await super().close(reason, deadline_s=deadline_s)

    everybody, may_close = asyncio.Event(), asyncio.Event()
    for number in range(15):
        peer = NotingPeer(f"s_{number}", SessionConfig())
        peer.may_close = may_close  # none waits for the end of another
        registry.add(peer.session_id, peer, door="whip")
    turns.begin()
    closing = asyncio.create_task(registry.close_all("shutdown", deadline_s=60.0))
    await everybody.wait()
    turns.end()
    may_close.set()
    await closing
    assert turns.most("close") <= CLOSINGS_EACH_TURN
    assert begun[-1] < 60.0  # the wait for its turn was part of its deadline
    assert len(registry) == 0


async def test_close_all_of_nothing_is_nothing(registry: Registry) -> None:
    await registry.close_all("shutdown", deadline_s=1.0)
