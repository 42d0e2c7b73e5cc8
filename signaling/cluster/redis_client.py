"""Connections to Redis, of whatever kind, by the library that speaks its protocol."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from signaling.cluster.redis_url import RedisKind, RedisTarget

SOCKET_LIMIT_S = 1.5
"""For one answer; less than a call may take as a whole."""

SENTINEL_LIMIT_S = 0.5
"""For a Sentinel's: where one is silent, the next one is to be asked in time."""

HEALTH_CHECK_S = 15.0
"""A connection that was idle for so long is tried before it is used."""

PROTOCOL = 2
"""RESP: all servers speak it, and nothing that the third has is used."""

SPARE_CONNECTIONS = 64
"""Beside those of calls: one for each topic that is listened to."""


class Heard:
    """A connection that listens to one channel.

    Args:
        pubsub: the library's.
        own: a client that was made for this alone.
    """

    def __init__(self, pubsub: Any, own: Any | None) -> None:
        self._pubsub = pubsub
        self._own = own

    async def subscribe(self, channel: str) -> None:
        """Begin to listen. Raises what the library does, and TimeoutError."""
        await self._pubsub.subscribe(channel)
        while True:
            message = await self.get_message(SOCKET_LIMIT_S)
            if message is None:
                raise TimeoutError
            if message["type"] == "subscribe":
                return

    async def get_message(self, timeout_s: float) -> dict[str, Any] | None:
        """What was told; None where nothing was in time."""
        found: dict[str, Any] | None = await self._pubsub.get_message(timeout=timeout_s)
        return found

    async def ping(self) -> None:
        """Ask whether it lives; the answer is a message."""
        await self._pubsub.ping()

    async def close(self) -> None:
        """Hang up."""
        await self._pubsub.aclose()
        if self._own is not None:
            await self._own.aclose()


class RedisClients:
    """The client for calls, and those that listen.

    Args:
        target: which Redis.
        connections: most of them for calls.
    """

    def __init__(self, target: RedisTarget, *, connections: int) -> None:
        self._target = target
        self._heard: set[Heard] = set()  # bound: the topics that this process listens to
        self._sentinels: Sentinel | None = None
        self.calls: Any = self._client(connections + SPARE_CONNECTIONS)

    async def ready(self) -> None:
        """Know the nodes of a Cluster, again where one has failed. Raises what the library does.

        It does so itself at each call, but where several find out at once it closes connections that others use.
        """
        if self._target.kind is RedisKind.CLUSTER:
            await self.calls.initialize()

    async def listening(self, channel: str) -> Heard:
        """A connection that listens to a channel by now. Raises what the library does."""
        own = await self._one_node() if self._target.kind is RedisKind.CLUSTER else None
        heard = Heard((self.calls if own is None else own).pubsub(), own)
        self._heard.add(heard)
        try:
            await heard.subscribe(channel)
        except BaseException:
            with suppress(RedisError, OSError):
                await self.hang_up(heard)
            raise
        return heard

    async def hang_up(self, heard: Heard) -> None:
        """Listen no longer."""
        self._heard.discard(heard)
        await heard.close()

    async def close(self) -> None:
        """Hang up everywhere."""
        for heard in list(self._heard):
            await self.hang_up(heard)
        await self.calls.aclose()
        if self._sentinels is not None:
            await self._sentinels.aclose()

    def _client(self, connections: int) -> Any:
        target = self._target
        common = {**_common(target), "max_connections": connections}
        if target.kind is RedisKind.CLUSTER:
            nodes = [ClusterNode(host, port) for host, port in target.hosts]
            tls = {"ssl": True, **_certificates(target)} if target.is_tls else {}
            # Slots without a server are those whose names nobody can ask for; the others are served.
            return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **common, **tls)
        if target.kind is RedisKind.SENTINEL:
            tls = {"ssl": True, **_certificates(target)} if target.is_tls else {}
            self._sentinels = Sentinel(  # type: ignore[no-untyped-call]
                list(target.hosts),
                sentinel_kwargs={
                    "username": target.options.get("sentinel_username"),
                    "password": target.options.get("sentinel_password"),
                    "socket_timeout": SENTINEL_LIMIT_S,
                    "socket_connect_timeout": SENTINEL_LIMIT_S,
                    "retry": _retry(),
                    "protocol": PROTOCOL,
                    **tls,
                },
            )
            return self._sentinels.master_for(target.master, db=target.db, **common, **tls)
        return self._one(*(target.hosts or [("", 0)])[0], db=target.db, max_connections=connections)

    def _one(self, host: str, port: int, **options: Any) -> Any:
        """A client of one server."""
        target = self._target
        options = {**_common(target), **options}
        if target.unix_path is not None:
            return Redis(unix_socket_path=target.unix_path, **options)
        tls = {"ssl": True, **_certificates(target)} if target.is_tls else {}
        return Redis(host=host, port=port, **options, **tls)

    async def _one_node(self) -> Any:
        """A client of any node of the Cluster: what is published to one is told by all."""
        node = random.choice(self.calls.get_nodes())  # noqa: S311 - no secret
        return self._one(node.host, int(node.port))


def _common(target: RedisTarget) -> dict[str, Any]:
    return {
        "username": target.username,
        "password": target.password,
        "socket_timeout": SOCKET_LIMIT_S,
        "socket_connect_timeout": SOCKET_LIMIT_S,
        "health_check_interval": HEALTH_CHECK_S,
        "client_name": "voiceforge",
        "retry": _retry(),
        "protocol": PROTOCOL,
    }


def _certificates(target: RedisTarget) -> dict[str, Any]:
    return {name: path for name, path in target.options.items() if name.startswith("ssl_")}


def _retry() -> Retry:
    """None: a call that failed may have been done."""
    return Retry(NoBackoff(), 0)
