"""Whose window is decoded next (sans-IO).

Finals before first interims, these before other interims, revisions last; within a kind, first come, first served. A
session has at most one interim waiting: a newer one takes its place in the queue, so under load the interim rate falls
and nothing piles up (design decision 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mediaserver.decoder.window import Kind, Window

LENGTH_RATIO = 1.5
"""Windows share a batch while the longest context is at most this much longer than the head's: all items of a batch
are encoded at one length, and padding beyond this costs more than batching saves."""


@dataclass(slots=True)
class Ticket:
    """A window in the queue. `context_frames` is the encoder context that it needs."""

    window: Window
    context_frames: int
    queued_at_s: float
    order: int = 0


class Scheduler:
    """The queue of one engine.

    Args:
        max_batch: most windows in a batch.
        max_kept: most finals and revisions that may wait. None is dropped, so one more is refused and the caller told.
        on_replaced: called with a ticket that a newer one replaced.
    """

    def __init__(self, *, max_batch: int, max_kept: int, on_replaced: Callable[[Ticket], None]) -> None:
        self._max_batch = max_batch
        self._max_kept = max_kept
        self._on_replaced = on_replaced
        self._kept: list[Ticket] = []
        self._interims: dict[str, Ticket] = {}  # one a session; bounded by the number of sessions
        self._decoding: dict[str, int] = {}
        self._order = 0

    def __len__(self) -> int:
        return len(self._kept) + len(self._interims)

    def add(self, ticket: Ticket) -> bool:
        """Queue a ticket; False if it is no interim and too many wait."""
        self._order += 1
        ticket.order = self._order
        session_id = ticket.window.session_id
        if not ticket.window.kind.is_interim:
            if len(self._kept) >= self._max_kept:
                return False
            self._kept.append(ticket)
            return True
        older = self._interims.pop(session_id, None)
        if older is not None:
            # The newcomer keeps the elder's turn, or a session that updates often would never have one.
            ticket.order = older.order
            self._on_replaced(older)
        self._interims[session_id] = ticket
        return True

    def discard(self, ticket: Ticket) -> None:
        """Forget a ticket that nobody waits for any more."""
        if ticket in self._kept:
            self._kept.remove(ticket)
        elif self._interims.get(ticket.window.session_id) is ticket:
            del self._interims[ticket.window.session_id]

    def take(self) -> list[Ticket]:
        """The next batch, at most `max_batch` tickets of similar length; empty if none is ready.

        A session's interim waits while another of its windows is being decoded: its answers stay in order and one
        fast talker cannot hold two slots. Call `done` with the batch afterwards.
        """
        ready = sorted(
            (*self._kept, *(t for s, t in self._interims.items() if s not in self._decoding)),
            key=lambda ticket: (ticket.window.kind, ticket.order),
        )
        if not ready:
            return []
        head = ready[0]
        batch = [ticket for ticket in ready if self._fits(ticket, head)][: self._max_batch]
        for ticket in batch:
            self.discard(ticket)
            session_id = ticket.window.session_id
            self._decoding[session_id] = self._decoding.get(session_id, 0) + 1
        return batch

    def done(self, batch: list[Ticket]) -> None:
        """The batch has been decoded; its sessions may be taken again."""
        for ticket in batch:
            session_id = ticket.window.session_id
            self._decoding[session_id] -= 1
            if not self._decoding[session_id]:
                del self._decoding[session_id]

    def oldest_final_wait_s(self, now_s: float) -> float:
        """How long the longest-waiting final has waited."""
        finals = (ticket for ticket in self._kept if ticket.window.kind is Kind.FINAL)
        return max((now_s - ticket.queued_at_s for ticket in finals), default=0.0)

    @staticmethod
    def _fits(ticket: Ticket, head: Ticket) -> bool:
        return (
            # Languages may differ, but looking for one costs a step for every window of a batch, and windows with a
            # prompt are encoded apart from those without.
            (ticket.window.language is None) == (head.window.language is None)
            and ticket.window.is_prompted == head.window.is_prompted
            and (
                ticket.window.kind is head.window.kind
                or (ticket.window.kind.is_interim and head.window.kind.is_interim)
            )
            and ticket.context_frames <= head.context_frames * LENGTH_RATIO
            and head.context_frames <= ticket.context_frames * LENGTH_RATIO
        )
