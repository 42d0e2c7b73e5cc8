"""What counts as a repetition loop, and what people do say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.loops import loops, runs
from benchmarks.scoring import Normaliser

NORMALISER = Normaliser()


@pytest.mark.parametrize(
    ("text", "reference", "found"),
    [
        ("light, light, Light!", "light", ["light × 3"]),
        ("light, light", "light", []),
        ("I love you, I love you. I love you", "", ["i love you × 3"]),
        ("one of the one of the one of the", "", ["one of the × 3"]),
        ("and so it goes and so it goes and so it goes on", "and so it goes", ["and so it goes × 3"]),
        ("no no no", "no, no, no", []),
        ("no no no no", "no, no, no", []),
        ("no no no no no", "no, no, no", ["no × 5"]),
        ("zero zero zero", "000", []),
        ("0 0 0 7", "zero zero zero seven", []),
        ("one, one, one", "111", []),
        ("zero zero zero", "zero", ["zero × 3"]),
        ("ha ha ha", "ha ha", []),
        ("", "no", []),
        ("a b c d e a b c d e a b c d e", "", []),
    ],
)
def test_loops(text: str, reference: str, found: list[str]) -> None:
    assert loops(text, reference, NORMALISER) == found


def test_a_repetition_is_told_by_its_shortest_phrase() -> None:
    assert runs(["no", "no", "no", "no"]) == {("no",): 4}
    assert runs(["a", "b", "a", "b", "a", "b"]) == {("a", "b"): 3, ("b", "a"): 2}


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_every_run_is_there(words: list[str]) -> None:
    joined = " ".join(words)
    for unit, repeats in runs(words).items():
        assert repeats >= 2
        assert " ".join(unit * repeats) in joined
        assert " ".join(unit * (repeats + 1)) not in joined
