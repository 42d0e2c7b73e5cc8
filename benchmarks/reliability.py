"""How far a confidence can be believed: which words are right, how well it says so, and the curve that mends it.

Terms: *expected calibration error*, ECE: words are sorted into bins by confidence; the mean over words of the distance
between their bin's mean confidence and its share of right words (Naeini et al., AAAI 2015). *Brier score*: mean square
of confidence − (1 if right, else 0). *AUC*: how often a right word has the higher confidence of a right and a
wrong one; no monotonic curve changes it but by ties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import jiwer
import numpy as np
from numpy.typing import NDArray

from benchmarks.scoring import Normaliser
from mediaserver.decoder.confidence import Curve

BINS = 10
"""What is usual, and what a few thousand words fill."""

KNOTS = 7
"""Bins that a curve is fitted on: with 100 wrong words and more in each half of the corpus, each has about 15."""

LEAST_DOUBT = 0.005
"""No word is certain, nor certainly wrong: some thousands of words tell no smaller chance."""

DIGITS = 3
"""Of a printed knot; the data know no more than two."""

Floats = NDArray[np.float64]


class Judge:
    """Tells right words from wrong ones. Remembers how each word is normalised: that is what takes the time."""

    def __init__(self, normaliser: Normaliser) -> None:
        self._normaliser = normaliser
        self._pieces: dict[tuple[str, str | None, bool], list[str]] = {}

    def right_words(self, reference: str, words: Sequence[str], language: str | None) -> list[bool | None]:
        """Which of a transcript's words are right, by the alignment with the fewest errors, after normalisation.

        Returns:
            An entry a word: None for one that normalisation leaves nothing of ("um", a mark). Words that it joins
            ("twenty five") are right or wrong together.
        """
        said, heard = self._normaliser.pair(reference, " ".join(words), language)
        is_right = np.zeros(len(heard), dtype=bool)
        for part in jiwer.process_words([" ".join(said)], [" ".join(heard)]).alignments[0] if said and heard else []:
            if part.type == "equal":
                is_right[part.hyp_start_idx : part.hyp_end_idx] = True
        owners, pieces = self._apart(reference, words, language, reads_digits=all(word.isdigit() for word in said))
        found: list[bool | None] = [None] * len(words)
        matcher = SequenceMatcher(None, pieces, heard, autojunk=False)
        for _, piece_from, piece_to, heard_from, heard_to in matcher.get_opcodes():
            is_joined = piece_to - piece_from != heard_to - heard_from
            for offset, owner in enumerate(owners[piece_from:piece_to]):
                among = (
                    slice(heard_from, heard_to) if is_joined else slice(heard_from + offset, heard_from + offset + 1)
                )
                is_found = heard_to > heard_from and bool(is_right[among].all())
                found[owner] = is_found and found[owner] is not False
        return found

    def _apart(
        self, reference: str, words: Sequence[str], language: str | None, *, reads_digits: bool
    ) -> tuple[list[int], list[str]]:
        """The pieces that each word is normalised to alone, and the index of the word that each belongs to."""
        owners: list[int] = []
        pieces: list[str] = []
        for index, word in enumerate(words):
            key = word, language, reads_digits
            if key not in self._pieces:
                self._pieces[key] = self._normaliser.pair(reference, word, language)[1]
            pieces += self._pieces[key]
            owners += [index] * len(self._pieces[key])
        return owners, pieces


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well confidences say which words are right.

    Args:
        count: how many there are.
        accuracy, confidence: share right, and the mean confidence.
        ece, ece_width: expected calibration error over bins of equal numbers of words, and over bins of equal width.
        brier, auc: see above; `auc` is NaN where all are right, all wrong, or some are neither.
    """

    count: int
    accuracy: float
    confidence: float
    ece: float
    ece_width: float
    brier: float
    auc: float


def reliability(confidences: Sequence[float], right: Sequence[float]) -> Reliability:
    """Judge confidences by what was `right`: 1 or 0 for a word, the share of right words for a text."""
    sure, truth = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if not len(sure):
        return Reliability(0, *[float("nan")] * 6)
    by_width = np.minimum((sure * BINS).astype(int), BINS - 1)
    return Reliability(
        count=len(sure),
        accuracy=float(truth.mean()),
        confidence=float(sure.mean()),
        ece=_ece(sure, truth, equal_mass(sure)),
        ece_width=_ece(sure, truth, by_width),
        brier=float(((sure - truth) ** 2).mean()),
        auc=_auc(sure, truth),
    )


def equal_mass(confidences: Floats) -> NDArray[np.intp]:
    """[n] bin of each word, the bins of equal numbers of words; equal confidences share a bin."""
    edges = np.quantile(confidences, np.linspace(0, 1, BINS + 1)[1:-1])
    return np.searchsorted(edges, confidences, side="left")


def _ece(sure: Floats, truth: Floats, bins: NDArray[np.intp]) -> float:
    gaps = [abs(float((sure[bins == b] - truth[bins == b]).sum())) for b in np.unique(bins)]
    return sum(gaps) / len(sure)


def _auc(sure: Floats, truth: Floats) -> float:
    right, wrong = sure[truth == 1], np.sort(sure[truth == 0])
    if not len(right) or not len(wrong) or len(right) + len(wrong) < len(truth):
        return float("nan")
    below, upto = np.searchsorted(wrong, right, side="left"), np.searchsorted(wrong, right, side="right")
    return float((below + upto).mean() / 2 / len(wrong))


def fit(raw: Sequence[float], right: Sequence[bool], *, knots: int = KNOTS) -> Curve:
    """The curve from raw probabilities to shares of right words: isotonic regression over a few bins.

    Right and wrong words weigh the same when bins are cut, for most words are right and sure: bins of equal numbers
    would leave one or two for all the doubtful ones. A bin's share is (right + 1) ÷ (words + 2), so that few words do
    not make a certainty.
    """
    x, y = np.asarray(raw, dtype=np.float64), np.asarray(right, dtype=np.float64)
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    weight = np.where(y == 1, 0.5 / max(y.sum(), 1), 0.5 / max((1 - y).sum(), 1))
    bins = np.minimum((np.cumsum(weight) * knots - 1e-9).astype(int), knots - 1)
    present = np.unique(bins)
    shares = [float((y[bins == b].sum() + 1) / ((bins == b).sum() + 2)) for b in present]
    level = pool_adjacent_violators(shares, [float((bins == b).sum()) for b in present])
    points = {round(float(x[bins == b].mean()), DIGITS): value for b, value in zip(present, level, strict=True)}
    return Curve(tuple((at, round(value, DIGITS)) for at, value in _to_the_ends(list(points.items()))))


def _to_the_ends(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points with the first and the last stretch drawn on to raw 0 and 1: beyond them words still differ."""
    if len(points) < 2:
        return points
    (x0, y0), (x1, y1) = points[:2]
    (u0, v0), (u1, v1) = points[-2:]
    first = max(y0 - x0 * (y1 - y0) / (x1 - x0), LEAST_DOUBT)
    last = min(v1 + (1.0 - u1) * (v1 - v0) / (u1 - u0), 1.0 - LEAST_DOUBT)
    before = [(0.0, min(first, y0))] if x0 > 0.0 else []
    after = [(1.0, max(last, v1))] if u1 < 1.0 else []
    return [*before, *points, *after]


def pool_adjacent_violators(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The non-decreasing sequence nearest to `values` in weighted squares (Ayer et al., 1955)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (a, u, m), (b, v, n) = blocks[-2:]
            blocks[-2:] = [((a * u + b * v) / (u + v), u + v, m + n)]
    return [value for value, _, size in blocks for _ in range(size)]
