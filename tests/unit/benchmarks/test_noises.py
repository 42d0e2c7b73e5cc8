"""Noises have the length, the levels and the variety that is said of them; mixtures have their ratio."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.noise import active_rms, babble, mixed
from benchmarks.noises import (
    COUGHS,
    DOORS,
    KEYS,
    LOUD_DBFS,
    QUIET_DBFS,
    Strike,
    generated,
    is_voiced,
    levels_db,
    moving,
    seeded,
    struck,
    strung,
)
from mediaserver.audio.clock import SAMPLE_RATE, Samples

S = SAMPLE_RATE


def dbfs(samples: Samples) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(samples.astype(np.float64) ** 2)) + 1e-12))


def tone(n: int, amplitude: float = 0.1) -> Samples:
    return (amplitude * np.sin(2 * np.pi * 300 * np.arange(n) / S)).astype(np.float32)


def test_every_noise_has_its_length_and_stays_within_full_scale() -> None:
    noises = generated(5.0)
    assert len({noise.name for noise in noises}) == len(noises)
    for noise in noises:
        script = noise.script()
        assert script.duration_s == noise.duration_s == 5.0
        assert script.samples.dtype == np.float32
        assert np.abs(script.samples).max() <= 1.0
        assert np.array_equal(script.samples, noise.script().samples), noise.name
        assert not noise.is_voiced
        assert noise.name == "digital silence" or np.any(script.samples)


def test_babble_is_told_apart() -> None:
    assert is_voiced("noise/babble/babble8_open.flac")
    assert not is_voiced("noise/blanket/rain.flac")


def test_levels_step_and_swell_over_the_whole_range() -> None:
    levels = levels_db(300 * S, seeded("levels"))
    assert levels.shape == (300 * S,)
    assert QUIET_DBFS <= levels.min() < -50
    assert -30 < levels.max() <= LOUD_DBFS
    slopes = np.abs(np.diff(levels)) * S
    assert (slopes > 500).any(), "a step"
    assert ((slopes > 0.1) & (slopes < 50)).any(), "a swell"
    assert (slopes < 1e-6).mean() > 0.2, "holds"


def test_a_steady_noise_moves() -> None:
    noise = moving(np.random.default_rng(0).standard_normal(120 * S), seeded("x"))
    seconds = [dbfs(noise[k * S : (k + 1) * S].astype(np.float32)) for k in range(120)]
    assert max(seconds) - min(seconds) > 20
    assert max(seconds) < LOUD_DBFS + 1


@pytest.mark.parametrize("strike", [KEYS, DOORS, COUGHS])
def test_struck_sounds_come_in_groups_with_rests(strike: Strike) -> None:
    sound = np.abs(struck(60 * S, seeded("y"), strike))
    blocks = sound[: len(sound) // 160 * 160].reshape(-1, 160).max(axis=1)
    assert 10 ** (strike.peak_dbfs[0] / 20) * 0.5 < blocks.max()
    loud = blocks > 1e-3
    assert int(np.sum(loud[1:] & ~loud[:-1])) > 5, "many sounds"
    assert 0.05 < loud.mean() < 0.9, "and rests"


def test_a_strung_recording_repeats_no_stretch() -> None:
    source = np.random.default_rng(1).standard_normal(10 * S).astype(np.float32) * 0.05
    out = strung(source, 60 * S, seeded("z"))
    assert out.shape == (60 * S,)
    parts = [out[k * 10 * S : (k + 1) * 10 * S] for k in range(6)]
    alike = [abs(np.corrcoef(a, b)[0, 1]) for i, a in enumerate(parts) for b in parts[i + 1 :]]
    assert max(alike) < 0.2
    levels = [dbfs(out[k * S : (k + 1) * S]) for k in range(60)]
    assert max(levels) - min(levels) > 10


@pytest.mark.parametrize("source", [np.zeros(0, dtype=np.float32), np.zeros(S, dtype=np.float32)])
def test_silence_strung_is_silence(source: Samples) -> None:
    assert not strung(source, 3 * S, seeded("s")).any()


def test_the_active_level_leaves_pauses_out() -> None:
    speech = np.concatenate([tone(S), np.zeros(3 * S, dtype=np.float32)])
    assert 20 * np.log10(active_rms(speech)) == pytest.approx(dbfs(tone(S)), abs=0.2)
    assert active_rms(np.zeros(10, dtype=np.float32)) == 0.0


@pytest.mark.parametrize("ratio_db", [20.0, 5.0, 0.0])
def test_a_mixture_has_its_ratio(ratio_db: float) -> None:
    speech = np.concatenate([tone(2 * S, 0.3), np.zeros(2 * S, dtype=np.float32)])
    noise = np.random.default_rng(2).standard_normal(5 * S).astype(np.float32)
    out = mixed(speech, noise, ratio_db)
    assert len(out) == len(speech)
    assert dbfs(out[2 * S :]) == pytest.approx(-26.0 - ratio_db, abs=0.2)
    assert dbfs(mixed(speech, noise, None)[: 2 * S]) == pytest.approx(-26.0, abs=0.2)
    assert not mixed(speech, noise, None)[2 * S :].any()


def test_babble_has_every_voice_in_it() -> None:
    voices = [tone(S // 2), np.random.default_rng(3).standard_normal(S).astype(np.float32)]
    out = babble(voices, 3 * S)
    assert out.shape == (3 * S,)
    for voice in voices:
        assert np.corrcoef(np.resize(voice, 3 * S), out)[0, 1] > 0.5
