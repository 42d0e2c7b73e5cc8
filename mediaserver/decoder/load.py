"""Whether finals are late, or would be with one more session, and how long that will last (sans-IO).

Only finals count: interims give way to them and to newer ones, revisions wait for a free device. What delays a final is
the finals before it and the batches that are being decoded when it comes, whatever is in them.
"""

from __future__ import annotations

import math
from collections import deque

LATE_FINAL_S = 1.0
"""A final that waits this long for its decode is late: new sessions are refused."""

RECENT_S = 10.0
"""Over which the share that finals take is counted: a few utterances of each speaker."""

WAITS_S = 4.0
"""For how long a wait is remembered: so long must finals have been on time before the door opens again. It is also what
the share takes to fall from all to `CALM_SHARE`."""

LATE_SHARE = 0.95
"""One final in twenty may wait longer without new sessions being refused."""

FULL_SHARE = 0.8
"""Share of the device that finals alone may take. Beyond it waits grow fast: one more session would make them late."""

CALM_WAIT_S = LATE_FINAL_S / 2
CALM_SHARE = 0.6
"""Once refused, new sessions are let in again below these, or the door would flap."""

MAX_WAITS = 1024
"""Recent waits that are kept, the oldest forgotten first: 100 finals a second are more than a device decodes."""

SMOOTHING = 0.1
"""Weight of the newest batch in what a second of context costs: the last twenty or so count."""

SHORTEST_RETRY_S = 1
LONGEST_RETRY_S = 60
"""Nobody knows when speakers stop; after a minute it is worth to ask again."""


class Load:
    """The finals of one engine. `now_s` never goes back.

    Args:
        slots: batches decoded at once.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._waiting: dict[int, tuple[float, float]] = {}  # context and time of coming; bounded by the queue
        self._waits: deque[tuple[float, float]] = deque(maxlen=MAX_WAITS)  # when taken, and after how long
        self._spent: deque[tuple[float, float]] = deque(maxlen=MAX_WAITS)  # when done, and compute of finals
        self._cost = 0.0  # seconds of compute a second of context
        self._is_late = False

    def queued(self, ident: int, *, context_s: float, now_s: float) -> None:
        """A final waits from now on."""
        self._waiting[ident] = (context_s, now_s)

    def taken(self, ident: int, *, now_s: float) -> None:
        """Its decode begins; one that is not known is none of ours."""
        if (known := self._waiting.pop(ident, None)) is not None:
            self._waits.append((now_s, now_s - known[1]))

    def given_up(self, ident: int) -> None:
        """Nobody waits for it any more."""
        self._waiting.pop(ident, None)

    def decoded(self, *, context_s: float, compute_s: float, are_finals: bool, now_s: float) -> None:
        """A batch is done.

        Args:
            context_s: of all its windows together.
            compute_s: what it took.
            are_finals: whether finals were in it.
            now_s: when it was done.
        """
        cost = compute_s / max(context_s, 1e-3)
        self._cost = cost if not self._cost else self._cost + SMOOTHING * (cost - self._cost)
        if are_finals:
            self._spent.append((now_s, compute_s))

    def backlog_s(self) -> float:
        """How long the finals that wait keep the device busy, by what recent batches took."""
        return sum(context_s for context_s, _ in self._waiting.values()) * self._cost / self._slots

    def finals_share(self, now_s: float) -> float:
        """Share of the device that finals took of late."""
        _forget_before(self._spent, now_s - RECENT_S)
        return sum(compute_s for _, compute_s in self._spent) / (self._slots * RECENT_S)

    def retry_after_s(self, now_s: float) -> int | None:
        """Seconds until finals will be on time if it goes on as of late; None if they are now."""
        _forget_before(self._waits, now_s - WAITS_S)
        backlog_s, share = self.backlog_s(), self.finals_share(now_s)
        limit_s, full = (CALM_WAIT_S, CALM_SHARE) if self._is_late else (LATE_FINAL_S, FULL_SHARE)
        self._is_late = self._usual_wait_s(now_s) > limit_s or backlog_s > limit_s or share > full
        if not self._is_late:
            return None
        drained_s = backlog_s / (1 - share) if share < 1 else LONGEST_RETRY_S
        late_waits = [taken_s for taken_s, wait_s in self._waits if wait_s > CALM_WAIT_S]
        if backlog_s > CALM_WAIT_S:  # the last that wait now will have waited too long, and be remembered
            forgotten_s = drained_s + WAITS_S
        else:
            forgotten_s = late_waits[-1] + WAITS_S - now_s if late_waits else 0.0
        fallen_s = self._until_share(CALM_SHARE, now_s) if share > CALM_SHARE else 0.0
        wanted_s = max(drained_s, forgotten_s, fallen_s)
        return min(max(math.ceil(wanted_s), SHORTEST_RETRY_S), LONGEST_RETRY_S)

    def _usual_wait_s(self, now_s: float) -> float:
        """What all but the unluckiest finals waited of late, or the longest-waiting one waits already."""
        waits = sorted(wait_s for _, wait_s in self._waits)
        usual_s = waits[math.ceil(LATE_SHARE * len(waits)) - 1] if waits else 0.0
        return max(usual_s, max((now_s - queued_s for _, queued_s in self._waiting.values()), default=0.0))

    def _until_share(self, share: float, now_s: float) -> float:
        """When enough of what finals took will be forgotten, if no more came."""
        too_much_s = sum(compute_s for _, compute_s in self._spent) - share * self._slots * RECENT_S
        for done_s, compute_s in self._spent:
            too_much_s -= compute_s
            if too_much_s <= 0:
                return done_s + RECENT_S - now_s
        return 0.0


def _forget_before(entries: deque[tuple[float, float]], moment_s: float) -> None:
    while entries and entries[0][0] < moment_s:
        entries.popleft()
