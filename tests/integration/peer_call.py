"""A peer and a real WebRTC client (aiortc) on loopback that calls it; the session only records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)

from mediaserver.audio.clock import SAMPLE_RATE
from mediaserver.errors import VoiceForgeError
from mediaserver.events import Closed, Event, Failed, Final, Metadata, Pong, Ready, Warned
from mediaserver.ingest.ice import close_peer_connection
from mediaserver.ingest.peer import Peer
from mediaserver.metrics import Metrics
from mediaserver.session import Sink
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings

TONE_HZ = 440

EARLY_S = 12.0
"""Sooner than any limit that a test has not set (15 s and more), and later than a busy machine keeps one."""


class RecordingSession:
    """Keeps what it hears and speaks the events of a session whose speech is one final."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.config = SessionConfig()
        self.samples: list[np.ndarray[Any, Any]] = []
        self.concealed = 0
        self.finalized = 0
        self.closed_with: str | None = None
        self.seq = 0
        self.on_close_stream: Callable[[], None] | None = None

    @property
    def heard(self) -> np.ndarray[Any, Any]:
        return np.concatenate(self.samples) if self.samples else np.zeros(0, np.float32)

    @property
    def stream_time_s(self) -> float:
        return sum(map(len, self.samples)) / SAMPLE_RATE

    @property
    def concealed_s(self) -> float:
        return self.concealed / SAMPLE_RATE

    def emit(self, event: Event) -> None:
        self.sink.send(event, self.seq)
        self.seq += 1

    def start(self) -> None:
        self.emit(Ready(config={}, model="recorder"))

    def push(self, samples: np.ndarray[Any, Any], *, concealed: int = 0) -> None:
        assert samples.dtype == np.float32
        assert self.closed_with is None
        self.samples.append(samples)
        self.concealed += concealed

    def configure(self, changes: object) -> None: ...

    def finalize(self) -> None:
        self.finalized += 1

    def keep_alive(self) -> None:
        self.emit(Pong(timestamp=self.stream_time_s))

    def warn(self, error: VoiceForgeError) -> None:
        self.emit(Warned(error=error.as_dict()))

    def fail(self, error: VoiceForgeError) -> None:
        self.emit(Failed(error=error.as_dict()))

    async def close(self, reason: str, *, deadline_s: float) -> None:
        self.closed_with = reason
        await asyncio.sleep(0.05)  # a last decode
        words = "x" * 3000  # more than one SCTP packet
        self.emit(Final(1, words, 1.0, 0.0, 1.0, 1.0, "en", 1.0, []))
        self.emit(Metadata(self.stream_time_s, 0.0, 1, 0.0, "recorder"))
        self.emit(Closed(reason=reason))


class Tone(MediaStreamTrack):
    """A sine in packets of 20 ms, in real time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.position = 0
        self.playing = asyncio.Event()
        self.playing.set()
        self._start_s: float | None = None

    async def recv(self) -> av.AudioFrame:
        loop = asyncio.get_running_loop()
        if self._start_s is None:
            self._start_s = loop.time()
        await self.playing.wait()
        await asyncio.sleep(max(0.0, self._start_s + self.position / 48_000 - loop.time()))
        at = (self.position + np.arange(960)) / 48_000
        frame = av.AudioFrame.from_ndarray(
            (np.sin(2 * np.pi * TONE_HZ * at) * 12_000).astype(np.int16)[None, :], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = 48_000, self.position, Fraction(1, 48_000)
        self.position += 960
        return frame


class Call:
    """A client and the peer that serves it."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.metrics = Metrics()
        self.session: RecordingSession | None = None
        self.ended: list[str] = []
        self.client = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.tone = Tone()
        self.events: list[dict[str, Any]] = []
        self.channels: list[RTCDataChannel] = []
        self.client.on("datachannel", self.listen)
        self.peer = Peer(
            session_id="s1",
            settings=self.settings,
            metrics=self.metrics,
            make_session=self._make_session,  # type: ignore[arg-type]
        )
        self.peer.on_ended = self.ended.append

    def _make_session(self, sink: Sink) -> RecordingSession:
        self.session = RecordingSession(sink)
        return self.session

    def listen(self, channel: RTCDataChannel) -> RTCDataChannel:
        self.channels.append(channel)
        channel.on("message", lambda text: self.events.append(json.loads(text)))
        return channel

    def open(self, label: str = "transcripts", **options: Any) -> RTCDataChannel:
        return self.listen(self.client.createDataChannel(label, **options))

    def add_tone(self, codec: str | None = None) -> None:
        transceiver = self.client.addTransceiver(self.tone, direction="sendonly")
        if codec is not None:
            known = RTCRtpSender.getCapabilities("audio").codecs
            transceiver.setCodecPreferences([item for item in known if item.mimeType.lower() == f"audio/{codec}"])

    async def dial(self, change: Callable[[str], str] = lambda sdp: sdp) -> str:
        await self.client.setLocalDescription(await self.client.createOffer())
        answer = await self.peer.accept(change(self.client.localDescription.sdp))
        await self.client.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        return answer

    async def hang_up(self) -> None:
        await close_peer_connection(self.client)
        await self.peer.close("client", deadline_s=1.0)

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


@asynccontextmanager
async def call(**settings: Any) -> AsyncIterator[Call]:
    made = Call(**settings)
    try:
        yield made
    finally:
        await made.hang_up()


def without_candidates(sdp: str) -> str:
    return "".join(
        line for line in sdp.splitlines(keepends=True) if not line.startswith(("a=candidate", "a=end-of-candidates"))
    )
