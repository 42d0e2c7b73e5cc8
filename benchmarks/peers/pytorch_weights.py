"""Whisper weights from CTranslate2's `model.bin` to PyTorch's checkpoint, inside an environment that has PyTorch.

WhisperLiveKit's AlignAtt decodes with PyTorch, and with this it has the very weights that the others have. The file
(format 6, `ctranslate2/specs/model_spec.py`): a version, the specification's name and revision, then per variable its
name, shape, type and bytes. Arguments: the model's directory, the checkpoint to write.
"""

import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

VERSION = 6

FORMATS = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
"""Types by their numbers; bfloat16 (5) is in none of the models here."""

FUSED = {"self_attn.linear_0": ("query", "key", "value"), "cross_attn.linear_1": ("key", "value")}
"""Projections that CTranslate2 keeps as one matrix."""

SINGLE = {"self_attn.linear_1": "out", "cross_attn.linear_0": "query", "cross_attn.linear_2": "out"}

ENDS = {"gamma": "weight", "beta": "bias"}


def read(path: Path) -> dict[str, Array]:
    """The variables of a `model.bin`; int8 weights with their scales made up for."""
    with path.open("rb") as file:
        (version,) = struct.unpack("<I", file.read(4))
        _text(file)
        _, count = struct.unpack("<II", file.read(8))
        if version != VERSION:
            raise SystemExit(f"{path} has format {version}; known is {VERSION}.")
        found = dict(_variable(file) for _ in range(count))
    for name in [name for name in found if name.endswith("_scale")]:
        scale = found.pop(name).astype(np.float32)
        of = name.removesuffix("_scale")
        found[of] = found[of].astype(np.float32) / scale.reshape(-1, *[1] * (found[of].ndim - 1))
    return found


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<H", file.read(2))
    return file.read(length).rstrip(b"\0").decode()


def _variable(file: BinaryIO) -> tuple[str, Array]:
    name = _text(file)
    (dimensions,) = struct.unpack("<B", file.read(1))
    shape = struct.unpack(f"<{dimensions}I", file.read(4 * dimensions))
    kind, size = struct.unpack("<BI", file.read(5))
    return name, np.frombuffer(file.read(size), FORMATS[kind]).reshape(shape)


def state(variables: dict[str, Array]) -> dict[str, Array]:
    """The variables under PyTorch Whisper's names, fused projections taken apart."""
    found: dict[str, Array] = {}
    for name, value in variables.items():
        side, _, rest = name.partition("/")
        if rest.startswith("layer_") and not rest.startswith("layer_norm"):
            found.update(_of_layer(side, rest, value))
        elif rest.startswith("conv") or rest.startswith("layer_norm"):
            part, end = rest.split("/")
            norm = "ln_post" if side == "encoder" else "ln"
            found[f"{side}.{norm if part == 'layer_norm' else part}.{ENDS.get(end, end)}"] = value
        elif rest == "position_encodings/encodings":
            found[f"{side}.positional_embedding"] = value
        elif rest == "embeddings/weight":
            found["decoder.token_embedding.weight"] = value
    return found


def _of_layer(side: str, rest: str, value: Array) -> dict[str, Array]:
    layer, *path = rest.split("/")
    block = f"{side}.blocks.{layer.removeprefix('layer_')}"
    kind, part, end = path[0], path[1], ENDS.get(path[-1], path[-1])
    if kind == "ffn":
        name = {"layer_norm": "mlp_ln", "linear_0": "mlp.0", "linear_1": "mlp.2"}[part]
        return {f"{block}.{name}.{end}": value}
    attention = "attn" if kind == "self_attention" else "cross_attn"
    if part == "layer_norm":
        return {f"{block}.{attention}_ln.{end}": value}
    key = f"{'self_attn' if attention == 'attn' else attention}.{part}"
    if key in SINGLE:
        return {f"{block}.{attention}.{SINGLE[key]}.{end}": value}
    names = FUSED[key]
    return {
        f"{block}.{attention}.{name}.{end}": piece
        for name, piece in zip(names, np.split(value, len(names)), strict=True)
        if (name, end) != ("key", "bias")  # Whisper's keys have none
    }


def dimensions(variables: dict[str, Array]) -> dict[str, int]:
    """The model's dimensions, as PyTorch Whisper keeps them."""

    def layers(side: str) -> int:
        blocks = {name.split("/")[1] for name in variables if name.startswith(f"{side}/layer_")}
        return len(blocks - {"layer_norm"})

    audio, text = variables["encoder/position_encodings/encodings"], variables["decoder/position_encodings/encodings"]
    return {
        "n_mels": variables["encoder/conv1/weight"].shape[1],
        "n_audio_ctx": audio.shape[0],
        "n_audio_state": audio.shape[1],
        "n_audio_head": int(variables["encoder/num_heads"]),
        "n_audio_layer": layers("encoder"),
        "n_vocab": variables["decoder/embeddings/weight"].shape[0],
        "n_text_ctx": text.shape[0],
        "n_text_state": text.shape[1],
        "n_text_head": int(variables["decoder/num_heads"]),
        "n_text_layer": layers("decoder"),
    }


def main(model: str, checkpoint: str) -> None:
    """Write the checkpoint of a model."""
    import torch  # type: ignore[import-not-found]  # noqa: PLC0415 - only there; what is above is tested here

    variables = read(Path(model) / "model.bin")
    weights = {name: torch.from_numpy(value.astype(np.float32)) for name, value in state(variables).items()}
    torch.save({"dims": dimensions(variables), "model_state_dict": weights}, checkpoint)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
