"""How far a transcript is from what was said."""

from __future__ import annotations

import jiwer
from whisper_normalizer.english import EnglishTextNormalizer

_normalise = EnglishTextNormalizer()


def word_errors(reference: str, hypothesis: str) -> float:
    """Word error rate after the usual normalisation of case, punctuation and numbers; 0 is perfect."""
    said, heard = _normalise(reference), _normalise(hypothesis)
    return float(jiwer.wer(said, heard)) if heard.strip() else 1.0
