"""Samples as they are, without a codec: linear, floating-point and G.711, interleaved, little-endian."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mediaserver.audio.clock import Samples
from mediaserver.ingest.codecs import a_law_table, mu_law_table
from mediaserver.ingest.resampler import Block


class SampleFormat(StrEnum):
    """How one sample is written."""

    U8 = "u8"
    S16 = "s16"
    S24 = "s24"
    S32 = "s32"
    F32 = "f32"
    F64 = "f64"
    MU_LAW = "mulaw"
    A_LAW = "alaw"

    @property
    def n_bytes(self) -> int:
        """Of one sample."""
        return _SAMPLE_BYTES[self]


_SAMPLE_BYTES = {
    SampleFormat.U8: 1,
    SampleFormat.S16: 2,
    SampleFormat.S24: 3,
    SampleFormat.S32: 4,
    SampleFormat.F32: 4,
    SampleFormat.F64: 8,
    SampleFormat.MU_LAW: 1,
    SampleFormat.A_LAW: 1,
}


class PcmReader:
    """Interleaved bytes, cut anywhere, to whole samples of every channel. Holds back less than one of them."""

    def __init__(self, sample_format: SampleFormat, *, rate: int, channels: int) -> None:
        self._rate = rate
        self._channels = channels
        self._frame_bytes = channels * sample_format.n_bytes
        self._convert = _converter(sample_format)
        self._rest = b""

    def read(self, data: bytes) -> Block:
        """The samples, shape [channels, n]; n may be 0."""
        if self._rest:
            data = self._rest + data
        whole = len(data) - len(data) % self._frame_bytes
        self._rest = data[whole:]
        flat = self._convert(data[:whole])
        return Block(np.ascontiguousarray(flat.reshape(-1, self._channels).T), self._rate)


def _converter(sample_format: SampleFormat) -> Callable[[bytes], Samples]:
    match sample_format:
        case SampleFormat.MU_LAW | SampleFormat.A_LAW:
            table = mu_law_table() if sample_format is SampleFormat.MU_LAW else a_law_table()
            return lambda data: table[np.frombuffer(data, np.uint8)]
        case SampleFormat.U8:
            return lambda data: (np.frombuffer(data, np.uint8).astype(np.float32) - 128.0) / np.float32(128.0)
        case SampleFormat.S16:
            return lambda data: np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768.0)
        case SampleFormat.S24:
            return _from_24_bits
        case SampleFormat.S32:
            return lambda data: np.frombuffer(data, "<i4").astype(np.float32) / np.float32(2147483648.0)
        case SampleFormat.F32:
            return lambda data: _bounded(np.frombuffer(data, "<f4"))
        case SampleFormat.F64:
            return lambda data: _bounded(np.frombuffer(data, "<f8"))


def _from_24_bits(data: bytes) -> Samples:
    wide = np.zeros((len(data) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    samples: Samples = wide.reshape(-1).view("<i4").astype(np.float32) / np.float32(2147483648.0)
    return samples


def _bounded(values: NDArray[np.floating[Any]]) -> Samples:
    """Floating-point audio may hold anything: NaN is silence, and what is beyond full scale is at it."""
    bounded: Samples = np.clip(np.nan_to_num(values, nan=0.0), -1.0, 1.0).astype(np.float32)
    return bounded
