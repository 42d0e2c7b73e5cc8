"""What speakers say: recordings set one after another with the pauses of somebody who goes on talking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.corpus import Recording
from mediaserver.audio.clock import SAMPLE_RATE, Samples, samples_in, seconds
from mediaserver.errors import ConfigError

GAP_MIN_S, GAP_MAX_S = 0.6, 1.2
"""Pause between two utterances, uniformly drawn: longer than the default endpoint (0.5 s), short for a conversation."""

LEAD_S = 0.5
"""Room before the first word, so that the VAD has heard the room."""

TAIL_S = 1.5
"""Room after the last word, so that the endpoint comes by itself and not from closing the session."""

ROOM_DBFS = -65.0
"""Level of the room noise in pauses: a quiet room by a headset. Digital silence would flatter every VAD."""


@dataclass(frozen=True, slots=True)
class Said:
    """One recording within a script, in seconds of the script."""

    recording: Recording
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Script:
    """What one speaker plays: [n] float32, 16 kHz mono, and what is said in it when."""

    name: str
    samples: Samples
    said: tuple[Said, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length in seconds, pauses included."""
        return seconds(len(self.samples))

    @property
    def said_s(self) -> float:
        """Seconds of recordings in it, without the pauses that were put between them."""
        return sum(item.end_s - item.start_s for item in self.said)


def room(n: int, generator: np.random.Generator, *, dbfs: float = ROOM_DBFS) -> Samples:
    """[n] samples of brownish room noise at `dbfs` (RMS against full scale)."""
    if n == 0:
        return np.zeros(0, dtype=np.float32)
    spectrum = np.fft.rfft(generator.standard_normal(n))
    frequency = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequency, 50.0)), n)
    level = float(np.sqrt(np.mean(noise**2)))
    return (noise * (10 ** (dbfs / 20) / max(level, 1e-12))).astype(np.float32)


def single(recording: Recording, *, seed: int = 0) -> Script:
    """One recording alone, with room before and after it."""
    return join(recording.path, [recording], seed=seed)


def join(name: str, recordings: Sequence[Recording], *, seed: int) -> Script:
    """Recordings one after another with pauses of room noise."""
    generator = np.random.default_rng(seed)
    pieces = [room(samples_in(s=LEAD_S), generator)]
    position = len(pieces[0])
    said: list[Said] = []
    for number, recording in enumerate(recordings):
        if number:
            pieces.append(room(samples_in(s=generator.uniform(GAP_MIN_S, GAP_MAX_S)), generator))
            position += len(pieces[-1])
        samples = recording.read()
        said.append(Said(recording, seconds(position), seconds(position + len(samples))))
        pieces.append(samples)
        position += len(samples)
    pieces.append(room(samples_in(s=TAIL_S), generator))
    return Script(name, np.concatenate(pieces), tuple(said))


def speakers(recordings: Sequence[Recording], count: int, *, seconds_each: float) -> list[Script]:
    """`count` scripts of about `seconds_each` seconds, as far as possible with no recording twice.

    Recordings are dealt out one by one to whoever has said least; when all have been dealt, the pile starts again, so
    that even then no two speakers say the same at the same time.

    Raises:
        ConfigError: there are no recordings.
    """
    if not recordings:
        raise ConfigError("NO_SPEECH", "No recording fits the selection.", "Widen --category or --language.")
    hands: list[list[Recording]] = [[] for _ in range(count)]
    lengths = [0.0] * count
    dealt = 0
    while min(lengths) < seconds_each:
        shortest = lengths.index(min(lengths))
        recording = recordings[dealt % len(recordings)]
        hands[shortest].append(recording)
        lengths[shortest] += recording.duration_s + (GAP_MIN_S + GAP_MAX_S) / 2
        dealt += 1
    return [join(f"speaker {index + 1}", hand, seed=index) for index, hand in enumerate(hands)]
