"""Word errors, counted by hand."""

from __future__ import annotations

import math

import pytest

from benchmarks.scoring import (
    Errors,
    Normaliser,
    difference_interval,
    letter_errors,
    percentile,
    total,
    word_errors,
)


@pytest.fixture(scope="module")
def normaliser() -> Normaliser:
    return Normaliser()


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("Mr. Smith's colour, uh, isn't RED!", "en", ["mister", "smith", "is", "color", "is", "not", "red"]),
        ("twenty-one men", "en", ["21", "men"]),
        ("Ça va, l'été ?", "fr", ["ça", "va", "l", "été"]),
        ("广州 2018 年", "zh", ["广", "州", "2", "0", "1", "8", "年"]),
        ("", "en", []),
    ],
)
def test_texts_are_brought_to_one_spelling(normaliser: Normaliser, text: str, language: str, words: list[str]) -> None:
    assert normaliser.words(text, language) == words


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("a b c d", "a b c d", Errors(4, 0, 0, 0)),
        ("a b c d", "a x c d", Errors(4, 1, 0, 0)),
        ("a b c d", "a c d", Errors(4, 0, 1, 0)),
        ("a b c d", "a b b c d e", Errors(4, 0, 0, 2)),
        ("a b", "", Errors(2, 0, 2, 0)),
        ("", "a b", Errors(0, 0, 0, 2)),
        ("", "", Errors(0, 0, 0, 0)),
    ],
)
def test_errors_are_counted_by_kind(reference: str, hypothesis: str, expected: Errors) -> None:
    assert word_errors(reference.split(), hypothesis.split()) == expected


@pytest.mark.parametrize("heard", ["1 6 0 7", "1, 6, 0, 7.", "1607", "one six zero seven", "160 7"])
def test_digits_read_out_are_compared_one_by_one(normaliser: Normaliser, heard: str) -> None:
    said, words = normaliser.pair("one six zero seven", heard, "en")
    assert word_errors(said, words) == Errors(4, 0, 0, 0)


def test_a_wrong_digit_is_one_error(normaliser: Normaliser) -> None:
    assert word_errors(*normaliser.pair("one six zero seven", "1 5 0 7 please")) == Errors(4, 1, 0, 1)


def test_numbers_within_a_sentence_stay_whole(normaliser: Normaliser) -> None:
    assert normaliser.pair("press one two", "press 12") == (["press", "12"], ["press", "12"])


def test_letters_count_without_spaces() -> None:
    assert letter_errors(["new", "york"], ["newyork"]) == Errors(7, 0, 0, 0)
    assert letter_errors(["cat"], ["cut"]) == Errors(3, 1, 0, 0)


def test_a_set_weighs_words_and_not_files() -> None:
    # 1 of 1 wrong and 0 of 9 wrong: 10 %, where the mean of the files' rates would be 50 %.
    assert total([Errors(1, 1, 0, 0), Errors(9, 0, 0, 0)]).rate == pytest.approx(0.1)


def test_words_where_none_were_said_are_infinitely_wrong() -> None:
    assert Errors(0, 0, 0, 3).rate == math.inf
    assert Errors().rate == 0.0


def test_the_interval_of_equal_systems_is_zero() -> None:
    errors = [Errors(10, 1, 0, 0), Errors(20, 0, 2, 0)]
    assert difference_interval(errors, errors) == (0.0, 0.0)
    assert difference_interval([], []) == (0.0, 0.0)


def test_the_interval_holds_the_difference() -> None:
    ours = [Errors(10, k % 3, 0, 0) for k in range(30)]
    theirs = [Errors(10, 0, 0, 0) for _ in range(30)]
    low, high = difference_interval(ours, theirs)
    assert low < 0.1 < high
    assert low > 0.05


def test_percentiles_are_linear_between_neighbours() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == pytest.approx(2.5)
    assert percentile([1.0], 95) == 1.0
    assert percentile([], 95) is None
