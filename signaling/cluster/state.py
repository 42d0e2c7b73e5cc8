"""What the processes of a deployment know together: who is there, who holds what, what was used up.

Everything in it expires, by a clock that no process owns: whoever dies is forgotten without anybody tidying up. Names
are plain text without secrets (digests stand for them), values are small (`VALUE_MAX_BYTES`).

Three kinds of it: `MemoryState` for one process, the same behind a socket for the workers of a node, Redis for nodes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from mediaserver.errors import CapacityError

VALUE_MAX_BYTES = 256 * 1024
"""Of one value: a session's resumption with the finals of half an hour. A larger one is a fault of ours."""

AWAY_RETRY_AFTER_S = 5
"""When what needs the state may be tried again: it is asked for again every second or two."""


CALL_LIMIT_S = 2.0
"""How long a call may take. Whoever asks has somebody who waits; what comes later than this comes too late."""


class StateAwayError(CapacityError):
    """The state cannot be reached just now; sessions that run need nothing of it."""

    def __init__(self) -> None:
        super().__init__(
            "STATE_AWAY",
            "What this server shares with others cannot be reached.",
            f"Try again in {AWAY_RETRY_AFTER_S} s; the operator finds why in the log.",
            retry_after_s=AWAY_RETRY_AFTER_S,
        )


class StateFullError(StateAwayError):
    """The state can be reached and takes no more. Nothing in it is forgotten early to make room: a token that was used
    would be good again."""

    def __init__(self) -> None:
        CapacityError.__init__(
            self,
            "STATE_FULL",
            "What this server shares with others takes no more.",
            f"Try again in {AWAY_RETRY_AFTER_S} s; the operator finds why in the log.",
            retry_after_s=AWAY_RETRY_AFTER_S,
        )


class State(Protocol):
    """Values, groups, rates and topics. Every method may raise `StateAwayError`; none waits for longer than
    `CALL_LIMIT_S`."""

    async def put(self, name: str, value: bytes, *, ttl_s: float) -> None:
        """Set a value, whatever there was."""
        ...

    async def get(self, name: str) -> bytes | None:
        """A value; None where there is none or it has expired."""
        ...

    async def left_s(self, name: str) -> float:
        """How long a value will stand, by the clock that it expires by; 0.0 where there is none.

        With the time for which it was set it says how old it is, whatever the clocks of machines say.
        """
        ...

    async def add(self, name: str, value: bytes, *, ttl_s: float) -> bool:
        """Set a value where there is none. Of several that try at once one gets True."""
        ...

    async def swap(self, name: str, expected: bytes, value: bytes, *, ttl_s: float) -> bool:
        """Set a value where there is just this one."""
        ...

    async def delete(self, name: str) -> None:
        """Forget a value."""
        ...

    async def join(self, group: str, member: str, value: bytes, *, ttl_s: float, limit: int | None = None) -> bool:
        """Make or keep somebody a member of a group.

        Args:
            group: its name.
            member: one who is a member already stays it, with the new value and time.
            value: what others see of it.
            ttl_s: for how long, unless it joins again.
            limit: most members; one more is refused.
        """
        ...

    async def leave(self, group: str, member: str) -> None:
        """No longer be a member."""
        ...

    async def members(self, group: str) -> Mapping[str, bytes]:
        """The values of all members whose time is not over."""
        ...

    async def draw(self, bucket: str, *, per_minute: int) -> float:
        """Take one of a minute's share, which fills evenly and holds a minute's at most.

        Returns:
            0.0, or the seconds until there is one; nothing was taken then.
        """
        ...

    async def put_back(self, bucket: str, *, per_minute: int) -> None:
        """Give back what was drawn and not used."""
        ...

    async def publish(self, topic: str, message: bytes) -> None:
        """Tell everybody who listens now; who does not has missed it."""
        ...

    def listen(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """What is published from now on, and perhaps what was a moment before.

        Ends with `StateAwayError` where messages may have been missed.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


def require_small(value: bytes) -> None:
    """Refuse a value that is larger than values may be.

    Raises:
        ValueError: it is; a fault of ours.
    """
    if len(value) > VALUE_MAX_BYTES:
        raise ValueError(f"{len(value)} bytes are too many for a value")
