"""Records of sessions in a shared state: when they are written, who claims them, and what a state that is away does."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest

from mediaserver.errors import CapacityError
from mediaserver.events import Final
from mediaserver.metrics import Metrics
from mediaserver.session.eventlog import Entry, EventLog
from mediaserver.session.resumption import Position
from signaling.auth.principal import ANYBODY, KeyLimits, Principal, Scope, TokenKind
from signaling.cluster.memory import MemoryState
from signaling.cluster.state import VALUE_MAX_BYTES, StateAwayError
from signaling.registry import LiveSession, Registry
from signaling.resume.elsewhere import SEEN_GONE_S, SOON_S, Elsewhere
from signaling.resume.keeper import FINAL_S, GRACE_S, Keeper
from signaling.resume.record import UNWRITTEN_EVENTS, UNWRITTEN_UTTERANCES, Asked, Claim, Owner, Resumption, name_of

WINDOW_S = 20.0


class FakeChannels:
    """Channels that have come as far as they are told."""

    count = 2

    def __init__(self) -> None:
        self.positions = (Position(512, 1, 100, 0), Position(1024, 2, 200, 3))
        self.samples = 2000
        self.seq = 7
        self.is_sealed = False

    def received_samples(self, channel: int) -> int:
        return self.samples


class FakePeer:
    """A peer that could be moved."""

    can_resume = True
    age_s = 3.0

    def __init__(self) -> None:
        self.on_ended: Callable[[str], None] | None = None
        self.channels = FakeChannels()
        self.log = EventLog("s_1", kept_letters=1000)
        self.log.restore([Entry(5, '{"a":1}'), Entry(6, '{"b":2}')], newest=6)
        self.diary: list[str] = []

    def chosen(self) -> dict[str, Any]:
        return {"language": "en"}

    async def prepare_move(self, *, deadline_s: float) -> None:
        self.diary.append("prepare")

    def move(self) -> None:
        self.diary.append(f"move sealed={self.channels.is_sealed}")

    async def close(self, reason: str, *, deadline_s: float | None = None) -> None:
        self.diary.append(reason)

    def describe(self) -> dict[str, object]:
        return {}


class AwayState(MemoryState):
    """A state that may be away."""

    is_away = False

    async def get(self, name: str) -> bytes | None:
        if self.is_away:
            raise StateAwayError
        return await super().get(name)

    async def add(self, name: str, value: bytes, *, ttl_s: float) -> bool:
        if self.is_away:
            raise StateAwayError
        return await super().add(name, value, ttl_s=ttl_s)

    async def swap(self, name: str, expected: bytes, value: bytes, *, ttl_s: float) -> bool:
        if self.is_away:
            raise StateAwayError
        return await super().swap(name, expected, value, ttl_s=ttl_s)


class Rig:
    """A process among others, on a clock that is set by hand."""

    def __init__(self, state: MemoryState | None = None, *, window_s: float = WINDOW_S) -> None:
        self.now_s = 1000.0
        self.state = AwayState(now_s=lambda: self.now_s) if state is None else state
        self.metrics = Metrics()
        self.there: set[str] = set()
        self.has_others = True
        self.registry = Registry(max_sessions=10, metrics=self.metrics)
        self.keeper = Keeper(
            self.state,
            place_id="aaaaaaaa",
            has_others=lambda: self.has_others,
            registry=self.registry,
            window_s=window_s,
            metrics=self.metrics,
        )
        self.elsewhere = self.place("bbbbbbbb")
        self.peer = FakePeer()

    def place(self, place_id: str) -> Elsewhere:
        """Another place, which knows those in `there`."""

        async def look() -> None:
            pass

        return Elsewhere(
            self.state,
            place_id=place_id,
            knows=lambda other: other in self.there,
            look=look,
            window_s=WINDOW_S,
            metrics=self.metrics,
        )

    def add(self) -> LiveSession:
        return self.registry.add("s_1", self.peer, door="websocket")

    def written(self, outcome: str) -> float:
        labels = {"outcome": outcome}
        return self.metrics.registry.get_sample_value("voiceforge_resumptions_total", labels) or 0.0


async def test_what_was_written_is_what_another_one_reads() -> None:
    rig = Rig()
    live = rig.add()
    live.asked["is_stereo"] = "true"
    await rig.keeper.write()
    rig.now_s += 4.0
    found = await rig.elsewhere.look(live.secret)
    assert found is not None
    assert found.away_s == pytest.approx(4.0, abs=0.1)
    record = found.record
    assert (record.session_id, record.door, record.place_id, record.seq) == ("s_1", "websocket", "aaaaaaaa", 7)
    assert record.asked == Asked(config={"language": "en"}, door={"is_stereo": "true"})
    assert record.settled() == rig.peer.channels.positions
    assert record.entries() == [Entry(5, '{"a":1}'), Entry(6, '{"b":2}')]
    assert found.going_on(record.settled()).age_s == pytest.approx(7.0, abs=0.1)
    lively = record.live(4.0)
    assert {position.sample for position in lively} == {-(-(2000 + 4 * 16_000) // 512) * 512}
    assert rig.elsewhere.here(live.secret) is None


@pytest.mark.parametrize("pinned", [None, {"language": "en"}])
def test_an_owner_comes_back_as_it_was(pinned: dict[str, Any] | None) -> None:
    limits = KeyLimits(sessions=3, session_s=60)
    given = Principal("t", "k", frozenset({Scope.STREAM}), limits, pinned=pinned, token=TokenKind.JOIN)
    for principal in (given, ANYBODY):
        owner = Owner.model_validate_json(Owner.of(principal).model_dump_json())
        assert owner.principal() == principal


async def test_it_is_written_when_there_is_news_and_not_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    clock = [100.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock[0])
    rig.add()
    await rig.keeper.write()
    counts = []
    for after_s, change in ((0.1, "final"), (0.2, ""), (1.5, "audio"), (0.6, ""), (4.0, ""), (1.1, "")):
        clock[0] += after_s
        if change == "final":
            rig.peer.channels.positions = (Position(4096, 2, 100, 0), *rig.peer.channels.positions[1:])
        if change == "audio":
            rig.peer.channels.samples += 1
        await rig.keeper.write()
        counts.append(rig.written("written"))
    assert counts == [1, 2, 2, 3, 3, 4]


async def test_a_final_is_written_down_at_once_and_not_twice_in_a_moment() -> None:
    rig = Rig()
    rig.add()
    running = asyncio.create_task(rig.keeper.run())
    try:
        async with asyncio.timeout(5):
            while rig.written("written") < 1:  # of its beginning
                await asyncio.sleep(0.01)
        kept = rig.keeper._kept["s_1"]
        kept.at_s = asyncio.get_running_loop().time() - FINAL_S
        for number in (3, 4, 5):
            rig.peer.channels.positions = (Position(512 * number, number), *rig.peer.channels.positions[1:])
            rig.peer.log.send(Final(number, "word", 1.0, 0.0, 1.0, 1.0, "en", 1.0, []), number, 0)
        for _ in range(10):  # no time goes by
            await asyncio.sleep(0)
        assert rig.written("written") == 2
        rig.peer.log.send(Final(6, "word", 1.0, 0.0, 1.0, 1.0, "en", 1.0, []), 6, 0)
        assert not rig.keeper._told
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("is_handed_over", [True, False])
async def test_numbers_that_may_have_been_told_are_given_to_nothing_else(is_handed_over: bool) -> None:
    rig = Rig()
    live = rig.add()
    if is_handed_over:
        assert await rig.keeper.hand_over(live, deadline_s=1.0)
    else:
        await rig.keeper.write()
    found = await rig.elsewhere.look(live.secret)
    assert found is not None
    record = found.record
    settled, lively = record.settled(), record.live(0.0)
    assert [position.utterances for position in settled] == [1, 2]  # it is heard again
    if is_handed_over:
        assert found.going_on(lively).seq == record.seq == 8  # one for the goodbye
        assert [(position.utterances, position.left_out) for position in lively] == [(1, 0), (2, 0)]
    else:
        assert found.going_on(lively).seq == 7 + UNWRITTEN_EVENTS
        assert [position.utterances for position in lively] == [1 + UNWRITTEN_UTTERANCES, 2 + UNWRITTEN_UTTERANCES]
        assert {position.left_out for position in lively} == {UNWRITTEN_UTTERANCES}
    assert found.newest == found.going_on(lively).seq - 1


async def test_an_older_record_never_takes_the_place_of_the_last_one() -> None:
    state = SlowState()
    rig = Rig(state)
    live = rig.add()
    writing = asyncio.create_task(rig.keeper.write())
    await state.is_asked.wait()
    rig.peer.channels.seq = 20
    leaving = asyncio.create_task(rig.keeper.hand_over(live, deadline_s=5.0))
    for _ in range(10):
        await asyncio.sleep(0)
    state.goes_on.set()
    await writing
    assert await leaving
    found = await rig.elsewhere.look(live.secret)
    assert found is not None
    assert (found.record.seq, found.record.is_last) == (21, True)


async def test_of_two_that_claim_one_gets_it_and_the_owner_lets_go() -> None:
    rig = Rig()
    live = rig.add()
    await rig.keeper.write()
    found = await rig.elsewhere.look(live.secret)
    assert found is not None
    assert [await rig.elsewhere.claim(found), await rig.elsewhere.claim(found)] == [True, False]
    with pytest.raises(CapacityError, match="just going on"):
        await rig.elsewhere.look(live.secret)  # it is being set up
    await rig.keeper._write(rig.keeper._kept["s_1"])
    await rig.keeper.close()
    assert rig.written("claimed") == 1
    assert rig.peer.channels.is_sealed
    assert rig.peer.diary == ["moved"]
    assert len(rig.registry) == 0
    rig.elsewhere.ended(found)
    assert await rig.elsewhere.look(live.secret) is None


async def test_one_that_did_not_come_about_is_given_back() -> None:
    rig = Rig()
    live = rig.add()
    await rig.keeper.write()
    found = await rig.elsewhere.look(live.secret)
    assert found is not None
    assert await rig.elsewhere.claim(found)
    rig.now_s += 5.0
    await rig.elsewhere.give_back(dataclasses.replace(found, written_s=found.written_s - 5.0))
    again = await rig.elsewhere.look(live.secret)
    assert again is not None
    assert (again.record, again.value) == (found.record, found.value)
    assert again.away_s == pytest.approx(5.0, abs=0.1)  # it is as old as it was


async def test_an_ended_session_leaves_no_record() -> None:
    rig = Rig()
    live = rig.add()
    await rig.keeper.write()
    await rig.registry.close(live, "client", deadline_s=1.0)
    await rig.keeper.close()
    assert await rig.state.get(name_of(live.secret)) is None


class SlowState(MemoryState):
    """A state that takes its time over the first write, as one that many ask does."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = asyncio.Event()
        self.goes_on = asyncio.Event()

    async def add(self, name: str, value: bytes, *, ttl_s: float) -> bool:
        self.is_asked.set()
        await self.goes_on.wait()
        return await super().add(name, value, ttl_s=ttl_s)


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_session_that_ends_while_it_is_written_down_leaves_no_record(is_first: bool) -> None:
    state = SlowState()
    rig = Rig(state)
    live = rig.add()
    if not is_first:
        state.goes_on.set()
        await rig.keeper.write()
        state.goes_on.clear()
        state.is_asked.clear()
        await state.delete(name_of(live.secret))  # as where its end is told first
        rig.keeper._kept["s_1"].at_s = float("-inf")
    writing = asyncio.create_task(rig.keeper.write())
    await state.is_asked.wait()
    await rig.registry.close(live, "client", deadline_s=1.0)
    state.goes_on.set()
    await writing
    await rig.keeper.close()
    assert await state.get(name_of(live.secret)) is None


async def test_a_record_that_is_too_old_is_none() -> None:
    rig = Rig()
    live = rig.add()
    await rig.keeper.write()
    rig.now_s += WINDOW_S + GRACE_S + 1
    assert await rig.elsewhere.look(live.secret) is None
    assert await rig.elsewhere.look("nobody") is None


async def test_what_cannot_be_read_is_left() -> None:
    rig = Rig()
    await rig.state.put(name_of("x"), b'{"version": 1}', ttl_s=10)
    assert await rig.elsewhere.look("x") is None


async def test_nothing_is_kept_of_sessions_that_wait_for_nobody() -> None:
    rig = Rig()
    rig.peer.can_resume = False
    rig.add()
    await rig.keeper.write()
    assert rig.written("written") == 0
    off = Rig(window_s=0)
    off.add()
    await off.keeper.write()
    assert off.written("written") == 0


async def test_a_state_that_is_away_hurts_nobody_and_is_caught_up_with() -> None:
    rig = Rig()
    live = rig.add()
    assert isinstance(rig.state, AwayState)
    rig.state.is_away = True
    await rig.keeper.write()
    assert rig.written("away") == 1
    assert not await rig.keeper.hand_over(live, deadline_s=1.0)
    assert not rig.peer.channels.is_sealed
    with pytest.raises(StateAwayError):
        await rig.elsewhere.look(live.secret)
    rig.state.is_away = False
    # An answer that was lost: what stands there is ours, and not what we think.
    await rig.state.put(name_of(live.secret), b"{}", ttl_s=10)
    assert await rig.keeper._write(rig.keeper._kept["s_1"])
    assert await rig.elsewhere.look(live.secret) is not None


async def test_sessions_are_handed_over_or_closed() -> None:
    rig = Rig()
    live = rig.add()
    other = FakePeer()
    other.can_resume = False
    rig.registry.add("s_2", other, door="deepgram")

    async def move(session: LiveSession, deadline_s: float) -> bool:
        return await rig.keeper.hand_over(session, deadline_s=deadline_s)

    rig.registry.move = move
    await rig.registry.hand_over_all(deadline_s=2.0)
    assert rig.peer.diary == ["prepare", "move sealed=True", "moved"]
    assert other.diary == ["shutdown"]
    found = await rig.elsewhere.look(live.secret)
    assert found is not None
    assert found.record.seq == 8  # the goodbye was number 7
    assert await rig.elsewhere.claim(found)
    assert len(rig.registry) == 0


async def test_nobody_is_handed_over_to_nobody() -> None:
    rig = Rig()
    rig.has_others = False
    assert not await rig.keeper.hand_over(rig.add(), deadline_s=1.0)
    assert rig.peer.diary == []


def test_a_record_is_never_larger_than_the_state_takes() -> None:
    rig_peer = FakePeer()
    rig_peer.log = EventLog("s_1", kept_letters=10_000_000)
    for number in range(2000):
        rig_peer.log.restore([Entry(number, "語" * 1000)], newest=number)
    record = Resumption.of(
        rig_peer.channels,  # type: ignore[arg-type]
        session_id="s_1",
        door="whip",
        place_id="aaaaaaaa",
        owner=Owner.of(ANYBODY),
        asked=Asked(config={}, door={}),
        log=rig_peer.log,
        age_s=1.0,
        ttl_s=30.0,
    )
    large = record.model_copy(update={"events": record.events * 3})
    for one in (record, large):
        assert len(one.written()) <= VALUE_MAX_BYTES
        kept = Resumption.model_validate_json(one.written()).events
        assert kept[-1][0] == 1999


async def test_a_clock_of_the_machine_that_is_set_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    live = rig.add()
    await rig.keeper.write()
    rig.now_s += 3.0
    for step_s in (3600.0, -3600.0):
        at = time.time() + step_s
        monkeypatch.setattr(time, "time", lambda at=at: at)
        found = await rig.elsewhere.look(live.secret)
        assert found is not None
        assert found.away_s == pytest.approx(3.0, abs=0.1)
        assert found.going_on_live().age_s == pytest.approx(6.0, abs=0.1)


async def refused(elsewhere: Elsewhere, secret: str) -> int:
    """After how many seconds one is to come again."""
    with pytest.raises(CapacityError) as caught:
        await elsewhere.look(secret)
    assert caught.value.code == "SESSION_MOVING"
    return caught.value.retry_after_s


async def test_while_it_is_not_known_who_has_a_session_nobody_is_told_that_it_is_gone() -> None:
    rig = Rig()
    secret, third = "aaaaaaaa.x", rig.place("cccccccc")
    assert await third.look(secret) is None
    rig.there = {"aaaaaaaa"}  # it was there a second ago, and does not answer
    assert await refused(third, secret) == SEEN_GONE_S
    rig.there = {"bbbbbbbb"}
    await rig.state.put(name_of(secret), Claim("bbbbbbbb").written(), ttl_s=9)
    assert await refused(third, secret) == SEEN_GONE_S
    assert await third.goes_on_at(secret) == "bbbbbbbb"
    rig.there = set()
    assert await third.look(secret) is None
    assert await third.goes_on_at(secret) == ""


async def test_one_that_is_being_taken_up_is_no_other_ones() -> None:
    rig = Rig()
    live = rig.add()
    await rig.keeper.write()
    found = await rig.elsewhere.look(live.secret)
    assert found is not None
    assert await rig.elsewhere.claim(found)
    assert await refused(rig.elsewhere, live.secret) == SOON_S
    there = rig.registry.add("s_1", FakePeer(), door="websocket", age_s=1.0)
    rig.elsewhere.taken(found, there)
    assert rig.elsewhere.here(live.secret) is there
    await rig.registry.close(there, "setup_failed", deadline_s=1.0)
    assert await refused(rig.elsewhere, live.secret) == SOON_S  # until it is given back
    await rig.elsewhere.give_back(found)
    assert await rig.elsewhere.look(live.secret) is not None


async def test_all_urls_that_a_session_had_lead_to_it_however_often_it_has_moved() -> None:
    rig = Rig()
    first = rig.add()
    await rig.keeper.write()
    found = await rig.elsewhere.look(first.secret)
    assert found is not None
    assert await rig.elsewhere.claim(found)

    second_rig = Rig(rig.state)
    second_rig.keeper._place_id = "bbbbbbbb"
    second = second_rig.add()
    rig.elsewhere.taken(found, second)
    await second_rig.keeper.write()
    third = rig.place("cccccccc")
    rig.there = {"bbbbbbbb"}
    assert await third.goes_on_at(first.secret) == "bbbbbbbb"
    rig.now_s += WINDOW_S + GRACE_S - 1
    second_rig.keeper._kept["s_1"].at_s = second_rig.keeper._kept["s_1"].pointed_s = float("-inf")
    await second_rig.keeper.write()
    rig.now_s += WINDOW_S  # the claim would have expired, were it not renewed
    assert await third.goes_on_at(first.secret) == "bbbbbbbb"

    rig.there = set()  # and then that one dies
    by_old, by_new = await third.look(first.secret), await third.look(second.secret)
    assert by_old is not None
    assert by_new is not None
    assert (by_old.name, by_old.former) == (by_new.name, (name_of(first.secret), name_of(second.secret)))
    assert await third.claim(by_old)
    last = Rig(rig.state).add()
    third.taken(by_old, last)
    assert third.here(first.secret) is third.here(second.secret) is last


async def test_a_session_that_ends_where_it_went_leaves_nothing_of_its_urls() -> None:
    rig = Rig()
    first = rig.add()
    await rig.keeper.write()
    found = await rig.elsewhere.look(first.secret)
    assert found is not None
    assert await rig.elsewhere.claim(found)
    there = Rig(rig.state)
    second = there.add()
    rig.elsewhere.taken(found, second)
    await there.keeper.write()
    await there.registry.close(second, "client", deadline_s=1.0)
    await there.keeper.close()
    assert await rig.state.get(name_of(first.secret)) is None
    assert await rig.state.get(name_of(second.secret)) is None
    assert rig.elsewhere.here(first.secret) is None


async def test_who_comes_by_an_old_url_to_the_place_that_handed_the_session_over_is_not_told_that_it_is_gone() -> None:
    rig = Rig()
    first = rig.add()
    await rig.keeper.write()
    found = await rig.elsewhere.look(first.secret)
    assert found is not None
    assert await rig.elsewhere.claim(found)
    there = Rig(rig.state)
    there.keeper._place_id = "bbbbbbbb"
    second = there.add()
    rig.elsewhere.taken(found, second)
    await there.keeper.write()
    assert await there.keeper.hand_over(second, deadline_s=1.0)
    await there.registry.close(second, "moved", deadline_s=1.0)
    assert rig.elsewhere.here(first.secret) is None
    for place in (rig.elsewhere, rig.place("cccccccc")):
        left = await place.look(first.secret)
        assert left is not None
        assert left.record.is_last
