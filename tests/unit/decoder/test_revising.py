"""Taking a later hypothesis over an earlier one."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.decoder.revising import revised
from mediaserver.decoder.window import HypothesisWord


def said(text: str, probability: float) -> list[HypothesisWord]:
    return [HypothesisWord(" " + word, n * 0.5, n * 0.5 + 0.5, probability) for n, word in enumerate(text.split())]


def text(words: list[HypothesisWord]) -> str:
    return "".join(word.text for word in words).strip()


def test_a_replacement_must_be_surer_by_the_gain() -> None:
    old = said("the cat sat", 0.7)
    assert text(revised(old, said("the cad sat", 0.75), gain=0.1)) == "the cat sat"
    assert text(revised(old, said("the cad sat", 0.85), gain=0.1)) == "the cad sat"


def test_words_behind_those_that_are_kept_are_not_lost_with_the_replacement() -> None:
    old = said("the cat", 0.9)
    new = [*said("the cad", 0.5), *[HypothesisWord(f" w{n}", 1.0 + n, 2.0 + n, 0.5) for n in range(5)]]
    assert text(revised(old, new, gain=0.1)) == "the cat w0 w1 w2 w3 w4"


def test_words_before_those_that_are_kept_are_not_lost_either() -> None:
    old = [HypothesisWord(" cat", 2.0, 2.5, 0.9)]
    new = [HypothesisWord(" the", 1.0, 1.5, 0.5), HypothesisWord(" cad", 2.0, 2.5, 0.5)]
    assert text(revised(old, new, gain=0.1)) == "the cat"


def test_added_and_left_out_words_are_taken_as_heard() -> None:
    assert text(revised(said("the cat", 0.9), said("the black cat sat", 0.3), gain=0.1)) == "the black cat sat"
    assert text(revised(said("the the cat", 0.9), said("the cat", 0.3), gain=0.1)) == "the cat"
    assert revised(said("thank you", 0.9), [], gain=0.1) == []


def test_equal_words_have_the_new_spelling_and_times() -> None:
    new = [HypothesisWord(" However,", 0.3, 0.9, 0.8)]
    assert revised(said("however", 0.9), new, gain=0.5) == new


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8), st.floats(-1, 1))
def test_times_never_go_back(old: list[str], new: list[str], gain: float) -> None:
    result = revised(said(" ".join(old), 0.5), said(" ".join(new), 0.6), gain=gain)
    assert all(before.end <= after.start for before, after in itertools.pairwise(result))
