"""From where on a session goes on that another process had: plain data."""

from __future__ import annotations

from dataclasses import dataclass

from mediaserver.audio.clock import FRAME_SAMPLES

MOVED = "moved"
"""Why a session ends that goes on elsewhere: what it has not told as final is not lost, but heard there."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a channel has come: what lies before it has been told as final, or nobody spoke there.

    Args:
        sample: stream position, a whole number of the VAD's frames.
        utterances: how many there were: the next one is told by the number after it.
        speech_samples: of them.
        concealed_samples: that were made up for lost ones.
        left_out: how many numbers up to `utterances` no utterance has: they may have been told where it was before.
    """

    sample: int = 0
    utterances: int = 0
    speech_samples: int = 0
    concealed_samples: int = 0
    left_out: int = 0


START = Position()
"""Where a new session begins."""


@dataclass(frozen=True, slots=True)
class GoingOn:
    """A connection that was begun elsewhere.

    Args:
        seq: the number of its next event.
        positions: of its channels.
        age_s: how long it has lasted.
    """

    seq: int
    positions: tuple[Position, ...]
    age_s: float = 0.0


def whole_frames(sample: int) -> int:
    """The stream position of the frame that a sample lies in."""
    return sample - sample % FRAME_SAMPLES
