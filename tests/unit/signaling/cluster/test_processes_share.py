"""Two applications on one state: what a key may, tokens, secrets and revocations hold for both together."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio
from front_door import OFFER, SDP, FakePeer, Node, StartNode

from mediaserver.errors import MediaError
from signaling.app import ACCOUNTS, REGISTRY, SHARED
from signaling.auth import keys, revocations
from signaling.auth.keys import NewKey
from signaling.auth.principal import ANYBODY, KeyLimits, Scope, TokenKind
from signaling.cluster.memory import MemoryState
from signaling.cluster.redis_state import RedisState
from signaling.cluster.redis_url import parse_redis_url
from signaling.cluster.state import State, StateAwayError
from tests.redis_servers import redis_server
from tests.unit.signaling.cluster.state_kinds import StateKit

TOKEN_SECRET = "t" * 32

over_both = pytest.mark.parametrize(
    "kit",
    ["memory", pytest.param("redis", marks=pytest.mark.needs("redis-server", "redis-cli"))],
    indirect=True,
)
"""All kinds promise the same (`test_state_contract.py`): one that answers at once, and one over a wire."""


def bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


async def new_key(node: Node, **limits: float) -> str:
    made = NewKey("x", "acme", limits=KeyLimits.model_validate(limits))
    return (await node.app[ACCOUNTS].keys.create(made))[1]


async def call(node: Node, value: str) -> int:
    async with node.client.post("/whip", data=OFFER, headers={**SDP, **bearer(value)}) as response:
        return response.status


async def pair(
    start_node: StartNode, one: State, other: State, data_dir: Path, **settings: object
) -> tuple[Node, Node]:
    both = [
        await start_node(state=state, data_dir=data_dir, token_secret=TOKEN_SECRET, **settings)
        for state in (one, other)
    ]
    return both[0], both[1]


@pytest_asyncio.fixture
async def nodes(start_node: StartNode, kit: StateKit, tmp_path: Path) -> tuple[Node, Node]:
    """Two servers over each kind of state."""
    return await pair(start_node, kit.one, kit.other, tmp_path / "data")


@over_both
async def test_a_key_for_n_sessions_has_n_over_two_processes(nodes: tuple[Node, Node]) -> None:
    key = await new_key(nodes[0], sessions=3)
    statuses = await asyncio.gather(*(call(nodes[i % 2], key) for i in range(10)))
    assert sorted(statuses) == [201] * 3 + [429] * 7
    one = next(node for node in nodes if node.peers)
    peer = one.peers[0]
    assert peer.on_ended is not None
    peer.on_ended("of a test")
    async with asyncio.timeout(10.0):
        while await call(nodes[1] if one is nodes[0] else nodes[0], key) != 201:
            await asyncio.sleep(0.01)
    assert await call(one, key) == 429
    assert sum(len(node.app[REGISTRY]) for node in nodes) == 3


@over_both
async def test_a_keys_minute_is_shared_and_refusals_use_nothing_of_it(nodes: tuple[Node, Node]) -> None:
    key = await new_key(nodes[0], sessions_per_minute=2)
    for node in nodes:
        for _ in range(3):
            async with node.client.post("/whip", data="no offer", headers=bearer(key)) as response:
                assert response.status == 415
    assert [await call(node, key) for node in (*nodes, *nodes)] == [201, 201, 429, 429]
    async with nodes[0].client.post("/whip", data=OFFER, headers={**SDP, **bearer(key)}) as response:
        assert (await response.json())["error"]["code"] == "TOO_MANY_NEW_SESSIONS"
        assert 1 <= int(response.headers["Retry-After"]) <= 30
    assert nodes[0].refused("TOO_MANY_NEW_SESSIONS") == 2


@over_both
async def test_a_session_that_could_not_be_set_up_holds_no_place(
    start_node: StartNode, kit: StateKit, tmp_path: Path
) -> None:
    def fails(peer: FakePeer) -> None:
        peer.accept_error = MediaError("NO_AUDIO", "No audio.", "Offer some.")

    node = await start_node(state=kit.one, data_dir=tmp_path / "data", prepare=fails)
    key = await new_key(node, sessions=1)
    for _ in range(4):
        assert await call(node, key) == 422


@over_both
async def test_a_join_token_is_good_once_in_all_processes(nodes: tuple[Node, Node]) -> None:
    tokens = nodes[0].app[ACCOUNTS].tokens
    token = tokens.issue(ANYBODY, kind=TokenKind.JOIN, ttl_s=60)  # of a server without keys, so in the state alone
    assert sorted(await asyncio.gather(*(call(node, token) for node in nodes))) == [201, 401]
    assert await call(nodes[1], token) == 401


@over_both
async def test_a_join_token_that_was_refused_a_session_is_good_still(nodes: tuple[Node, Node]) -> None:
    token = nodes[0].app[ACCOUNTS].tokens.issue(ANYBODY, kind=TokenKind.JOIN, ttl_s=60)
    async with nodes[0].client.post("/whip", data="no offer", headers=bearer(token)) as response:
        assert response.status == 415
    assert await call(nodes[1], token) == 201


async def test_while_nobody_knows_whether_a_token_was_used_it_is_not_taken(
    start_node: StartNode, tmp_path: Path
) -> None:
    state = MemoryState()
    node = await start_node(state=state, data_dir=tmp_path / "data", state_away="serve")
    token = node.app[ACCOUNTS].tokens.issue(ANYBODY, kind=TokenKind.JOIN, ttl_s=60)
    await state.close()
    assert await call(node, token) == 503
    async with node.client.post("/v1/realtime/calls", data="", headers={**SDP, **bearer("ek_x")}) as response:
        assert response.status == 503
        assert (await response.json())["error"]["code"] == "state_away"
    assert node.refused("STATE_AWAY") == 2
    assert node.peers == []


@over_both
async def test_a_token_stays_good_where_its_key_has_no_room(nodes: tuple[Node, Node]) -> None:
    row, key = (
        await nodes[0]
        .app[ACCOUNTS]
        .keys.create(NewKey("x", "acme", scopes=(Scope.STREAM,), limits=KeyLimits(sessions=1)))
    )
    principal = await nodes[0].app[ACCOUNTS].keys.principal_of_id(row.id)
    assert principal is not None
    token = nodes[0].app[ACCOUNTS].tokens.issue(principal, kind=TokenKind.JOIN, ttl_s=60)
    assert await call(nodes[0], key) == 201
    assert await call(nodes[1], token) == 429
    end = nodes[0].peers[0].on_ended
    assert end is not None
    end("of a test")
    async with asyncio.timeout(10.0):
        while (status := await call(nodes[1], token)) == 429:
            await asyncio.sleep(0.01)
    assert status == 201


@over_both
async def test_a_client_secret_opens_sessions_in_all_processes(nodes: tuple[Node, Node]) -> None:
    key = await new_key(nodes[0])
    async with nodes[0].client.post("/v1/realtime/client_secrets", headers=bearer(key), json={}) as response:
        secret = (await response.json())["value"]
    for node, value, status in [(nodes[1], secret, 400), (nodes[1], "ek_unknown", 401), (nodes[0], secret, 400)]:
        async with node.client.post("/v1/realtime/calls", data="", headers={**SDP, **bearer(value)}) as response:
            assert response.status == status  # it came in, and what it sent is no offer


@over_both
async def test_a_key_that_is_revoked_ends_in_all_processes_at_once(
    start_node: StartNode, kit: StateKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "FRESH_S", 600.0)  # nobody finds out in the database
    monkeypatch.setattr(revocations, "LOOK_PERIOD_S", 600.0)
    nodes = await pair(start_node, kit.one, kit.other, tmp_path / "data")
    row, key = await nodes[0].app[ACCOUNTS].keys.create(NewKey("x", "acme"))
    assert await call(nodes[1], key) == 201
    assert len(nodes[1].app[REGISTRY]) == 1
    async with asyncio.timeout(30.0):
        news = nodes[1].app[SHARED].news
        assert news is not None
        await news.listens.wait()
        await nodes[0].app[ACCOUNTS].keys.revoke(row.id)
        while await call(nodes[1], key) != 401 or len(nodes[1].app[REGISTRY]):
            await asyncio.sleep(0.01)
    assert nodes[1].peers[0].closed == ["key_ended"]


@pytest.mark.needs("redis-server", "redis-cli")
@pytest.mark.parametrize("way", ["refuse", "serve"])
async def test_redis_goes_and_comes_back(start_node: StartNode, tmp_path: Path, way: str) -> None:
    with redis_server() as server:
        states = [RedisState(parse_redis_url(server.url)) for _ in range(2)]
        nodes = await pair(start_node, *states, tmp_path / "data", state_away=way)
        key = await new_key(nodes[0], sessions=2)
        assert await call(nodes[0], key) == 201
        server.stop()
        async with asyncio.timeout(20.0):
            if way == "refuse":
                for node in nodes:
                    async with node.client.post("/whip", data=OFFER, headers={**SDP, **bearer(key)}) as response:
                        assert response.status == 503
                        assert (await response.json())["error"]["code"] == "STATE_AWAY"
                        assert int(response.headers["Retry-After"]) > 0
                    assert node.refused("STATE_AWAY") == 1
            else:
                assert [await call(node, key) for node in (*nodes, *nodes)] == [201, 201, 429, 201]
        assert [len(node.app[REGISTRY]) for node in nodes] == ([1, 0] if way == "refuse" else [2, 2])
        assert all(not peer.closed for node in nodes for peer in node.peers)
        server.start()  # it has forgotten everything
        group = f"sessions:{key.split('_')[1]}"
        living = 1 if way == "refuse" else 4
        for node in nodes:
            for lease in list(node.app[SHARED].leases._held):
                node.app[SHARED].leases._held[lease] = 0.0  # due: not in a quarter of a minute
        async with asyncio.timeout(30.0):
            while True:
                with suppress(StateAwayError):
                    if len(await states[0].members(group)) == living:
                        break
                await asyncio.sleep(0.05)
        if way == "serve":
            assert [await call(node, key) for node in nodes] == [429, 429]
        else:
            assert [await call(node, key) for node in (nodes[1], nodes[0])] == [201, 429]
        for node in nodes:
            await node.client.close()
        for state in states:
            await state.close()
