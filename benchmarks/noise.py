"""Word errors in noise: by how far speech stands out of it, with each noise suppressor, heard by the VAD or by both."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus import SYNTHETIC, Recording, spread
from benchmarks.drive import Drive, Sink
from benchmarks.invention import NOISE_CATEGORY
from benchmarks.job import Job, broken_promises
from benchmarks.march import BLOCK_SAMPLES, march
from benchmarks.noises import clipped, gain, is_voiced, seeded
from benchmarks.report import Cell, Column, Result
from benchmarks.scoring import Errors, total
from benchmarks.screen import final_text
from benchmarks.scripts import Script, single
from benchmarks.stack import Stack, serving
from mediaserver.audio.clock import Samples, samples_in, seconds
from mediaserver.audio.denoise import preload
from mediaserver.errors import ConfigError
from mediaserver.session import Session
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Denoise, DenoiseBranch

CATEGORIES = ("english-read", SYNTHETIC)
"""Read sentences recorded in quiet: what is lost is lost to the noise."""

MIN_UTTERANCE_S, MAX_UTTERANCE_S = 3.0, 20.0
MIN_DBFS = -45.0

LIMIT, SHORT_LIMIT = 10, 4
"""Recordings, each of them in every cell of the table: about 90 and 40 s a cell."""

RATIOS_DB: tuple[float | None, ...] = (None, 20.0, 10.0, 5.0, 0.0)
SHORT_RATIOS_DB: tuple[float | None, ...] = (None, 10.0, 0.0)
"""Signal-to-noise ratios; None is the recording as it is. At 0 dB noise is as loud as speech."""

SPEECH_DBFS = -26.0
"""Active level of the speech in every mixture (ITU-T P.56 material): suppressors and VAD hear levels, too."""

ACTIVE_FRAME_S = 0.02
ACTIVE_RANGE_DB = 30.0
"""Speech is active in frames no further than this below the loudest: pauses do not count into its level."""

BABBLE_VOICES = 8
"""So many at once are heard as people and no longer as words."""

AT_ONCE = 4
"""Sessions at a time: their windows share batches, and a core is never idle."""


@dataclass(frozen=True, slots=True)
class Suppression:
    """A noise suppressor and who hears what it leaves."""

    denoise: Denoise
    branch: DenoiseBranch

    @property
    def name(self) -> str:
        """For a column."""
        return "off" if self.denoise is Denoise.OFF else f"{self.denoise.value} → {self.branch.value}"

    def applied(self, config: SessionConfig) -> SessionConfig:
        """The configuration of a session with it."""
        return config.merged({"denoise": self.denoise.value, "denoise_branch": self.branch.value})


SUPPRESSIONS = (
    Suppression(Denoise.OFF, DenoiseBranch.VAD),
    *(
        Suppression(denoise, branch)
        for denoise in (Denoise.SPEEX, Denoise.SPECTRAL_GATE)
        for branch in (DenoiseBranch.VAD, DenoiseBranch.BOTH)
    ),
)


def active_rms(samples: Samples) -> float:
    """The RMS of [n] samples where something is said: over frames of 20 ms within 30 dB of the loudest."""
    size = samples_in(s=ACTIVE_FRAME_S)
    frames = samples[: len(samples) // size * size].reshape(-1, size).astype(np.float64)
    powers = np.mean(frames**2, axis=1) if len(frames) else np.zeros(1)
    active = powers >= powers.max() * 10 ** (-ACTIVE_RANGE_DB / 10)
    return float(np.sqrt(np.mean(powers[active])))


def mixed(speech: Samples, noise: Samples, ratio_db: float | None) -> Samples:
    """[n] of speech at −26 dBFS with noise (as long, or longer) `ratio_db` below it; None: the speech alone."""
    level = gain(SPEECH_DBFS)
    out = speech * (level / max(active_rms(speech), 1e-9))
    if ratio_db is not None:
        sound = noise[: len(speech)]
        rms = float(np.sqrt(np.mean(sound.astype(np.float64) ** 2)))
        out = out + sound * (level / gain(ratio_db) / max(rms, 1e-9))
    return clipped(out)


def babble(voices: Sequence[Samples], n: int) -> Samples:
    """[n] of voices at once, each at the same level and repeated as long as is needed."""
    out = np.zeros(n)
    for voice in voices:
        out += np.resize(voice * (0.05 / max(active_rms(voice), 1e-9)), n)
    return clipped(out)


@dataclass(frozen=True, slots=True)
class Background:
    """A noise to mix with: `make` gives [n] of it from a generator."""

    name: str
    make: Callable[[int, np.random.Generator], Samples]


def backgrounds(job: Job, *, without: Sequence[Recording]) -> list[Background]:
    """White noise, babble of people not listened to, and the corpus's noises that are neither silence nor voices."""
    others = [item for item in job.corpus.select(categories=CATEGORIES, min_s=MIN_UTTERANCE_S) if item not in without]
    found = [Background("white", lambda n, generator: clipped(generator.standard_normal(n) * 0.05))]
    if others:
        voices = [item.read() for item in spread(others)[:BABBLE_VOICES]]
        found.append(Background("babble", lambda n, generator: _from_anywhere(babble(voices, 2 * n), n, generator)))
    own = job.corpus.select(categories=[NOISE_CATEGORY], with_text=False, min_dbfs=MIN_DBFS)
    return [*found, *(Background(item.path, partial(_recorded, item)) for item in own if not is_voiced(item.path))]


def _recorded(recording: Recording, n: int, generator: np.random.Generator) -> Samples:
    return _from_anywhere(recording.read(), n, generator)


def _from_anywhere(source: Samples, n: int, generator: np.random.Generator) -> Samples:
    """[n] of a noise from a random place on, from its beginning again where it ends."""
    return np.resize(np.roll(source, -int(generator.integers(len(source)))), n)


@dataclass(frozen=True, slots=True)
class Tried:
    """One ratio with one suppressor."""

    ratio_db: float | None
    suppression: Suppression
    drive: Drive
    errors: list[Errors]

    def as_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """For the JSON; `names` are the noises of the recordings."""
        return {
            "snr_db": self.ratio_db,
            "suppression": self.suppression.name,
            "cpu_s_per_audio_s": self.drive.load.cores_per_stream,
            "wer_by_noise": {
                name: total(error for error, own in zip(self.errors, names, strict=True) if own == name).rate
                for name in dict.fromkeys(names)
            },
            "texts": [final_text(take.seen) for take in self.drive.takes],
        }


async def measure(job: Job, *, limit: int | None, ratios_db: Sequence[float]) -> Result:
    """Mix each recording with a noise at each ratio and transcribe it with each suppressor."""
    recordings = job.corpus.select(
        categories=CATEGORIES,
        languages=job.heard_languages(["en"]),
        min_s=MIN_UTTERANCE_S,
        max_s=MAX_UTTERANCE_S,
        min_dbfs=MIN_DBFS,
        limit=limit if limit is not None else SHORT_LIMIT if job.short else LIMIT,
    )
    if not recordings:
        raise ConfigError("NO_SPEECH", "No recording fits the selection.", "Give a corpus with read speech by --data.")
    for suppression in SUPPRESSIONS:
        preload(suppression.denoise)
    chosen = [None, *ratios_db] if ratios_db else SHORT_RATIOS_DB if job.short else RATIOS_DB
    noises = backgrounds(job, without=recordings)
    dealt = [noises[index % len(noises)] for index in range(len(recordings))]
    tried: list[Tried] = []
    async with serving(job.settings, job.models, faster=True) as stack:
        with job.progress(in_seconds=True) as progress:
            clean = [single(recording) for recording in recordings]
            audio_s = sum(script.duration_s for script in clean)
            task = progress.add_task("mixtures", total=audio_s * len(chosen) * len(SUPPRESSIONS))
            for ratio_db, suppression in itertools.product(chosen, SUPPRESSIONS):
                scripts = [
                    mixture(script, noise, ratio_db, name=f"{script.name} {len(tried)}")
                    for script, noise in zip(clean, dealt, strict=True)
                ]
                drive = await march(
                    scripts,
                    partial(_open, stack, suppression.applied(job.config(recordings[0], interims=False))),
                    held=stack.held,
                    at_once=AT_ONCE,
                    on_progress=lambda played_s: progress.advance(task, seconds(BLOCK_SAMPLES)),
                )
                tried.append(Tried(ratio_db, suppression, drive, [job.errors(take) for take in drive.takes]))
    return _result(job, tried, chosen, [noise.name for noise in dealt], audio_s=audio_s)


def mixture(script: Script, noise: Background, ratio_db: float | None, *, name: str) -> Script:
    """A script in noise from its beginning to its end; the same piece of noise at every ratio."""
    sound = noise.make(len(script.samples), seeded(script.name))
    return Script(name, mixed(script.samples, sound, ratio_db), script.said)


def _open(stack: Stack, config: SessionConfig, name: str, sink: Sink) -> Session:
    return stack.open(name, sink, config)


def _result(
    job: Job, tried: Sequence[Tried], chosen: Sequence[float | None], names: Sequence[str], *, audio_s: float
) -> Result:
    rates = {(item.ratio_db, item.suppression): 100 * total(item.errors).rate for item in tried}
    rows: list[list[Cell]] = [
        ["clean" if ratio_db is None else f"{ratio_db:.0f}", *(rates[ratio_db, one] for one in SUPPRESSIONS)]
        for ratio_db in chosen
    ]
    rows.append(
        [
            "CPU s per s",
            *(
                f"{np.mean([item.drive.load.cores_per_stream for item in tried if item.suppression == one]):.3f}"
                for one in SUPPRESSIONS
            ),
        ]
    )
    return Result(
        name="noise",
        title=f"Word errors of {job.settings.model} in noise, %: finals, settled",
        columns=[Column("SNR, dB"), *(Column(one.name, ".1f") for one in SUPPRESSIONS)],
        rows=rows,
        notes=[
            f"{len(names)} recordings ({audio_s:.0f} s) in every cell, played faster than real time, without interims. "
            f"Speech at {SPEECH_DBFS:.0f} dBFS where it is active, noise from beginning to end. vad: it alone hears "
            "the denoised signal; both: the decoder too.",
            f"Noises, dealt out in turn: {', '.join(Path(name).stem for name in dict.fromkeys(names))}. Babble: "
            f"{BABBLE_VOICES} voices from other recordings.",
        ],
        details={"noises": list(names), "cells": [item.as_dict(names) for item in tried]},
        failed=[
            sentence
            for item in tried
            for sentence in broken_promises(item.drive, label=f"{item.ratio_db} dB, {item.suppression.name}")
        ],
        draw=lambda axes: _draw(axes, rates, chosen),
    )


def _draw(axes: Any, rates: Mapping[tuple[float | None, Suppression], float], chosen: Sequence[float | None]) -> None:
    places = range(len(chosen))
    for one in SUPPRESSIONS:
        axes.plot(places, [rates[ratio_db, one] for ratio_db in chosen], "o-", label=one.name)
    axes.set_xticks(list(places), ["clean" if ratio_db is None else f"{ratio_db:.0f} dB" for ratio_db in chosen])
    axes.set_xlabel("signal to noise")
    axes.set_ylabel("word error rate, %")
    axes.set_ylim(bottom=0)
    axes.legend()
