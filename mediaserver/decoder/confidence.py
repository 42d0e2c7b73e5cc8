"""From what a model says of a word to how likely the word is right (sans-IO).

A word's raw probability is the mean over its tokens of what the model gave them. It ranks words well and is no chance
of being right. A curve per model, fitted by isotonic regression on recordings with references, makes it one
(Zadrozny & Elkan, KDD 2002); `voiceforge bench calibration --fit` prints its knots. Only what leaves on the wire goes
through it: the thresholds inside the decoder are tuned on raw probabilities.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mediaserver.decoder.catalogue import find
from mediaserver.decoder.window import HypothesisWord
from mediaserver.errors import ModelError
from mediaserver.events import Word


@dataclass(frozen=True, slots=True)
class Curve:
    """A monotonic curve from raw to calibrated probability, straight between its knots and flat beyond them.

    Args:
        knots: (raw, calibrated), the raw ones rising, the calibrated ones never falling, all within 0 to 1. None at
            all is the identity.

    Raises:
        ValueError: the knots are not such a curve.
    """

    knots: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if not all(0.0 <= value <= 1.0 for knot in self.knots for value in knot):
            raise ValueError("knots lie within 0 to 1")
        if any(after[0] <= before[0] or after[1] < before[1] for before, after in pairwise(self.knots)):
            raise ValueError("the knots of a curve rise")

    def __call__(self, probability: float) -> float:
        """The calibrated probability, within 0 to 1."""
        if not self.knots:
            return min(max(probability, 0.0), 1.0)
        after = bisect_right(self.knots, probability, key=lambda knot: knot[0])
        if after == 0 or after == len(self.knots):
            return self.knots[max(after - 1, 0)][1]
        (x0, y0), (x1, y1) = self.knots[after - 1], self.knots[after]
        return y0 + (y1 - y0) * (probability - x0) / (x1 - x0)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The curves of one model.

    Args:
        final: for words of finals and revisions, whose windows hold the whole utterance and what comes after it.
        interim: for words of interims, which are cut off in the middle of speech.
    """

    final: Curve
    interim: Curve


RAW = Calibration(Curve(), Curve())
"""Confidence as the model gives it."""

_TINY_EN = Calibration(
    final=Curve(
        (
            (0.0, 0.128),
            (0.23, 0.392),
            (0.468, 0.665),
            (0.633, 0.792),
            (0.822, 0.893),
            (0.948, 0.961),
            (0.984, 0.983),
            (0.996, 0.992),
            (1.0, 0.995),
        )
    ),
    interim=Curve(
        (
            (0.0, 0.343),
            (0.241, 0.564),
            (0.419, 0.727),
            (0.541, 0.773),
            (0.696, 0.892),
            (0.892, 0.938),
            (0.969, 0.976),
            (0.992, 0.995),
            (1.0, 0.995),
        )
    ),
)

_BASE = Calibration(
    final=Curve(
        (
            (0.0, 0.147),
            (0.251, 0.376),
            (0.502, 0.606),
            (0.664, 0.709),
            (0.812, 0.817),
            (0.935, 0.954),
            (0.981, 0.973),
            (0.995, 0.991),
            (1.0, 0.995),
        )
    ),
    interim=Curve(),  # not measured
)

CALIBRATIONS: dict[str, Calibration] = {"tiny.en": _TINY_EN, "base": _BASE}
"""By catalogued name. Fitted on read speech, conversation, telephone and noise together, `base` in seven languages: a
curve holds for speech on the whole and not for each condition. In noise of 0 to 15 dB it is some 10 points too sure, in
clean read speech some points too modest. Curves are not passed on: that of tiny.en is worse than none for `base`."""


def calibration_of(model_name: str) -> Calibration:
    """The calibration of a model by its name in the catalogue or its repository; `RAW` where nobody has measured it."""
    try:
        return CALIBRATIONS.get(find(model_name).name, RAW)
    except ModelError:
        return RAW


def told_words(heard: Sequence[HypothesisWord], curve: Curve, *, min_confidence: float) -> list[Word]:
    """Words as they leave: with a confidence that can be believed, and marked where it is low."""
    words = []
    for word in heard:
        confidence = curve(word.probability)
        is_low = confidence < min_confidence
        words.append(
            Word(
                word.text.strip(),
                word.start,
                word.end,
                confidence,
                low_confidence=is_low,
                probability=word.probability,
            )
        )
    return words


def text_confidence(confidences: Sequence[float]) -> float:
    """How sure a text is: the share of its words that may be expected to be right, the mean of their confidences.

    Of calibrated words this is calibrated too, for expectations add up; 0 where there are no words.
    """
    return sum(confidences) / len(confidences) if confidences else 0.0
