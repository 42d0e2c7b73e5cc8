"""Denoisers: noise gets less, speech stays in its place, nothing breaks on silence or clipping."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mediaserver.audio.clock import FRAME_SAMPLES, SAMPLE_RATE, Samples
from mediaserver.audio.denoise import Denoiser, make_denoiser, preload
from mediaserver.errors import VoiceForgeError
from mediaserver.settings import Denoise

KINDS = [Denoise.SPEEX, Denoise.SPECTRAL_GATE]


def denoised(denoiser: Denoiser, samples: Samples) -> Samples:
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    out = [denoiser.process(frame) for frame in frames]
    assert all(part.shape == (FRAME_SAMPLES,) and part.dtype == np.float32 for part in out)
    return np.concatenate(out)


def made(kind: Denoise) -> Denoiser:
    preload(kind)
    denoiser = make_denoiser(kind)
    assert denoiser is not None
    return denoiser


def level_db(samples: Samples) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(samples**2)) + 1e-9))


def noise(seconds: float, level: float = 0.01) -> Samples:
    return np.random.default_rng(1).normal(0, level, int(seconds * SAMPLE_RATE)).astype(np.float32)


def voice(seconds: float) -> Samples:
    """A buzz with harmonics to 3 kHz that comes and goes four times a second."""
    time_s = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    buzz = sum(np.sin(2 * np.pi * 150 * n * time_s) / n for n in range(1, 20))
    return (0.1 * buzz * (np.sin(2 * np.pi * 4 * time_s) > 0)).astype(np.float32)


def test_off_is_no_denoiser() -> None:
    assert make_denoiser(Denoise.OFF) is None
    preload(Denoise.OFF)


@pytest.mark.parametrize("kind", KINDS)
def test_steady_noise_is_reduced_by_a_gentle_amount(kind: Denoise) -> None:
    out = denoised(made(kind), noise(4.0))
    reduction_db = level_db(noise(4.0)) - level_db(out[2 * SAMPLE_RATE :])
    assert 5 < reduction_db < 16


@pytest.mark.parametrize("kind", KINDS)
def test_output_lies_exactly_the_declared_delay_behind(kind: Denoise) -> None:
    denoiser = made(kind)
    speech = voice(3.0)
    out = denoised(denoiser, speech)
    lags = range(0, 2048)
    middle = slice(SAMPLE_RATE, 2 * SAMPLE_RATE)
    match = [float(np.dot(out[SAMPLE_RATE + lag : 2 * SAMPLE_RATE + lag], speech[middle])) for lag in lags]
    assert int(np.argmax(match)) == denoiser.delay_samples


@pytest.mark.parametrize("kind", KINDS)
def test_speech_keeps_its_level(kind: Denoise, speech: Any) -> None:
    spoken = speech.samples()
    assert -5.0 < level_db(denoised(made(kind), spoken)) - level_db(spoken) < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_quiet_speech_is_not_amplified(kind: Denoise) -> None:
    speech = 0.02 * voice(4.0) + noise(4.0, 0.0001)
    assert level_db(denoised(made(kind), speech)) <= level_db(speech) + 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_digital_silence_and_speech_after_it_stay_finite(kind: Denoise) -> None:
    out = denoised(made(kind), np.concatenate((np.zeros(20 * FRAME_SAMPLES, np.float32), voice(1.0))))
    assert np.isfinite(out).all()
    assert level_db(out[: 16 * FRAME_SAMPLES]) < -90


@pytest.mark.parametrize("kind", KINDS)
def test_audio_beyond_full_scale_does_not_wrap_round(kind: Denoise) -> None:
    denoiser = made(kind)
    time_s = np.arange(40 * FRAME_SAMPLES) / SAMPLE_RATE
    loud = (1.5 * np.sin(2 * np.pi * 200 * time_s)).astype(np.float32)
    out = denoised(denoiser, loud)[20 * FRAME_SAMPLES :]
    meant = loud[20 * FRAME_SAMPLES - denoiser.delay_samples : -denoiser.delay_samples]
    assert np.corrcoef(out, meant)[0, 1] > 0.95


def test_streams_do_not_hear_each_other() -> None:
    alone = denoised(made(Denoise.SPEEX), voice(1.0))
    one, other = made(Denoise.SPEEX), made(Denoise.SPEEX)
    mixed = []
    for frame in voice(1.0)[: 31 * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES):
        mixed.append(one.process(frame))
        other.process(noise(0.032))
    np.testing.assert_array_equal(np.concatenate(mixed), alone)


@pytest.mark.parametrize(("kind", "module"), [(Denoise.SPEEX, "pyspeex_noise"), (Denoise.SPECTRAL_GATE, "noisereduce")])
def test_a_missing_library_is_named_with_what_to_install(
    kind: Denoise, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for attempt in (make_denoiser, preload):
        with pytest.raises(VoiceForgeError, match="pip install") as caught:
            attempt(kind)
        assert caught.value.code == "DENOISER_NOT_INSTALLED"


def test_torch_stays_out_of_the_process_even_where_it_is_installed(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from mediaserver.audio.denoise import make_denoiser
from mediaserver.settings import Denoise
denoiser = make_denoiser(Denoise.SPECTRAL_GATE)
assert "noisereduce" not in sys.modules and "scipy" not in sys.modules
import threading, numpy
frame = numpy.random.default_rng(1).normal(0, 0.1, 512).astype(numpy.float32)
delayed = numpy.zeros(0, numpy.float32)
for _ in range(3):  # nobody waits for the import: raw audio comes out, 1024 samples late
    delayed = numpy.concatenate((delayed, denoiser.process(frame)))
assert (delayed[:1024] == 0).all() and (delayed[1024:] == frame).all()
next(thread for thread in threading.enumerate() if thread.name == "import-noisereduce").join()
assert "noisereduce" in sys.modules and "torch" not in sys.modules
assert not (denoiser.process(frame) == frame).all()
print("denoised", flush=True)
import torch
"""
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "denoised"
    assert ran.stderr.strip() == "torch was imported", "the last line, and only that, may import it"
