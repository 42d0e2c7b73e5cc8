"""Word errors: bringing two texts to one spelling, and counting what differs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
from numpy.typing import NDArray
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

UNSPACED = frozenset({"zh", "ja", "yue", "th", "lo", "my"})
"""Languages written without spaces: there a "word" is one letter, so the word error rate is the letter error rate."""

BOOTSTRAP_ROUNDS = 2000
"""Resamplings behind a confidence interval: its ends then move by less than a tenth of its width."""


class Normaliser:
    """Whisper's own normalisation: case, punctuation, and in English also numbers, spelling and contractions."""

    def __init__(self) -> None:
        self._english = EnglishTextNormalizer()
        self._basic = BasicTextNormalizer()
        self._letters = BasicTextNormalizer(split_letters=True)

    def words(self, text: str, language: str | None = "en") -> list[str]:
        """The words that are compared; `language` is a code (`en`, `de` …), None the plain normalisation."""
        normalise = self._english if language == "en" else self._letters if language in UNSPACED else self._basic
        return str(normalise(text)).split()

    def pair(self, reference: str, hypothesis: str, language: str | None = "en") -> tuple[list[str], list[str]]:
        """Both sides of a comparison. Where only digits were read out, they are compared one by one: Whisper's
        normalisation would join "one six" to 16 and leave "1, 6" apart, and count a perfect transcript as all wrong.
        """
        said, heard = self.words(reference, language), self.words(hypothesis, language)
        if said and all(_digits(word).isdigit() for word in said):
            return [*"".join(_digits(word) for word in said)], [piece for word in heard for piece in _apart(word)]
        return said, heard


def _digits(word: str) -> str:
    """The normaliser writes a lone 1 as `one`."""
    return "1" if word == "one" else word


def _apart(word: str) -> list[str]:
    digits = _digits(word)
    return [*digits] if digits.isdigit() else [word]


@dataclass(frozen=True, slots=True)
class Errors:
    """The errors of a text or, added up, of a set: so a set's rate weighs every reference word the same."""

    words: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def count(self) -> int:
        """All errors."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference word: 0.05 is 5 %. Infinite where words were written and none were said."""
        if self.words:
            return self.count / self.words
        return math.inf if self.count else 0.0

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.words + other.words,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> Errors:
    """Errors of `hypothesis` by the alignment with the fewest (Levenshtein over words)."""
    out = jiwer.process_words([" ".join(reference)], [" ".join(hypothesis)])
    return Errors(len(reference), int(out.substitutions), int(out.deletions), int(out.insertions))


def letter_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> Errors:
    """The same over letters, spaces left out: for languages whose words are a matter of taste."""
    return word_errors([*"".join(reference)], [*"".join(hypothesis)])


def total(errors: Iterable[Errors]) -> Errors:
    """The errors of a set."""
    return sum(errors, Errors())


def difference_interval(ours: Sequence[Errors], theirs: Sequence[Errors]) -> tuple[float, float]:
    """95 % interval of (our rate − their rate) over the same recordings, by bootstrap over recordings.

    An interval that spans zero says that these recordings cannot tell the two apart.
    """
    if not ours:
        return 0.0, 0.0
    counts = np.array([[a.count, a.words, b.count, b.words] for a, b in zip(ours, theirs, strict=True)], dtype=float)
    draws = np.random.default_rng(0).integers(0, len(counts), (BOOTSTRAP_ROUNDS, len(counts)))
    sums = counts[draws].sum(axis=1)
    differences = sums[:, 0] / np.maximum(sums[:, 1], 1) - sums[:, 2] / np.maximum(sums[:, 3], 1)
    low, high = np.percentile(differences, [2.5, 97.5])
    return float(low), float(high)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The value below which `percent` % of `values` lie (linear between neighbours); None of nothing."""
    array: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    return float(np.percentile(array, percent)) if array.size else None
