"""Latency and flicker of event streams in which every figure is known by hand.

Word k of an utterance that starts at 1.0 s ends at 1.4 + 0.5 k: 1.4, 1.9, 2.4, 2.9 …
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.screen import ScreenScore, Seen, final_text, interim_words, kept, score_stream, tokens
from mediaserver.events import Final, Interim, Revision, SpeechStarted, SpeechStopped, Word

WORD_S = 0.4
"""Word k of an utterance that starts at s is spoken from s + 0.5 k to s + 0.5 k + 0.4."""


def words(text: str, start: float) -> list[Word]:
    return [Word(word, start + 0.5 * k, start + 0.5 * k + WORD_S, 0.9) for k, word in enumerate(text.split())]


def started(at_s: float, at: float) -> Seen:
    return Seen(at_s, SpeechStarted(at=at))


def stopped(at_s: float, at: float) -> Seen:
    return Seen(at_s, SpeechStopped(at=at))


def interim(at_s: float, text: str, stable: str = "", *, number: int = 1, start: float = 1.0) -> Seen:
    said = words(text, start)
    return Seen(at_s, Interim(number, text, stable, 0.9, start, at_s - start, at_s, said))


def final(at_s: float, text: str, *, number: int = 1, start: float = 1.0) -> Seen:
    said = words(text, start)
    duration = said[-1].end - start if said else 0.0
    return Seen(at_s, Final(number, text, 0.9, start, duration, at_s, "en", None, said))


def revision(at_s: float, text: str, *, number: int = 1, start: float = 1.0) -> Seen:
    said = words(text, start)
    return Seen(at_s, Revision(number, text, 0.9, start, 1.0, at_s, said))


def approx(values: list[float]) -> object:
    return pytest.approx(values, abs=1e-9)


def test_a_word_counts_from_when_it_came_and_stayed() -> None:
    score = score_stream(
        [
            started(1.3, 1.0),
            interim(2.0, "the"),
            interim(2.5, "the cat"),
            stopped(3.2, 2.4),
            final(3.4, "the cat sat"),
        ]
    )
    assert score.word_s == approx([2.0 - 1.4, 2.5 - 1.9, 3.4 - 2.4])
    assert (score.shown_words, score.changed_words, score.flicker) == (3, 0, 0.0)
    assert score.first_text_s == approx([1.0])
    assert score.first_text_from_word_s == approx([1.0])
    assert score.final_s == approx([1.0])
    assert score.final_from_word_s == approx([1.0])


def test_a_word_that_changed_counts_from_its_last_form() -> None:
    score = score_stream([interim(2.0, "the cap"), interim(2.5, "the cat"), final(3.0, "the cat")])
    assert score.word_s == approx([2.0 - 1.4, 2.5 - 1.9])
    # "the", "cap", "cat" came up; "cap" went.
    assert (score.shown_words, score.changed_words) == (3, 1)
    assert score.flicker == pytest.approx(1 / 3)


def test_a_word_that_went_and_came_back_counts_from_its_return() -> None:
    score = score_stream([interim(2.0, "the cat"), interim(2.2, "the"), interim(2.6, "the cat"), final(3.0, "the cat")])
    assert score.word_s == approx([2.0 - 1.4, 2.6 - 1.9])
    assert (score.shown_words, score.changed_words) == (3, 1)


def test_a_word_that_moved_has_not_changed() -> None:
    score = score_stream([interim(2.0, "cat sat"), final(3.0, "the cat sat")])
    # Now "the" is the word that ends at 1.4, "cat" at 1.9 and "sat" at 2.4.
    assert score.word_s == approx([3.0 - 1.4, 2.0 - 1.9, 2.0 - 2.4])
    assert (score.shown_words, score.changed_words) == (3, 0)


def test_case_and_punctuation_are_no_change() -> None:
    score = score_stream([interim(2.0, "The cat,"), final(3.0, "the Cat.")])
    assert score.changed_words == 0
    assert score.word_s == approx([2.0 - 1.4, 2.0 - 1.9])


def test_a_revision_is_a_change_and_gives_the_places() -> None:
    score = score_stream([interim(2.0, "the cap"), final(3.0, "the cap"), revision(5.0, "the cat")])
    assert score.word_s == approx([2.0 - 1.4, 5.0 - 1.9])
    assert (score.final_words, score.revised_words) == (2, 1)
    assert score.changed_words == 1
    # The final's own time is the final's, whatever a revision says later.
    assert score.final_from_word_s == approx([3.0 - 1.9])


def test_an_empty_final_takes_its_words_from_the_screen() -> None:
    score = score_stream([interim(2.0, "thank you"), final(3.0, "")])
    assert (score.shown_words, score.changed_words) == (2, 2)
    assert score.word_s == []
    assert score.final_s == []
    assert score.unfinished == 0


def test_text_without_a_final_is_told() -> None:
    score = score_stream([interim(2.0, "thank you")])
    assert (score.unfinished, score.shown_words) == (1, 2)


def test_stable_words_count_from_when_they_were_told() -> None:
    score = score_stream(
        [
            interim(2.0, "the cat", "the"),
            interim(2.5, "the cat sat", "the cat"),
            final(3.0, "the cat sat"),
        ]
    )
    assert score.stable_word_s == approx([2.0 - 1.4, 2.5 - 1.9, 3.0 - 2.4])
    assert (score.stable_words, score.stable_corrected, score.stable_broken) == (2, 0, 0)


def test_a_final_that_corrects_stable_text_is_counted() -> None:
    score = score_stream([interim(2.0, "the cap sat", "the cap"), final(3.0, "the cat sat")])
    assert (score.stable_words, score.stable_corrected) == (2, 1)
    assert score.stable_corrected_share == pytest.approx(0.5)
    assert score.stable_word_s == approx([2.0 - 1.4, 3.0 - 1.9, 3.0 - 2.4])


@pytest.mark.parametrize("later", ["the", "the cap", ""])
def test_stable_text_that_shrinks_or_changes_is_broken(later: str) -> None:
    score = score_stream([interim(2.0, "the cat", "the cat"), interim(2.5, "the cat", later), final(3.0, "the cat")])
    assert score.stable_broken == 1


def test_edges_belong_to_the_nearest_utterance() -> None:
    score = score_stream(
        [
            started(1.3, 1.0),
            interim(2.0, "one"),
            stopped(2.0, 1.5),
            started(10.3, 10.1),
            final(2.2, "one"),
            interim(11.0, "two", number=2, start=10.0),
            stopped(11.1, 10.4),
            final(11.4, "two", number=2, start=10.0),
        ]
    )
    assert score.first_text_s == approx([1.0, 0.9])
    assert score.final_s == approx([0.7, 1.0])


def test_an_utterance_cut_by_length_has_no_end_of_speech() -> None:
    score = score_stream([started(1.3, 1.0), stopped(30.0, 29.0), final(3.0, "one two")])
    assert score.final_s == []
    assert score.final_from_word_s == approx([3.0 - 1.9])


def test_a_final_without_interims_is_its_own_first_text() -> None:
    score = score_stream([started(1.3, 1.0), final(3.0, "one")])
    assert score.first_text_s == approx([2.0])


def test_words_without_a_place_are_left_out_and_told() -> None:
    seen = final(3.0, "one two")
    seen.event.words.pop()  # type: ignore[union-attr]
    score = score_stream([seen])
    assert len(score.word_s) == 1
    assert score.untimed_words == 1


def test_scores_add_up() -> None:
    one = score_stream([interim(2.0, "a b"), final(3.0, "a c")])
    both = one + one
    assert both.shown_words == 2 * one.shown_words
    assert both.flicker == one.flicker
    assert len(both.word_s) == 4
    assert one + ScreenScore() == one


def test_what_remains_is_the_finals_as_revised() -> None:
    seen = [final(9.0, "there", number=2), interim(1.0, "hello you"), final(3.0, "hello"), revision(10.0, "Hello.")]
    assert final_text(seen) == "Hello. there"
    assert interim_words(seen) == ["hello", "you"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Don't  stop!", ["don't", "stop"]),
        ("'quoted' — “dash”…", ["quoted", "dash"]),
        ("twenty-one 3.5", ["twentyone", "35"]),
        ("Ελλάδα, été", ["ελλάδα", "été"]),
        ("東京 is ok", ["東", "京", "is", "ok"]),
        ("", []),
        ("— …", []),
    ],
)
def test_words_are_told_apart_as_a_reader_does(text: str, found: list[str]) -> None:
    assert tokens(text) == found


WORDS = st.lists(st.sampled_from("abc"), max_size=9)


@given(WORDS, WORDS)
def test_kept_is_a_longest_common_subsequence(before: list[str], after: list[str]) -> None:
    pairs = kept(before, after)
    assert all(before[i] == after[j] for i, j in pairs)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs))
    longest = max(
        (
            size
            for size in range(len(before) + 1)
            if any(_within(chosen, after) for chosen in itertools.combinations(before, size))
        ),
    )
    assert len(pairs) == longest


def _within(chosen: tuple[str, ...], text: list[str]) -> bool:
    letters = iter(text)
    return all(letter in letters for letter in chosen)


@given(st.lists(WORDS, min_size=1, max_size=6))
def test_words_are_neither_lost_nor_made_by_the_account(texts: list[list[str]]) -> None:
    seen = [interim(2.0 + k, " ".join(text)) for k, text in enumerate(texts)]
    seen.append(final(20.0, " ".join(texts[-1])))
    score = score_stream(seen)
    assert score.shown_words - score.changed_words == len(texts[-1])
    assert 0.0 <= score.flicker <= 1.0
