"""The log-mel spectrogram is Whisper's own."""

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from mediaserver.audio.features import LogMel


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("length", [16_000, 12_345, 401])
def test_features_equal_those_that_the_model_was_trained_on(n_mels: int, length: int) -> None:
    samples = np.random.default_rng(7).normal(0, 0.1, length).astype(np.float32)
    ours = LogMel(n_mels)(samples, 300)
    reference = FeatureExtractor(feature_size=n_mels)(np.pad(samples, (0, 300 * 160 - length)), padding=0)
    assert ours.shape == (n_mels, 300)
    assert np.abs(ours - reference[:, :300]).max() < 1e-4


def test_silence_and_nothing_are_features_too() -> None:
    log_mel = LogMel(80)
    assert np.isfinite(log_mel(np.zeros(0, dtype=np.float32), 100)).all()
    assert np.isfinite(log_mel(np.zeros(16_000, dtype=np.float32), 100)).all()


def test_samples_beyond_the_context_are_left_out() -> None:
    assert LogMel(80)(np.ones(64_000, dtype=np.float32), 100).shape == (80, 100)
