"""VoiceForge itself, as a server of its own that is called by WebRTC: the way that a browser takes.

It bears what the others are spared, Opus, SRTP and a jitter buffer, and so do its clients. Their Opus packets are made
before the run: what is left of a client costs 1.3 % of a core (8 at once), and is told apart from the server's cost.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any, TypeAlias

import aiohttp
import av
import numpy as np
from aiortc.mediastreams import MediaStreamError
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.packet import Packet

from benchmarks.peers.client import CONNECT_S, Client, Screen, linear16
from benchmarks.peers.server import Launch
from benchmarks.peers.shown import Text
from benchmarks.scripts import Script
from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.errors import VoiceForgeError
from mediaserver.settings import Settings
from signaling.caller import Call, CallTrack

OpusPacket: TypeAlias = "Packet[AudioStream]"

PACKET_MS = 20

PACKET_SAMPLES = SAMPLE_RATE * PACKET_MS // 1000

OPUS_BITS_PER_S = 32_000
"""What browsers send for speech."""

FLUSH_S = 60.0
"""Longest wait for the last words, as for the others."""


def launch(settings: Settings, *, name: str, sessions: int) -> Launch:
    """How it is started: with the settings of this run, and room for so many sessions."""
    given = settings.model_dump(mode="json", exclude_unset=True)
    given["max_sessions"] = max(settings.max_sessions, sessions)
    return Launch(
        name,
        (
            *(sys.executable, "-m", "signaling.cli", "serve", "--host", "127.0.0.1", "--port", "{port}"),
            *("--log-level", "warning"),
        ),
        {
            f"VOICEFORGE_{key.upper()}": value if isinstance(value, str) else json.dumps(value)
            for key, value in given.items()
            if key not in ("host", "port", "log_level") and value is not None
        },
        _is_ready,
    )


async def _is_ready(port: int) -> bool:
    timeout = aiohttp.ClientTimeout(total=5.0)
    async with aiohttp.ClientSession(timeout=timeout) as http, http.get(f"http://127.0.0.1:{port}/readyz") as response:
        return response.status == 200


def opus(samples: Samples) -> list[OpusPacket]:
    """[n] samples as Opus packets of 20 ms, the last one padded. Blocks: 1 s takes some milliseconds."""
    codec = av.CodecContext.create("libopus", "w")
    assert isinstance(codec, AudioCodecContext)
    codec.sample_rate = SAMPLE_RATE
    codec.layout = "mono"
    codec.format = "s16"
    codec.bit_rate = OPUS_BITS_PER_S
    count = -(-len(samples) // PACKET_SAMPLES)
    padded = np.pad(samples, (0, count * PACKET_SAMPLES - len(samples)))
    packets: list[OpusPacket] = []
    for index in range(count):
        pcm = np.frombuffer(linear16(padded[index * PACKET_SAMPLES : (index + 1) * PACKET_SAMPLES]), np.int16)
        frame = AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = index * PACKET_SAMPLES
        packets.extend(codec.encode(frame))
    return [*packets, *codec.encode(None)][:count]


class PacketTrack(CallTrack):
    """A recording that has been encoded already: packets leave when they are put in, at no pace of the track's own."""

    def __init__(self) -> None:
        super().__init__()
        self._ready: asyncio.Queue[OpusPacket] = asyncio.Queue()

    def put(self, packet: OpusPacket) -> None:
        """Send a packet. No more than the script's wait, and the sender takes them at once."""
        self._ready.put_nowait(packet)

    async def recv(self) -> OpusPacket:
        """The next packet."""
        if self.readyState != "live":
            raise MediaStreamError
        return await self._ready.get()


class VoiceForgeScreen(Screen):
    """Utterances one after another, each with its latest text."""

    def __init__(self) -> None:
        self._shown: dict[int, str] = {}
        self._settled: dict[int, str] = {}

    def take(self, message: object) -> Text | None:
        """The native protocol's events."""
        if not isinstance(message, Mapping):
            return None
        kind = message.get("type")
        if kind == "ready":
            self.ready = True
        elif kind == "closed":
            self.ended = True
        elif kind == "error":
            self.refusal = str(message.get("error"))
        number = message.get("utterance_id")
        if kind not in ("interim", "final", "revision") or not isinstance(number, int):
            return None
        text = str(message.get("transcript", "")).strip()
        self._shown[number] = text
        if kind != "interim":
            self._settled[number] = text
        return Text(_joined(self._shown), _joined(self._settled))


def _joined(texts: Mapping[int, str]) -> str:
    return " ".join(texts[number] for number in sorted(texts) if texts[number])


class VoiceForgeClient(Client):
    """Calls the server by WHIP."""

    block_ms = PACKET_MS

    def __init__(self, script: Script, port: int) -> None:
        super().__init__(script)
        self._url = f"http://127.0.0.1:{port}"
        self._screen = VoiceForgeScreen()
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._packets: list[OpusPacket] = []
        self._track = PacketTrack()
        self._call: asyncio.Task[None] | None = None

    def _hear(self, event: Mapping[str, Any]) -> None:
        text = self._screen.take(event)
        if text is not None:
            self.show(text)
        if self._screen.ready:
            self._ready.set()

    async def connect(self) -> None:
        """Call, and wait until the session is there."""
        self._packets = await asyncio.to_thread(opus, self.script.samples)
        call = Call(url=self._url, track=self._track, language=None, on_event=self._hear)
        self._call = asyncio.create_task(call.run(self._stop), name="peer-client")
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait((self._call, ready), timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._call.done():
            await self._call
        if not self._ready.is_set():
            raise VoiceForgeError("PEER_REFUSED", f"{self._url} takes no client.", "Look at the server's log.")

    async def send(self, index: int) -> None:
        """Send a packet."""
        if self._call is None or self._call.done():
            raise VoiceForgeError("PEER_LOST", f"{self._url} ended the call.", "Look at the server's log.")
        if index < len(self._packets):
            self._track.put(self._packets[index])

    async def finish(self) -> None:
        """End the stream and wait for the last final."""
        self._track.cut()
        if self._call is not None:
            await asyncio.wait((self._call,), timeout=FLUSH_S)

    async def close(self) -> None:
        """Hang up."""
        if self._call is not None:
            self._call.cancel()
            await asyncio.gather(self._call, return_exceptions=True)
        self._track.stop()
