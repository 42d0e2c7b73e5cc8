"""What every kind of state promises."""

from __future__ import annotations

import asyncio
import random
import secrets

import pytest

from signaling.cluster.state import VALUE_MAX_BYTES
from tests.unit.signaling.cluster.state_kinds import StateKit

LONG_S = 600.0


def any_name() -> str:
    """No two tests meet, also where they share a server."""
    return f"test:{secrets.token_hex(6)}"


async def test_a_value_is_what_was_put_last(kit: StateKit) -> None:
    name = any_name()
    assert await kit.one.get(name) is None
    await kit.one.put(name, b"a", ttl_s=LONG_S)
    await kit.one.put(name, b"b\x00\xff", ttl_s=LONG_S)
    assert await kit.other.get(name) == b"b\x00\xff"
    await kit.other.delete(name)
    await kit.other.delete(name)
    assert await kit.one.get(name) is None


async def test_a_value_may_be_as_large_as_it_says_and_no_larger(kit: StateKit) -> None:
    name, most = any_name(), random.Random(1).randbytes(VALUE_MAX_BYTES)
    await kit.one.put(name, most, ttl_s=LONG_S)
    assert await kit.other.get(name) == most
    with pytest.raises(ValueError, match="too many"):
        await kit.one.put(name, most + b"x", ttl_s=LONG_S)
    assert await kit.other.get(name) == most


async def test_a_value_expires(kit: StateKit) -> None:
    name, kept = any_name(), any_name()
    await kit.one.put(name, b"a", ttl_s=kit.unit_s)
    await kit.one.put(kept, b"a", ttl_s=kit.unit_s)
    await kit.one.put(kept, b"b", ttl_s=LONG_S)
    await kit.pass_s(1.5 * kit.unit_s)
    assert await kit.other.get(name) is None
    assert await kit.other.get(kept) == b"b"


async def test_how_long_a_value_will_stand_is_known(kit: StateKit) -> None:
    name = any_name()
    assert await kit.one.left_s(name) == 0.0
    await kit.one.put(name, b"a", ttl_s=LONG_S)
    assert LONG_S - 5 < await kit.other.left_s(name) <= LONG_S
    await kit.one.put(name, b"a", ttl_s=4 * kit.unit_s)
    await kit.pass_s(kit.unit_s)
    assert 0.0 < await kit.other.left_s(name) <= 3 * kit.unit_s
    await kit.pass_s(4 * kit.unit_s)
    assert await kit.one.left_s(name) == 0.0


async def test_of_several_that_add_one_gets_it(kit: StateKit) -> None:
    name = any_name()
    states = [kit.one, kit.other] * 4
    got = await asyncio.gather(*(state.add(name, b"%d" % i, ttl_s=LONG_S) for i, state in enumerate(states)))
    assert sum(got) == 1
    assert await kit.one.get(name) == b"%d" % got.index(True)


async def test_what_was_added_can_be_added_again_once_it_has_expired(kit: StateKit) -> None:
    name = any_name()
    assert await kit.one.add(name, b"a", ttl_s=kit.unit_s)
    await kit.pass_s(1.5 * kit.unit_s)
    assert await kit.other.add(name, b"b", ttl_s=LONG_S)


async def test_of_several_that_swap_one_gets_it(kit: StateKit) -> None:
    name = any_name()
    await kit.one.put(name, b"old", ttl_s=LONG_S)
    states = [kit.one, kit.other] * 4
    got = await asyncio.gather(*(state.swap(name, b"old", b"%d" % i, ttl_s=LONG_S) for i, state in enumerate(states)))
    assert sum(got) == 1
    assert await kit.one.get(name) == b"%d" % got.index(True)


async def test_what_is_not_there_cannot_be_swapped(kit: StateKit) -> None:
    name = any_name()
    assert not await kit.one.swap(name, b"", b"new", ttl_s=LONG_S)
    await kit.one.put(name, b"old", ttl_s=kit.unit_s)
    await kit.pass_s(1.5 * kit.unit_s)
    assert not await kit.one.swap(name, b"old", b"new", ttl_s=LONG_S)
    assert await kit.one.get(name) is None


async def test_a_swap_sets_a_new_time(kit: StateKit) -> None:
    name = any_name()
    await kit.one.put(name, b"old", ttl_s=LONG_S)
    assert await kit.one.swap(name, b"old", b"new", ttl_s=kit.unit_s)
    await kit.pass_s(1.5 * kit.unit_s)
    assert await kit.one.get(name) is None


async def test_members_are_those_who_joined_and_did_not_leave(kit: StateKit) -> None:
    group = any_name()
    assert await kit.one.members(group) == {}
    assert await kit.one.join(group, "a", b"1", ttl_s=LONG_S)
    assert await kit.other.join(group, "b", b"2", ttl_s=LONG_S)
    assert await kit.one.join(group, "a", b"3", ttl_s=LONG_S)
    assert await kit.other.members(group) == {"a": b"3", "b": b"2"}
    await kit.other.leave(group, "a")
    await kit.other.leave(group, "nobody")
    assert await kit.one.members(group) == {"b": b"2"}


async def test_members_expire_each_by_itself(kit: StateKit) -> None:
    group = any_name()
    await kit.one.join(group, "gone", b"", ttl_s=kit.unit_s)
    await kit.one.join(group, "kept", b"", ttl_s=kit.unit_s)
    await kit.one.join(group, "kept", b"", ttl_s=LONG_S)
    await kit.pass_s(1.5 * kit.unit_s)
    assert await kit.other.members(group) == {"kept": b""}


async def test_a_group_takes_no_more_than_its_limit(kit: StateKit) -> None:
    group = any_name()
    states = [kit.one, kit.other] * 5
    got = await asyncio.gather(
        *(state.join(group, f"m{i}", b"", ttl_s=LONG_S, limit=3) for i, state in enumerate(states))
    )
    assert sum(got) == 3
    inside, outside = f"m{got.index(True)}", f"m{got.index(False)}"
    assert await kit.other.join(group, inside, b"again", ttl_s=LONG_S, limit=3), "a member stays one"
    assert not await kit.other.join(group, outside, b"", ttl_s=LONG_S, limit=3)
    await kit.one.leave(group, inside)
    assert await kit.other.join(group, outside, b"", ttl_s=LONG_S, limit=3)
    assert not await kit.one.join(group, "nobody", b"", ttl_s=LONG_S, limit=0)


async def test_whose_time_is_over_takes_no_place(kit: StateKit) -> None:
    group = any_name()
    assert await kit.one.join(group, "dead", b"", ttl_s=8 * kit.unit_s, limit=1)
    assert not await kit.other.join(group, "next", b"", ttl_s=LONG_S, limit=1)
    await kit.pass_s(9 * kit.unit_s)
    assert await kit.other.join(group, "next", b"", ttl_s=LONG_S, limit=1)
    assert not await kit.one.join(group, "dead", b"", ttl_s=LONG_S, limit=1), "who was away too long asks as others do"


async def test_a_bucket_holds_a_minutes_share(kit: StateKit) -> None:
    bucket = any_name()
    drawn = await asyncio.gather(*(state.draw(bucket, per_minute=4) for state in [kit.one, kit.other] * 4))
    assert sum(wait_s == 0.0 for wait_s in drawn) == 4
    assert all(0.0 < wait_s <= 15.0 for wait_s in drawn if wait_s)


async def drawn_empty(kit: StateKit, bucket: str, per_minute: int) -> tuple[int, float]:
    """How many there were, and how long to wait for the next; a real clock gives some more meanwhile."""
    for number in range(3 * per_minute):
        if wait_s := await kit.one.draw(bucket, per_minute=per_minute):
            return number, wait_s
    raise AssertionError("it has no end")


async def test_a_bucket_fills_evenly_and_no_higher(kit: StateKit) -> None:
    bucket, per_minute = any_name(), 120
    number, wait_s = await drawn_empty(kit, bucket, per_minute)
    assert number >= per_minute
    assert 0.0 < wait_s <= 0.501
    await kit.pass_s(wait_s)
    assert await kit.other.draw(bucket, per_minute=per_minute) == 0.0, "the time it told was true"


async def test_what_was_refused_was_not_drawn(kit: StateKit) -> None:
    bucket, per_minute = any_name(), 120
    await drawn_empty(kit, bucket, per_minute)
    waits_s = [await kit.one.draw(bucket, per_minute=per_minute) for _ in range(20)]
    assert max(waits_s) <= 0.501, "asking in vain does not make it longer"


async def test_what_is_put_back_can_be_drawn_again_and_no_more(kit: StateKit) -> None:
    bucket = any_name()
    await kit.one.put_back(bucket, per_minute=2)
    assert [await kit.one.draw(bucket, per_minute=2) for _ in range(2)] == [0.0, 0.0]
    assert await kit.other.draw(bucket, per_minute=2) > 0.0
    await kit.other.put_back(bucket, per_minute=2)
    assert await kit.one.draw(bucket, per_minute=2) == 0.0
    assert await kit.one.draw(bucket, per_minute=2) > 0.0


async def test_everybody_who_listens_is_told(kit: StateKit) -> None:
    topic = any_name()
    async with kit.one.listen(topic) as first, kit.other.listen(topic) as second:
        await kit.other.publish(any_name(), b"for others")
        await kit.other.publish(topic, b"a\x00\xff")
        await kit.one.publish(topic, b"b")
        for heard in (first, second):
            assert sorted([await anext(heard), await anext(heard)]) == [b"a\x00\xff", b"b"]


async def test_who_came_late_has_missed_it(kit: StateKit) -> None:
    topic = any_name()
    await kit.one.publish(topic, b"early")
    await kit.pass_s(kit.unit_s)  # the nodes of a Cluster tell each other
    async with kit.other.listen(topic) as heard:
        await kit.one.publish(topic, b"late")
        assert await anext(heard) == b"late"


async def test_one_may_come_and_go(kit: StateKit) -> None:
    topic = any_name()
    for turn in range(3):
        async with kit.one.listen(topic) as heard:
            await kit.other.publish(topic, b"%d" % turn)
            while (told := await anext(heard)) != b"%d" % turn:
                assert told == b"%d" % (turn - 1), "it may come late to another node of a Cluster"


async def test_names_of_values_groups_and_buckets_do_not_meet(kit: StateKit) -> None:
    name = any_name()
    await kit.one.put(name, b"value", ttl_s=LONG_S)
    await kit.one.join(name, "member", b"m", ttl_s=LONG_S)
    assert await kit.one.draw(name, per_minute=1) == 0.0
    assert await kit.one.get(name) == b"value"
    assert await kit.one.members(name) == {"member": b"m"}
    assert await kit.one.draw(name, per_minute=1) > 0.0
