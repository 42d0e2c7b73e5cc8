"""What tests of the state share: every kind of it behind one fixture, and real Redis servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.redis_servers import RedisServer, redis_cluster, redis_server
from tests.unit.signaling.cluster.state_kinds import StateKit, in_memory, in_redis, served


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One server for all tests that leave it as it is."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[list[RedisServer]]:
    """Three masters for all tests that leave them as they are."""
    with redis_cluster() as servers:
        yield servers


@pytest_asyncio.fixture(
    params=[
        "memory",
        "served",
        pytest.param("redis", marks=pytest.mark.needs("redis-server", "redis-cli")),
        pytest.param("redis-cluster", marks=pytest.mark.needs("redis-server", "redis-cli")),
    ]
)
async def kit(request: pytest.FixtureRequest) -> AsyncIterator[StateKit]:
    """Each kind of state in turn."""
    match request.param:
        case "memory":
            kind = in_memory()
        case "served":
            kind = served()
        case "redis":
            kind = in_redis(request.getfixturevalue("shared_redis").url)
        case _:
            hosts = ",".join(f"127.0.0.1:{server.port}" for server in request.getfixturevalue("shared_cluster"))
            kind = in_redis(f"redis+cluster://{hosts}")
    async with kind as kit:
        yield kit
