"""Whose window is decoded next (sans-IO).

Finals before first interims, these before other interims, then revisions; recordings have what is left over (spare.py).
A session has at most one replaceable window
waiting: a newer one takes its place, so that what is decoded is always the freshest audio. Interims of a session are a
period apart; when the device is busy they come as fast as it can, the longest-waiting session first, so under load the
interim rate falls, nothing piles up and nobody is left out (design decision 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mediaserver.decoder.spare import Spare
from mediaserver.decoder.window import Kind, Window

LENGTH_RATIO = 1.25
"""Windows share a batch while the longest context is at most this much longer than the head's: all items of a batch
are encoded at one length, and padding beyond this costs more than batching saves (at 1.5 eight speakers wait a tenth
longer for a word)."""

FIRST_PERIOD_S = 0.3
"""Between two tries to hear the first words of an utterance: windows are short then, and a reader waits for a sign."""

AHEAD_S = 0.3
"""Where the last free slot is about to be taken, interims that fall due this soon go along: four together cost two
thirds of four alone."""

RANKS = {
    Kind.FINAL: 0,
    Kind.FIRST_INTERIM: 1,
    Kind.INTERIM: 2,
    Kind.SPECULATIVE: 2,
    Kind.REVISION: 3,
    Kind.RECORDING: 4,
}
"""Who goes first. A speculative final stands in for the interim of its pause."""

BATCHES = {
    Kind.FINAL: 0,
    Kind.SPECULATIVE: 0,
    Kind.FIRST_INTERIM: 1,
    Kind.INTERIM: 1,
    Kind.REVISION: 2,
    Kind.RECORDING: 3,
}
"""Which kinds are decoded alike."""

MAX_RECORDED = 512
"""Windows of recordings that may wait: 1 GB of audio and a score of recordings. One more is refused."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A window in the queue. `context_frames` is the encoder context that it needs."""

    window: Window
    context_frames: int
    queued_at_s: float


class Scheduler:
    """The queue of one engine.

    Args:
        slots: batches decoded at once.
        max_batch: most windows in a batch.
        max_kept: most finals and revisions that may wait. None is dropped, so one more is refused and the caller told.
        interim_period_s: least time between two interims of a session.
        on_replaced: called with a ticket that a newer one replaced, or that was withdrawn.
    """

    def __init__(
        self,
        *,
        slots: int,
        max_batch: int,
        max_kept: int,
        interim_period_s: float,
        on_replaced: Callable[[Ticket], None],
    ) -> None:
        self._slots = slots
        self._max_batch = max_batch
        self._max_kept = max_kept
        self._interim_period_s = interim_period_s
        self._on_replaced = on_replaced
        self._kept: list[Ticket] = []
        self._recorded: list[Ticket] = []  # bound: MAX_RECORDED; in order of coming
        self._spare = Spare(slots=slots, max_batch=max_batch)
        self._now_s = 0.0  # of the last `take`
        self._replaceable: dict[str, Ticket] = {}  # one a session; bounded by the number of sessions
        self._decoding: dict[str, int] = {}
        self._taken_at_s: dict[str, float] = {}  # last interim of a session; forgotten after a period

    def __len__(self) -> int:
        return len(self._kept) + len(self._replaceable) + len(self._recorded)

    def queued(self) -> dict[Kind, int]:
        """How many windows of each kind wait."""
        counts = dict.fromkeys(Kind, 0)
        for ticket in (*self._kept, *self._replaceable.values(), *self._recorded):
            counts[ticket.window.kind] += 1
        return counts

    def add(self, ticket: Ticket) -> bool:
        """Queue a ticket; False if it is not replaceable and too many wait."""
        session_id = ticket.window.session_id
        if ticket.window.kind is Kind.RECORDING:
            if len(self._recorded) >= MAX_RECORDED:
                return False
            self._recorded.append(ticket)
            return True
        self._spare.heard(ticket.queued_at_s)
        if not ticket.window.kind.is_replaceable:
            if len(self._kept) >= self._max_kept:
                return False
            self._kept.append(ticket)
            return True
        older = self._replaceable.get(session_id)
        if older is not None:
            # The newcomer keeps the elder's turn, or a session that updates often would never have one.
            ticket.queued_at_s = older.queued_at_s
            self.withdraw(session_id)
        self._replaceable[session_id] = ticket
        return True

    def withdraw(self, session_id: str) -> None:
        """Give up the session's replaceable window if it still waits."""
        older = self._replaceable.pop(session_id, None)
        if older is not None:
            self._on_replaced(older)

    def discard(self, ticket: Ticket) -> None:
        """Forget a ticket that nobody waits for any more."""
        if ticket in self._kept:
            self._kept.remove(ticket)
        elif ticket in self._recorded:
            self._recorded.remove(ticket)
        elif self._replaceable.get(ticket.window.session_id) is ticket:
            del self._replaceable[ticket.window.session_id]

    def take(self, now_s: float, *, free_slots: int = 1) -> list[Ticket]:
        """The next batch, at most `max_batch` tickets of similar length; empty if none is due.

        A session's interim waits while another of its windows is being decoded: its answers stay in order and one
        fast talker cannot hold two slots. Call `done` with the batch afterwards.

        Args:
            now_s: the time.
            free_slots: how many slots ask for work now, this one included. They share what is due; the last one
                gathers all of it, and what will be due soon.
        """
        self._now_s = now_s
        self._forget_before(now_s - self._interim_period_s)
        ready = sorted((*self._kept, *self._free()), key=lambda t: (self._rank(t), self._due_s(t)))
        head = next((ticket for ticket in ready if self._due_s(ticket) <= now_s), None)
        if head is None:
            return self._take_recorded(now_s, free_slots)
        if head.window.kind is Kind.REVISION and not self._may_revise(free_slots):
            return []
        soon_s = now_s + (AHEAD_S if free_slots == 1 else 0.0)
        along = [t for t in ready if t is not head and self._due_s(t) <= soon_s and self._fits(t, head)]
        share = math.ceil((1 + len(along)) / free_slots)
        batch = [head, *along][: 1 if head.window.kind is Kind.REVISION else min(share, self._max_batch)]
        for ticket in batch:
            self._begin(ticket)
            if ticket.window.kind.is_interim:
                self._taken_at_s[ticket.window.session_id] = now_s
        return batch

    def done(self, batch: list[Ticket], *, now_s: float, took_s: float | None = None) -> None:
        """The batch has been decoded; its sessions may be taken again.

        Args:
            batch: as it was taken.
            now_s: the time.
            took_s: how long its decode was, None where that says nothing.
        """
        if any(ticket.window.kind is not Kind.RECORDING for ticket in batch):
            self._spare.heard(now_s)  # who had to wait for this has had no reason yet to send more
        elif took_s is not None:
            self._spare.decoded(context_frames=sum(ticket.context_frames for ticket in batch), took_s=took_s)
        for ticket in batch:
            session_id = ticket.window.session_id
            self._decoding[session_id] -= 1
            if not self._decoding[session_id]:
                del self._decoding[session_id]

    def next_due_s(self) -> float | None:
        """When the next waiting interim or recording falls due, if one does by itself: others wait for a slot or for
        `done`.
        """
        dues_s = [self._due_s(ticket) for ticket in self._free()]
        if self._recorded and (spare_s := self._spare.due_s(self._now_s)) is not None:
            dues_s.append(spare_s)
        return min(dues_s, default=None)

    def _take_recorded(self, now_s: float, free_slots: int) -> list[Ticket]:
        """Windows of recordings, where nothing live is due and there is time to spare; those that came first."""
        if not self._recorded:
            return []
        head = self._recorded[0]
        room = self._spare.room(head.context_frames, now_s, free_slots=free_slots)
        share = min(room, math.ceil(len(self._recorded) / free_slots))
        batch = ([head] + [t for t in self._recorded[1:] if self._fits(t, head)])[:share]
        if batch:
            self._spare.taken(now_s)
        for ticket in batch:
            self._begin(ticket)
        return batch

    def _begin(self, ticket: Ticket) -> None:
        """A ticket leaves the queue for the device."""
        self.discard(ticket)
        session_id = ticket.window.session_id
        self._decoding[session_id] = self._decoding.get(session_id, 0) + 1

    def _may_revise(self, free_slots: int) -> bool:
        """Whether a revision would leave a slot for what is more urgent: one takes a second, and cannot be stopped."""
        return self._slots == 1 or free_slots > 1

    def _free(self) -> Iterator[Ticket]:
        """Replaceable tickets of sessions of which nothing is being decoded."""
        return (ticket for session_id, ticket in self._replaceable.items() if session_id not in self._decoding)

    def _rank(self, ticket: Ticket) -> int:
        """Who goes first: a second try to hear the first words has no more right than others' next words."""
        kind = ticket.window.kind
        is_retry = kind is Kind.FIRST_INTERIM and ticket.window.session_id in self._taken_at_s
        return RANKS[Kind.INTERIM if is_retry else kind]

    def _due_s(self, ticket: Ticket) -> float:
        taken_at_s = self._taken_at_s.get(ticket.window.session_id)
        if taken_at_s is None or not ticket.window.kind.is_interim:
            return ticket.queued_at_s
        is_first = ticket.window.kind is Kind.FIRST_INTERIM
        return taken_at_s + (min(FIRST_PERIOD_S, self._interim_period_s) if is_first else self._interim_period_s)

    def _forget_before(self, moment_s: float) -> None:
        for session_id in [s for s, taken_at_s in self._taken_at_s.items() if taken_at_s < moment_s]:
            del self._taken_at_s[session_id]

    @staticmethod
    def _fits(ticket: Ticket, head: Ticket) -> bool:
        return (
            # Languages may differ, but looking for one costs a step for every window of a batch, and windows with a
            # prompt are encoded apart from those without.
            (ticket.window.language is None) == (head.window.language is None)
            and ticket.window.is_prompted == head.window.is_prompted
            and BATCHES[ticket.window.kind] == BATCHES[head.window.kind]
            and ticket.context_frames <= head.context_frames * LENGTH_RATIO
            and head.context_frames <= ticket.context_frames * LENGTH_RATIO
        )
