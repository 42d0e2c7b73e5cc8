"""How many sessions a key may have."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from front_door import OFFER, SDP, StartNode

from signaling.app import ACCOUNTS, REGISTRY
from signaling.auth.keys import NewKey
from signaling.auth.limiter import Limiter
from signaling.auth.principal import LOCAL, KeyLimits, Principal, Scope
from signaling.problems import LimitError


def principal(key: str = "a", **limits: float) -> Principal:
    return Principal("acme", key, frozenset({Scope.STREAM}), KeyLimits.model_validate(limits))


def refusal(limiter: Limiter, who: Principal, now_s: float) -> LimitError:
    with pytest.raises(LimitError) as refused:
        limiter.check(who, now_s=now_s)
    return refused.value


def test_as_many_at_once_as_the_key_may() -> None:
    limiter, who = Limiter(), principal(sessions=2)
    for _ in range(2):
        limiter.check(who, now_s=0)
        limiter.opened(who, now_s=0)
    assert refusal(limiter, who, 0).code == "TOO_MANY_SESSIONS"
    limiter.check(principal("b", sessions=2), now_s=0)
    limiter.closed(who)
    limiter.check(who, now_s=0)


def test_as_many_in_a_minute_and_the_time_to_wait_is_the_truth() -> None:
    limiter, who = Limiter(), principal(sessions_per_minute=4)
    for _ in range(4):
        limiter.check(who, now_s=100)
        limiter.opened(who, now_s=100)
    refused = refusal(limiter, who, 101)
    assert (refused.code, refused.retry_after_s) == ("TOO_MANY_NEW_SESSIONS", 14)
    refusal(limiter, who, 101 + refused.retry_after_s - 0.5)
    limiter.check(who, now_s=101 + refused.retry_after_s)


def test_one_that_another_process_had_is_no_new_one() -> None:
    limiter, who = Limiter(), principal(sessions=2, sessions_per_minute=1)
    limiter.opened(who, now_s=100, is_new=False)
    limiter.check(who, now_s=100)
    limiter.opened(who, now_s=100)
    limiter.closed(who)
    assert refusal(limiter, who, 100).code == "TOO_MANY_NEW_SESSIONS"


def test_a_minute_of_rest_saves_up_no_more_than_a_minutes_sessions() -> None:
    limiter, who = Limiter(), principal(sessions_per_minute=2)
    limiter.opened(who, now_s=0)
    for _ in range(2):
        limiter.check(who, now_s=10_000)
        limiter.opened(who, now_s=10_000)
    refusal(limiter, who, 10_000)


def test_who_has_no_key_is_not_counted() -> None:
    limiter = Limiter()
    limiter.check(LOCAL, now_s=0)
    limiter.opened(LOCAL, now_s=0)
    limiter.closed(LOCAL)


async def test_the_door_says_429_and_when(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(data_dir=tmp_path / "data")
    limits = KeyLimits(sessions=1, session_s=0.2)
    _, key = await node.app[ACCOUNTS].keys.create(NewKey("x", "acme", limits=limits))
    headers = {**SDP, "Authorization": f"Bearer {key}"}
    assert (await node.client.post("/whip", data=OFFER, headers=headers)).status == 201
    async with node.client.post("/whip", data=OFFER, headers=headers) as response:
        assert response.status == 429
        assert int(response.headers["Retry-After"]) > 0
        assert (await response.json())["error"]["code"] == "TOO_MANY_SESSIONS"
    assert len(node.peers) == 1
    async with asyncio.timeout(5):
        while len(node.app[REGISTRY]):
            await asyncio.sleep(0.02)
    assert node.peers[0].closed == ["session_max"]
    assert (await node.client.post("/whip", data=OFFER, headers=headers)).status == 201
