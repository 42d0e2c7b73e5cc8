"""A WebRTC client: calls a server by WHIP, plays a recording into the call at the pace of speech, hears the events.

It takes the same way as a browser does (RFC 9725 signaling, ICE, DTLS, Opus in SRTP, a data channel), so that what a
person gets is what this gets.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from fractions import Fraction
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiortc import MediaStreamTrack, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from av.audio.frame import AudioFrame
from numpy.typing import NDArray
from yarl import URL

from mediaserver.errors import MediaError, VoiceForgeError
from mediaserver.ingest.container import OPUS_FRAME_SAMPLES, OPUS_RATE, OnWarning, read_opus_frames
from mediaserver.ingest.ice import LOOPBACK_ADDRESSES, IceOptions, configure_ice, new_peer_connection
from signaling.client_key import KEY_HINT, key_headers, untrusted

CHANNEL = "transcripts"

FRAME_S = OPUS_FRAME_SAMPLES / OPUS_RATE

BLOCK_FRAMES = 50
"""1 s is decoded at a time, in a thread: some milliseconds of work, seldom enough to cost nothing."""

LATE_S = 0.2
"""Later than this the track starts its clock anew: frames in a burst would only be dropped as late by the server."""

TAIL_S = 0.6
"""Silence after the recording's end: the longest that a jitter buffer holds packets (0.2 s), three times over."""

CONNECT_S = 15.0
"""Within this a call stands, or is given up; as the server does."""

FLUSH_S = 60.0
"""How long the last finals may take after the end of the recording: a long utterance on a busy machine."""

HTTP_TIMEOUT = aiohttp.ClientTimeout(total=20.0)
"""An answer comes within a second; gathering behind a slow TURN server takes some more."""

CONSENT_TIMEOUT_S = 15.0

OnEvent = Callable[[Mapping[str, Any]], None]
OnPosition = Callable[[float], None]


class CallTrack(MediaStreamTrack):
    """What is said in a call: an audio track that tells when all of it has been said, or what became of it."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.finished = asyncio.Event()
        self.error: MediaError | None = None

    def cut(self) -> None:
        """End it here."""
        self.finished.set()


class RecordingTrack(CallTrack):
    """An audio track from a file, one frame of 20 ms every 20 ms; silence after its end, until it is stopped.

    Args:
        path: any audio file.
        on_position: told the position in the recording, in seconds, once a frame.
        on_warning: told of damage in the file.
    """

    def __init__(self, path: Path, *, on_position: OnPosition | None = None, on_warning: OnWarning | None = None):
        super().__init__()
        self._source = read_opus_frames(path, on_warning=on_warning)
        self._block: deque[NDArray[np.int16]] = deque()
        self._on_position = on_position
        self._started_s = 0.0
        self._sent_frames = 0
        self._played_frames = 0

    def cut(self) -> None:
        """End the recording here; silence follows."""
        self._block.clear()
        super().cut()

    async def recv(self) -> AudioFrame:
        """The next frame, at its time."""
        if self.readyState != "live":
            raise MediaStreamError
        samples = await self._next_samples()
        loop = asyncio.get_running_loop()
        due_s = self._started_s + self._sent_frames * FRAME_S
        late_s = loop.time() - due_s
        if self._sent_frames == 0 or late_s > LATE_S:
            self._started_s += late_s
        elif late_s < 0:
            await asyncio.sleep(-late_s)
        frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = OPUS_RATE
        frame.time_base = Fraction(1, OPUS_RATE)
        frame.pts = self._sent_frames * OPUS_FRAME_SAMPLES
        self._sent_frames += 1
        return frame

    async def _next_samples(self) -> NDArray[np.int16]:
        if not self._block and not self.finished.is_set():
            try:
                self._block.extend(await asyncio.to_thread(lambda: list(islice(self._source, BLOCK_FRAMES))))
            except MediaError as exc:
                self.error = exc
            if not self._block:
                self.finished.set()
        if not self._block:
            return np.zeros(OPUS_FRAME_SAMPLES, np.int16)
        self._played_frames += 1
        if self._on_position is not None:
            self._on_position(self._played_frames * FRAME_S)
        return self._block.popleft()


class Call:
    """One call to a server, from the offer to its end.

    Args:
        url: of the server, for example `http://127.0.0.1:8080`.
        track: what is said.
        language: language code, or None to let the server decide.
        on_event: told each event of the session, as the native protocol's JSON object, on the event loop.
    """

    def __init__(self, *, url: str, track: CallTrack, language: str | None, on_event: OnEvent) -> None:
        self._url = url
        self._track = track
        self._language = language
        self._on_event = on_event
        self._closed = asyncio.Event()
        self._open = asyncio.Event()
        self._lost: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Play the recording and hear everything that is said about it; `stop` ends it early, with its last finals.

        Raises:
            VoiceForgeError: the server cannot be reached (SERVER_UNREACHABLE), refuses (its own code), the call does
                not come about (CALL_FAILED) or is lost (CALL_LOST), or the last finals do not come (CALL_TIMEOUT).
            MediaError: NOT_AUDIO.
        """
        async with aiohttp.ClientSession(timeout=HTTP_TIMEOUT, headers=key_headers()) as http:
            pc = new_peer_connection()
            resource: URL | None = None
            try:
                pc.addTrack(self._track)
                channel = pc.createDataChannel(CHANNEL)
                self._listen(pc, channel)
                resource = await self._offer(pc, http)
                await self._within(self._open, CONNECT_S, "CALL_FAILED", "The call was answered but did not connect.")
                await self._first_of(self._track.finished, stop, self._closed)
                self._track.cut()
                if self._track.error is not None:
                    raise self._track.error
                if not self._closed.is_set():
                    await self._first_of(self._closed, timeout_s=TAIL_S)
                if not self._closed.is_set():
                    channel.send(json.dumps({"type": "close_stream"}))
                await self._within(self._closed, FLUSH_S, "CALL_TIMEOUT", "The last finals did not come.")
                if self._lost is not None:
                    raise VoiceForgeError(
                        "CALL_LOST", f"The call was lost: {self._lost}.", "What was final is kept.", retryable=True
                    )
            finally:
                self._track.stop()
                if resource is not None:
                    with suppress(aiohttp.ClientError, TimeoutError):
                        await http.delete(resource)
                await pc.close()

    def _listen(self, pc: RTCPeerConnection, channel: RTCDataChannel) -> None:
        def on_message(message: str | bytes) -> None:
            try:
                event = json.loads(message)
            except ValueError:
                return  # not of this protocol
            if isinstance(event, dict):
                self._on_event(event)
                if event.get("type") == "closed":
                    self._closed.set()

        def on_state() -> None:
            if pc.connectionState in ("failed", "closed"):
                self._lose(f"the connection {pc.connectionState}")

        channel.on("open", self._open.set)
        channel.on("message", on_message)
        channel.on("close", lambda: self._lose("the server closed the data channel"))
        pc.on("connectionstatechange", on_state)

    def _lose(self, why: str) -> None:
        if not self._closed.is_set():
            self._lost = why
            self._open.set()
            self._closed.set()

    async def _offer(self, pc: RTCPeerConnection, http: aiohttp.ClientSession) -> URL:
        """Send the offer, take the answer; returns the session's URL."""
        endpoint = URL(self._url).joinpath("whip")
        if self._language is not None:
            endpoint = endpoint.with_query(language=self._language)
        loopback = endpoint.host in ("localhost", *LOOPBACK_ADDRESSES)
        options = IceOptions(LOOPBACK_ADDRESSES if loopback else (), None, range(0), CONSENT_TIMEOUT_S)
        configure_ice(pc, options, on_lost=lambda: self._lose("the server answers no more"))
        await pc.setLocalDescription(await pc.createOffer())
        try:
            async with http.post(
                endpoint, data=pc.localDescription.sdp, headers={"Content-Type": "application/sdp"}
            ) as response:
                body = await response.text()
                if response.status != 201:
                    raise _refusal(response.status, body)
                resource = endpoint.join(URL(response.headers.get("Location", "")))
        except aiohttp.ClientConnectorCertificateError as exc:
            raise untrusted(self._url, exc) from exc
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise VoiceForgeError(
                "SERVER_UNREACHABLE",
                f"No server answers at {self._url}.",
                "Check the address, or leave --url out to have a server started for this file.",
                retryable=True,
            ) from exc
        await pc.setRemoteDescription(RTCSessionDescription(body, "answer"))
        return resource

    async def _within(self, event: asyncio.Event, timeout_s: float, code: str, message: str) -> None:
        await self._first_of(event, timeout_s=timeout_s)
        if not event.is_set():
            raise VoiceForgeError(code, message, "Look at the server's log.", retryable=True)

    @staticmethod
    async def _first_of(*events: asyncio.Event, timeout_s: float | None = None) -> None:
        waits = [asyncio.create_task(event.wait()) for event in events]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


def _refusal(status: int, body: str) -> VoiceForgeError:
    """What a server says when it does not take an offer, in its own words where it has some."""
    with suppress(ValueError, KeyError, TypeError):
        error = json.loads(body)["error"]
        hint = KEY_HINT if status == HTTPStatus.UNAUTHORIZED else str(error["hint"])
        return VoiceForgeError(str(error["code"]), str(error["message"]), hint, retryable=bool(error.get("retryable")))
    return VoiceForgeError(
        "SERVER_REFUSED", f"The server refused the call with status {status}.", "Is it a VoiceForge server?"
    )
