"""Long recordings, made of the fixtures' short ones."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mediaserver.audio.clock import SAMPLE_RATE, Samples, samples_in
from tests.conftest import Speech


def joined(speeches: Sequence[Speech], *, pause_s: float) -> tuple[Samples, str]:
    """Recordings one after another with room noise between them, and what is said in all of them."""
    noise = np.random.default_rng(0).normal(0, 1e-4, samples_in(s=pause_s)).astype(np.float32)
    parts = [part for speech in speeches for part in (speech.samples(), noise)]
    return np.concatenate(parts), " ".join(speech.text for speech in speeches)


def write_wav(path: Path, channels: Sequence[Samples]) -> Path:
    """Channels [n] of 16 kHz as a WAV of 16 bits; shorter ones end in silence."""
    length = max(len(channel) for channel in channels)
    padded = np.stack([np.pad(channel, (0, length - len(channel))) for channel in channels], axis=1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(padded, -1, 1) * 32767).astype("<i2").tobytes())
    return path
