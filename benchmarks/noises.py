"""Sounds without words: a server that writes anything about them has invented it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.corpus import Recording
from benchmarks.scripts import Script, room
from mediaserver.audio.clock import SAMPLE_RATE, Samples, samples_in

MAINS_HZ = 50.0
HUM_HARMONICS = 8
"""A bad ground is heard as the mains' frequency and its first overtones."""

COMFORT_DBFS = -60.0
"""RFC 3389 comfort noise as telephones send it in pauses lies around here."""

LOUD_DBFS = -30.0
"""Level of the loud generated noises: where speech lies, so that level alone does not tell them apart."""

VOICED = ("babble",)
"""Collections of noise that consist of voices: words found there were heard, not invented, and are told apart."""


def generated(seconds_each: float) -> list[Script]:
    """Noises made here, so that the check runs without a corpus: always the same ones."""
    generator = np.random.default_rng(7)
    n = samples_in(s=seconds_each)
    times_s = np.arange(n) / SAMPLE_RATE
    hum = sum(np.sin(2 * np.pi * MAINS_HZ * k * times_s) / k for k in range(1, HUM_HARMONICS + 1))
    comfort = room(n, generator, dbfs=COMFORT_DBFS)
    clicks = np.where(generator.random(n) < 2 / SAMPLE_RATE, generator.uniform(-0.8, 0.8, n), 0.0)
    return [
        Script("digital silence", np.zeros(n, dtype=np.float32)),
        Script("white noise", _at(generator.standard_normal(n), LOUD_DBFS)),
        Script("pink noise", room(n, generator, dbfs=LOUD_DBFS)),
        Script("mains hum", _at(np.asarray(hum), LOUD_DBFS)),
        Script("comfort noise", comfort),
        Script("clicks", (comfort + clicks).astype(np.float32)),
    ]


def recorded(recordings: Sequence[Recording], seconds_each: float) -> list[Script]:
    """Recordings of noise, each cut to `seconds_each`."""
    n = samples_in(s=seconds_each)
    return [Script(recording.path, recording.read()[:n]) for recording in recordings]


def is_voiced(name: str) -> bool:
    """Whether a script's name says that it consists of voices."""
    return any(part in VOICED for part in name.split("/"))


def _at(signal: np.ndarray[tuple[int], np.dtype[np.float64]], dbfs: float) -> Samples:
    """`signal` at `dbfs` (RMS against full scale)."""
    gain = 10 ** (dbfs / 20) / float(np.sqrt(np.mean(signal**2)))
    return np.asarray(signal * gain, dtype=np.float32)
