"""Whether this node should be sent new sessions, beyond what is plain at once: `/readyz` falls before the node does.

Each reason has a value at which it begins and another at which it ends, or a time for which it must hold: nothing
flaps.
Sessions that run are never touched by it, and one that comes all the same is taken while there is room.

| code | begins | ends |
|---|---|---|
| `overloaded` | finals would be late for 5 s | they would not for 5 s |
| `loop_lag` | the event loop wakes up late by 150 ms on average, for 2 s | below 50 ms, for 5 s |
| `disk_full` | less than `disk_reserve_mib` is free where data lies | a half more is |
| `database_down` | the database fails for 10 s | it answers for 5 s |
| `state_away` | what processes share is away for 5 s, and `state_away` says `refuse` | it is back for 2 s |
| `files_used_up` | 90 % of the file descriptors are open | below 80 % |
| `memory_used_up` | 92 % of the control group's memory is used | below 85 % |
| `ports_used_up` | a twentieth of the UDP ports is free, or none | a tenth is, and one |
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from signaling.limits import Reason

OVERLOADED = Reason("overloaded", "finals would be late with one more session")
LOOP_LAG = Reason("loop_lag", "the event loop is late")
DISK_FULL = Reason("disk_full", "the disk is nearly full")
DATABASE_DOWN = Reason("database_down", "the database does not answer")
STATE_AWAY = Reason("state_away", "what several processes share cannot be reached")
FILES_USED_UP = Reason("files_used_up", "nearly all file descriptors are open")
MEMORY_USED_UP = Reason("memory_used_up", "nearly all memory is used")
PORTS_USED_UP = Reason("ports_used_up", "nearly all UDP ports are used")

LAG_BEGINS_S, LAG_ENDS_S = 0.15, 0.05
"""A mean of 150 ms is three times what a jitter buffer covers."""

LAG_SMOOTHING = 0.1
"""Weight of the newest of five measurements a second: the last two seconds count."""

FILES_BEGIN, FILES_END = 0.9, 0.8
MEMORY_BEGINS, MEMORY_ENDS = 0.92, 0.85
PORTS_FREE_BEGIN, PORTS_FREE_END = 0.05, 0.1
DISK_ENDS = 1.5
"""Of `disk_reserve_mib`."""


class Condition:
    """Something that is bad or good, and for how long it must be so to count (sans-IO).

    Args:
        reason: what is said while it is bad.
        bad_for_s: after so long of bad it begins.
        good_for_s: after so long of good it ends.
    """

    def __init__(self, reason: Reason, *, bad_for_s: float = 0.0, good_for_s: float = 0.0) -> None:
        self.reason = reason
        self.holds = False
        self._for_s = {False: bad_for_s, True: good_for_s}
        self._since_s: float | None = None  # since when it has been otherwise than `holds` says

    def see(self, is_bad: bool | None, now_s: float) -> None:
        """Look at it; None: it is neither, between the values at which it begins and ends.

        Args:
            is_bad: how it is.
            now_s: of a clock that only goes forward.
        """
        if is_bad is None or is_bad is self.holds:
            self._since_s = None
            return
        if self._since_s is None:
            self._since_s = now_s
        if now_s - self._since_s >= self._for_s[self.holds]:
            self.holds, self._since_s = is_bad, None


def between(value: float, *, begins: float, ends: float) -> bool | None:
    """Whether a value is as bad as where something begins (True), as good as where it ends (False), or neither.

    The worse is above where `begins` is above `ends`, else below.
    """
    is_worse_above = begins > ends
    if value >= begins if is_worse_above else value <= begins:
        return True
    if value < ends if is_worse_above else value > ends:
        return False
    return None


@dataclass(frozen=True, slots=True)
class Machine:
    """What of the machine is used up, None where it is not known or not limited.

    Args:
        disk_free_bytes: where data lies.
        files_share: of the file descriptors that may be open.
        memory_share: of what the control group may use, without what the kernel can give back.
        ports_free: of the UDP port range.
        ports: how many there are.
    """

    disk_free_bytes: int | None = None
    files_share: float | None = None
    memory_share: float | None = None
    ports_free: int | None = None
    ports: int = 0


class Conditions:
    """All reasons beyond the plain ones (sans-IO); `now_s` of all methods is of a clock that only goes forward.

    Args:
        disk_reserve_bytes: 0: how full the disk is does not count.
    """

    def __init__(self, *, disk_reserve_bytes: int) -> None:
        self._disk_reserve_bytes = disk_reserve_bytes
        self._lag_s = 0.0
        self._overloaded = Condition(OVERLOADED, bad_for_s=5.0, good_for_s=5.0)
        self._lag = Condition(LOOP_LAG, bad_for_s=2.0, good_for_s=5.0)
        self._disk = Condition(DISK_FULL)
        self._database = Condition(DATABASE_DOWN, bad_for_s=10.0, good_for_s=5.0)
        self._state = Condition(STATE_AWAY, bad_for_s=5.0, good_for_s=2.0)
        self._files = Condition(FILES_USED_UP)
        self._memory = Condition(MEMORY_USED_UP)
        self._ports = Condition(PORTS_USED_UP)
        self._all = (
            self._overloaded,
            self._lag,
            self._disk,
            self._database,
            self._state,
            self._files,
            self._memory,
            self._ports,
        )

    @property
    def reasons(self) -> list[Reason]:
        """Those that hold."""
        return [condition.reason for condition in self._all if condition.holds]

    def overload(self, is_overloaded: bool, now_s: float) -> None:
        """Whether finals would be late with one more session."""
        self._overloaded.see(is_overloaded, now_s)

    def lag(self, lag_s: float, now_s: float) -> None:
        """How late the event loop woke up."""
        self._lag_s += LAG_SMOOTHING * (lag_s - self._lag_s)
        self._lag.see(between(self._lag_s, begins=LAG_BEGINS_S, ends=LAG_ENDS_S), now_s)

    def database(self, is_up: bool, now_s: float) -> None:
        """Whether the database has answered."""
        self._database.see(not is_up, now_s)

    def state(self, is_away: bool, now_s: float) -> None:
        """Whether what processes share is away."""
        self._state.see(is_away, now_s)

    def machine(self, machine: Machine, now_s: float) -> None:
        """What of the machine is used up."""
        if machine.disk_free_bytes is not None and self._disk_reserve_bytes:
            reserve = self._disk_reserve_bytes
            self._disk.see(between(machine.disk_free_bytes, begins=reserve, ends=DISK_ENDS * reserve), now_s)
        if machine.files_share is not None:
            self._files.see(between(machine.files_share, begins=FILES_BEGIN, ends=FILES_END), now_s)
        if machine.memory_share is not None:
            self._memory.see(between(machine.memory_share, begins=MEMORY_BEGINS, ends=MEMORY_ENDS), now_s)
        if machine.ports_free is not None:
            begins = math.floor(PORTS_FREE_BEGIN * machine.ports)
            ends = max(1.0, PORTS_FREE_END * machine.ports) - 1
            self._ports.see(between(machine.ports_free, begins=begins, ends=max(begins, ends)), now_s)
