"""How a text goes on after what was told of it, where its final decode spells or hears that otherwise."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from mediaserver.decoder.guards import normalised


def rest_after(told: str, text: str) -> str:
    """What is to be added to `told`, so that the words of `text` are there.

    Commas and capitals are the final decode's more often than the interims': words are compared without them. Words at
    the end of `told` that are not in `text` stand for as many others of it.

    Args:
        told: the client has it; it is not taken back.
        text: what it should have been, and what comes after it.

    Returns:
        With the space or mark that it begins with; empty where nothing comes after.
    """
    if text.startswith(told):
        return text[len(told) :]
    before, after = list(re.finditer(r"\S+", told)), list(re.finditer(r"\S+", text))
    matcher = SequenceMatcher(
        None, [normalised(word[0]) for word in before], [normalised(word[0]) for word in after], autojunk=False
    )
    *matched, _ = matcher.get_matching_blocks()
    a, b = (matched[-1].a + matched[-1].size, matched[-1].b + matched[-1].size) if matched else (0, 0)
    unmatched = len(before) - a
    index = min(b + unmatched, len(after)) - 1
    if index < 0:
        return ""
    known, word = before[-1][0], after[index]
    # "equal" was told, and it is "equal,": the comma is told too.
    marks = word[0].removeprefix(known) if not unmatched and word[0].startswith(known) else ""
    return marks + text[word.end() :]
