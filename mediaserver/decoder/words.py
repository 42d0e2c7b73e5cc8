"""Words of a hypothesis: putting punctuation where it belongs, and text together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mediaserver.decoder.window import HypothesisWord, Token

OPENING = frozenset("\"'“¿([{-")
"""Marks that belong to the word after them."""

TYING = frozenset("-'’./&@%")
"""Marks that, with no space before them, tie what follows to the word before."""


def join_punctuation(words: list[HypothesisWord]) -> list[HypothesisWord]:
    """Attach marks that stand alone to the word they belong to; a mark has no time or probability of its own.

    What a mark ties to the word before it ("post" and "-mortem") is one word with it.
    """
    joined: list[HypothesisWord] = []
    opening = ""
    opening_tokens: tuple[Token, ...] = ()
    for word in words:
        bare = word.text.strip()
        if bare and not any(char.isalnum() for char in bare):
            if bare in OPENING and word.text.startswith(" "):
                opening += word.text
                opening_tokens += word.tokens
            elif joined:
                last = joined[-1]
                joined[-1] = replace(last, text=last.text + word.text, tokens=last.tokens + word.tokens)
            continue
        if joined and word.text[:1] in TYING:
            before = joined[-1]
            joined[-1] = HypothesisWord(
                before.text + word.text,
                before.start,
                word.end,
                (before.probability + word.probability) / 2,
                before.tokens + word.tokens,
            )
            continue
        text = opening + (word.text.lstrip() if opening else word.text)
        joined.append(replace(word, text=text, tokens=opening_tokens + word.tokens))
        opening, opening_tokens = "", ()
    return joined


def text_of(words: Iterable[HypothesisWord]) -> str:
    """The words as one line of text."""
    return "".join(word.text for word in words).strip()
