"""Which language a session speaks: evidence gathered window by window, and a change of it noticed (sans-IO).

Whisper names languages with probabilities for each window, one decoder step on an encoding that is there anyway. Each
final adds the logarithms of these to the language's score, weighed by how long was spoken. Scores are bounded, so that
an hour of one language is no more to outweigh than a minute: it is a cumulative sum test for a change (Page 1954) with
as many alternatives as there are languages. A final is decoded in the language that leads once its own audio has been
counted, so what reveals a change is written down right the first time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SURE = 0.9
"""From this probability against the next best a language is kept, and interims are no longer asked for theirs."""

FULL_WEIGHT_S = 2.0
"""Audio of this length or longer counts in full, shorter in proportion: what is heard in one second is often wrong."""

LEAST_PROBABILITY = 1e-3
"""What Whisper gives less than this counts as this: one window is never sure beyond all doubt."""

LEAD = 5.0
"""Most that any language may lead another by (log-odds, 150 to 1): what one long and very sure window overturns, or
two that are less so."""

HOLD_S = 2.0
"""Until so much of an utterance has been heard, no words of a language in doubt are shown: they might all change."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a window says of its language; plain data, copied into `Window`.

    Args:
        language: code to decode with, or None to have it chosen.
        candidates: codes to choose from; empty where `language` is given.
        scores: what has been gathered for each of `candidates`, in nats.
    """

    language: str | None
    candidates: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Heard:
    """What a window said of its language.

    Args:
        languages, probabilities: what Whisper named, best first; empty where it was not asked.
        audio_s: length of the window.
    """

    languages: tuple[str, ...]
    probabilities: tuple[float, ...]
    audio_s: float

    @classmethod
    def of(cls, named: Sequence[tuple[str, float]], *, audio_s: float) -> Heard:
        """Of all that Whisper names, best first, what is probable enough to count."""
        counted = [(code, probability) for code, probability in named if probability >= LEAST_PROBABILITY]
        return cls(tuple(code for code, _ in counted), tuple(value for _, value in counted), audio_s)


def choose(asked: Asked, heard: Heard) -> tuple[str, float]:
    """The language to decode a window with, and how probable it is against the next best.

    Args:
        asked: what the session expects; without a given language.
        heard: what Whisper names for this window.
    """
    return _leader(asked.candidates, _added(asked.candidates, asked.scores, heard))


def may_show(probability: float | None, *, audio_s: float) -> bool:
    """Whether the first words of an utterance may be shown.

    Args:
        probability: how sure their language is, None where it was given.
        audio_s: how much of the utterance has been heard.
    """
    return probability is None or probability >= SURE or audio_s >= HOLD_S


class LanguageTracker:
    """The language of one session.

    Args:
        known: codes that the model knows; one alone is never detected.
        chosen: what the client or the node fixed, else None.
        allowed: what detection may choose from; empty is all that the model knows.
    """

    def __init__(self, known: Sequence[str], *, chosen: str | None = None, allowed: Sequence[str] = ()) -> None:
        candidates = tuple(code for code in known if not allowed or code in allowed) or tuple(known)
        self._fixed = chosen if chosen is not None else candidates[0] if len(candidates) == 1 else None
        self._candidates = candidates
        self._scores = tuple(0.0 for _ in candidates)

    @property
    def language(self) -> str | None:
        """The session's language as far as finals have told, or None while in doubt."""
        return self._fixed or self._sure(self._scores)

    def interim(self) -> Asked:
        """What an interim's window says, as long as nothing has been shown of its utterance."""
        given = self.language
        return Asked(given) if given is not None else Asked(None, self._candidates, self._scores)

    def final(self) -> Asked:
        """What a final's window says: its language is looked for unless it was fixed from outside."""
        return Asked(self._fixed) if self._fixed is not None else Asked(None, self._candidates, self._scores)

    def hear_final(self, heard: Heard) -> None:
        """Take in what a final said of its language."""
        if self._fixed is None and heard.languages:
            scores = _added(self._candidates, self._scores, heard)
            floor = max(scores) - LEAD
            self._scores = tuple(max(score, floor) - max(scores) for score in scores)

    def _sure(self, scores: tuple[float, ...]) -> str | None:
        language, probability = _leader(self._candidates, scores)
        return language if probability >= SURE else None


def _added(candidates: tuple[str, ...], scores: tuple[float, ...], heard: Heard) -> tuple[float, ...]:
    """The scores with a window's evidence."""
    weight = min(heard.audio_s / FULL_WEIGHT_S, 1.0)
    named = dict(zip(heard.languages, heard.probabilities, strict=True))
    return tuple(
        score + weight * math.log(max(named.get(code, 0.0), LEAST_PROBABILITY))
        for code, score in zip(candidates, scores, strict=True)
    )


def _leader(candidates: tuple[str, ...], scores: tuple[float, ...]) -> tuple[str, float]:
    """The candidate with the highest score, and how probable it is against the next best."""
    first, *rest = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    return candidates[first], 1.0 / (1.0 + math.exp(scores[rest[0]] - scores[first])) if rest else 1.0
