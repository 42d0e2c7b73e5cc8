"""Offers are answered a few at a time, in the order in which they came."""

from __future__ import annotations

import asyncio

import pytest
from front_door import OFFER, FakeEngine, FakePeer

from mediaserver.errors import CapacityError
from mediaserver.metrics import Metrics
from mediaserver.session_config import SessionConfig
from signaling.answering import SETUPS_AT_ONCE, Answering
from signaling.limits import Admission
from signaling.registry import Registry

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")

OFFERS = SETUPS_AT_ONCE + 3


class SlowPeer(FakePeer):
    """Answers when it is told to."""

    def __init__(self, session_id: str, begun: list[str], may_answer: asyncio.Event) -> None:
        super().__init__(session_id, SessionConfig.model_validate({}))
        self.begun = begun
        self.may_answer = may_answer

    async def accept(self, offer_sdp: str) -> str:
        self.begun.append(self.session_id)
        await self.may_answer.wait()
        answer: str = await super().accept(offer_sdp)
        return answer


class Crowd:
    """Offers that come at once."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.registry = Registry(max_sessions=OFFERS, metrics=self.metrics)
        self.answering = Answering(registry=self.registry, admission=self.admission())
        self.made: list[str] = []
        self.begun: list[str] = []
        self.may_answer = asyncio.Event()

    def admission(self) -> Admission:
        engine = FakeEngine()
        return Admission(engine=lambda: engine, require_room=self.registry.require_room)

    def peer(self, session_id: str) -> SlowPeer:
        self.made.append(session_id)
        return SlowPeer(session_id, self.begun, self.may_answer)

    def offer(self) -> asyncio.Task[object]:
        return asyncio.create_task(self.answering.open(OFFER, self.peer, door="whip"))


async def some_time() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_offers_wait_their_turn_and_all_are_answered() -> None:
    crowd = Crowd()
    offers = [crowd.offer() for _ in range(OFFERS)]
    await some_time()
    assert crowd.begun == crowd.made[:SETUPS_AT_ONCE]
    assert len(crowd.registry) == OFFERS  # each has its room while it waits
    crowd.may_answer.set()
    await asyncio.gather(*offers)
    assert crowd.begun == crowd.made


async def test_one_that_is_stopped_while_it_waits_is_refused_and_takes_no_turn() -> None:
    crowd = Crowd()
    offers = [crowd.offer() for _ in range(OFFERS)]
    await some_time()
    (waiting,) = (live for live in crowd.registry.sessions() if live.session_id == crowd.made[-1])
    await crowd.registry.close(waiting, "shutdown", deadline_s=1.0)
    crowd.may_answer.set()
    answers = await asyncio.gather(*offers, return_exceptions=True)
    assert isinstance(answers[-1], CapacityError)
    assert crowd.begun == crowd.made[:-1]
    assert not any(isinstance(answer, BaseException) for answer in answers[:-1])


async def test_one_whose_client_goes_away_while_it_waits_leaves_its_turn_to_the_next() -> None:
    crowd = Crowd()
    offers = [crowd.offer() for _ in range(OFFERS)]
    await some_time()
    for offer in offers[:-1]:
        offer.cancel()
    await asyncio.gather(*offers[:-1], return_exceptions=True)
    crowd.may_answer.set()
    await offers[-1]
    assert len(crowd.registry) == 1
