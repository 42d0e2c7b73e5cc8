"""Taking a later hypothesis over an earlier one, word by word, where it is surer of itself (sans-IO).

A later decode hears more, but it is not always right where it differs: of the words that a joined decode replaces,
those that it is not clearly surer of are as often made worse as better, and every change is one that a reader sees. So
a replacement must be more probable by a margin. Words added or left out are taken as heard: they come from the audio
that the earlier decode did not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from mediaserver.decoder.guards import normalised
from mediaserver.decoder.window import HypothesisWord


def revised(old: Sequence[HypothesisWord], new: Sequence[HypothesisWord], *, gain: float) -> list[HypothesisWord]:
    """The new words, but the old ones where they were replaced by others that are not surer.

    Args:
        old: what was told.
        new: what a later decode of the same audio heard.
        gain: by how much the mean probability of the replacing words must exceed that of the replaced.

    Returns:
        Words in order, with times that never go back. Equal words have the new spelling and times.
    """
    matcher = SequenceMatcher(
        None, [normalised(word.text) for word in old], [normalised(word.text) for word in new], autojunk=False
    )
    taken: list[HypothesisWord] = []
    for change, old_from, old_to, new_from, new_to in matcher.get_opcodes():
        before, after = old[old_from:old_to], new[new_from:new_to]
        if change == "replace" and _mean(_beside(before, after)) <= _mean(before) + gain:
            # What lies before or behind the words that are kept is no replacement: the earlier decode did not hear it.
            taken.extend(word for word in after if _middle_s(word) < before[0].start)
            taken.extend(before)
            taken.extend(word for word in after if _middle_s(word) > before[-1].end)
        else:
            taken.extend(after)
    return in_order(taken)


def in_order(words: Sequence[HypothesisWord], *, floor_s: float = 0.0) -> list[HypothesisWord]:
    """The words with times moved so that none begins before the one before it ends, nor before `floor_s`."""
    ordered = []
    for word in words:
        start_s = max(word.start, floor_s)
        floor_s = max(word.end, start_s)
        ordered.append(replace(word, start=start_s, end=floor_s))
    return ordered


def within(words: Sequence[HypothesisWord], *, floor_s: float, ceiling_s: float) -> list[HypothesisWord]:
    """The words in order, with times moved so that none lies before `floor_s` or after `ceiling_s`."""
    return [
        replace(word, start=min(word.start, ceiling_s), end=min(word.end, ceiling_s))
        for word in in_order(words, floor_s=floor_s)
    ]


def _beside(before: Sequence[HypothesisWord], after: Sequence[HypothesisWord]) -> Sequence[HypothesisWord]:
    """Those of the later words that stand where the earlier ones do; all of them if none does."""
    return [word for word in after if before[0].start <= _middle_s(word) <= before[-1].end] or after


def _middle_s(word: HypothesisWord) -> float:
    return (word.start + word.end) / 2


def _mean(words: Sequence[HypothesisWord]) -> float:
    return sum(word.probability for word in words) / len(words)
