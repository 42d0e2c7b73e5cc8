"""Which state a process has."""

from __future__ import annotations

from mediaserver.settings import Settings
from signaling.cluster.memory import MemoryState
from signaling.cluster.redis_state import RedisState
from signaling.cluster.redis_url import parse_redis_url
from signaling.cluster.state import State


def open_state(settings: Settings) -> State:
    """The state that a node's settings name: Redis, or the memory of this process. Whoever asks for it closes it.

    Nothing is connected yet: a Redis that is away now may be there later.

    Raises:
        ConfigError: REDIS_URL_INVALID.
    """
    if settings.redis_url is None:
        return MemoryState()
    return RedisState(parse_redis_url(settings.redis_url.get_secret_value()), prefix=settings.redis_prefix)
