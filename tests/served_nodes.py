"""Real servers as their own processes, with one worker or several, and real peers that call them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
from aiortc import RTCPeerConnection, RTCSessionDescription

from mediaserver.ingest.ice import (
    LOOPBACK_ADDRESSES,
    IceOptions,
    close_peer_connection,
    configure_ice,
    new_peer_connection,
)
from signaling.caller import RecordingTrack
from tests.conftest import Speech
from tests.scoring import word_errors
from tests.waiting import LIMIT_S, until

SDP = {"Content-Type": "application/sdp"}
CHUNK_S = 0.1
CHUNK_BYTES = 3200
"""0.1 s of linear16 at 16 kHz."""

MOST_ERRORS = 0.25
"""Of words, for recordings of 6 to 15 s."""


class ServeProcess:
    """`voiceforge serve` and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process, http: aiohttp.ClientSession) -> None:
        self.process = process
        self.http = http
        self.said = ""
        self.logged = ""
        self.url = ""
        self._reading = [
            asyncio.create_task(self._read(process.stdout, "said")),
            asyncio.create_task(self._read(process.stderr, "logged")),
        ]

    async def _read(self, stream: asyncio.StreamReader | None, name: str) -> None:
        assert stream is not None
        while line := await stream.readline():
            setattr(self, name, getattr(self, name) + line.decode())

    async def until_loaded(self) -> None:
        await until(lambda: "sessions are taken" in self.said or self.process.returncode is not None)
        assert self.process.returncode is None, self.logged
        found = re.search(r"open (http://\S+)", self.said)
        assert found is not None
        self.url = found[1]

    def children(self, word: str) -> list[psutil.Process]:
        """Child processes with this word on their command line."""
        found = []
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children():
                with suppress(psutil.Error):
                    if word in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                        found.append(child)
        return found

    def worker(self, number: int) -> psutil.Process:
        (found,) = self.children(f"worker-{number}")
        return found

    def lines(self, **wanted: object) -> list[dict[str, Any]]:
        """Lines of the log with these fields."""
        found = []
        for line in self.logged.splitlines():
            with suppress(ValueError):
                fields = json.loads(line)
                if all(fields.get(name) == value for name, value in wanted.items()):
                    found.append(fields)
        return found

    async def ready(self) -> int:
        try:
            async with self.http.get(f"{self.url}/readyz") as response:
                return response.status
        except aiohttp.ClientError:
            return 0

    async def metrics(self) -> str:
        async with self.http.get(f"{self.url}/metrics") as response:
            assert response.status == 200
            return await response.text()

    async def stop(self) -> int:
        """SIGTERM, and its status."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), LIMIT_S)

    async def end(self) -> None:
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.process.wait(), 20.0)
            except TimeoutError:
                self.process.kill()
        await self.process.wait()
        await asyncio.gather(*self._reading)


@asynccontextmanager
async def served(
    data_dir: Path, *options: str, namespace: Sequence[str] = (), **environment: str
) -> AsyncIterator[ServeProcess]:
    """A server that takes sessions.

    Args:
        data_dir: of its database.
        options: of the command line; the port is a free one unless given.
        namespace: words before the command, which take it into a network of its own.
        environment: settings that are secrets, in capitals without their prefix.
    """
    command = (*namespace, sys.executable, "-m", "signaling.cli", "serve", "--no-calibrate", "--log-format", "json")
    given = () if "--port" in options else ("--port", "0")
    process = await asyncio.create_subprocess_exec(
        *command,
        *given,
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1024 * 1024,
        env={
            **os.environ,
            "VOICEFORGE_DATA_DIR": str(data_dir),
            "OPENBLAS_NUM_THREADS": "1",
            **{f"VOICEFORGE_{name}": value for name, value in environment.items()},
        },
    )
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:
        running = ServeProcess(process, http)
        try:
            await running.until_loaded()
            yield running
        finally:
            await running.end()


class Heard:
    """What a session has told."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    @property
    def text(self) -> str:
        return " ".join(event["transcript"] for event in self.of("final"))

    @property
    def is_over(self) -> bool:
        return bool(self.of("closed"))

    def says(self, speech: Speech, most: float = MOST_ERRORS) -> bool:
        return word_errors(speech.text, self.text) <= most

    def assert_says(self, speech: Speech, most: float = MOST_ERRORS) -> None:
        assert word_errors(speech.text, self.text) <= most, (self.text, self.of("error"), self.of("warning"))


class Peer(Heard):
    """A WebRTC peer that speaks a recording. Which server is asked what is up to the test."""

    def __init__(self, speech: Speech, http: aiohttp.ClientSession, *, addresses: Sequence[str] = LOOPBACK_ADDRESSES):
        super().__init__()
        self.speech = speech
        self.http = http
        self.location = ""
        self.etag = ""
        self.events_at = ""
        self.track = RecordingTrack(speech.path)
        self._addresses = tuple(addresses)
        self._pc: RTCPeerConnection = new_peer_connection()
        self._channel: Any = None

    async def call(self, url: str) -> None:
        """Offer at a server, and speak."""
        self._pc.addTrack(self.track)
        self._channel = self._pc.createDataChannel("transcripts")
        self._channel.on("message", lambda message: self.events.append(json.loads(message)))
        configure_ice(self._pc, IceOptions(self._addresses, None, range(0), 15.0), on_lost=lambda: None)
        await self._pc.setLocalDescription(await self._pc.createOffer())
        answer = ""
        while not self.location:
            async with self.http.post(f"{url}/whip", data=self._pc.localDescription.sdp, headers=SDP) as response:
                answer = await response.text()
                if response.status == 503:  # the machine is busy with something else: come again when it says
                    await asyncio.sleep(float(response.headers["Retry-After"]))
                    continue
                assert response.status == 201, answer
                self.location, self.etag = response.headers["Location"], response.headers["ETag"]
        await self._pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    @property
    def place(self) -> str:
        """Where it is held."""
        return self.location.removeprefix("/whip/").partition(".")[0]

    async def spoken(self) -> None:
        """Wait until all is said, and its words are there: silence follows it."""
        await asyncio.wait_for(self.track.finished.wait(), self.speech.duration_s + LIMIT_S)
        await until(lambda: self.says(self.speech))

    async def close_stream(self) -> None:
        self._channel.send('{"type":"close_stream"}')
        await until(lambda: self.is_over)

    async def delete(self, url: str) -> int:
        async with self.http.delete(f"{url}{self.location}") as response:
            return response.status

    async def close(self) -> None:
        self.track.stop()
        await close_peer_connection(self._pc)


@asynccontextmanager
async def peer(speech: Speech, http: aiohttp.ClientSession, **options: Any) -> AsyncIterator[Peer]:
    one = Peer(speech, http, **options)
    try:
        yield one
    finally:
        await one.close()


def linear16(speech: Speech) -> bytes:
    return (np.clip(speech.samples(), -1, 1) * 32767).astype("<i2").tobytes()


class Socket(Heard):
    """A recording over the native WebSocket, at the pace of speech."""

    def __init__(self, speech: Speech, http: aiohttp.ClientSession) -> None:
        super().__init__()
        self.speech = speech
        self.http = http
        self.close_code: int | None = None

    async def run(self, url: str, *, pace: float = 1.0) -> None:
        """From the handshake to the close frame.

        Args:
            url: of the server.
            pace: how much faster than real time.
        """
        audio = linear16(self.speech)
        cut = (audio[at : at + CHUNK_BYTES] for at in range(0, len(audio), CHUNK_BYTES))
        async with await connected(url, self.http) as ws:

            async def send() -> None:
                with suppress(ConnectionError):
                    for piece in cut:
                        await ws.send_bytes(piece)
                        await asyncio.sleep(CHUNK_S / pace)
                    await ws.send_bytes(bytes(10 * CHUNK_BYTES))  # a pause that ends the last utterance
                    await until(lambda: self.says(self.speech))
                    await ws.send_str('{"type":"close_stream"}')

            sending = asyncio.create_task(send())
            try:
                async for message in ws:
                    self.events.append(json.loads(message.data))
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            self.close_code = ws.close_code


async def connected(url: str, http: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
    """A session over the native WebSocket; a server that is busy is asked again when it says."""
    query = {"encoding": "linear16", "sample_rate": "16000"}
    while True:
        try:
            return await http.ws_connect(f"{url}/ws/v1/transcribe", params=query)
        except aiohttp.WSServerHandshakeError as exc:
            if exc.status != 503 or exc.headers is None:
                raise
            await asyncio.sleep(float(exc.headers["Retry-After"]))
