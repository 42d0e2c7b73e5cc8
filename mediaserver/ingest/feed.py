"""Audio that comes as bytes (over a WebSocket, in a request's body) to the sessions of its channels.

A source may be faster than real time: it is held back as soon as the sessions are `AHEAD_S` behind, and told so once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.errors import MediaError
from mediaserver.ingest.bytestream import AudioFormat, open_audio
from mediaserver.metrics import Metrics
from mediaserver.session.channels import Channels
from mediaserver.settings import Settings

log = structlog.get_logger(__name__)

AHEAD_S = 30.0
"""So much audio may wait for its finals before its source is held back: 2 MB a channel, an utterance or two."""

AHEAD_UTTERANCES = 16
"""So many may wait too: a session gives the oldest of 32 up, and in what is still unjudged there may be a dozen more
of the shortest."""

UNJUDGED_AHEAD_S = 4.0
"""So much may wait for the VAD: far less than sessions keep of the past: nothing is overwritten unheard."""

BLOCK_SAMPLES = SAMPLE_RATE // 2
"""0.5 s goes to the sessions at a time: on the event loop a millisecond's work."""

POLL_S = 0.02
"""How often a source that is held back looks whether it may go on: a frame of audio, far less than a decode."""

DRAIN_S = 120.0
"""How long the end of a stream may wait for its backlog, before what is not final by then is given up."""


class Feed:
    """The server's end of a connection whose audio comes as bytes. It lives on one event loop.

    Args:
        session_id: for the log.
        audio_format: of the bytes.
        open_channels: makes the sessions, `audio_format.count` of them.
        settings: of the node.
        metrics: shared by all connections.
        idle_timeout_s: without a message for so long the connection ends with the reason `timeout`; None: never.

    Raises:
        ConfigError: INVALID_AUDIO_FORMAT, and what `open_channels` raises.
    """

    def __init__(
        self,
        *,
        session_id: str,
        audio_format: AudioFormat,
        open_channels: Callable[[], Channels],
        settings: Settings,
        metrics: Metrics,
        idle_timeout_s: float | None = None,
    ) -> None:
        self.on_ended: Callable[[str], None] | None = None
        self.ended = asyncio.Event()
        """Set once everything has been told."""
        self.reason = ""
        """Why it ended, one word; empty while it has not."""
        self._format = audio_format
        self._audio = open_audio(audio_format)
        self._settings = settings
        self._metrics = metrics
        self._idle_timeout_s = idle_timeout_s
        self._log = log.bind(session=session_id)
        self._has_warned = False
        self._bytes = 0
        self._closing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._started_s = self.last_data_s = self._loop.time()
        try:
            self.channels = open_channels()
        except BaseException:
            self._audio.close()
            raise
        self._timer = self._loop.call_at(self._next_look_s(), self._look)

    @property
    def is_open(self) -> bool:
        """Whether it still takes audio."""
        return self._closing is None

    @property
    def received_bytes(self) -> int:
        """Bytes of audio received."""
        return self._bytes

    def reformat(self, audio_format: AudioFormat) -> None:
        """Take another format, before the first byte of audio; the number of channels stays.

        Raises:
            ConfigError: INVALID_AUDIO_FORMAT. The format before it goes on.
        """
        audio = open_audio(audio_format)
        self._audio.close()
        self._audio, self._format = audio, audio_format

    def touch(self) -> None:
        """The client has said something that is no audio: it lives."""
        self.last_data_s = self._loop.time()

    async def push(self, data: bytes) -> None:
        """Take the next bytes; waits while the sessions are too far behind.

        Raises:
            MediaError: UNDECODABLE_AUDIO. The stream is of no more use then.
        """
        self.touch()
        if self._closing is not None:
            return
        self._bytes += len(data)
        start = 0
        while start < len(data) and self._closing is None:
            if start:
                await asyncio.sleep(0)  # a few milliseconds' work at a time, also where no audio comes of it
            piece = data[start : start + self._audio.slice_bytes]
            start += len(piece)
            await self._hand_on(self._audio.feed(piece))
            while self._audio.pending and self._closing is None:
                await asyncio.sleep(0)  # a second of audio at a time, and the event loop in between
                await self._hand_on(self._audio.feed(b""))

    async def finish(self, reason: str = "client", *, deadline_s: float = DRAIN_S) -> None:
        """The audio is over: all of it is heard, the last finals are told, and `closed`.

        Args:
            reason: one word, for the client and the metrics.
            deadline_s: how long what is still undecoded may take.
        """
        if self._closing is None:
            try:
                await self._hand_on(self._audio.finish())
                while self._audio.pending and self._closing is None:
                    await asyncio.sleep(0)
                    await self._hand_on(self._audio.finish())
            except MediaError as error:
                self.channels.warn(error)  # cut off: what came before it counts
        await self.close(reason, deadline_s=deadline_s)

    async def close(self, reason: str, *, deadline_s: float | None = None) -> None:
        """End it: last finals within `deadline_s`, `metadata`, `closed`. Further calls wait for the first, which then
        takes no longer than they allow: a server that stops does not wait for the end of a long stream.
        """
        total_s = self._settings.shutdown_deadline_s if deadline_s is None else deadline_s
        if self._closing is not None:
            await asyncio.gather(self.channels.close(reason, deadline_s=total_s), return_exceptions=True)
        else:
            self._timer.cancel()
            self.reason = reason
            self._closing = asyncio.create_task(self._close(reason, total_s), name="feed-close")
        await asyncio.shield(self._closing)

    def describe(self) -> dict[str, object]:
        """What an operator may know of it."""
        return {
            "state": "open" if self._closing is None else "closing",
            "encoding": self._format.encoding.value if self._format.encoding else "container",
            "channels": self.channels.count,
            "received_bytes": self._bytes,
            "stream_time_s": round(self.channels.stream_time_s, 3),
            "backlog_s": round(self.channels.backlog_s, 3),
        }

    async def _hand_on(self, samples: Samples) -> None:
        """Push [count, n] samples, block by block, each when there is room for it."""
        self.touch()  # a message may be minutes of audio: taking it is not idleness, nor is waiting for room
        for start in range(0, samples.shape[1], BLOCK_SAMPLES):
            await self._room()
            if self._closing is not None:
                return
            self.channels.push(samples[:, start : start + BLOCK_SAMPLES])

    async def _room(self) -> None:
        while self._closing is None:
            is_ahead = self.channels.backlog_s > AHEAD_S or self.channels.undecoded_utterances > AHEAD_UTTERANCES
            if not is_ahead and self.channels.unjudged_s <= UNJUDGED_AHEAD_S:
                return
            if is_ahead and not self._has_warned:
                self._has_warned = True
                self.channels.warn(
                    MediaError(
                        "AUDIO_AHEAD",
                        f"Audio comes faster than it is decoded: {self.channels.backlog_s:.0f} s of it wait.",
                        "Nothing is lost, but no more is read for now. Recordings go faster by the recordings API.",
                        retryable=True,
                    )
                )
            await asyncio.sleep(POLL_S)
            self.touch()

    def _next_look_s(self) -> float:
        ends_s = self._started_s + self._settings.session_max_s
        return ends_s if self._idle_timeout_s is None else min(ends_s, self.last_data_s + self._idle_timeout_s)

    def _look(self) -> None:
        """Look once at the next deadline whether it has moved: messages set no timers."""
        if self._closing is not None:
            return
        now_s = self._loop.time()
        if now_s < self._next_look_s():
            self._timer = self._loop.call_at(self._next_look_s(), self._look)
            return
        is_idle = now_s < self._started_s + self._settings.session_max_s
        reason = "timeout" if is_idle else "session_max"
        self.reason = reason
        self._closing = asyncio.create_task(self._close(reason, self._settings.shutdown_deadline_s), name="feed-close")

    async def _close(self, reason: str, total_s: float) -> None:
        try:
            await self.channels.close(reason, deadline_s=total_s)
        except Exception:
            self._log.exception("channels did not close cleanly")
        self._audio.close()
        self._log.info("feed ended", reason=reason)
        self.ended.set()
        on_ended, self.on_ended = self.on_ended, None
        if on_ended is not None:
            on_ended(reason)
