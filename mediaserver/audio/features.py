"""Samples to the log-mel spectrogram that Whisper reads (Radford et al. 2022, §2.2).

Computed afresh for each window: 10 s cost about 1 % of their encoding (benchmarks/RESULTS.md), too little to be worth
a cache.
"""

from __future__ import annotations

import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor
from numpy.typing import NDArray

from mediaserver.audio.clock import SAMPLE_RATE, Samples

FFT_SAMPLES = 400
HOP_SAMPLES = 160
"""10 ms: one mel frame."""

FRAMES_PER_SECOND = SAMPLE_RATE // HOP_SAMPLES
MAX_FRAMES = 3000
"""30 s, the longest context that Whisper has positions for."""

POWER_FLOOR = 1e-10
DYNAMIC_RANGE_LOG10 = 8.0
"""Whisper clips everything 80 dB below the loudest bin."""


class LogMel:
    """Log-mel features of one model size.

    Args:
        n_mels: 80, or 128 for large-v3 and its kin.
    """

    def __init__(self, n_mels: int) -> None:
        self.n_mels = n_mels
        filters = FeatureExtractor.get_mel_filters(SAMPLE_RATE, FFT_SAMPLES, n_mels=n_mels)
        # Each filter is a triangle over a few bins: 391 weights in place of 16 000. It is also no matrix product: BLAS
        # would wake a thread a core for it, and OpenBLAS's spin on after each, a seventh of a core per speaker.
        bins = [np.flatnonzero(weights) for weights in filters]
        self._bins: NDArray[np.intp] = np.concatenate(bins)
        self._weights: NDArray[np.float32] = np.concatenate(
            [weights[found] for weights, found in zip(filters, bins, strict=True)], dtype=np.float32
        )
        self._first_bins: NDArray[np.intp] = np.cumsum([0, *(len(found) for found in bins[:-1])])
        self._window: NDArray[np.float32] = np.hanning(FFT_SAMPLES + 1)[:-1].astype(np.float32)

    def __call__(self, samples: Samples, context_frames: int) -> NDArray[np.float32]:
        """Features of `samples` followed by digital silence up to `context_frames`.

        Args:
            samples: [n] float32, 16 kHz.
            context_frames: even, ≤ 3000; samples beyond it are left out.

        Returns:
            [n_mels, context_frames] float32, normalised as Whisper was trained.
        """
        samples = samples[: context_frames * HOP_SAMPLES]
        log_power = self._log_power(samples)[:context_frames]
        top = float(log_power.max(initial=np.float32(np.log10(POWER_FLOOR))))
        floor = top - DYNAMIC_RANGE_LOG10
        features = np.full((self.n_mels, context_frames), (floor + 4.0) / 4.0, dtype=np.float32)
        features[:, : len(log_power)] = ((np.maximum(log_power, floor) + 4.0) / 4.0).T
        return features

    def _log_power(self, samples: Samples) -> NDArray[np.float32]:
        """Log10 mel power, [frames, n_mels]; frames are centred, the start is mirrored, silence follows the end."""
        half = FFT_SAMPLES // 2
        head = samples[1 : half + 1][::-1]
        padded = np.zeros(half + len(samples) + FFT_SAMPLES, dtype=np.float32)
        padded[half - len(head) : half] = head
        padded[half : half + len(samples)] = samples
        frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SAMPLES)[::HOP_SAMPLES]
        # Two frames beyond the end still see speech; later ones are silence and filled in by the caller.
        frames = frames[: len(samples) // HOP_SAMPLES + 2]
        spectrum = np.fft.rfft(frames * self._window, axis=-1)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        mel_power = np.add.reduceat(power[:, self._bins] * self._weights, self._first_bins, axis=1)
        log_power: NDArray[np.float32] = np.log10(np.maximum(mel_power, POWER_FLOOR))
        return log_power.astype(np.float32, copy=False)
