"""How words are written for a client: with or without punctuation, without fillers, some replaced. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mediaserver.events import Word

FILLERS = frozenset({"uh", "um"})
"""What the vendor leaves out unless asked; English words, so only English text is searched for them."""

PART_OF_WORD = frozenset("%&#@")
"""Marks that are said: "50%", "AT&T"."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """Words that are found, bare and in lower case, and what is put in their place; nothing takes them out."""

    find: tuple[str, ...]
    put: str


@dataclass(frozen=True, slots=True)
class Style:
    """How words are written.

    Args:
        has_punctuation: with punctuation and capitals as the model wrote them; else neither.
        keeps_fillers: whether "uh" and "um" stay.
        replacements: in this order.
    """

    has_punctuation: bool = False
    keeps_fillers: bool = False
    replacements: tuple[Replacement, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """A word as it is told.

    Args:
        lead: what stands between it and the word before.
        bare: without punctuation, in lower case.
        full: with both.
    """

    lead: str
    bare: str
    full: str
    start: float
    end: float
    confidence: float


def written(transcript: str, words: Sequence[Word], style: Style, *, language: str | None) -> list[Written]:
    """The words of a transcript as a client wants them.

    Args:
        transcript: the text with the words' spaces; languages without spaces have none.
        words: in order.
        style: how.
        language: code of what is spoken, if it is known.
    """
    told = list(_spaced(transcript, words))
    if not style.keeps_fillers and language == "en":
        told = [word for word in told if word.bare not in FILLERS]
    for replacement in style.replacements:
        told = _replaced(told, replacement)
    return told if style.has_punctuation else [word for word in told if word.bare]


def text_of(words: Sequence[Written], style: Style) -> str:
    """The words as one line."""
    return "".join(word.lead + (word.full if style.has_punctuation else word.bare) for word in words).strip()


def parse_replacement(text: str) -> Replacement:
    """`find:put`; without a colon, or with nothing behind it, the words are taken out."""
    find, _, put = text.partition(":")
    return Replacement(tuple(_bare(word) for word in find.split()), put.strip())


def _spaced(transcript: str, words: Sequence[Word]) -> Iterator[Written]:
    at = 0
    for word in words:
        found = transcript.find(word.word, at)
        lead = transcript[at:found] if found >= 0 else " "
        at = found + len(word.word) if found >= 0 else at
        yield Written(lead, _bare(word.word), word.word, word.start, word.end, word.confidence)


def _bare(text: str) -> str:
    first, last = 0, len(text)
    while first < last and _is_mark(text[first]):
        first += 1
    while last > first and _is_mark(text[last - 1]):
        last -= 1
    return text[first:last].lower()


def _is_mark(letter: str) -> bool:
    return letter not in PART_OF_WORD and unicodedata.category(letter).startswith("P")


def _replaced(words: list[Written], replacement: Replacement) -> list[Written]:
    size = len(replacement.find)
    out: list[Written] = []
    at = 0
    while at < len(words):
        here = words[at : at + size]
        if size and tuple(word.bare for word in here) == replacement.find:
            if replacement.put:
                out.append(_merged(here, replacement.put))
            at += size
        else:
            out.append(words[at])
            at += 1
    return out


def _merged(words: Sequence[Written], put: str) -> Written:
    """One word in the place of others, with the marks around them."""
    first, last = words[0], words[-1]
    opening = first.full[: len(first.full) - len(first.full.lstrip("\"'“¿¡([{"))]
    closing = last.full[len(last.full.rstrip(".,;:!?…\"'”)]}")) :]
    return replace(
        first,
        bare=put,
        full=opening + put + closing,
        end=last.end,
        confidence=min(word.confidence for word in words),
    )
