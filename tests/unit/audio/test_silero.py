"""The VAD's network as matrix products: what ONNX Runtime makes of the same file, row by row and for any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from mediaserver.audio.clock import FRAME_SAMPLES, Samples
from mediaserver.audio.lane import CONTEXT_SAMPLES
from mediaserver.audio.silero import INPUT_SAMPLES, Silero

TOLERANCE = 1e-4
"""Sums in another order differ in the sixth digit, and what is left of that after many frames."""


@pytest.fixture(scope="module")
def silero(vad_model_path: Path) -> Silero:
    return Silero(vad_model_path)


@pytest.fixture(scope="module")
def reference(vad_model_path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(vad_model_path), providers=["CPUExecutionProvider"])


def judge(
    silero: Silero, frames: NDArray[np.float32], states: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return silero.step(silero.encode(frames), states)


def ask(
    reference: onnxruntime.InferenceSession, frames: NDArray[np.float32], states: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    sample_rate_hz = np.array(16_000, dtype=np.int64)
    outputs = reference.run(["output", "stateN"], {"input": frames, "state": states, "sr": sample_rate_hz})
    return outputs[0], outputs[1]


def inputs(samples: Samples) -> NDArray[np.float32]:
    """[n, 576]: each frame of a stream with what came before it."""
    padded = np.concatenate((np.zeros(CONTEXT_SAMPLES, np.float32), samples))
    count = len(samples) // FRAME_SAMPLES
    return np.stack([padded[at * FRAME_SAMPLES : at * FRAME_SAMPLES + INPUT_SAMPLES] for at in range(count)])


def test_of_speech_it_says_what_the_runtime_says(
    silero: Silero, reference: onnxruntime.InferenceSession, speeches: dict
) -> None:
    spoken = np.stack([inputs(speech.samples()[:64_000]) for speech in speeches.values()], axis=1)
    mine = theirs = np.zeros((2, spoken.shape[1], 128), np.float32)
    heard: list[NDArray[np.float32]] = []
    for frames in spoken:
        found, mine = judge(silero, frames, mine)
        expected, theirs = ask(reference, frames, theirs)
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)
        heard.append(expected)
    assert np.ptp(np.stack(heard)) > 0.9, "there were speech and silence"


@pytest.mark.parametrize("rows", [1, 2, 7, 80, 300])
def test_any_batch_of_any_state_is_as_the_runtime_has_it(
    silero: Silero, reference: onnxruntime.InferenceSession, rows: int
) -> None:
    rng = np.random.default_rng(rows)
    frames = rng.normal(0, 0.1, (rows, INPUT_SAMPLES)).astype(np.float32)
    states = rng.normal(0, 0.5, (2, rows, 128)).astype(np.float32)
    found, new = judge(silero, frames, states)
    expected, expected_new = ask(reference, frames, states)
    assert (found.shape, new.shape, found.dtype, new.dtype) == ((rows, 1), states.shape, np.float32, np.float32)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    np.testing.assert_allclose(new, expected_new, atol=TOLERANCE)


def test_no_frames_are_no_work(silero: Silero) -> None:
    assert silero.encode(np.zeros((0, INPUT_SAMPLES), np.float32)).shape == (0, 128)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_a_number_harms_one_row_for_one_frame(silero: Silero, bad: float) -> None:
    frames = np.random.default_rng(1).normal(0, 0.1, (3, INPUT_SAMPLES)).astype(np.float32)
    states = np.zeros((2, 3, 128), np.float32)
    expected, expected_states = judge(silero, frames, states)
    frames[1, 300] = bad
    found, new = judge(silero, frames, states)
    assert np.isfinite(found).all()
    assert np.isfinite(new).all()
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], atol=TOLERANCE)
    np.testing.assert_allclose(new[:, [0, 2]], expected_states[:, [0, 2]], atol=TOLERANCE)


def test_its_arguments_are_left_as_they_are(silero: Silero) -> None:
    frames = np.full((2, INPUT_SAMPLES), 0.1, np.float32)
    states = np.full((2, 2, 128), 0.1, np.float32)
    judge(silero, frames, states)
    np.testing.assert_array_equal(frames, np.float32(0.1))
    np.testing.assert_array_equal(states, np.float32(0.1))


def test_another_model_is_refused_by_what_it_lacks(turn_model_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the model has no model\.stft\.forward_basis_buffer"):
        Silero(turn_model_path)
