"""Decoded pieces to segments: sentences, or what stands between two pauses (sans-IO)."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mediaserver.audio.clock import samples_in, seconds
from mediaserver.decoder.confidence import Curve, text_confidence, told_words
from mediaserver.decoder.revising import in_order
from mediaserver.decoder.window import Hypothesis, HypothesisWord
from mediaserver.decoder.words import text_of
from mediaserver.events import Final
from mediaserver.jobs.pieces import Piece
from mediaserver.jobs.transcript import Segment

PAUSE_S = 1.0
"""A pause that ends a segment, whatever the punctuation says."""

LONGEST_S = 20.0
"""A segment that has no full stop is ended at the next word that follows a pause, or a comma."""

BREATH_S = 0.2
"""A pause between two words that a listener hears."""

_SENTENCE_END = re.compile(r"[.!?…。！？]['\")\]»”’]*$")
_CLAUSE_END = re.compile(r"[,;:，、；：—–]['\")\]»”’]*$")

_TITLES = frozenset({"mr.", "mrs.", "ms.", "dr.", "st.", "prof.", "vs.", "jr.", "sr.", "etc.", "e.g.", "i.e."})
"""Words that end with a full stop and no sentence, often."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """A word with the decode that it comes from."""

    word: HypothesisWord
    source: Hypothesis


class Segmenter:
    """The segments of one channel. Holds the words of at most one segment and one piece.

    Args:
        curve: what makes a confidence of a word's probability.
        min_confidence: words below it are marked.
    """

    def __init__(self, *, curve: Curve, min_confidence: float) -> None:
        self._curve = curve
        self._min_confidence = min_confidence
        self._open: list[_Heard] = []
        self._end_s = 0.0  # of the last word
        self._count = 0

    def add(self, piece: Piece, hypothesis: Hypothesis) -> list[Segment]:
        """Take what a piece said, in order of time; the segments that are complete now.

        Args:
            piece: what was decoded.
            hypothesis: what it said, times in seconds from the beginning of the piece.
        """
        done: list[Segment] = []
        for word in in_order(_placed(piece, hypothesis.words), floor_s=self._end_s):
            if self._open and self._ends_before(word, hypothesis):
                done.append(self._segment())
            self._open.append(_Heard(word, hypothesis))
            self._end_s = word.end
        return done

    def finish(self) -> list[Segment]:
        """The channel is over; what is left."""
        return [self._segment()] if self._open else []

    def _ends_before(self, word: HypothesisWord, source: Hypothesis) -> bool:
        """Whether what is open ends here."""
        last = self._open[-1].word
        pause_s = word.start - last.end
        if pause_s >= PAUSE_S or self._open[-1].source.language != source.language:
            return True
        text = last.text.strip()
        if _SENTENCE_END.search(text):
            return text.lower() not in _TITLES and not _is_initial(text) and not word.text.strip()[:1].islower()
        if last.end - self._open[0].word.start < LONGEST_S:
            return False
        return pause_s >= BREATH_S or bool(_CLAUSE_END.search(text))

    def _segment(self) -> Segment:
        heard, self._open = self._open, []
        source = heard[0].source
        words = [item.word for item in heard]
        told = told_words(words, self._curve, min_confidence=self._min_confidence)
        text = text_of(words)
        final = Final(
            utterance_id=self._count,
            transcript=text,
            confidence=text_confidence([word.confidence for word in told]),
            start=words[0].start,
            duration=words[-1].end - words[0].start,
            timestamp=words[-1].end,
            language=source.language,
            language_confidence=source.language_probability,
            words=told,
        )
        self._count += 1
        return Segment(
            final=final,
            mean_log_probability=source.mean_log_probability,
            no_speech_probability=source.no_speech_probability,
            compression_ratio=_compression_ratio(text),
            tokens=tuple(token for word in words for token in word.tokens),
        )


def _placed(piece: Piece, words: Sequence[HypothesisWord]) -> list[HypothesisWord]:
    """Words with times on the recording's clock."""
    placed = []
    for word in words:
        start, end = piece.place(samples_in(s=word.start), samples_in(s=word.end))
        placed.append(replace(word, start=seconds(start), end=seconds(end)))
    return placed


def _is_initial(text: str) -> bool:
    """Whether a word is a letter with a full stop, as of a name."""
    return len(text) == 2 and text[0].isupper() and text[1] == "."


def _compression_ratio(text: str) -> float:
    encoded = text.encode()
    return len(encoded) / len(zlib.compress(encoded)) if encoded else 0.0
