"""The state in memory: its bounds, and what it forgets."""

from __future__ import annotations

import pytest

from signaling.cluster.listening import WAITING_MAX, Listeners
from signaling.cluster.memory import STALE_MIN, MemoryState
from signaling.cluster.state import StateAwayError, StateFullError


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def test_one_too_many_is_refused_and_nothing_is_forgotten_for_it() -> None:
    clock = Clock()
    state = MemoryState(now_s=clock, items_max=3)
    await state.put("value", b"", ttl_s=10.0)
    await state.join("group", "member", b"", ttl_s=20.0)
    await state.draw("bucket", per_minute=1)
    for refused in (
        state.put("more", b"", ttl_s=1.0),
        state.add("more", b"", ttl_s=1.0),
        state.join("group", "more", b"", ttl_s=1.0),
        state.join("more", "more", b"", ttl_s=1.0),
        state.draw("more", per_minute=1),
    ):
        with pytest.raises(StateFullError):
            await refused
    await state.put("value", b"renewed", ttl_s=10.0)
    clock.now_s = 11.0
    await state.put("more", b"", ttl_s=1.0)  # what has expired made room
    assert await state.members("group") == {"member": b""}


async def test_bytes_are_counted_as_they_come_and_go() -> None:
    clock = Clock()
    state = MemoryState(now_s=clock, bytes_max=10)
    await state.put("a", b"12345678", ttl_s=10.0)
    with pytest.raises(StateFullError):
        await state.put("b", b"123", ttl_s=10.0)
    await state.put("a", b"1", ttl_s=5.0)
    await state.join("g", "b", b"123456789", ttl_s=10.0)
    with pytest.raises(StateFullError):
        await state.swap("a", b"1", b"12", ttl_s=10.0)
    await state.leave("g", "b")
    assert await state.swap("a", b"1", b"1234567890", ttl_s=10.0)
    clock.now_s = 10.0
    await state.put("b", b"1234567890", ttl_s=1.0)
    await state.delete("b")
    assert state.size == 0


async def test_renewing_a_thing_for_ever_takes_no_room() -> None:
    clock = Clock()
    state = MemoryState(now_s=clock)
    for _ in range(10 * STALE_MIN):
        clock.now_s += 0.01
        await state.put("a", b"", ttl_s=1e6)
    assert len(state._expiries) <= STALE_MIN + 6


async def test_a_full_bucket_is_forgotten() -> None:
    clock = Clock()
    state = MemoryState(now_s=clock)
    for number in range(100):
        await state.draw(f"key-{number}", per_minute=60)
    clock.now_s = 1.001
    await state.get("anything")
    assert state.size == 0


async def test_after_the_end_everything_is_away() -> None:
    state = MemoryState()
    async with state.listen("topic") as heard:
        await state.publish("topic", b"still heard")
        await state.close()
        assert await anext(heard) == b"still heard"
        with pytest.raises(StateAwayError):
            await anext(heard)
    with pytest.raises(StateAwayError):
        await state.get("a")


async def test_who_listens_too_slowly_is_told_that_it_missed_something() -> None:
    state = MemoryState()
    async with state.listen("topic") as slow, state.listen("topic") as quick:
        for number in range(WAITING_MAX + 1):
            await state.publish("topic", b"%d" % number)
            if number:
                assert await anext(quick) == b"%d" % (number - 1)
        with pytest.raises(StateAwayError):
            await anext(slow)
        assert await anext(quick) == b"%d" % WAITING_MAX


def test_topics_are_told_when_their_first_comes_and_their_last_goes() -> None:
    changed: list[tuple[str, bool]] = []
    listeners = Listeners(lambda topic: changed.append((topic, topic in listeners.topics)))
    with listeners.one("a"), listeners.one("a"):
        assert changed == [("a", True)]
    assert changed == [("a", True), ("a", False)]
