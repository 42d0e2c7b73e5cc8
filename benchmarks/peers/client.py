"""A client of a server under test, and what those that speak over a WebSocket have in common."""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any

import aiohttp
import numpy as np

from benchmarks.peers.shown import Shown, Text
from benchmarks.scripts import Script
from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.errors import VoiceForgeError

CONNECT_S = 60.0
"""Within this a server takes a client: the first one may have it load its model."""

BLOCK_MS = 100
"""What a WebSocket message carries, as these servers' own clients do or finer."""

MESSAGE_BYTES_MAX = 16 * 2**20
"""A transcript of an hour that is sent whole is far below."""

HTTP_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10.0)
"""A stream has no total time; connecting on the loopback interface is immediate."""


class Client(ABC):
    """One speaker, from connecting to the last word.

    Args:
        script: what is said.

    Attributes:
        shown: what came up on screen, in order.
        block_ms: what one `send` carries.
    """

    block_ms: int = BLOCK_MS

    def __init__(self, script: Script) -> None:
        self.script = script
        self.shown: list[Shown] = []

    @property
    def blocks(self) -> int:
        """How many blocks the script has; the last one may be shorter."""
        return -(-len(self.script.samples) // self._block_samples)

    @property
    def _block_samples(self) -> int:
        return SAMPLE_RATE * self.block_ms // 1000

    def block(self, index: int) -> Samples:
        """The samples of a block."""
        return self.script.samples[index * self._block_samples : (index + 1) * self._block_samples]

    def show(self, text: Text) -> None:
        """Note what is on screen from now on."""
        if not self.shown or self.shown[-1].text != text:
            self.shown.append(Shown(time.perf_counter(), text))

    @abstractmethod
    async def connect(self) -> None:
        """Return once the server takes audio.

        Raises:
            VoiceForgeError: it does not.
        """

    @abstractmethod
    async def send(self, index: int) -> None:
        """Send a block.

        Raises:
            VoiceForgeError: PEER_LOST.
        """

    @abstractmethod
    async def finish(self) -> None:
        """Say that the audio has ended, and return when no more text will come. Bounded."""

    @abstractmethod
    async def close(self) -> None:
        """End the connection, in whatever state."""


class Screen(ABC):
    """What a client of a server shows, message by message. Knows nothing of connections."""

    ready: bool = False
    """Whether the server takes audio."""
    ended: bool = False
    """Whether the server has said that no more text will come."""
    refusal: str | None = None
    """Why the server takes no audio, in its words."""

    @abstractmethod
    def take(self, message: object) -> Text | None:
        """What is on screen after a message; None if the message says nothing of it."""


class WebSocketClient(Client):
    """A client whose server sends JSON texts and takes binary audio.

    Args:
        script: what is said.
        url: of the server's socket.
        screen: understands its messages.
        settle_s: a server that does not say that it has finished has, once no news has come for so long.
        repeats: or, if given, once it has said the same so many times after the end of audio.
        flush_s: longest wait for the last words.
    """

    def __init__(
        self, script: Script, *, url: str, screen: Screen, settle_s: float, flush_s: float, repeats: int | None = None
    ) -> None:
        super().__init__(script)
        self._url = url
        self._screen = screen
        self._settle_s = settle_s
        self._flush_s = flush_s
        self._repeats = repeats
        self._said_again = 0
        self._http: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._heard = asyncio.Event()

    def hello(self) -> dict[str, Any] | None:
        """The first message, if the protocol has one."""
        return None

    @abstractmethod
    def encode(self, samples: Samples) -> bytes:
        """Samples as the protocol has them."""

    @abstractmethod
    async def end_audio(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Say that no more audio comes."""

    async def connect(self) -> None:
        """Open the socket and wait until the server is ready."""
        self._http = aiohttp.ClientSession(timeout=HTTP_TIMEOUT)
        try:
            async with asyncio.timeout(CONNECT_S):
                self._socket = await self._http.ws_connect(self._url, max_msg_size=MESSAGE_BYTES_MAX, heartbeat=None)
                self._hearing = asyncio.create_task(self._hear(self._socket), name="peer-client")
                if (hello := self.hello()) is not None:
                    await self._socket.send_json(hello)
                while not self._screen.ready:
                    if self._screen.refusal is not None or self._hearing.done():
                        raise VoiceForgeError(
                            "PEER_REFUSED",
                            f"{self._url} takes no client. {self._screen.refusal or ''}".strip(),
                            "Look at the server's log.",
                        )
                    await self._news()
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise VoiceForgeError(
                "PEER_UNREACHABLE", f"{self._url} does not answer.", "Look at the server's log.", retryable=True
            ) from exc

    async def _news(self, *, within_s: float = CONNECT_S) -> bool:
        """Wait for a message or the end of the connection; says whether one came in time."""
        self._heard.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._heard.wait(), within_s)
            return True
        return False

    async def _hear(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue
                with suppress(ValueError):  # not of this protocol
                    before = len(self.shown)
                    if (text := self._screen.take(json.loads(message.data))) is not None:
                        self.show(text)
                        self._said_again = 0 if len(self.shown) > before else self._said_again + 1
                    self._heard.set()
        finally:
            self._heard.set()

    async def send(self, index: int) -> None:
        """Send a block, float or integer as the protocol wants it."""
        if self._socket is None or self._hearing is None or self._hearing.done():
            raise VoiceForgeError("PEER_LOST", f"{self._url} closed the connection.", "Look at the server's log.")
        try:
            await self._socket.send_bytes(self.encode(self.block(index)))
        except (aiohttp.ClientError, ConnectionError) as exc:
            raise VoiceForgeError(
                "PEER_LOST", f"{self._url} closed the connection.", "Look at the server's log."
            ) from exc

    async def finish(self) -> None:
        """Wait for the last words."""
        if self._socket is None or self._hearing is None:
            return
        self._said_again = 0
        with suppress(TimeoutError, aiohttp.ClientError, ConnectionError):
            async with asyncio.timeout(self._flush_s):
                await self.end_audio(self._socket)
                while not self._screen.ended and not self._hearing.done():
                    if self._repeats is not None and self._said_again >= self._repeats:
                        return
                    if not await self._news(within_s=self._settle_s):
                        return

    async def close(self) -> None:
        """Close the socket."""
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.gather(self._hearing, return_exceptions=True)
        if self._socket is not None:
            with suppress(TimeoutError, aiohttp.ClientError, ConnectionError):
                await asyncio.wait_for(self._socket.close(), 5.0)
        if self._http is not None:
            await self._http.close()


def linear16(samples: Samples) -> bytes:
    """[n] float32 as little-endian 16-bit integers."""
    return (np.clip(samples, -1.0, 1.0) * 32767).astype("<i2").tobytes()
