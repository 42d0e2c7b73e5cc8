"""The only clock that a client sees: samples received (design decision 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""Hz; what Whisper and Silero were trained on, and what every source is brought to."""

FRAME_SAMPLES = 512
"""One frame: 32 ms, the step of the Silero VAD at 16 kHz."""

Samples = NDArray[np.float32]
"""Mono audio at 16 kHz, shape [n], full scale ±1.0."""


def seconds(samples: int) -> float:
    """Stream time of a sample position."""
    return samples / SAMPLE_RATE


def samples_in(*, ms: float = 0.0, s: float = 0.0) -> int:
    """How many samples a duration has, rounded down."""
    return int((s + ms / 1000.0) * SAMPLE_RATE)
