"""The weights in an ONNX file, read without the package that writes such files (17 MB, for forty lines).

An ONNX file is one protocol buffer. Of it, this reads `ModelProto.graph.initializer`: names, shapes and float32 numbers
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_DIMS, _TENSOR_NAME, _TENSOR_RAW_DATA = 1, 8, 9


def read_weights(path: Path) -> Mapping[str, NDArray[np.float32]]:
    """Every tensor of 32-bit floats that a model is stored with, by its name.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file.
    """
    weights: dict[str, NDArray[np.float32]] = {}
    for graph in _parts(memoryview(path.read_bytes()), _MODEL_GRAPH):
        for tensor in _parts(graph, _GRAPH_INITIALIZER):
            dims = [value for field, value in _fields(tensor) if field == _TENSOR_DIMS and isinstance(value, int)]
            raw = b"".join(_parts(tensor, _TENSOR_RAW_DATA))
            if len(raw) == 4 * math.prod(dims):
                name = b"".join(_parts(tensor, _TENSOR_NAME)).decode()
                weights[name] = np.frombuffer(raw, dtype="<f4").reshape(dims).astype(np.float32)
    if not weights:
        raise ValueError(f"{path} holds no weights")
    return weights


def _parts(message: memoryview, wanted: int) -> Iterator[memoryview]:
    return (value for field, value in _fields(message) if field == wanted and isinstance(value, memoryview))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message, numbers as numbers, everything else as its bytes."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        match key & 7:
            case 0:
                value, at = _varint(message, at)
                yield key >> 3, value
                continue
            case 1:
                count = 8
            case 2:
                count, at = _varint(message, at)
            case 5:
                count = 4
            case other:
                raise ValueError(f"wire type {other} is none of protocol buffers'")
        if at + count > end:
            raise ValueError("a field is longer than its message")
        yield key >> 3, message[at : at + count]
        at += count


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number in base 128, and where it ends."""
    number = 0
    for shift in range(0, 64, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise ValueError("a number does not end")
