"""Time that nobody live needs, given to recordings (sans-IO).

A batch cannot be stopped once it runs, so what a recording takes is what somebody who begins to speak may have to wait.
While somebody speaks, recordings leave a slot free; where there is only one, they get no more of it than a wait that
nobody notices, and now and then a single window, so that a recording ends some day. Otherwise they take all slots, each
for as short a batch as fills the device.
"""

from __future__ import annotations

SPEAKING_S = 3.0
"""For so long after its last window came, or was decoded, a session counts as speaking: windows come 0.1 to 0.6 s
apart while it does, and most pauses are shorter."""

UNNOTICED_S = 0.25
"""A batch that is expected to take no longer may go first even while somebody speaks: it moves a word by less than the
period of interims does."""

SHORT_BATCH_S = 1.5
"""What a batch may take while nobody speaks: about the first words of somebody who begins just then. A device on which
one window takes longer decodes them one by one; on a CPU batches of long windows save nothing anyway."""

PATIENCE_S = 10.0
"""How often one window may go on a single slot while somebody speaks without end."""

SMOOTHING = 0.3
"""Weight of the newest batch in what a window costs: a few batches count."""


class Spare:
    """How many windows of recordings may go now.

    Args:
        slots: batches decoded at once.
        max_batch: most windows in a batch.
    """

    def __init__(self, *, slots: int, max_batch: int) -> None:
        self._slots = slots
        self._max_batch = max_batch
        self._heard_at_s = float("-inf")  # the last window of a live session
        self._taken_at_s = float("-inf")
        self._frame_s: float | None = None  # seconds a frame of context, None until a batch has been decoded

    def heard(self, now_s: float) -> None:
        """A live session has sent a window, or one of its windows has been decoded."""
        self._heard_at_s = max(self._heard_at_s, now_s)

    def room(self, context_frames: int, now_s: float, *, free_slots: int) -> int:
        """How many windows of `context_frames` may be decoded as a batch now; 0 is none.

        Args:
            context_frames: of the window that is next.
            now_s: the time.
            free_slots: how many slots ask for work.
        """
        if now_s >= self._quiet_at_s:
            return max(1, self._fitting(context_frames, SHORT_BATCH_S))
        unnoticed = self._fitting(context_frames, UNNOTICED_S)
        if unnoticed:
            return unnoticed
        leaves_one = self._slots > 1 and free_slots > 1
        is_due = self._slots == 1 and now_s >= self._taken_at_s + PATIENCE_S
        return 1 if leaves_one or is_due else 0

    def taken(self, now_s: float) -> None:
        """A batch begins."""
        self._taken_at_s = now_s

    def decoded(self, *, context_frames: int, took_s: float) -> None:
        """A batch is done.

        Args:
            context_frames: of all its windows together.
            took_s: how long it was decoded.
        """
        frame_s = took_s / max(context_frames, 1)
        self._frame_s = frame_s if self._frame_s is None else self._frame_s + SMOOTHING * (frame_s - self._frame_s)

    def due_s(self, now_s: float) -> float | None:
        """When there will be room by itself, if there was none at `now_s`."""
        due_s = self._quiet_at_s
        if self._slots == 1:
            due_s = min(due_s, self._taken_at_s + PATIENCE_S)
        return due_s if due_s > now_s else None

    @property
    def _quiet_at_s(self) -> float:
        return self._heard_at_s + SPEAKING_S

    def _fitting(self, context_frames: int, limit_s: float) -> int:
        """How many windows are expected to be done within `limit_s`; none while nothing is known."""
        if self._frame_s is None:
            return 0
        return min(int(limit_s / max(self._frame_s * context_frames, 1e-6)), self._max_batch)
