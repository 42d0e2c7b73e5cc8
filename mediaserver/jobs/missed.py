"""What a decode of a piece left out, although somebody speaks there (sans-IO).

Whisper now and then ends its text in the middle of a window, or falls into a loop of which the guards keep the
beginning. Over an utterance that costs a few words, over a piece of a recording half a minute. So what is left is
decoded once more, by itself: as good as decoding at other temperatures, and it does not need luck.
"""

from __future__ import annotations

from mediaserver.audio.clock import SAMPLE_RATE, samples_in
from mediaserver.decoder.window import Hypothesis
from mediaserver.jobs.pieces import Piece

Decoded = tuple[Piece, Hypothesis]
"""A piece and what it says."""

LEAST_S = 4.0
"""Speech that must have been left out: one or two short utterances at an end are often no words at all."""

TOLERANCE_S = 0.3
"""By which the alignment may put the end of a last word into the pause after it."""

DEEPEST = 2
"""How often a piece may be taken apart: what is still not heard then is no speech."""

LOOPED = "repetitive"
"""Why the guards reject a text that repeats itself."""


def missed_from(piece: Piece, hypothesis: Hypothesis) -> int | None:
    """The offset in the piece from which on it is to be decoded again; None where it was heard as a whole.

    Of a text that was rejected as a loop it is the pause nearest to the middle: both halves are decoded again.
    """
    length = len(piece.samples)
    if hypothesis.rejected == LOOPED:
        return min(piece.joints, key=lambda joint: abs(joint - length // 2), default=None)
    if not hypothesis.words:
        return None
    heard_to = int((hypothesis.words[-1].end - TOLERANCE_S) * SAMPLE_RATE)
    at = next((joint for joint in piece.joints if joint >= heard_to), None)
    return at if at is not None and length - at >= samples_in(s=LEAST_S) else None
