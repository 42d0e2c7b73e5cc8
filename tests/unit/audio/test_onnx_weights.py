"""Weights out of an ONNX file: those that are in it, and one kind of error for whatever else it is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mediaserver.audio.onnx_weights import read_weights


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def model(*tensors: bytes) -> bytes:
    graph = b"".join(field(5, tensor) for tensor in tensors)
    return field(1, 8) + field(2, b"somebody") + field(7, field(2, b"a graph") + graph)


def tensor(name: str, weights: np.ndarray) -> bytes:
    dims = b"".join(field(1, size) for size in weights.shape)
    return dims + field(2, 1) + field(8, name.encode()) + field(9, weights.astype("<f4").tobytes())


def test_each_tensor_has_its_name_and_shape(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    first, second = np.arange(600, dtype=np.float32).reshape(2, 300), np.array([1.5], np.float32)
    path.write_bytes(model(tensor("a.weight", first), tensor("a.bias", second)))
    weights = read_weights(path)
    assert list(weights) == ["a.weight", "a.bias"]
    np.testing.assert_array_equal(weights["a.weight"], first)
    np.testing.assert_array_equal(weights["a.bias"], second)


def test_tensors_of_other_numbers_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    longs = field(1, 2) + field(8, b"sizes") + field(9, bytes(16))
    path.write_bytes(model(longs, tensor("bias", np.ones(3, np.float32))))
    assert list(read_weights(path)) == ["bias"]


@pytest.mark.parametrize(
    "content",
    [b"", b"not a model", model(), model(tensor("bias", np.ones(3, np.float32)))[:-4], b"\xff" * 20, b"\x3a"],
)
def test_what_is_no_model_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"no weights|longer than|not end|wire type"):
        read_weights(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(at=st.integers(0, 120), byte=st.integers(0, 255))
def test_a_damaged_byte_is_a_value_error_or_nothing(tmp_path: Path, at: int, byte: int) -> None:
    content = bytearray(model(tensor("bias", np.ones(20, np.float32))))
    content[at % len(content)] = byte
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with suppress(ValueError):
        read_weights(path)
