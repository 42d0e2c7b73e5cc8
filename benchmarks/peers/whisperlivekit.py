"""WhisperLiveKit: how it is installed, started and listened to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import aiohttp

from benchmarks.peers.client import Screen, WebSocketClient, linear16
from benchmarks.peers.install import Plan, Step
from benchmarks.peers.server import Launch
from benchmarks.peers.shown import Text
from benchmarks.scripts import Script
from mediaserver.audio.clock import Samples

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

SILENCE = -2
"""The `speaker` of a line that is a pause."""


def launch(python: Path, model: Path, *, name: str, policy: str, decoder: Path | None, warm_up: Path) -> Launch:
    """How it is started.

    Args:
        python: of its environment.
        model: directory of the weights.
        name: as it is told to people.
        policy: `localagreement` or `simulstreaming`.
        decoder: for `simulstreaming`, the same weights as PyTorch has them: its decoder is not CTranslate2's.
        warm_up: a WAV file that it decodes before it takes clients.
    """
    weights = (
        ("--model_dir", str(model))
        if decoder is None
        else ("--encoder-model-path", str(model), "--decoder-model-path", str(decoder))
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
