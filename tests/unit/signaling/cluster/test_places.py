"""Who is there, who is gone, and what holds while the state is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import pytest
import pytest_asyncio

from signaling.cluster import places as places_module
from signaling.cluster.memory import MemoryState
from signaling.cluster.places import BEAT_S, GRACE_S, GROUP, TTL_S, Place, Places, new_place_id, place_id_of
from signaling.cluster.state import StateAwayError


class Net(MemoryState):
    """A state that can be cut off, or forget everything, by a clock of the test."""

    def __init__(self) -> None:
        super().__init__(now_s=lambda: self.clock_s)
        self.clock_s = 0.0
        self.is_cut = False

    async def members(self, group: str) -> Mapping[str, bytes]:
        if self.is_cut:
            raise StateAwayError
        return await super().members(group)

    async def leave(self, group: str, member: str) -> None:
        if self.is_cut:
            raise StateAwayError
        await super().leave(group, member)

    async def forget(self) -> None:
        for member in await MemoryState.members(self, GROUP):
            await MemoryState.leave(self, GROUP, member)


@pytest_asyncio.fixture
async def net() -> AsyncIterator[Net]:
    state = Net()
    yield state
    await state.close()


def place_at(net: Net, name: str) -> Places:
    return Places(net, Place(name, "node", f"unix:/{name}"), now_s=lambda: net.clock_s)


async def beat_all(net: Net, *all_places: Places, seconds: float = BEAT_S) -> None:
    for places in all_places:
        await places.beat()
    net.clock_s += seconds


async def test_places_see_each_other_and_their_load(net: Net) -> None:
    load = {"sessions": 0}
    one = Places(net, Place("a", "n1", "unix:/a"), update=lambda own: replace(own, sessions=load["sessions"]))
    other = place_at(net, "b")
    await beat_all(net, one, other)
    assert one.is_alone
    assert [place.place_id for place in other.others()] == ["a"]
    load["sessions"] = 7
    await beat_all(net, one, other)
    assert not one.is_alone
    assert other.find("a") == Place("a", "n1", "unix:/a", sessions=7)
    assert one.find("a") == one.own == other.find("a")
    assert one.find("c") is None


async def test_who_falls_silent_is_gone_after_its_time(net: Net) -> None:
    one, other = place_at(net, "a"), place_at(net, "b")
    gone: list[str] = []
    one.on_gone.append(gone.append)
    await beat_all(net, one, other)
    while net.clock_s < TTL_S:
        await beat_all(net, one)
        assert (one.find("b") is None) == (net.clock_s > TTL_S)
    await beat_all(net, one)
    assert gone == ["b"]
    assert one.is_alone
    await beat_all(net, other, one)  # it was only slow
    assert one.find("b") is not None


async def test_who_leaves_is_gone_at_the_next_look(net: Net) -> None:
    one, other = place_at(net, "a"), place_at(net, "b")
    gone: list[str] = []
    one.on_gone.append(gone.append)
    await beat_all(net, other, one)
    await other.leave()
    await one.beat()
    assert gone == ["b"]


async def test_while_the_state_is_away_the_last_look_holds(net: Net) -> None:
    one, other = place_at(net, "a"), place_at(net, "b")
    gone: list[str] = []
    one.on_gone.append(gone.append)
    await beat_all(net, other, one)
    net.is_cut = True
    await beat_all(net, one, seconds=10 * TTL_S)
    await beat_all(net, one, seconds=3.0)
    assert one.is_away()
    assert one.away_s() == pytest.approx(10 * TTL_S + 3.0)
    assert one.find("b") is not None
    await other.leave()  # is no failure either
    net.is_cut = False
    await one.beat()
    assert not one.is_away()
    assert one.away_s() == 0.0
    assert one.find("b") is not None, "it had no chance yet to come back"
    until_s = net.clock_s + GRACE_S
    while net.clock_s < until_s:
        assert gone == []
        await beat_all(net, one)
    await one.beat()
    assert gone == ["b"], "it had one"


async def test_a_state_that_forgot_everybody_makes_nobody_gone(net: Net) -> None:
    one, other = place_at(net, "a"), place_at(net, "b")
    gone: list[str] = []
    one.on_gone.append(gone.append)
    await beat_all(net, other, one)
    await beat_all(net, other, one)
    await net.forget()  # a Redis without persistence that was started again between two beats
    await beat_all(net, one, other)
    await beat_all(net, one, other, seconds=2 * GRACE_S)
    await beat_all(net, other, one)
    assert gone == []
    assert one.find("b") is not None


async def test_what_is_no_place_is_left_out_and_new_fields_are_ignored(net: Net) -> None:
    await net.join(GROUP, "x", b"\xff{", ttl_s=60.0)
    await net.join(GROUP, "y", b'{"place_id": "y"}', ttl_s=60.0)
    await net.join(GROUP, "z", b'{"place_id": "z", "node": "n", "address": "", "from_later": 1}', ttl_s=60.0)
    one = place_at(net, "a")
    await one.beat()
    assert [place.place_id for place in one.others()] == ["z"]


async def test_one_place_too_many_serves_by_itself(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "PLACES_MAX", 1)
    one, other = place_at(net, "a"), place_at(net, "b")
    for _ in range(2):
        await beat_all(net, one, other)
    assert one.is_alone
    assert not other.is_away()
    await one.leave()
    await other.beat()
    assert other.is_alone, "who has no room still sees who is gone"


async def test_a_callback_that_fails_keeps_nobody_from_hearing(net: Net) -> None:
    one, other = place_at(net, "a"), place_at(net, "b")
    gone: list[str] = []

    def fails(_: str) -> None:
        raise RuntimeError("of a test")

    one.on_gone += [fails, gone.append]
    await beat_all(net, other, one)
    await other.leave()
    await one.beat()
    assert gone == ["b"]


async def test_it_beats_until_it_is_cancelled(net: Net, monkeypatch: pytest.MonkeyPatch, no_leaked_tasks: None) -> None:
    monkeypatch.setattr(places_module, "BEAT_S", 0.01)
    one, other = place_at(net, "a"), place_at(net, "b")
    beating = [asyncio.create_task(places.run()) for places in (one, other)]
    async with asyncio.timeout(10.0):
        while one.is_alone or other.is_alone:
            await asyncio.sleep(0.01)
    for task in beating:
        task.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*beating, return_exceptions=True)
    )


def test_a_secret_names_its_place() -> None:
    place_id = new_place_id()
    assert place_id_of(f"{place_id}.s3cret_-") == place_id
    assert new_place_id() != place_id
    for none in ("s3cret", "", ".s3cret", "../etc.s3cret", "ABCDEFGH.x", "abcdefg1.x", "abcdefghi.x"):
        assert place_id_of(none) == ""
