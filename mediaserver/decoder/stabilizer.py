"""Which words will not change (sans-IO).

LocalAgreement-2 (Liu et al. 2020; Macháček et al. 2023): a word is stable once two hypotheses on end have it at the
same place. Words at the very end of the audio are left out of it, for they are often halves of longer ones. Stable
words are never taken back: a later hypothesis is laid over them by edit distance, and only what it says beyond them is
new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mediaserver.decoder.guards import normalised
from mediaserver.decoder.revising import in_order
from mediaserver.decoder.window import HypothesisWord

EDGE_S = 0.3
"""A word that ends nearer than this to the end of the audio may still grow ("some" → "something")."""

INSTANT_S = 0.02
"""A word shorter than one position of the encoder was not heard: the decoder ran on after the audio's end."""

HOLD_S = 0.1
"""A word that ends nearer than this to the end of the audio is not shown at all yet: half of those change."""

DOUBTFUL = 0.4
"""Words less probable than this are not shown while they are the last ones: with them a fifth of all words shown
change, without them a seventh."""

UNHEARD = 0.1
"""Neither is a word below this, nor what follows it: the decoder lost its way there and will say something else. At
0.25 two words in a hundred fewer change, but one in a hundred more comes with its final only."""

LAP_WORDS = 24
"""How many stable words a new hypothesis is compared with: more than a window's trim leaves behind."""


@dataclass(frozen=True, slots=True)
class View:
    """What may be shown of an utterance: `stable` only grows from one view to the next."""

    stable: list[HypothesisWord] = field(default_factory=list)
    unstable: list[HypothesisWord] = field(default_factory=list)


class Stabilizer:
    """The words of one utterance, from its first hypothesis to its final."""

    def __init__(self) -> None:
        self._stable: list[HypothesisWord] = []
        self._previous: list[HypothesisWord] = []

    @property
    def stable(self) -> Sequence[HypothesisWord]:
        """The words that will not change."""
        return self._stable

    def update(self, words: Sequence[HypothesisWord], *, window_start_s: float, audio_end_s: float) -> View:
        """Take in the hypothesis of a newer window.

        Args:
            words: the hypothesis, from `window_start_s` on.
            window_start_s: stream time of the window's first sample; stable words before it are not in `words`.
            audio_end_s: stream time of the window's last sample.
        """
        heard = [word for word in words if word.end - word.start >= INSTANT_S or word.end < audio_end_s - EDGE_S]
        lap = [word for word in self._stable[-LAP_WORDS:] if word.end > window_start_s]
        fresh = heard[_overlap(lap, heard) :]
        agreed = 0
        for old, new in zip(self._previous, fresh, strict=False):
            if normalised(old.text) != normalised(new.text) or new.end > audio_end_s - EDGE_S:
                break
            agreed += 1
        self._stable.extend(in_order(fresh[:agreed], floor_s=self._end_s))
        self._previous = fresh[agreed:]
        return View(list(self._stable), in_order(_worth_showing(self._previous, audio_end_s), floor_s=self._end_s))

    @property
    def _end_s(self) -> float:
        return self._stable[-1].end if self._stable else 0.0


def _worth_showing(unstable: Sequence[HypothesisWord], audio_end_s: float) -> list[HypothesisWord]:
    """The words that a reader gains more from than is lost when they change."""
    shown: list[HypothesisWord] = []
    for word in unstable:
        if word.end > audio_end_s - HOLD_S or word.probability < UNHEARD:
            break
        shown.append(word)
    while shown and shown[-1].probability < DOUBTFUL:
        shown.pop()
    return shown


def _overlap(stable: Sequence[HypothesisWord], heard: Sequence[HypothesisWord]) -> int:
    """How many of the words heard say again what is stable already.

    The prefix of `heard` with the least edit distance to `stable`; among equals the one whose end lies nearest in time.
    """
    if not stable:
        return 0
    keys = [normalised(word.text) for word in heard]
    row = list(range(len(heard) + 1))
    for count, word in enumerate(stable, start=1):
        key = normalised(word.text)
        diagonal, row[0] = row[0], count
        for index, other in enumerate(keys, start=1):
            substituted = diagonal + (key != other)
            diagonal = row[index]
            row[index] = min(substituted, row[index] + 1, row[index - 1] + 1)
    end_s = stable[-1].end
    return min(range(len(row)), key=lambda k: (row[k], abs((heard[k - 1].end if k else stable[0].start) - end_s)))
