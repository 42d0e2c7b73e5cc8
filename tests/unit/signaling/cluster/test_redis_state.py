"""Redis as it goes and comes back, is slow, full, guarded by a password, fails over, or loses a node."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from signaling.cluster import redis_state
from signaling.cluster.redis_scripts import SWEPT
from signaling.cluster.redis_state import RedisState
from signaling.cluster.redis_url import parse_redis_url
from signaling.cluster.state import StateAwayError, StateFullError
from tests.redis_servers import RedisServer, free_port, redis_sentinels, redis_server
from tests.unit.signaling.test_tls import made

pytestmark = [pytest.mark.needs("redis-server", "redis-cli"), pytest.mark.usefixtures("no_leaked_tasks")]

BACK_S = 30.0

MANY_MEMBERS = """
for i = 1, 8999 do  -- more than Lua's stack holds
  redis.call('ZADD', KEYS[1], '9e15', 'm' .. i)
  redis.call('HSET', KEYS[2], 'm' .. i, 'v')
end
"""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """One that a test may stop."""
    with redis_server() as server:
        yield server


@asynccontextmanager
async def state_at(url: str, *, limit_s: float = 2.0) -> AsyncIterator[RedisState]:
    state = RedisState(parse_redis_url(url), limit_s=limit_s)
    yield state
    await state.close()


async def until_back(state: RedisState) -> None:
    async with asyncio.timeout(BACK_S):
        while True:
            try:
                await state.put("back", b"1", ttl_s=60.0)
                return
            except StateAwayError:
                await asyncio.sleep(0.02)


async def test_while_redis_is_away_calls_fail_soon_and_work_again_once_it_is_back(server: RedisServer) -> None:
    async with state_at(server.url) as state:
        await asyncio.gather(*(state.put(f"n{i}", b"1", ttl_s=60.0) for i in range(20)))
        async with state.listen("topic") as heard:
            server.stop()
            async with asyncio.timeout(5.0):
                with pytest.raises(StateAwayError):
                    await anext(heard)
        async with asyncio.timeout(5.0):
            for _ in range(200):
                with pytest.raises(StateAwayError):
                    await state.get("n1")
        server.start()
        await until_back(state)
        answers = await asyncio.gather(*(state.get(f"n{i}") for i in range(20)))
        assert answers == [None] * 20, "connections of before are not used again, and fail nobody"
        assert await state.join("group", "member", b"", ttl_s=60.0), "it has not seen the scripts yet"
        async with state.listen("topic") as heard:
            await state.publish("topic", b"again")
            assert await anext(heard) == b"again"


async def test_while_redis_is_away_it_is_not_asked_by_everybody(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with state_at(server.url) as state:
        await state.get("a")
        server.stop()
        asked = []
        real = state._clients.ready

        async def ready() -> None:
            asked.append(time.monotonic())
            await real()

        monkeypatch.setattr(state._clients, "ready", ready)
        monkeypatch.setattr(redis_state, "FIRST_PAUSE_S", 60.0)
        monkeypatch.setattr(redis_state, "LONGEST_PAUSE_S", 60.0)
        for _ in range(3):
            results = await asyncio.gather(*(state.get("a") for _ in range(100)), return_exceptions=True)
            assert all(isinstance(result, StateAwayError) for result in results)
        assert len(asked) <= 100, "those that were on their way, and none of the next"
        asked.clear()
        state._again_s = 0.0  # the pause is over
        results = await asyncio.gather(*(state.get("a") for _ in range(100)), return_exceptions=True)
        assert all(isinstance(result, StateAwayError) for result in results)
        assert len(asked) == 1, "one finds out for all"


async def test_one_that_answers_nothing_is_away_in_time(server: RedisServer) -> None:
    async with state_at(server.url, limit_s=0.2) as state:
        await state.put("a", b"1", ttl_s=60.0)
        server.freeze()
        with pytest.raises(StateAwayError):
            await state.get("a")
        server.thaw()
        await until_back(state)
        assert await state.get("a") == b"1"


async def test_a_listener_finds_out_that_nothing_comes_any_more(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_state, "PING_AFTER_S", 0.2)
    async with state_at(server.url) as state, state.listen("topic") as heard:
        first = asyncio.create_task(anext(heard))
        await asyncio.sleep(1.0)  # several pings, which are answered
        await state.publish("topic", b"1")
        assert await first == b"1"
        server.freeze()
        async with asyncio.timeout(5.0):
            with pytest.raises(StateAwayError):
                await anext(heard)
        server.thaw()


async def test_one_without_memory_left_says_so(server: RedisServer) -> None:
    async with state_at(server.url) as state:
        await state.put("a", b"1", ttl_s=60.0)
        server.tell("config", "set", "maxmemory", "1")
        for refused in (
            state.put("b", b"1", ttl_s=60.0),
            state.add("b", b"1", ttl_s=60.0),
            state.join("g", "m", b"", ttl_s=60.0),
            state.draw("b", per_minute=1),
        ):
            with pytest.raises(StateFullError):
                await refused
        assert await state.get("a") == b"1"
        server.tell("config", "set", "maxmemory", "0")
        await state.put("b", b"1", ttl_s=60.0)


async def test_the_log_says_why_redis_cannot_be_reached(tmp_path: Path) -> None:
    for url, why in (
        (f"redis://127.0.0.1:{free_port()}/0", "connection refused"),
        (f"unix://{tmp_path}/none.sock", "no such file or directory"),
    ):
        with capture_logs() as lines:
            async with state_at(url) as state:
                with pytest.raises(StateAwayError):
                    await state.get("a")
        assert [line["reason"] for line in lines if line["event"] == "redis away"] == [why]


async def test_a_password_is_needed_where_there_is_one() -> None:
    with redis_server(password="s3cret") as server, capture_logs() as lines:
        async with state_at(server.url) as state:
            await state.put("a", b"1", ttl_s=60.0)
        for url in (server.url.replace("s3cret", "wr0ng"), server.url.replace(":s3cret@", "")):
            async with state_at(url) as state:
                with pytest.raises(StateAwayError):
                    await state.get("a")
    logged = str(lines)
    assert "redis away" in logged
    assert "s3cret" not in logged
    assert "wr0ng" not in logged


async def test_over_tls_only_to_whom_it_trusts(tmp_path: Path) -> None:
    files = made(tmp_path)  # for the name localhost
    certificate, key, port = files["tls_certificate"], files["tls_key"], free_port()
    options = ("--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    with redis_server(*options, "--tls-auth-clients", "no", "--tls-ca-cert-file", str(certificate)):
        async with state_at(f"rediss://localhost:{port}?ssl_ca_certs={certificate}") as state:
            await state.put("a", b"1", ttl_s=60.0)
            assert await state.get("a") == b"1"
            async with state.listen("topic") as heard:
                await state.publish("topic", b"1")
                assert await anext(heard) == b"1"
        for url in (f"rediss://localhost:{port}", f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}"):
            async with state_at(url) as state:
                with pytest.raises(StateAwayError):
                    await state.get("a")


async def test_over_a_unix_socket(tmp_path: Path) -> None:
    with redis_server("--unixsocket", str(tmp_path / "r.sock")):
        async with state_at(f"unix://{tmp_path}/r.sock?db=1") as state:
            await state.put("a", b"1", ttl_s=60.0)
            assert await state.get("a") == b"1"


async def test_names_stay_under_the_prefix_and_all_of_them_expire(server: RedisServer) -> None:
    state = RedisState(parse_redis_url(server.url), prefix="mine:")
    await state.put("a", b"1", ttl_s=60.0)
    await state.join("g", "m", b"v", ttl_s=60.0)
    await state.join("g", "m", b"v", ttl_s=1.0)
    await state.draw("b", per_minute=5)
    await state.close()
    names = server.tell("keys", "*").split("\n")
    assert len(names) == 4
    assert all(name.startswith("mine:") for name in names)
    for name in names:
        assert 0 < int(server.tell("pttl", name)) <= 61_000


async def test_many_members_are_swept_and_listed(server: RedisServer) -> None:
    async with state_at(server.url) as state:
        await state.join("g", "m0", b"v", ttl_s=60.0)
        server.tell("eval", MANY_MEMBERS, "2", "voiceforge:{g:g}:times", "voiceforge:{g:g}:values")
        assert len(await state.members("g")) == 9000
        for i in range(3 * SWEPT):
            await state.join("h", f"m{i}", b"v", ttl_s=0.001)
        await asyncio.sleep(0.01)
        for i in range(4):
            assert await state.join("h", f"n{i}", b"", ttl_s=60.0, limit=4)
        assert server.tell("zcard", "voiceforge:{g:h}:times") == "4"
        assert server.tell("hlen", "voiceforge:{g:h}:values") == "0"


async def test_calls_beyond_the_bound_fail(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_state, "WAITING_MAX", 20)
    async with state_at(server.url) as state:
        answers = await asyncio.gather(*(state.get("a") for _ in range(30)), return_exceptions=True)
        assert answers[:20] == [None] * 20
        assert all(isinstance(answer, StateAwayError) for answer in answers[20:])


@pytest.mark.slow
async def test_sentinels_lead_to_the_new_master() -> None:
    with redis_sentinels() as ((master, replica), sentinels):
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        async with state_at(f"redis+sentinel://{hosts}/mymaster/0") as state:
            await state.put("a", b"1", ttl_s=600.0)
            sentinels[0].stop(by=signal.SIGKILL)  # two of three agree still
            async with state.listen("topic") as heard:
                deadline_s = time.monotonic() + BACK_S
                while replica.tell("exists", "voiceforge:v:a") != "1":
                    assert time.monotonic() < deadline_s
                    await asyncio.sleep(0.02)
                master.stop(by=signal.SIGKILL)
                async with asyncio.timeout(BACK_S):
                    with pytest.raises(StateAwayError):
                        await anext(heard)
            await until_back(state)
            assert await state.get("a") == b"1"
            assert "role:master" in replica.tell("info", "replication")
            assert await state.join("group", "member", b"", ttl_s=60.0)


async def test_a_cluster_that_lost_a_node_serves_what_the_others_hold(shared_cluster: list[RedisServer]) -> None:
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in shared_cluster)
    async with state_at(f"redis+cluster://{hosts}", limit_s=0.5) as state:
        names = [f"n{i}" for i in range(12)]  # over all three
        await asyncio.gather(*(state.put(name, b"1", ttl_s=60.0) for name in names))
        shared_cluster[2].freeze()
        try:
            outcomes = []
            for name in names:
                state._pause_s = 0.0
                try:
                    outcomes.append(await state.get(name))
                except StateAwayError:
                    outcomes.append(None)
            assert 0 < outcomes.count(None) < len(names)
        finally:
            shared_cluster[2].thaw()
        await until_back(state)
        async with asyncio.timeout(BACK_S):
            for name in names:
                while True:
                    try:
                        assert await state.get(name) == b"1"
                        break
                    except StateAwayError:
                        await asyncio.sleep(0.05)


async def test_who_did_not_get_a_turn_in_time_says_nothing_of_redis(server: RedisServer) -> None:
    async with state_at(server.url, limit_s=0.2) as state:
        await state.get("a")
        state._room = asyncio.Semaphore(0)  # everybody is on their way
        with pytest.raises(StateAwayError):
            await state.get("a")
        state._room = asyncio.Semaphore(1)
        assert await state.get("a") is None, "nobody else has to wait"
