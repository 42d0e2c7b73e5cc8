"""Whose window is decoded next."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.decoder.scheduler import AHEAD_S, FIRST_PERIOD_S, Scheduler, Ticket
from mediaserver.decoder.window import Kind, Window


def ticket(
    session: str, kind: Kind, *, frames: int = 500, language: str | None = "en", queued_at_s: float = 0.0
) -> Ticket:
    return Ticket(Window(session, kind, np.zeros(16, dtype=np.float32), 0, language), frames, queued_at_s)


PERIOD_S = 0.6


def scheduler(*, slots: int = 1, max_batch: int = 8, max_kept: int = 100) -> tuple[Scheduler, list[Ticket]]:
    replaced: list[Ticket] = []
    queue = Scheduler(
        slots=slots,
        max_batch=max_batch,
        max_kept=max_kept,
        interim_period_s=PERIOD_S,
        on_replaced=replaced.append,
    )
    return queue, replaced


def test_finals_come_before_first_interims_and_these_before_others() -> None:
    queue, _ = scheduler(max_batch=1)
    interim, first, final = ticket("a", Kind.INTERIM), ticket("b", Kind.FIRST_INTERIM), ticket("c", Kind.FINAL)
    for item in (interim, first, final):
        queue.add(item)
    assert [queue.take(0.0)[0] for _ in range(3)] == [final, first, interim]


def test_a_newer_interim_replaces_the_waiting_one_and_keeps_its_turn() -> None:
    queue, replaced = scheduler(max_batch=1)
    old, other, new = (
        ticket(session, Kind.INTERIM, queued_at_s=at_s) for session, at_s in zip("aba", (0, 1, 2), strict=True)
    )
    for item in (old, other, new):
        queue.add(item)
    assert replaced == [old]
    assert queue.take(2.0) == [new]
    assert queue.take(2.0) == [other]


def test_a_final_is_never_replaced() -> None:
    queue, replaced = scheduler()
    first, second = ticket("a", Kind.FINAL), ticket("a", Kind.FINAL)
    queue.add(first)
    queue.add(second)
    assert not replaced
    assert queue.take(0.0) == [first, second]


def test_an_interim_waits_while_its_session_is_being_decoded() -> None:
    queue, _ = scheduler()
    queue.add(ticket("a", Kind.INTERIM))
    batch = queue.take(0.0)
    newer = ticket("a", Kind.INTERIM, queued_at_s=0.1)
    queue.add(newer)
    assert queue.take(1.0) == []
    assert queue.next_due_s() is None
    queue.done(batch, now_s=0.0)
    assert queue.take(1.0) == [newer]


def test_interims_of_a_session_are_a_period_apart_and_carry_the_newest_audio() -> None:
    queue, replaced = scheduler()
    queue.add(ticket("a", Kind.INTERIM))
    queue.done(queue.take(0.0), now_s=0.0)
    older, newer = ticket("a", Kind.INTERIM, queued_at_s=0.1), ticket("a", Kind.INTERIM, queued_at_s=0.5)
    queue.add(older)
    assert queue.take(PERIOD_S - 0.01) == []
    assert queue.next_due_s() == PERIOD_S
    queue.add(newer)
    assert replaced == [older]
    assert queue.take(PERIOD_S) == [newer]


def test_tries_for_the_first_words_come_sooner_but_push_nobody_aside() -> None:
    queue, _ = scheduler(max_batch=1)
    queue.add(ticket("a", Kind.FIRST_INTERIM))
    queue.done(queue.take(0.0), now_s=0.0)
    again, waiting = ticket("a", Kind.FIRST_INTERIM, queued_at_s=0.1), ticket("b", Kind.INTERIM, queued_at_s=0.2)
    queue.add(again)
    queue.add(waiting)
    assert queue.take(FIRST_PERIOD_S) == [waiting]
    assert queue.take(FIRST_PERIOD_S) == [again]


def test_the_session_that_has_waited_longest_goes_first() -> None:
    queue, _ = scheduler(max_batch=1)
    queue.add(ticket("b", Kind.INTERIM, queued_at_s=0.3))
    queue.add(ticket("a", Kind.INTERIM, queued_at_s=0.2))
    assert [queue.take(0.3)[0].window.session_id for _ in range(2)] == ["a", "b"]


def test_free_slots_share_what_is_due_and_the_last_gathers_what_will_be_soon() -> None:
    queue, _ = scheduler(slots=2)
    for session, at_s in (("a", 0.0), ("b", 0.0), ("soon", AHEAD_S), ("later", AHEAD_S + 0.1)):
        queue.add(ticket(session, Kind.INTERIM, queued_at_s=at_s))
        queue.done(queue.take(at_s), now_s=at_s)
    for session in ("a", "b", "soon", "later"):
        queue.add(ticket(session, Kind.INTERIM, queued_at_s=0.5))
    assert [t.window.session_id for t in queue.take(PERIOD_S, free_slots=2)] == ["a"]
    assert [t.window.session_id for t in queue.take(PERIOD_S, free_slots=1)] == ["b", "soon"]
    assert queue.take(PERIOD_S, free_slots=1) == []


def test_a_speculative_final_takes_the_turn_of_its_interim_and_gives_it_up_to_the_next() -> None:
    queue, replaced = scheduler(max_batch=1)
    pause, speech = ticket("a", Kind.SPECULATIVE), ticket("a", Kind.INTERIM)
    queue.add(ticket("a", Kind.INTERIM))
    queue.done(queue.take(0.0), now_s=0.0)
    queue.add(pause)
    assert queue.next_due_s() == 0.0
    queue.add(speech)
    assert replaced == [pause]


def test_what_is_withdrawn_is_not_decoded_and_its_asker_is_told() -> None:
    queue, replaced = scheduler()
    gone, final = ticket("a", Kind.SPECULATIVE), ticket("a", Kind.FINAL)
    queue.add(gone)
    queue.add(final)
    queue.withdraw("a")
    queue.withdraw("nobody")
    assert replaced == [gone]
    assert queue.take(0.0) == [final]


def test_a_revision_leaves_a_slot_for_what_is_more_urgent_and_goes_alone() -> None:
    queue, _ = scheduler(slots=2)
    first, second = ticket("a", Kind.REVISION), ticket("b", Kind.REVISION)
    queue.add(first)
    queue.add(second)
    assert queue.take(0.0, free_slots=1) == []
    assert queue.take(0.0, free_slots=2) == [first]
    assert queue.take(0.0, free_slots=1) == []


def test_sessions_that_are_gone_are_forgotten() -> None:
    queue, _ = scheduler()
    for number in range(100):
        queue.add(ticket(f"s{number}", Kind.INTERIM, queued_at_s=float(number)))
        queue.done(queue.take(float(number)), now_s=float(number))
    assert len(queue._taken_at_s) <= 2


def test_a_batch_holds_similar_lengths_and_only_those_whose_language_is_looked_for() -> None:
    queue, _ = scheduler()
    head = ticket("a", Kind.INTERIM, frames=500)
    near = ticket("b", Kind.INTERIM, frames=600)
    far = ticket("c", Kind.INTERIM, frames=1500)
    foreign = ticket("d", Kind.INTERIM, frames=500, language="de")
    asked = ticket("e", Kind.INTERIM, frames=500, language=None)
    told = ticket("f", Kind.INTERIM, frames=500)
    told.window = replace(told.window, hotwords=("Zürich",))
    for item in (head, near, far, foreign, asked, told):
        queue.add(item)
    assert queue.take(0.0) == [head, near, foreign]
    assert queue.take(0.0) == [far]
    assert queue.take(0.0) == [asked]
    assert queue.take(0.0) == [told]


def test_finals_do_not_wait_for_interims_in_their_batch() -> None:
    queue, _ = scheduler()
    final, interim = ticket("a", Kind.FINAL), ticket("b", Kind.INTERIM)
    queue.add(interim)
    queue.add(final)
    assert queue.take(0.0) == [final]


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
    assert queue.take(0.0) == []


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(list(Kind))), max_size=60))
def test_every_ticket_is_taken_or_replaced_exactly_once(script: list[tuple[str, Kind]]) -> None:
    queue, replaced = scheduler(max_batch=3)
    added = [ticket(session, kind) for session, kind in script]
    for item in added:
        queue.add(item)
    taken: list[Ticket] = []
    now_s = 0.0
    while len(queue):
        batch = queue.take(now_s)
        assert len(batch) <= 3
        taken += batch
        queue.done(batch, now_s=0.0)
        due_s = queue.next_due_s()
        now_s = now_s if batch or due_s is None else max(now_s, due_s)
        assert batch or due_s is not None
    assert sorted(map(id, taken + replaced)) == sorted(map(id, added))
    for kind in (Kind.FINAL, Kind.RECORDING):
        assert [t for t in taken if t.window.kind is kind] == [t for t in added if t.window.kind is kind]


def test_revisions_come_last_and_are_kept() -> None:
    queue, replaced = scheduler()
    revision, interim = ticket("a", Kind.REVISION), ticket("a", Kind.INTERIM)
    queue.add(revision)
    queue.add(interim)
    assert queue.take(0.0) == [interim]
    assert not replaced
    assert queue.take(0.0) == [revision]
