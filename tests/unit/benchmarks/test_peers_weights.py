"""Whisper weights brought from CTranslate2's file to PyTorch's names."""

from __future__ import annotations

import asyncio
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import whisperlivekit
from benchmarks.peers.pytorch_weights import dimensions, read, state
from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.errors import VoiceForgeError


def variable(name: str, kind: int, value: np.ndarray) -> bytes:
    raw = name.encode() + b"\0"
    shape = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
    return struct.pack("<H", len(raw)) + raw + shape + struct.pack("<BI", kind, value.nbytes) + value.tobytes()


def model_file(*variables: bytes, version: int = 6) -> bytes:
    name = b"WhisperSpec\0"
    head = struct.pack("<IH", version, len(name)) + name + struct.pack("<II", 3, len(variables))
    return head + b"".join(variables)


def test_integers_are_what_they_stand_for(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    weight, scale = np.array([[127, -64], [50, 0]], np.int8), np.array([127.0, 50.0], np.float32)
    path.write_bytes(model_file(variable("a/weight", 1, weight), variable("a/weight_scale", 0, scale)))
    assert list(read(path)) == ["a/weight"]
    np.testing.assert_allclose(read(path)["a/weight"], [[1.0, -64 / 127], [1.0, 0.0]])


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(model_file(version=7))
    with pytest.raises(SystemExit, match="format 7"):
        read(tmp_path / "model.bin")


def test_a_real_model_has_all_weights_of_whisper(model_files: ModelFiles) -> None:
    variables = read(model_files.directory / "model.bin")
    found, sizes = state(variables), dimensions(variables)
    width = sizes["n_text_state"]
    blocks = {"encoder": sizes["n_audio_layer"], "decoder": sizes["n_text_layer"]}
    linear = {"query": 2, "key": 1, "value": 2, "out": 2}  # weight and bias; keys have no bias
    for side, count in blocks.items():
        for number in range(count):
            names = [name for name in found if name.startswith(f"{side}.blocks.{number}.")]
            attentions = ["attn", "cross_attn"] if side == "decoder" else ["attn"]
            assert len(names) == len(attentions) * (sum(linear.values()) + 2) + 6  # their norms; two layers and a norm
            assert found[f"{side}.blocks.{number}.attn.value.weight"].shape == (width, width)
    others = [name for name in found if ".blocks." not in name]
    assert sorted(others) == [
        "decoder.ln.bias",
        "decoder.ln.weight",
        "decoder.positional_embedding",
        "decoder.token_embedding.weight",
        "encoder.conv1.bias",
        "encoder.conv1.weight",
        "encoder.conv2.bias",
        "encoder.conv2.weight",
        "encoder.ln_post.bias",
        "encoder.ln_post.weight",
        "encoder.positional_embedding",
    ]
    assert found["decoder.token_embedding.weight"].shape == (sizes["n_vocab"], width)


def test_fused_projections_are_taken_apart_in_their_order() -> None:
    fused = np.arange(12, dtype=np.float32).reshape(6, 2)
    found = state(
        {
            "decoder/layer_3/self_attention/linear_0/weight": fused,
            "decoder/layer_3/attention/linear_1/bias": fused[:, 0],
        }
    )
    np.testing.assert_array_equal(found["decoder.blocks.3.attn.query.weight"], fused[:2])
    np.testing.assert_array_equal(found["decoder.blocks.3.attn.value.weight"], fused[4:])
    np.testing.assert_array_equal(found["decoder.blocks.3.cross_attn.value.bias"], fused[3:, 0])
    assert "decoder.blocks.3.cross_attn.key.bias" not in found


async def test_weights_that_cannot_be_made_are_told(tmp_path: Path) -> None:
    with pytest.raises(VoiceForgeError) as caught:
        await whisperlivekit.checkpoint(Path(sys.executable), tmp_path, tmp_path)
    assert caught.value.code == "WEIGHTS_UNKNOWN"
    assert not await asyncio.to_thread((tmp_path / f"{tmp_path.name}.pt").exists)


def test_attention_heads_go_with_a_known_model(model_files: ModelFiles, tmp_path: Path) -> None:
    def command(model: Path) -> tuple[str, ...]:
        launch = whisperlivekit.launch(
            Path("python"), model, name="x", policy="simulstreaming", decoder=tmp_path, warm_up=tmp_path
        )
        return tuple(launch.command)

    assert "--custom-alignment-heads" in command(model_files.directory)
    assert "--custom-alignment-heads" not in command(tmp_path)
