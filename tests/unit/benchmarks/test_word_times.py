"""Where words lie: differences of boundaries, and words that are where they cannot be."""

from __future__ import annotations

import pytest

from benchmarks.word_times import Boundary, boundaries, misplaced
from mediaserver.events import Final, Interim, Revision, Word


def words(*placed: tuple[str, float, float]) -> list[Word]:
    return [Word(text, start, end, 0.9) for text, start, end in placed]


def final(number: int, said: list[Word], *, timestamp: float = 10.0) -> Final:
    return Final(number, "", 0.9, 0.0, 1.0, timestamp, "en", None, said)


def test_boundaries_are_compared_where_both_have_the_word() -> None:
    ours = words(("Hello,", 0.1, 0.5), ("big", 0.5, 0.7), ("world", 0.7, 1.1), ("...", 1.1, 1.2))
    theirs = words(("hello", 0.0, 0.5), ("world!", 0.75, 1.0))
    assert boundaries(ours, theirs) == [
        Boundary(pytest.approx(0.1), pytest.approx(0.0)),
        Boundary(pytest.approx(-0.05), pytest.approx(0.1)),
    ]


def test_words_in_order_inside_the_audio_are_all_right() -> None:
    said = words(("a", 0.0, 0.5), ("b", 0.5, 0.5), ("c", 0.6, 10.0))
    assert misplaced([final(1, said), final(2, words(("d", 10.0, 10.4)), timestamp=11.0)]) == []


@pytest.mark.parametrize(
    "said",
    [
        words(("a", 0.0, 0.5), ("b", 0.4, 0.6)),
        words(("a", 0.5, 0.4)),
        words(("a", -0.1, 0.4)),
        words(("a", 9.0, 10.1)),
    ],
)
def test_a_word_where_it_cannot_be_is_found(said: list[Word]) -> None:
    assert len(misplaced([Interim(1, "", "", 0.9, 0.0, 1.0, 10.0, said)])) == 1


def test_what_remains_of_all_utterances_is_looked_at_together() -> None:
    events = [final(1, words(("a", 0.0, 1.0))), final(2, words(("b", 1.0, 2.0)))]
    assert misplaced(events) == []
    assert len(misplaced([*events, Revision(1, "", 0.9, 0.0, 1.0, 10.0, words(("a", 0.0, 1.3)))])) == 1
