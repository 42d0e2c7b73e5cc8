"""WhisperLiveKit: how it is installed, started and listened to."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import numpy as np

from benchmarks.peers.client import Screen, WebSocketClient, linear16
from benchmarks.peers.install import Plan, Step
from benchmarks.peers.server import Launch
from benchmarks.peers.shown import Text
from benchmarks.scripts import Script
from mediaserver.audio.clock import Samples
from mediaserver.errors import VoiceForgeError

VERSION = "0.2.26"

PLAN = Plan(
    "whisperlivekit",
    (
        Step(("torch==2.13.0",)),
        Step((f"whisperlivekit=={VERSION}",), alone=True),
        Step(
            (
                *("faster-whisper==1.2.1", "ctranslate2==4.8.5", "onnxruntime==1.31.1", "numpy==2.4.6"),
                *("websockets==17.4", "fastapi==0.165.0", "uvicorn==0.54.0", "python-multipart==0.0.34"),
                *("huggingface-hub==2.4.0", "soundfile==0.14.0", "scipy==1.17.1", "librosa==0.11.0"),
                *("tiktoken==0.14.0", "tqdm==4.70.1"),
            )
        ),
    ),
)

FLUSH_S = 60.0
"""Longest wait for its last words, twenty times the bound that the speakers are counted by."""

CONVERTER = Path(__file__).with_name("pytorch_weights.py")

CONVERT_S = 300.0
"""Longest time for writing weights anew: tiny.en takes 5 s, most of it PyTorch's import."""

SILENCE = -2
"""The `speaker` of a line that is a pause."""

LAYERS = {"tiny": (4, 6), "base": (6, 8), "small": (12, 12), "medium": (24, 16)}
"""Layers and heads of the decoders; for others WhisperLiveKit takes all heads of the upper half."""


def launch(python: Path, model: Path, *, name: str, policy: str, decoder: Path | None, warm_up: Path) -> Launch:
    """How it is started.

    Args:
        python: of its environment.
        model: directory of the weights.
        name: as it is told to people.
        policy: `localagreement` or `simulstreaming`.
        decoder: for `simulstreaming`, the same weights as a PyTorch checkpoint: its decoder is not CTranslate2's.
        warm_up: a WAV file that it decodes before it takes clients.
    """
    weights = (
        ("--model_dir", str(model))
        if decoder is None
        else ("--encoder-model-path", str(model), "--decoder-model-path", str(decoder), *_heads(model))
    )
    return Launch(
        name,
        (
            *(str(python), "-I", "-c", "from whisperlivekit.basic_server import main; main()"),
            *("--host", "127.0.0.1", "--port", "{port}", "--backend", "faster-whisper", "--backend-policy", policy),
            *(*weights, "--lan", "en", "--pcm-input", "--warmup-file", str(warm_up), "--log-level", "WARNING"),
        ),
        {"HF_HUB_OFFLINE": "1"},
        _is_ready,
    )


async def checkpoint(python: Path, model: Path, folder: Path) -> Path:
    """The weights in `model` as a PyTorch checkpoint in `folder`, written by that environment's PyTorch.

    Raises:
        VoiceForgeError: WEIGHTS_UNKNOWN: they are of a kind that the converter does not know.
    """
    path = folder / f"{model.name}.pt"
    process = await asyncio.create_subprocess_exec(
        *(str(python), "-I", str(CONVERTER), str(model), str(path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), CONVERT_S)
    except TimeoutError:
        said = b"It took too long."
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        raise VoiceForgeError(
            "WEIGHTS_UNKNOWN",
            f"PyTorch weights could not be made from {model}. {' '.join(last)}".strip(),
            "Choose another --model.",
        )
    return path


def _heads(model: Path) -> tuple[str, ...]:
    """The flag for the attention heads that follow the audio, where the model's configuration names them.

    WhisperLiveKit takes them as Whisper's own code keeps them: a bit per decoder layer and head, zipped, in base 85.
    """
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        heads = np.array(config["alignment_heads"])
        mask = np.zeros(LAYERS[model.name.removesuffix(".en")], dtype=bool)
        mask[heads[:, 0], heads[:, 1]] = True
    except (OSError, ValueError, KeyError, IndexError):
        return ()
    return ("--custom-alignment-heads", base64.b85encode(gzip.compress(mask.tobytes())).decode())


async def _is_ready(port: int) -> bool:
    timeout = aiohttp.ClientTimeout(total=5.0)
    async with aiohttp.ClientSession(timeout=timeout) as http, http.get(f"http://127.0.0.1:{port}/health") as response:
        return response.status == 200 and (await response.json()).get("ready") is True


class WhisperLiveKitScreen(Screen):
    """The whole transcript each time: `lines` stay, `buffer_transcription` follows them and may change."""

    def take(self, message: object) -> Text | None:
        """`{type: config | ready_to_stop | error}` or `{status, lines: [{speaker, text}], buffer_transcription}`."""
        if not isinstance(message, Mapping):
            return None
        kind = message.get("type")
        if kind == "config":
            self.ready = True
        elif kind == "ready_to_stop":
            self.ended = True
        elif kind == "error":
            self.refusal = str(message.get("error"))
        lines = message.get("lines")
        if not isinstance(lines, list):
            return None
        texts = [
            str(line.get("text") or "").strip()
            for line in lines
            if isinstance(line, Mapping) and line.get("speaker") != SILENCE
        ]
        settled = " ".join(text for text in texts if text)
        return Text(f"{settled} {str(message.get('buffer_transcription') or '').strip()}".strip(), settled)


class WhisperLiveKitClient(WebSocketClient):
    """Speaks to WhisperLiveKit's own socket: 16-bit samples; an empty message is the end of audio."""

    def __init__(self, script: Script, port: int) -> None:
        super().__init__(
            script,
            url=f"ws://127.0.0.1:{port}/asr",
            screen=WhisperLiveKitScreen(),
            settle_s=FLUSH_S,
            flush_s=FLUSH_S,
        )

    def encode(self, samples: Samples) -> bytes:
        """Little-endian 16-bit integers."""
        return linear16(samples)

    async def end_audio(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """The empty message."""
        await socket.send_bytes(b"")
