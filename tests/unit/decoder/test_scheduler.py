"""Whose window is decoded next."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.decoder.scheduler import Scheduler, Ticket
from mediaserver.decoder.window import Kind, Window


def ticket(
    session: str, kind: Kind, *, frames: int = 500, language: str | None = "en", queued_at_s: float = 0.0
) -> Ticket:
    return Ticket(Window(session, kind, np.zeros(16, dtype=np.float32), 0, language), frames, queued_at_s)


def scheduler(*, max_batch: int = 8, max_kept: int = 100) -> tuple[Scheduler, list[Ticket]]:
    replaced: list[Ticket] = []
    return Scheduler(max_batch=max_batch, max_kept=max_kept, on_replaced=replaced.append), replaced


def test_finals_come_before_first_interims_and_these_before_others() -> None:
    queue, _ = scheduler(max_batch=1)
    interim, first, final = ticket("a", Kind.INTERIM), ticket("b", Kind.FIRST_INTERIM), ticket("c", Kind.FINAL)
    for item in (interim, first, final):
        queue.add(item)
    assert [queue.take()[0] for _ in range(3)] == [final, first, interim]


def test_a_newer_interim_replaces_the_waiting_one_and_keeps_its_turn() -> None:
    queue, replaced = scheduler(max_batch=1)
    old, other, new = ticket("a", Kind.INTERIM), ticket("b", Kind.INTERIM), ticket("a", Kind.INTERIM)
    for item in (old, other, new):
        queue.add(item)
    assert replaced == [old]
    assert queue.take() == [new]
    assert queue.take() == [other]


def test_a_final_is_never_replaced() -> None:
    queue, replaced = scheduler()
    first, second = ticket("a", Kind.FINAL), ticket("a", Kind.FINAL)
    queue.add(first)
    queue.add(second)
    assert not replaced
    assert queue.take() == [first, second]


def test_an_interim_waits_while_its_session_is_being_decoded() -> None:
    queue, _ = scheduler()
    queue.add(ticket("a", Kind.INTERIM))
    batch = queue.take()
    newer = ticket("a", Kind.INTERIM)
    queue.add(newer)
    assert queue.take() == []
    queue.done(batch)
    assert queue.take() == [newer]


def test_a_batch_holds_similar_lengths_and_only_those_whose_language_is_looked_for() -> None:
    queue, _ = scheduler()
    head = ticket("a", Kind.INTERIM, frames=500)
    near = ticket("b", Kind.INTERIM, frames=700)
    far = ticket("c", Kind.INTERIM, frames=1500)
    foreign = ticket("d", Kind.INTERIM, frames=500, language="de")
    asked = ticket("e", Kind.INTERIM, frames=500, language=None)
    told = ticket("f", Kind.INTERIM, frames=500)
    told.window = replace(told.window, hotwords=("Zürich",))
    for item in (head, near, far, foreign, asked, told):
        queue.add(item)
    assert queue.take() == [head, near, foreign]
    assert queue.take() == [far]
    assert queue.take() == [asked]
    assert queue.take() == [told]


def test_finals_do_not_wait_for_interims_in_their_batch() -> None:
    queue, _ = scheduler()
    final, interim = ticket("a", Kind.FINAL), ticket("b", Kind.INTERIM)
    queue.add(interim)
    queue.add(final)
    assert queue.take() == [final]


def test_too_many_finals_are_refused() -> None:
    queue, _ = scheduler(max_kept=1)
    assert queue.add(ticket("a", Kind.FINAL))
    assert not queue.add(ticket("b", Kind.FINAL))


def test_a_discarded_ticket_is_not_decoded() -> None:
    queue, _ = scheduler()
    gone = ticket("a", Kind.FINAL)
    queue.add(gone)
    queue.discard(gone)
    assert len(queue) == 0
    assert queue.take() == []


def test_the_wait_of_the_oldest_final_is_known() -> None:
    queue, _ = scheduler()
    queue.add(ticket("a", Kind.FINAL, queued_at_s=3.0))
    queue.add(ticket("b", Kind.FINAL, queued_at_s=5.0))
    assert queue.oldest_final_wait_s(6.5) == 3.5


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(list(Kind))), max_size=60))
def test_every_ticket_is_taken_or_replaced_exactly_once(script: list[tuple[str, Kind]]) -> None:
    queue, replaced = scheduler(max_batch=3)
    added = [ticket(session, kind) for session, kind in script]
    for item in added:
        queue.add(item)
    taken: list[Ticket] = []
    while batch := queue.take():
        assert len(batch) <= 3
        taken += batch
        queue.done(batch)
    assert sorted(map(id, taken + replaced)) == sorted(map(id, added))
    assert [t for t in taken if t.window.kind is Kind.FINAL] == [t for t in added if t.window.kind is Kind.FINAL]


def test_revisions_come_last_and_are_kept() -> None:
    queue, replaced = scheduler()
    revision, interim = ticket("a", Kind.REVISION), ticket("a", Kind.INTERIM)
    queue.add(revision)
    queue.add(interim)
    assert queue.take() == [interim]
    assert not replaced
    assert queue.oldest_final_wait_s(100.0) == 0.0
    assert queue.take() == [revision]
