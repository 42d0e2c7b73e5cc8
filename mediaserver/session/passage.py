"""Utterances that belong together, until what was said in them has settled (sans-IO).

What a final at a short pause lacks is the audio after it; neither earlier text nor earlier audio makes up for that. So
the utterances of a passage are decoded once more as one, when it has grown long or a longer silence has come, and what
that changes is told as revisions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mediaserver.audio.clock import SAMPLE_RATE, samples_in
from mediaserver.decoder.guards import normalised
from mediaserver.decoder.revising import revised, within
from mediaserver.decoder.window import HypothesisWord

LONGEST_S = 20.0
"""Longest passage: joined decodes gain up to here, and with its margin it fits Whisper's 30 s."""

SILENCE_S = 2.0
"""Silence that ends a passage: what comes after it says nothing about the words before."""

LEAST_KEPT_SHARE = 0.5
"""A joined decode that leaves out more than this of an utterance's words has skipped it: Whisper does, at times."""


@dataclass(frozen=True, slots=True)
class Said:
    """An utterance whose final has been sent; positions are samples of the stream."""

    number: int
    start_sample: int
    speech_sample: int
    speech_end_sample: int
    end_sample: int
    words: tuple[HypothesisWord, ...]
    language: str = "en"


class Passage:
    """The utterances since the last settlement. Bound: `LONGEST_S` of audio, by then the caller settles it."""

    def __init__(self) -> None:
        self._said: list[Said] = []

    @property
    def said(self) -> Sequence[Said]:
        """Its utterances, in order."""
        return self._said

    @property
    def is_joined(self) -> bool:
        """Whether there is anything to decode together."""
        return len(self._said) > 1

    @property
    def language(self) -> str | None:
        """What is spoken in it; None of nothing."""
        return self._said[-1].language if self._said else None

    @property
    def span(self) -> tuple[int, int]:
        """Samples from its first utterance's start to its last one's end."""
        return self._said[0].start_sample, self._said[-1].end_sample

    def is_settled(self, position_sample: int, *, speaking: bool) -> bool:
        """Whether nothing more will join it: a silence has come, or what is being said now would make it too long."""
        if not self._said:
            return False
        if position_sample - self._said[0].start_sample > samples_in(s=LONGEST_S):
            return True
        return not speaking and position_sample - self._said[-1].end_sample >= samples_in(s=SILENCE_S)

    def add(self, said: Said) -> None:
        """Take in the next utterance."""
        self._said.append(said)


REVISION_GAIN = 0.2
"""By how much the words of a joined decode must be surer than those they replace. Up to here fewer words are wrong and
fewer change, alike for endpoints of 300 and 500 ms."""


def revisions(said: Sequence[Said], words: Sequence[HypothesisWord]) -> list[Said]:
    """What a joined decode changes: the utterances whose words differ, with their new words.

    A word belongs to the utterance that its middle lies in, or nearest to. Words stay between those of the utterances
    beside theirs, which keep their times where they do not change.
    """
    heard: list[list[HypothesisWord]] = [[] for _ in said]
    for word in words:
        middle = (word.start + word.end) / 2 * SAMPLE_RATE
        nearest = min(
            range(len(said)), key=lambda n: max(said[n].start_sample - middle, middle - said[n].end_sample, 0.0)
        )
        heard[nearest].append(word)
    changed = []
    floor_s = 0.0
    for before, joined, following in zip(said, heard, [*said[1:], None], strict=True):
        after = _changed(before, joined)
        if after:
            ceiling_s = following.words[0].start if following is not None and following.words else math.inf
            changed.append(replace(before, words=tuple(within(after, floor_s=floor_s, ceiling_s=ceiling_s))))
        told = changed[-1].words if after else before.words
        floor_s = told[-1].end if told else floor_s
    return changed


def _changed(before: Said, joined: Sequence[HypothesisWord]) -> list[HypothesisWord]:
    """The words of an utterance after a joined decode; none where they stay as they are."""
    if len(joined) < len(before.words) * LEAST_KEPT_SHARE or not joined:
        return []
    after = revised(before.words, joined, gain=REVISION_GAIN)
    is_same = [normalised(word.text) for word in before.words] == [normalised(word.text) for word in after]
    return [] if is_same else after
