"""Where new sessions go, by what was seen last."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from signaling.cluster.hop_choice import Choice
from signaling.cluster.places import Place


def place(name: str, sessions: int = 0, room: int = 20, **rest: object) -> Place:
    return replace(Place(name, "n", f"unix:/{name}", sessions, room, is_taking=True), **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "other", "is_proxied", "goes"),
    [
        (place("a", 0), place("b", 0), False, False),
        (place("a", 1), place("b", 0), False, False),  # one more is no reason
        (place("a", 2), place("b", 0), False, True),
        (place("a", 2, room=100), place("b", 0, room=100), False, False),  # both are as good as empty
        (place("a", 2), place("b", 0), True, False),  # a socket would stay on our hands
        (place("a", 10), place("b", 0), True, True),
        (place("a", 20), place("b", 19), False, True),
        (place("a", 20), place("b", 19), True, True),
        (place("a", 20), place("b", 20), False, False),
        (place("a", 20), place("b", 3, is_taking=False), False, False),
        (place("a", 20), place("b", 3, retry_after_s=2), False, False),
        (place("a", 0, is_taking=False), place("b", 19), True, True),
        (place("a", 0, retry_after_s=1), place("b", 19), True, True),
        (place("a", 5), place("b", 20, room=100), False, False),  # more sessions, and emptier by little
        (place("a", 15), place("b", 20, room=100), False, True),
    ],
)
def test_it_stays_unless_another_is_clearly_better(own: Place, other: Place, is_proxied: bool, goes: bool) -> None:
    assert Choice().place_for(own, [other], is_proxied=is_proxied) == (other if goes else None)


def test_two_idle_places_do_not_send_each_other_what_comes() -> None:
    loads = {"a": 0, "b": 0}
    choices = {name: Choice() for name in loads}
    moved = 0
    for number in range(40):
        at, other = ("a", "b") if number % 2 else ("b", "a")
        to = choices[at].place_for(place(at, loads[at], 40), [place(other, loads[other], 40)], is_proxied=False)
        moved += to is not None
        loads[at if to is None else other] += 1
    assert (moved, loads) == (0, {"a": 20, "b": 20})


def test_a_burst_within_a_second_does_not_all_go_to_one() -> None:
    """All is decided by one look: what was passed on since counts."""
    choice, own, other = Choice(), place("a", 10), place("b", 0)
    went = [choice.place_for(own, [other], is_proxied=False) for _ in range(20)]
    assert 5 <= sum(to is not None for to in went) <= 9
    full = place("a", 20)
    assert [choice.place_for(full, [other], is_proxied=False) is not None for _ in range(30)].count(True) <= 20


def test_what_was_passed_on_counts_until_it_has_been_told_of_twice() -> None:
    choice, own = Choice(), place("a", 4)
    first = place("b", 2)
    assert choice.place_for(own, [first], is_proxied=False) == first
    assert choice.place_for(own, [place("b", 2)], is_proxied=False) is None  # seen once more, and not there yet
    third = place("b", 2)
    assert choice.place_for(own, [third], is_proxied=False) == third


def test_of_many_the_emptier_of_two_is_taken() -> None:
    random.seed(1)
    others = [place(f"p{number}", number) for number in range(10)]
    own, taken = place("a", 20), set()
    for _ in range(60):
        to = Choice().place_for(own, others, is_proxied=False)
        assert to is not None
        taken.add(to.place_id)
    assert "p9" not in taken
    assert len(taken) > 4  # whoever sees the same does not send everybody to one


def test_what_came_to_nothing_is_taken_back() -> None:
    choice, own, other = Choice(), place("a", 4, 4), place("b", 0, 2)
    for _ in range(10):  # who has no key is refused there
        assert choice.place_for(own, [other], is_proxied=False) is other
        choice.take_back(other)
    assert choice.place_for(own, [other], is_proxied=False) is other
    seen = replace(other)
    assert choice.place_for(own, [seen], is_proxied=False) is seen
    assert choice.place_for(own, [seen], is_proxied=False) is None
    choice.take_back(other)  # of the second before
    assert choice.place_for(own, [seen], is_proxied=False) is seen
    newer = replace(seen, sessions=2)
    assert choice.place_for(own, [newer], is_proxied=False) is None
    choice.take_back(other)  # is told of by now, one way or the other
    choice.take_back(place("c", 0, 2))  # is gone
    assert choice.place_for(own, [newer], is_proxied=False) is None
