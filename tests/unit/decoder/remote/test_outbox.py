"""What is kept while an engine is away, in which order it is sent, and when it is given up."""

from __future__ import annotations

import numpy as np
import pytest

from mediaserver.decoder.remote import outbox as module
from mediaserver.decoder.remote.outbox import AWAY_LIMIT_S, MAX_TRIES, REFRESH_S, Entry, Outbox
from mediaserver.decoder.window import Kind, Window

PERIOD_S = 0.6


def window(session: str = "a", kind: Kind = Kind.FINAL) -> Window:
    return Window(session, kind, np.zeros(160, dtype=np.float32), 0)


def connected() -> Outbox:
    outbox = Outbox(interim_period_s=PERIOD_S)
    outbox.connected()
    return outbox


def add(outbox: Outbox, session: str = "a", kind: Kind = Kind.FINAL, *, now_s: float = 0.0) -> Entry:
    entry, _ = outbox.add(window(session, kind), now_s)
    assert entry is not None
    return entry


def send_all(outbox: Outbox, now_s: float = 0.0) -> list[Entry]:
    sent = []
    while (entry := outbox.next_to_send(now_s)) is not None:
        sent.append(entry)
    return sent


def test_the_most_urgent_is_sent_first() -> None:
    outbox = connected()
    kinds = [Kind.REVISION, Kind.INTERIM, Kind.FIRST_INTERIM, Kind.FINAL]
    for number, kind in enumerate(kinds):
        add(outbox, str(number), kind)
    assert [entry.window.kind for entry in send_all(outbox)] == sorted(kinds)


def test_nothing_is_sent_while_there_is_no_engine() -> None:
    outbox = Outbox(interim_period_s=PERIOD_S)
    entry = add(outbox)
    assert send_all(outbox) == []
    assert outbox.next_due_s(0.0) is None
    outbox.connected()
    assert send_all(outbox) == [entry]
    assert send_all(outbox) == []


def test_a_newer_interim_replaces_an_unsent_one_of_its_session() -> None:
    outbox = connected()
    old = add(outbox, kind=Kind.INTERIM)
    add(outbox, "other", Kind.INTERIM)
    new, replaced = outbox.add(window(kind=Kind.INTERIM), 0.0)
    assert replaced is old
    assert new is not None
    assert len(outbox) == 2
    send_all(outbox)
    assert outbox.add(window(kind=Kind.INTERIM), 0.0)[1] is None  # a sent one is the engine's to replace


def test_a_withdrawn_window_is_not_sent() -> None:
    outbox = connected()
    final, speculative = add(outbox), add(outbox, kind=Kind.SPECULATIVE)
    assert not outbox.has_sent("a")
    assert outbox.withdraw("a") is speculative
    assert outbox.withdraw("a") is None
    assert send_all(outbox) == [final]
    assert not outbox.has_sent("a")
    add(outbox, kind=Kind.INTERIM)
    send_all(outbox)
    assert outbox.has_sent("a")
    assert not outbox.has_sent("b")


def test_the_newest_interim_waits_here_until_its_period_is_over() -> None:
    outbox = connected()
    first = add(outbox, kind=Kind.INTERIM)
    assert send_all(outbox) == [first]
    outbox.remove(first.ident)  # answered at once
    for tenth in range(1, 6):
        newest = add(outbox, kind=Kind.INTERIM, now_s=tenth / 10)
        assert send_all(outbox, tenth / 10) == []
    assert outbox.next_due_s(0.5) == PERIOD_S
    assert send_all(outbox, PERIOD_S) == [newest]


def test_an_interim_that_is_not_answered_is_followed_by_newer_ones_now_and_then() -> None:
    outbox = connected()
    first, other = add(outbox, kind=Kind.INTERIM), add(outbox, "b", Kind.INTERIM)
    assert send_all(outbox) == [first, other]
    newer = add(outbox, kind=Kind.INTERIM, now_s=0.1)
    assert outbox.next_due_s(0.1) == REFRESH_S
    assert send_all(outbox, 0.1) == []
    assert send_all(outbox, REFRESH_S) == [newer]


def test_first_words_finals_and_speculation_do_not_wait_for_a_period() -> None:
    outbox = connected()
    first = add(outbox, kind=Kind.INTERIM)
    send_all(outbox)
    outbox.remove(first.ident)
    speculative = add(outbox, kind=Kind.SPECULATIVE, now_s=0.1)
    final = add(outbox, now_s=0.1)
    assert send_all(outbox, 0.1) == [final, speculative]
    outbox.remove(speculative.ident)
    opening = add(outbox, kind=Kind.FIRST_INTERIM, now_s=0.1)
    assert send_all(outbox, REFRESH_S) == [opening]


def test_sessions_that_are_gone_are_forgotten() -> None:
    outbox = connected()
    for number in range(100):
        outbox.remove(add(outbox, str(number), Kind.INTERIM).ident)
        entry = add(outbox, str(number), Kind.INTERIM)
        send_all(outbox)
        outbox.remove(entry.ident)
    assert outbox.next_due_s(PERIOD_S) is None
    assert not outbox._sent_at_s
    assert not outbox._sent_replaceable


def test_what_an_engine_had_is_sent_to_the_next_one_but_for_interims() -> None:
    outbox = connected()
    final, interim, revision = (add(outbox, kind=kind) for kind in (Kind.FINAL, Kind.INTERIM, Kind.REVISION))
    send_all(outbox)
    interims, given_up = outbox.lost(1.0)
    assert (interims, given_up) == ([interim], [])
    outbox.connected()
    assert send_all(outbox) == [final, revision]


def test_an_interim_without_an_engine_is_not_taken() -> None:
    outbox = Outbox(interim_period_s=PERIOD_S)
    assert outbox.add(window(kind=Kind.INTERIM), 0.0) == (None, None)
    assert len(outbox) == 0


def test_a_window_over_which_engines_die_is_given_up() -> None:
    outbox = connected()
    deadly = add(outbox)
    for _ in range(MAX_TRIES - 1):
        send_all(outbox)
        assert outbox.lost(0.0) == ([], [])
        outbox.connected()
    send_all(outbox)
    innocent = add(outbox)  # never sent: it is not at fault
    assert outbox.lost(0.0) == ([], [deadly])
    outbox.connected()
    assert send_all(outbox) == [innocent]


def test_waiting_for_an_engine_ends() -> None:
    outbox = connected()
    entry = add(outbox, now_s=0.0)
    assert outbox.expire(1000.0) == []  # a slow engine is not one that is away
    outbox.lost(1000.0)
    outbox.lost(1000.0 + AWAY_LIMIT_S / 2)  # a try to connect that failed begins nothing anew
    late = add(outbox, now_s=1000.0 + AWAY_LIMIT_S / 2)
    assert outbox.expire(1000.0 + AWAY_LIMIT_S - 0.1) == []
    assert outbox.expire(1000.0 + AWAY_LIMIT_S) == [entry]
    assert outbox.expire(1000.0 + 1.5 * AWAY_LIMIT_S) == [late]
    assert len(outbox) == 0


def test_only_so_many_finals_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    outbox = connected()
    first = add(outbox, "a")
    add(outbox, "b", Kind.REVISION)
    assert outbox.add(window("c"), 0.0) == (None, None)
    add(outbox, "d", Kind.INTERIM)  # interims do not count
    outbox.remove(first.ident)
    add(outbox, "c")


def test_only_so_many_are_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IN_FLIGHT", 2)
    outbox = connected()
    entries = [add(outbox, str(number)) for number in range(3)]
    assert send_all(outbox) == entries[:2]
    outbox.remove(entries[0].ident)
    assert send_all(outbox) == entries[2:]


def test_an_answer_that_nobody_knows_is_nothing() -> None:
    outbox = connected()
    entry = add(outbox)
    send_all(outbox)
    assert outbox.remove(entry.ident) is entry
    assert outbox.remove(entry.ident) is None
    assert outbox.remove(99) is None


def test_the_end_empties_it() -> None:
    outbox = connected()
    entries = [add(outbox), add(outbox, kind=Kind.INTERIM)]
    assert outbox.clear() == entries
    assert outbox.clear() == []
