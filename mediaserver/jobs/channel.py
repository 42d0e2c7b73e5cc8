"""What is known of one channel of a recording while it is transcribed (sans-IO)."""

from __future__ import annotations

from collections import Counter

from mediaserver.audio.clock import seconds
from mediaserver.decoder.language import Asked, Heard, LanguageTracker
from mediaserver.decoder.window import Hypothesis
from mediaserver.jobs.pieces import Piece
from mediaserver.jobs.segments import Segmenter
from mediaserver.jobs.transcript import ChannelTranscript, Segment


class Channel:
    """One channel.

    Args:
        segmenter: makes segments of what is said.
        tracker: knows the language.
    """

    def __init__(self, segmenter: Segmenter, tracker: LanguageTracker) -> None:
        self._segmenter = segmenter
        self._tracker = tracker
        self._segments: list[Segment] = []  # the transcript: it grows with the recording
        self._spoken: Counter[str] = Counter()  # samples by language
        self._sureness: dict[str, float] = {}  # the same, weighed with how sure it was

    @property
    def is_heard(self) -> bool:
        """Whether anything was said yet, so that something is known of its language."""
        return bool(self._spoken)

    @property
    def asked(self) -> Asked:
        """What a window says of its language."""
        return self._tracker.final()

    def add(self, piece: Piece, hypothesis: Hypothesis) -> list[Segment]:
        """Take what the next piece says; the segments that are complete now."""
        if hypothesis.words:
            samples, language = len(piece.samples), hypothesis.language
            self._tracker.hear_final(
                Heard(hypothesis.heard_languages, hypothesis.heard_probabilities, seconds(samples))
            )
            sure = hypothesis.language_probability
            self._spoken[language] += samples
            self._sureness[language] = self._sureness.get(language, 0.0) + samples * (1.0 if sure is None else sure)
        return self._kept(self._segmenter.add(piece, hypothesis))

    def finish(self) -> list[Segment]:
        """The channel is over; what is left."""
        return self._kept(self._segmenter.finish())

    def transcript(self, *, is_detected: bool) -> ChannelTranscript:
        """What was said; `is_detected` says that nobody had told the language."""
        if not self._spoken:
            return ChannelTranscript(tuple(self._segments), None, None)
        language, samples = self._spoken.most_common(1)[0]
        probability = self._sureness[language] / samples if is_detected else None
        return ChannelTranscript(tuple(self._segments), language, probability)

    def _kept(self, segments: list[Segment]) -> list[Segment]:
        self._segments += segments
        return segments
