"""How far confidence can be believed: right words by hand, figures whose value is known, curves from known chances."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from benchmarks.reliability import Judge, fit, pool_adjacent_violators, reliability
from benchmarks.scoring import Normaliser


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(Normaliser())


@pytest.mark.parametrize(
    ("reference", "words", "right"),
    [
        ("the cat sat", ["The", "cat", "sat."], [True, True, True]),
        ("the cat sat", ["the", "cap", "sat"], [True, False, True]),
        ("the cat sat", ["the", "big", "cat", "sat"], [True, False, True, True]),
        ("it isn't there", ["It", "is", "not", "there"], [True, True, True, True]),
        ("twenty five men", ["25", "men"], [True, True]),
        ("25 men", ["twenty", "five", "men"], [True, True, True]),
        ("25 men", ["twenty", "six", "men"], [False, False, True]),
        ("one six two", ["1,", "6,", "3"], [True, True, False]),
        ("well yes", ["um,", "well", "yes"], [None, True, True]),
        ("", ["you"], [False]),
        ("yes", [], []),
    ],
)
def test_right_words_are_told_from_wrong_ones(
    judge: Judge, reference: str, words: list[str], right: list[bool | None]
) -> None:
    assert judge.right_words(reference, words, "en") == right


def test_perfect_confidence_has_no_error() -> None:
    found = reliability([0.0] * 50 + [1.0] * 50, [0] * 50 + [1] * 50)
    assert (found.ece, found.ece_width, found.brier, found.auc) == (0, 0, 0, 1)


def test_confidence_that_is_always_too_high_is_off_by_that_much() -> None:
    found = reliability([0.9] * 100, [1] * 70 + [0] * 30)
    assert found.ece == found.ece_width == pytest.approx(0.2)
    assert found.brier == pytest.approx(0.7 * 0.01 + 0.3 * 0.81)
    assert found.auc == 0.5


def test_bins_that_are_wrong_both_ways_do_not_make_up_for_each_other() -> None:
    found = reliability([0.2] * 100 + [0.8] * 100, [1] * 50 + [0] * 50 + [1] * 50 + [0] * 50)
    assert found.ece == found.ece_width == pytest.approx(0.3)


def test_of_shares_there_is_no_ranking() -> None:
    assert np.isnan(reliability([0.5, 0.6], [0.5, 1.0]).auc)
    assert reliability([], []).count == 0


def test_violators_are_pooled_by_weight() -> None:
    assert pool_adjacent_violators([0.1, 0.6, 0.3, 0.9], [1, 1, 2, 1]) == pytest.approx([0.1, 0.4, 0.4, 0.9])
    assert pool_adjacent_violators([0.9, 0.5, 0.1], [1, 1, 1]) == pytest.approx([0.5, 0.5, 0.5])


def test_a_fitted_curve_finds_the_chances_that_words_were_drawn_by() -> None:
    generator = np.random.default_rng(1)
    raw = generator.beta(4, 1, 20_000)
    right = generator.random(20_000) < raw**2
    curve = fit(raw.tolist(), right.tolist())
    assert (
        reliability([curve(p) for p in raw], right.tolist()).ece < 0.02 < reliability(raw.tolist(), right.tolist()).ece
    )
    made = [curve(step / 100) for step in range(101)]
    assert all(before <= after for before, after in pairwise(made))
    assert 0.0 < made[0] < made[-1] < 1.0


@pytest.mark.parametrize("right", [[True] * 20, [False] * 20, [True] * 10 + [False] * 10])
def test_a_few_words_of_any_kind_give_a_curve(right: list[bool]) -> None:
    curve = fit([n / 20 for n in range(20)], right)
    assert 0.0 < curve(0.0) <= curve(1.0) < 1.0


def test_no_words_give_the_identity() -> None:
    assert fit([], [])(0.3) == 0.3
