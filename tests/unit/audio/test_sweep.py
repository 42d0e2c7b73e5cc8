"""A recording judged in long runs is judged as a stream is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mediaserver.audio.clock import FRAME_SAMPLES, Samples
from mediaserver.audio.lane import CONTEXT_SAMPLES, STATE_SHAPE
from mediaserver.audio.sweep import ROWS, WARM_FRAMES, Sweep
from mediaserver.audio.vad import VadPool
from tests.conftest import Speech


class Counting:
    """A model whose state counts frames and whose verdict is the frame's first sample, if its context fits."""

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        first = frames[:, CONTEXT_SAMPLES]
        fits = (frames[:, CONTEXT_SAMPLES - 1] == first - 1) | (first == 0)
        return np.where(fits, first, -1.0)[:, None].astype(np.float32)

    def step(
        self, encoded: NDArray[np.float32], states: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.calls += 1
        return encoded, states + 1


def numbered(frames: int, *, start: int = 0) -> Samples:
    """Frame k is full of k."""
    return np.repeat(np.arange(start, start + frames, dtype=np.float32), FRAME_SAMPLES)


def test_every_frame_has_its_own_verdict_whatever_the_blocks() -> None:
    for blocks in ([1], [5, 3], [127, 128, 129], [2000, 2000, 17], [ROWS * 2 * WARM_FRAMES + 1]):
        sweep, at = Sweep(Counting()), 0
        for count in blocks:
            found = sweep.probabilities(numbered(count, start=at))
            assert found.tolist() == list(range(at, at + count))
            at += count


def test_a_block_takes_a_fraction_of_the_calls() -> None:
    model = Counting()
    Sweep(model).probabilities(numbered(2000))
    assert model.calls == 2000 / ROWS + WARM_FRAMES


def test_nothing_is_nothing() -> None:
    assert Sweep(Counting()).probabilities(numbered(0)).shape == (0,)


async def test_the_real_model_hears_what_it_hears_frame_by_frame(
    vad_model_path: Path, speeches: dict[str, Speech]
) -> None:
    pool = VadPool(vad_model_path)
    samples = np.concatenate([speech.samples() for speech in speeches.values()] * 3)
    samples = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES]
    frames = samples.reshape(-1, FRAME_SAMPLES)
    depth, width = STATE_SHAPE
    state = np.zeros((depth, 1, width), dtype=np.float32)
    context = np.zeros(CONTEXT_SAMPLES, dtype=np.float32)
    alone = []
    for frame in frames:
        encoded = pool.network.encode(np.concatenate((context, frame))[None])
        probability, state = pool.network.step(encoded, state)
        context = frame[-CONTEXT_SAMPLES:]
        alone.append(float(probability[0, 0]))
    together = Sweep(pool.network).probabilities(samples)
    await pool.close()
    differs = (together > 0.5) != (np.array(alone) > 0.5)
    assert differs.mean() < 0.01
