"""How many sessions a key has over all processes: what is counted, given back, kept and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from mediaserver.settings import StateAway
from signaling.auth.principal import LOCAL, KeyLimits, Principal, Scope
from signaling.cluster.leases import RENEW_S, TTL_S, Leases
from signaling.cluster.memory import MemoryState
from signaling.cluster.state import StateAwayError
from signaling.problems import LimitError
from tests.unit.signaling.cluster.state_kinds import StateKit


def principal(key: str = "a", **limits: float) -> Principal:
    return Principal("acme", key, frozenset({Scope.STREAM}), KeyLimits.model_validate(limits))


class Net(MemoryState):
    """A state that can be cut off, by a clock of the test, which counts what it is asked."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.is_cut = False
        self.joins = 0
        super().__init__(now_s=lambda: self.now_s)

    async def join(self, group: str, member: str, value: bytes, *, ttl_s: float, limit: int | None = None) -> bool:
        await self._reach()
        self.joins += 1
        return await super().join(group, member, value, ttl_s=ttl_s, limit=limit)

    async def leave(self, group: str, member: str) -> None:
        await self._reach()
        await super().leave(group, member)

    async def draw(self, bucket: str, *, per_minute: int) -> float:
        await self._reach()
        return await super().draw(bucket, per_minute=per_minute)

    async def put_back(self, bucket: str, *, per_minute: int) -> None:
        await self._reach()
        await super().put_back(bucket, per_minute=per_minute)

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.is_cut:
            raise StateAwayError

    def leases(self, *, when_away: StateAway = StateAway.REFUSE, is_away: Callable[[], bool] = lambda: False) -> Leases:
        return Leases(self, when_away=when_away, is_away=is_away, now_s=lambda: self.now_s)


async def refused(leases: Leases, who: Principal) -> LimitError:
    with pytest.raises(LimitError) as refusal:
        await leases.take(who)
    return refusal.value


async def test_two_processes_share_what_a_key_may_and_not_twice_as_much(kit: StateKit) -> None:
    processes, who = [Leases(kit.one), Leases(kit.other)], principal(f"k{id(kit):x}", sessions=3)
    outcomes = await asyncio.gather(*(processes[i % 2].take(who) for i in range(10)), return_exceptions=True)
    taken = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(taken) == 3
    assert {outcome.code for outcome in outcomes if isinstance(outcome, LimitError)} == {"TOO_MANY_SESSIONS"}
    for lease in taken:
        assert lease is not None
        lease.hold()
    taken[0].release()
    await taken[0].leases.renew()
    assert await processes[1].take(who) is not None
    assert (await refused(processes[0], who)).retry_after_s > 0


async def test_two_processes_share_a_keys_minute(kit: StateKit) -> None:
    processes, who = [Leases(kit.one), Leases(kit.other)], principal(f"m{id(kit):x}", sessions_per_minute=4)
    for i in range(4):
        assert await processes[i % 2].take(who) is not None
    refusal = await refused(processes[0], who)
    assert refusal.code == "TOO_MANY_NEW_SESSIONS"
    assert 1 <= refusal.retry_after_s <= 15


async def test_who_is_not_limited_has_no_lease() -> None:
    net = Net()
    net.is_cut = True  # and nobody is asked
    assert await net.leases().take(LOCAL) is None
    assert await net.leases().take(principal(session_s=5.0)) is None


async def test_what_no_session_took_is_given_back_with_its_share_of_the_minute() -> None:
    net, who = Net(), principal(sessions=1, sessions_per_minute=2)
    leases = net.leases()
    for _ in range(10):
        lease = await leases.take(who)
        assert lease is not None
        await leases.settle(lease)
        assert not lease.is_open
    lease = await leases.take(who)
    assert lease is not None
    lease.hold()
    await leases.settle(lease)
    assert (await refused(leases, who)).code == "TOO_MANY_SESSIONS"


async def test_who_has_used_up_the_minute_takes_no_place() -> None:
    net, who = Net(), principal(sessions=5, sessions_per_minute=1)
    leases = net.leases()
    assert await leases.take(who) is not None
    for _ in range(10):
        assert (await refused(leases, who)).code == "TOO_MANY_NEW_SESSIONS"
    assert len(await net.members("sessions:a")) == 1


async def test_one_that_has_just_ended_makes_room_at_once() -> None:
    net, who = Net(), principal(sessions=1)
    leases = net.leases()
    for _ in range(5):
        lease = await leases.take(who)
        assert lease is not None
        lease.hold()
        lease.release()  # and the background has not run yet


async def test_leases_are_renewed_while_their_sessions_live_and_expire_with_the_process() -> None:
    net, who = Net(), principal(sessions=1)
    leases, other = net.leases(), net.leases()
    lease = await leases.take(who)
    assert lease is not None
    lease.hold()
    for _ in range(int(3 * TTL_S)):
        net.now_s += 1.0
        await leases.renew()
    assert (await refused(other, who)).code == "TOO_MANY_SESSIONS"
    assert net.joins <= 3 * TTL_S / RENEW_S + 3, "no oftener than it must"
    net.now_s += TTL_S  # killed
    assert await other.take(who) is not None


async def test_while_the_state_is_away_sessions_go_on_and_count_again_when_it_is_back() -> None:
    net, who = Net(), principal(sessions=2)
    leases = net.leases()
    held = [await leases.take(who) for _ in range(2)]
    for lease in held:
        assert lease is not None
        lease.hold()
    net.is_cut = True
    net.now_s += 2 * TTL_S
    with pytest.raises(StateAwayError):
        await leases.renew()
    with pytest.raises(StateAwayError):
        await leases.take(who)
    held[0].release()  # type: ignore[union-attr]
    net.is_cut = False
    await leases.renew()
    assert len(await net.members("sessions:a")) == 1
    assert await leases.take(who) is not None
    await refused(leases, who)


async def test_a_call_that_failed_may_have_been_counted_and_is_taken_back() -> None:
    class Deaf(Net):
        async def join(self, group: str, member: str, value: bytes, *, ttl_s: float, limit: int | None = None) -> bool:
            await super().join(group, member, value, ttl_s=ttl_s, limit=limit)
            raise StateAwayError

    net, who = Deaf(), principal(sessions=1)
    leases = net.leases()
    with pytest.raises(StateAwayError):
        await leases.take(who)
    await leases.renew()
    assert await net.members("sessions:a") == {}


async def test_a_client_that_hangs_up_meanwhile_leaves_nothing() -> None:
    net, who = Net(), principal(sessions=1)
    leases = net.leases()
    taking = asyncio.create_task(leases.take(who))
    await asyncio.sleep(0)
    taking.cancel()
    with suppress(asyncio.CancelledError):
        await taking
    await leases.renew()
    assert await net.members("sessions:a") == {}


async def test_by_setting_each_process_counts_by_itself_while_the_state_is_away() -> None:
    net, who = Net(), principal(sessions=1)
    net.is_cut = True
    assert await net.leases(when_away=StateAway.SERVE).take(who) is None
    asked = net.leases(when_away=StateAway.SERVE, is_away=lambda: True)
    assert await asked.take(LOCAL) is None
    with pytest.raises(StateAwayError):
        await net.leases(is_away=lambda: True).take(LOCAL)  # nobody is let in where nobody can be taken up elsewhere


async def test_a_session_that_goes_on_here_counts_and_is_not_refused() -> None:
    net, who = Net(), principal(sessions=1)
    leases = net.leases()
    for _ in range(2):
        lease = leases.resumed(who)
        assert lease is not None
        lease.hold()
    await leases.renew()
    assert len(await net.members("sessions:a")) == 2
    await refused(net.leases(), who)
    assert leases.resumed(LOCAL) is None


async def test_leases_that_ended_while_the_state_is_away_are_bounded() -> None:
    net, who = Net(), principal(sessions=100_000)
    leases = net.leases()
    for _ in range(300):
        lease = leases.resumed(who)
        assert lease is not None
        lease.hold()
        lease.release()
        net.now_s += 1.0
    assert len(leases._over) <= TTL_S + 1


async def test_it_works_in_the_background_until_cancelled(no_leaked_tasks: None) -> None:
    net, who = Net(), principal(sessions=1)
    leases = net.leases()
    working = asyncio.create_task(leases.run())
    lease = await leases.take(who)
    assert lease is not None
    lease.hold()
    lease.release()
    async with asyncio.timeout(10.0):
        while await net.members("sessions:a"):
            await asyncio.sleep(0.01)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
