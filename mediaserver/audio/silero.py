"""Silero VAD 6 (16 kHz) as matrix products: the frames of all streams in one, where a runtime takes them row by row.

The network (https://github.com/snakers4/silero-vad): a short-time Fourier transform, four convolutions over its four
spectra, an LSTM cell, one output. A general runtime convolves each row of a batch by itself, products of four columns
that no processor is quick at. Written as products over the rows of all streams together, the same numbers (to 1e-5)
cost two fifths: 28 in place of 66 µs a frame in a batch of 80, and a tenth more for one alone (benchmarks/RESULTS.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mediaserver.audio.clock import FRAME_SAMPLES
from mediaserver.audio.lane import CONTEXT_SAMPLES, STATE_SHAPE
from mediaserver.audio.onnx_weights import read_weights

INPUT_SAMPLES = CONTEXT_SAMPLES + FRAME_SAMPLES

_FFT_SAMPLES, _HOP_SAMPLES = 256, 128
_PAD_SAMPLES = 64
"""After its end a frame goes on mirrored, so that four transforms fit."""
_SPECTRA = 4
_BINS = _FFT_SAMPLES // 2 + 1
_WIDTH = STATE_SHAPE[1]

_BASIS = "model.stft.forward_basis_buffer"
_CONVOLUTION = "model.encoder.{}.reparam_conv.{}"
_RECURRENT = "model.decoder.rnn.{}"
_OUTPUT = "model.decoder.decoder.2.{}"

Floats = NDArray[np.float32]


class Network(Protocol):
    """What the VAD asks: `Silero`, or what stands for it."""

    def encode(self, frames: Floats) -> Floats:
        """What is heard of frames, [B, 576], of whatever streams and in whatever order."""

    def step(self, encoded: Floats, states: Floats) -> tuple[Floats, Floats]:
        """The next frame of each stream: probabilities, [B, 1], and the new states, [2, B, 128]."""


class Silero:
    """The model. It has no state of its own, so that threads may call it side by side.

    Its weights are `silero_vad_16k_op15.onnx`'s. BLAS is held to one thread in the whole process: its helpers would
    spin after each product for longer than the product takes.

    Args:
        path: of that file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not that model.
    """

    def __init__(self, path: Path) -> None:
        threadpool_limits(limits=1, user_api="blas")
        weights = read_weights(path)
        self._basis = _tensor(weights, _BASIS, (2 * _BINS, 1, _FFT_SAMPLES))[:, 0].T.copy()
        self._first = _convolution(weights, 0, (128, _BINS, 3), taps=slice(0, 3))
        self._second = _convolution(weights, 1, (64, 128, 3), taps=slice(0, 3))
        # Of what is left, two spectra and then one, some taps see only the zeros around.
        self._third = _convolution(weights, 2, (64, 64, 3), taps=slice(1, 3))
        self._fourth = _convolution(weights, 3, (_WIDTH, 64, 3), taps=slice(1, 2))
        self._recurrent = _cell(weights)
        self._output = _tensor(weights, _OUTPUT.format("weight"), (1, _WIDTH, 1))[0].copy()
        self._output_bias = _tensor(weights, _OUTPUT.format("bias"), (1,))

    def encode(self, frames: Floats) -> Floats:
        """What the recurrent cell hears of frames, of whatever streams: they do not depend on each other.

        Args:
            frames: [B, 576], B ≥ 0, each the 64 samples before the frame and its 512. What is not finite harms its own
                row only.

        Returns:
            [B, 128].
        """
        with np.errstate(all="ignore"):
            return self._encode(frames)

    def step(self, encoded: Floats, states: Floats) -> tuple[Floats, Floats]:
        """Hear the next frame of each stream.

        Args:
            encoded: [B, 128].
            states: [2, B, 128], zeros for a stream that begins.

        Returns:
            Probabilities of speech, [B, 1], and the new states.
        """
        with np.errstate(all="ignore"):
            return self._step(encoded, states)

    def _encode(self, frames: Floats) -> Floats:
        rows = len(frames)
        padded = np.concatenate((frames, frames[:, -2 : -2 - _PAD_SAMPLES : -1]), axis=1)
        parts = _windows(padded, _SPECTRA, _HOP_SAMPLES, _FFT_SAMPLES) @ self._basis
        parts *= parts
        power = parts[:, :_BINS] + parts[:, _BINS:]
        spectra = np.zeros((rows, 1 + _SPECTRA + 1, _BINS), dtype=np.float32)  # a zero on either side
        np.sqrt(power.reshape(rows, _SPECTRA, _BINS), out=spectra[:, 1:-1])
        heard = np.zeros(
            (rows, 1 + _SPECTRA, 128), dtype=np.float32
        )  # in steps of two, so that the last zero is none's
        weights, bias = self._first
        hidden = _windows(spectra.reshape(rows, (1 + _SPECTRA + 1) * _BINS), _SPECTRA, _BINS, 3 * _BINS) @ weights
        hidden += bias
        np.fmax(hidden.reshape(rows, _SPECTRA, 128), 0.0, out=heard[:, 1:])
        hidden = _rectified(_windows(heard.reshape(rows, (1 + _SPECTRA) * 128), 2, 2 * 128, 3 * 128), self._second)
        hidden = _rectified(hidden.reshape(rows, 2 * 64), self._third)
        return _rectified(hidden, self._fourth)

    def _step(self, encoded: Floats, states: Floats) -> tuple[Floats, Floats]:
        weights, bias = self._recurrent
        gates = np.concatenate((encoded, states[0]), axis=1) @ weights
        gates += bias
        np.tanh(gates, out=gates)
        doors = gates[:, : 3 * _WIDTH]  # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2; the weights are halved already
        doors *= 0.5
        doors += 0.5
        taken, kept, shown = (doors[:, at : at + _WIDTH] for at in range(0, 3 * _WIDTH, _WIDTH))
        new = np.empty_like(states)
        np.multiply(kept, states[1], out=new[1])
        new[1] += taken * gates[:, 3 * _WIDTH :]
        np.tanh(new[1], out=new[0])
        new[0] *= shown
        logits = np.maximum(new[0], 0.0) @ self._output + self._output_bias
        return 1.0 / (1.0 + np.exp(-logits)), new


def _windows(rows: Floats, count: int, hop: int, width: int) -> Floats:
    """[B, n] to [B * count, width]: pieces that begin `hop` apart, one under the other."""
    row, item = rows.strides
    pieces = as_strided(rows, (len(rows), count, width), (row, hop * item, item), writeable=False)
    return pieces.reshape(len(rows) * count, width)


def _rectified(inputs: Floats, convolution: tuple[Floats, Floats]) -> Floats:
    """A convolution whose inputs lie in rows, and its rectifier, which swallows what is not a number."""
    weights, bias = convolution
    outputs: Floats = inputs @ weights
    outputs += bias
    return np.fmax(outputs, 0.0, out=outputs)


def _convolution(
    weights: Mapping[str, Floats], number: int, shape: tuple[int, int, int], *, taps: slice
) -> tuple[Floats, Floats]:
    """[out, in, tap] as the [tap * in, out] of a product with rows of neighbours, and its bias."""
    kernel = _tensor(weights, _CONVOLUTION.format(number, "weight"), shape)[:, :, taps]
    bias = _tensor(weights, _CONVOLUTION.format(number, "bias"), shape[:1])
    return kernel.transpose(2, 1, 0).reshape(-1, shape[0]).copy(), bias


def _cell(weights: Mapping[str, Floats]) -> tuple[Floats, Floats]:
    """The LSTM's [256, 512] and bias; its gates in the order taken, kept, shown, new, the first three halved."""

    def part(name: str, *width: int) -> Floats:
        return _tensor(weights, _RECURRENT.format(name), (4 * _WIDTH, *width))

    both = np.concatenate((part("weight_ih", _WIDTH), part("weight_hh", _WIDTH)), axis=1)
    bias = part("bias_ih") + part("bias_hh")

    def ordered(rows: NDArray[Any]) -> Floats:
        taken, kept, new, shown = np.split(rows, 4)
        return np.concatenate((taken / 2, kept / 2, shown / 2, new), dtype=np.float32)

    return ordered(both).T.copy(), ordered(bias)


def _tensor(weights: Mapping[str, Floats], name: str, shape: tuple[int, ...]) -> Floats:
    found = weights.get(name)
    if found is None or found.shape != shape:
        raise ValueError(f"the model has no {name} of {shape}")
    return found
