"""WhisperLive (Collabora): how it is installed, started and listened to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp

from benchmarks.peers.client import Screen, WebSocketClient
from benchmarks.peers.install import Plan, Step
from benchmarks.peers.server import Launch
from benchmarks.peers.shown import Text
from benchmarks.scripts import Script
from mediaserver.audio.clock import Samples

VERSION = "0.10.0"

PLAN = Plan(
    "whisperlive",
    (
        Step(("torch==2.13.0",)),
        Step((f"whisper-live=={VERSION}",), alone=True),
        Step(
            (
                *("faster-whisper==1.2.1", "ctranslate2==4.8.5", "onnxruntime==1.31.1", "numpy==2.4.6"),
                *("websockets==17.4", "fastapi==0.165.0", "uvicorn==0.54.0", "python-multipart==0.0.34"),
                *("huggingface-hub==2.4.0", "prometheus_client==0.26.0", "soundfile==0.14.0", "scipy==1.17.1"),
                *("librosa==0.11.0", "tiktoken==0.14.0", "tqdm==4.70.1"),
            )
        ),
    ),
)

LAUNCHER = Path(__file__).with_name("launch_whisperlive.py")

REPEATS = 3
"""WhisperLive does not say when it has finished, and drops what it has not decoded at the mark for the end of audio.
So it is not given that mark. It goes on decoding what it has, and has finished when it says the same so many times: the
first of them may come from a pass that began before the end."""

SETTLE_S = 20.0
"""Or when it says nothing for so long, as it does when it hears nobody."""

FLUSH_S = 60.0
"""Longest wait for its last words, twenty times the bound that the speakers are counted by."""

CLIENTS_MAX = 1000

ADMIT_ALL = {"batch_max_queue_wait_s": 1e6, "batch_max_admissions_per_s": 1e6}
"""Its admission control is set aside: how many it can serve is what is measured here."""


def launch(python: Path, model: Path, *, name: str, batch: bool, threads: int | None) -> Launch:
    """How it is started.

    Args:
        python: of its environment.
        model: directory of the weights.
        name: as it is told to people.
        batch: whether passes of several clients are decoded together.
        threads: of the decoder; None leaves that to it.
    """
    options: dict[str, Any] = {
        "backend": "faster_whisper",
        "faster_whisper_custom_model_path": str(model),
        "single_model": True,
        "max_clients": CLIENTS_MAX,
        "max_connection_time": 86_400,
        **({"batch_enabled": True, **ADMIT_ALL} if batch else {}),
    }
    return Launch(
        name,
        (str(python), "-I", str(LAUNCHER), "{port}", json.dumps(options)),
        {"HF_HUB_OFFLINE": "1", **({"OMP_NUM_THREADS": str(threads)} if threads else {})},
        _listens,
    )


async def _listens(port: int) -> bool:
    """It has no address for health; its socket opens when it takes clients."""
    async with asyncio.timeout(5.0), aiohttp.ClientSession() as http, http.ws_connect(f"ws://127.0.0.1:{port}/"):
        return True


class WhisperLiveScreen(Screen):
    """Segments: those that are `completed` stay, the last one that is not replaces the one before it.

    Only the newest ten completed segments are sent each time, so they are kept here by their starts.
    """

    def __init__(self) -> None:
        self._completed: dict[float, str] = {}
        self._running = ""

    def take(self, message: object) -> Text | None:
        """`{uid, message: SERVER_READY}`, `{uid, status: WAIT | ERROR, message}` or `{uid, segments: [...]}`."""
        if not isinstance(message, Mapping):
            return None
        if message.get("message") == "SERVER_READY":
            self.ready = True
        elif message.get("message") == "DISCONNECT":
            self.ended = True
        elif message.get("status") in ("WAIT", "ERROR"):
            self.refusal = f"{message['status']}: {message.get('message')}"
        segments = message.get("segments")
        if not isinstance(segments, list):
            return None
        self._running = ""
        for segment in segments:
            if not isinstance(segment, Mapping):
                continue
            text = str(segment.get("text", "")).strip()
            if segment.get("completed") is True:
                self._completed[_number(segment.get("start"))] = text
            else:
                self._running = text
        settled = " ".join(self._completed[start] for start in sorted(self._completed))
        return Text(f"{settled} {self._running}".strip(), settled)


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return 0.0


class WhisperLiveClient(WebSocketClient):
    """Speaks to WhisperLive: a JSON hello, then float32 samples."""

    def __init__(self, script: Script, port: int) -> None:
        super().__init__(
            script,
            url=f"ws://127.0.0.1:{port}/",
            screen=WhisperLiveScreen(),
            settle_s=SETTLE_S,
            flush_s=FLUSH_S,
            repeats=REPEATS,
        )

    def hello(self) -> dict[str, Any]:
        """As its own client says it, its voice activity detection on."""
        return {"uid": str(uuid4()), "language": "en", "task": "transcribe", "model": "tiny.en", "use_vad": True}

    def encode(self, samples: Samples) -> bytes:
        """Little-endian float32."""
        return samples.astype("<f4").tobytes()

    async def end_audio(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Nothing: see `REPEATS`."""
