"""Repetition loops: what Whisper writes when it has lost its place ("light, light, light, …")."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.scoring import Normaliser
from benchmarks.screen import tokens

LONGEST_UNIT_WORDS = 4
"""Longest phrase whose repetition is looked for."""

REPEATS = 3
"""So often on end is a loop, unless the reference has it too."""

REPEATS_TO_SPARE = 1
"""Once more than somebody said it is a word error like any other, not a loop."""


def runs(words: Sequence[str]) -> dict[tuple[str, ...], int]:
    """Every phrase of up to four words that stands at least twice on end, with the most often that it does.

    A phrase that is itself a repetition (`no no`) is left out: it is found as the shorter one.
    """
    found: dict[tuple[str, ...], int] = {}
    for size in range(1, LONGEST_UNIT_WORDS + 1):
        for start in range(len(words) - 2 * size + 1):
            unit = tuple(words[start : start + size])
            if any(size % part == 0 and unit == unit[:part] * (size // part) for part in range(1, size)):
                continue
            repeats = 1
            while tuple(words[start + repeats * size : start + (repeats + 1) * size]) == unit:
                repeats += 1
            if repeats > 1:
                found[unit] = max(found.get(unit, 0), repeats)
    return found


def loops(text: str, reference: str, normaliser: Normaliser, language: str | None = "en") -> list[str]:
    """What `text` repeats three times or more on end and `reference` does not, each as `phrase × times`.

    Digits may be written in words in one text and in figures in the other ("zero zero zero", 000), so a repetition
    counts as said if any spelling of the reference has it.
    """
    plain = tokens(reference)
    said = _most(runs(plain), runs(_apart(plain)), runs(_figures(reference, normaliser, language)))
    found = []
    for unit, repeats in runs(tokens(text)).items():
        figures = tuple(_figures(" ".join(unit), normaliser, language))
        times = max(said.get(unit, 1), said.get(figures, 1))
        if repeats >= max(REPEATS, times + REPEATS_TO_SPARE + 1):
            found.append(f"{' '.join(unit)} × {repeats}")
    return found


def _figures(text: str, normaliser: Normaliser, language: str | None) -> list[str]:
    """The normalised words, numbers in figures; the normaliser writes a lone 1 as `one`."""
    return _apart(["1" if word == "one" else word for word in normaliser.words(text, language)])


def _apart(words: Sequence[str]) -> list[str]:
    """Each digit by itself: `000` is three."""
    return [piece for word in words for piece in (word if word.isdigit() else [word])]


def _most(*counts: dict[tuple[str, ...], int]) -> dict[tuple[str, ...], int]:
    most: dict[tuple[str, ...], int] = {}
    for some in counts:
        for unit, repeats in some.items():
            most[unit] = max(most.get(unit, 0), repeats)
    return most
