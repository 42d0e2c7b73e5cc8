"""Results that are posted: in order, interims first to go, and an end in time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mediaserver.metrics import Metrics
from mediaserver.outbound.webhooks import Delivery
from mediaserver.session.dialect import Telling
from signaling.outbound import Source
from signaling.routes.deepgram.callbacks import DROPPING, WAITING_MAX, CallbackPost

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")


class Receiver:
    """What takes deliveries, or lets them wait."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.may_take = asyncio.Event()

    async def deliver(self, url: str, body: bytes, **asked: Any) -> Delivery:
        self.asked.append({"url": url, **asked})
        await self.may_take.wait()
        self.taken.append(body.decode())
        return Delivery("d", asked["event"], 1, 200)


def post(receiver: Receiver, metrics: Metrics | None = None) -> CallbackPost:
    return CallbackPost(
        receiver,  # type: ignore[arg-type]
        "http://example.org/hook?secret",
        method="PUT",
        headers={"dg-request-id": "r1"},
        metrics=metrics or Metrics(),
        source=Source.now("r1"),
    )


async def test_messages_arrive_in_order_unsigned_and_by_the_method_asked_for() -> None:
    receiver = Receiver()
    receiver.may_take.set()
    way = post(receiver)
    for n in range(20):
        way.send(Telling(str(n)))
    await way.close()
    assert receiver.taken == [str(n) for n in range(20)]
    assert receiver.asked[0] == {
        "url": "http://example.org/hook?secret",
        "secret": None,
        "event": "deepgram.callback",
        "headers": {"dg-request-id": "r1"},
        "method": "PUT",
    }


async def test_a_receiver_that_does_not_take_loses_interims_first_and_memory_is_bounded() -> None:
    receiver, metrics = Receiver(), Metrics()
    way = post(receiver, metrics)
    way.send(Telling("first"))
    await asyncio.sleep(0)  # under way
    for n in range(WAITING_MAX + 10):
        way.send(Telling(f"interim {n}", droppable=True))
        way.send(Telling(f"final {n}"))
    assert len(way._waiting) == WAITING_MAX
    receiver.may_take.set()
    await way.close()
    interims = [text for text in receiver.taken if text.startswith("interim")]
    assert len(interims) <= DROPPING
    assert receiver.taken[-1] == f"final {WAITING_MAX + 9}"
    assert (metrics.registry.get_sample_value("voiceforge_events_dropped_total") or 0) > WAITING_MAX


async def test_an_end_does_not_wait_for_ever() -> None:
    receiver = Receiver()
    way = post(receiver)
    way.send(Telling("never taken"))
    await way.close(deadline_s=0.01)
    assert receiver.taken == []
