"""Sounds without words: a server that writes anything about them has invented it.

Levels move between −60 and −20 dBFS in steps and swells, for a steady noise is soon taken for silence and a change is
what provokes a VAD. Recordings are shorter than what is played, so pieces of them are strung together, each from
another place, at another level and a little faster or slower: no two stretches are the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus import Recording
from benchmarks.scripts import Script, room
from mediaserver.audio.clock import SAMPLE_RATE, Samples, samples_in

Signal = NDArray[np.float64]
Generator = np.random.Generator

MAINS_HZ = 50.0
HUM_HARMONICS = 8
"""A bad ground is heard as the mains' frequency and its first overtones."""

COMFORT_DBFS = -60.0
"""RFC 3389 comfort noise as telephones send it in pauses lies around here."""

QUIET_DBFS, LOUD_DBFS = -60.0, -20.0
"""Levels of noises: from what a microphone always has to what is as loud as speech close by."""

HOLD_MIN_S, HOLD_MAX_S = 2.0, 12.0
"""How long a level is held or approached: an utterance's length, so that each is an onset of its own."""

STEP_S = 0.01
"""A step between two levels takes this long: sudden, and without a click of its own."""

PIECE_MIN_S, PIECE_MAX_S = 4.0, 20.0
"""Pieces of recordings that are strung together."""

FADE_S = 0.05
"""Pieces overlap by this much, so that the seam is no sound."""

SPEED_SPREAD = 0.06
"""A piece is played up to this share faster or slower: a semitone up or down, which sounds natural still."""

VOICED = ("babble",)
"""Collections of noise that consist of voices: words found there were heard, not invented, and are told apart."""


@dataclass(frozen=True, slots=True)
class Noise:
    """A sound and how it is made, when its turn comes: ten minutes of it are 38 MB."""

    name: str
    duration_s: float
    make: Callable[[], Samples]

    @property
    def is_voiced(self) -> bool:
        """Whether it consists of voices."""
        return is_voiced(self.name)

    def script(self) -> Script:
        """It, to be played."""
        return Script(self.name, self.make())


def generated(seconds_each: float) -> list[Noise]:
    """Noises made here, so that the check runs without a corpus: always the same ones."""
    n = samples_in(s=seconds_each)

    def noise(name: str, make: Callable[[int, Generator], Signal]) -> Noise:
        return Noise(name, seconds_each, lambda: clipped(make(n, seeded(name))))

    return [
        noise("digital silence", lambda n, _: np.zeros(n)),
        noise("white noise", lambda n, g: moving(g.standard_normal(n), g)),
        noise("pink noise", lambda n, g: moving(coloured(n, g), g)),
        noise("mains hum", lambda n, g: moving(hum(n), g)),
        noise("comfort noise", lambda n, g: coloured(n, g) * gain(COMFORT_DBFS)),
        noise("clicks", lambda n, g: coloured(n, g) * gain(COMFORT_DBFS) + clicks(n, g)),
        noise("keyboard", lambda n, g: coloured(n, g) * gain(COMFORT_DBFS) + struck(n, g, KEYS)),
        noise("doors and knocks", lambda n, g: coloured(n, g) * gain(COMFORT_DBFS) + struck(n, g, DOORS)),
        noise("coughs", lambda n, g: coloured(n, g) * gain(COMFORT_DBFS) + struck(n, g, COUGHS)),
        noise("telephone tones", lambda n, g: coloured(n, g) * gain(COMFORT_DBFS) + tones(n, g)),
    ]


def recorded(recordings: Sequence[Recording], seconds_each: float, *, voiced_s: float) -> list[Noise]:
    """Recordings of noise, each strung together to `seconds_each`, those that consist of voices to `voiced_s`."""
    lengths_s = [voiced_s if is_voiced(item.path) else seconds_each for item in recordings]
    return [
        Noise(item.path, length_s, partial(_strung, item, samples_in(s=length_s)))
        for item, length_s in zip(recordings, lengths_s, strict=True)
    ]


def is_voiced(name: str) -> bool:
    """Whether a recording of that path consists of voices."""
    return any(part in VOICED for part in name.split("/"))


def clipped(signal: NDArray[np.floating[Any]]) -> Samples:
    """[n] as samples within full scale."""
    return np.asarray(np.clip(signal, -1.0, 1.0), dtype=np.float32)


def seeded(name: str) -> Generator:
    """A generator of that name: a new noise changes no other."""
    return np.random.default_rng(int.from_bytes(sha256(name.encode()).digest()[:8], "big"))


def gain(dbfs: float) -> float:
    """The amplitude at a level."""
    return float(10 ** (dbfs / 20))


def moving(signal: Signal, generator: Generator) -> Signal:
    """[n] at levels that step and swell between quiet and loud (RMS against full scale)."""
    level = float(np.sqrt(np.mean(signal**2)))
    return signal / max(level, 1e-12) * 10 ** (levels_db(len(signal), generator) / 20)


def levels_db(n: int, generator: Generator) -> Signal:
    """[n] dBFS: a level is held, then the next one comes in a step or in a swell as long as a hold."""
    at = [0.0]
    level = [generator.uniform(QUIET_DBFS, LOUD_DBFS)]
    while at[-1] < n:
        hold, change = (generator.uniform(HOLD_MIN_S, HOLD_MAX_S) * SAMPLE_RATE for _ in range(2))
        if generator.random() < 0.5:
            change = STEP_S * SAMPLE_RATE
        at += [at[-1] + hold, at[-1] + hold + change]
        level += [level[-1], generator.uniform(QUIET_DBFS, LOUD_DBFS)]
    return np.interp(np.arange(n), at, level)


def coloured(n: int, generator: Generator) -> Signal:
    """[n] of pink noise at an RMS of 1."""
    return room(n, generator, dbfs=0.0).astype(np.float64)


def hum(n: int) -> Signal:
    """[n] of mains hum."""
    times_s = np.arange(n) / SAMPLE_RATE
    overtones = [np.sin(2 * np.pi * MAINS_HZ * k * times_s) / k for k in range(1, HUM_HARMONICS + 1)]
    return np.asarray(np.sum(overtones, axis=0), dtype=np.float64)


def clicks(n: int, generator: Generator) -> Signal:
    """[n] of lone samples, two a second: what a bad contact makes."""
    return np.where(generator.random(n) < 2 / SAMPLE_RATE, generator.uniform(-0.8, 0.8, n), 0.0)


@dataclass(frozen=True, slots=True)
class Strike:
    """A kind of short sound that comes in groups. Ranges are (least, most), drawn for each sound.

    Args:
        group: sounds in a group.
        between_s: from one sound of a group to the next.
        rest_s: between groups.
        length_s: time in which a sound falls by 60 dB.
        attack_s: time in which it rises.
        centre_hz, width_hz: where its noise lies; several centres are heard as a resonance, as of a throat.
        peak_dbfs: how loud it gets.
    """

    group: tuple[int, int]
    between_s: tuple[float, float]
    rest_s: tuple[float, float]
    length_s: tuple[float, float]
    attack_s: float
    centre_hz: tuple[tuple[float, float], ...]
    width_hz: float
    peak_dbfs: tuple[float, float]


KEYS = Strike((3, 30), (0.07, 0.3), (0.5, 5.0), (0.02, 0.06), 0.001, ((1500, 2500), (3000, 5500)), 900, (-40, -12))
"""Typing: words and sentences of strokes, then thought."""

DOORS = Strike((1, 5), (0.15, 0.4), (1.0, 6.0), (0.08, 0.5), 0.003, ((60, 140), (200, 500)), 120, (-30, -3))
"""Doors, knocks, things put on a table."""

COUGHS = Strike(
    (1, 4), (0.35, 0.8), (1.5, 8.0), (0.2, 0.45), 0.015, ((500, 800), (1100, 1700), (2300, 2900)), 350, (-30, -6)
)
"""Coughs and throats: noise through a mouth, the nearest to speech that is none. Imitated by an open vowel's shape."""


def struck(n: int, generator: Generator, strike: Strike) -> Signal:
    """[n] of short sounds in groups."""
    out = np.zeros(n)
    at_s = generator.uniform(*strike.rest_s)
    while at_s * SAMPLE_RATE < n:
        for _ in range(generator.integers(*strike.group, endpoint=True)):
            sound = _strike(generator, strike)
            start = int(at_s * SAMPLE_RATE)
            part = sound[: max(n - start, 0)]
            out[start : start + len(part)] += part
            at_s += generator.uniform(*strike.between_s)
        at_s += generator.uniform(*strike.rest_s)
    return out


def _strike(generator: Generator, strike: Strike) -> Signal:
    length_s = generator.uniform(*strike.length_s)
    n = samples_in(s=length_s + strike.attack_s)
    times_s = np.arange(n) / SAMPLE_RATE
    spectrum = np.fft.rfft(generator.standard_normal(n))
    frequency = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    shape = np.sum(
        [
            np.exp(-(((frequency - generator.uniform(*centre)) / strike.width_hz) ** 2)) / (1 + k)
            for k, centre in enumerate(strike.centre_hz)
        ],
        axis=0,
    )
    envelope = np.minimum(times_s / strike.attack_s, 1) * 10 ** (-3 * times_s / length_s)
    sound = np.fft.irfft(spectrum * shape, n) * envelope
    return sound / max(float(np.abs(sound).max()), 1e-12) * gain(generator.uniform(*strike.peak_dbfs))


TONES_HZ = ((425.0,), (440.0, 480.0), (350.0, 440.0), (941.0, 1336.0), (697.0, 1209.0), (1000.0,))
"""Ringing, busy and dial tones of both sides of the Atlantic, two keys (ITU-T E.180, Q.23), and a test tone."""


def tones(n: int, generator: Generator) -> Signal:
    """[n] of telephone tones, on and off."""
    times_s = np.arange(n) / SAMPLE_RATE
    out = np.zeros(n)
    at_s = 0.5
    while at_s * SAMPLE_RATE < n:
        pair = TONES_HZ[generator.integers(len(TONES_HZ))]
        level = gain(generator.uniform(-40, -12))
        on_s, off_s = generator.uniform(0.08, 1.5, 2)
        for _ in range(generator.integers(1, 8)):
            here = slice(int(at_s * SAMPLE_RATE), int((at_s + on_s) * SAMPLE_RATE))
            out[here] = level * np.mean([np.sin(2 * np.pi * hz * times_s[here]) for hz in pair], axis=0)
            at_s += on_s + off_s
        at_s += generator.uniform(0.3, 4.0)
    return out


def strung(source: Samples, n: int, generator: Generator) -> Samples:
    """[n] of pieces of a recording: from random places, at random levels and slightly other speeds, cross-faded."""
    if not len(source) or not np.any(source):
        return np.zeros(n, dtype=np.float32)
    out = np.zeros(n)
    fade = samples_in(s=FADE_S)
    start = 0
    while start < n:
        piece = _piece(source, generator)
        ramp = np.minimum(np.arange(1, len(piece) + 1), np.arange(len(piece), 0, -1)) / fade
        piece = (piece * np.minimum(ramp, 1.0))[: n - start]
        out[start : start + len(piece)] += piece
        start += max(len(piece) - fade, 1)
    return clipped(out)


def _strung(recording: Recording, n: int) -> Samples:
    return strung(recording.read(), n, seeded(recording.path))


def _piece(source: Samples, generator: Generator) -> Signal:
    speed = 1 + generator.uniform(-SPEED_SPREAD, SPEED_SPREAD)
    n = int(min(generator.uniform(PIECE_MIN_S, PIECE_MAX_S) * SAMPLE_RATE, len(source) / speed - 1))
    begin = generator.uniform(0, len(source) - n * speed)
    piece = np.interp(begin + speed * np.arange(max(n, 1)), np.arange(len(source)), source)
    level = float(np.sqrt(np.mean(piece**2)))
    return np.asarray(piece * (gain(generator.uniform(QUIET_DBFS, LOUD_DBFS)) / max(level, 1e-6)), dtype=np.float64)
