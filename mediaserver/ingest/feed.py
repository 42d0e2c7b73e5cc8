"""Audio that comes as bytes (over a WebSocket, in a request's body) to the sessions of its channels.

A source may be faster than real time: it is held back as soon as the sessions are `AHEAD_S` behind, and told so once.

A message is taken whole or not at all: once `push` has been called with it, it counts as received, and is heard to its
end even if its connection goes while it waits for room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import numpy as np
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
        age_s: for how long its session has lasted, where another process had it.
        first_byte: how many bytes of the client's stream lie before the first one that it is given.

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
        first_byte: int = 0,
        age_s: float = 0.0,
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
        self._bytes = first_byte
        self._unread: deque[bytes] = deque()  # bound: a message of each connection; a second one is taken after a first
        self._read_to = 0  # of the first of them
        self._unheard: Samples = np.zeros((audio_format.count, 0), np.float32)  # bound: what one call of a source gives
        self._is_attached = True
        self._working: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.last_data_s = self._loop.time()
        self._started_s = self.last_data_s - age_s
        try:
            self.channels = open_channels()
        except BaseException:
            self._audio.close()
            raise
        self._timer = self._loop.call_at(self._next_look_s(), self._look)

    @property
    def age_s(self) -> float:
        """For how long its session has lasted."""
        return self._loop.time() - self._started_s

    @property
    def is_open(self) -> bool:
        """Whether it still takes audio."""
        return self._closing is None

    @property
    def received_bytes(self) -> int:
        """Bytes of audio received, of whole messages; those that are still on their way to the sessions count."""
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

    def attach(self) -> None:
        """There is a connection again that messages come by; `detach` first, where there was one."""
        self._is_attached = True
        self.touch()
        self._rearm()

    def detach(self) -> None:
        """The connection is gone, and another may come: what it brought is heard to its end, silence is no idleness."""
        if self._closing is not None:
            return
        self._is_attached = False
        self._rearm()
        if self._working is None:
            self._working = asyncio.create_task(self._work_alone(), name="feed-working")
            self._working.add_done_callback(self._worked)

    async def push(self, data: bytes) -> None:
        """Take the next bytes; waits while the sessions are too far behind. Being cancelled cancels the wait alone.

        Raises:
            MediaError: UNDECODABLE_AUDIO. The stream is of no more use then.
        """
        self.touch()
        if self._closing is not None:
            return
        self._bytes += len(data)
        self._unread.append(data)
        await self._work()

    async def finish(self, reason: str = "client", *, deadline_s: float = DRAIN_S) -> None:
        """The audio is over: all of it is heard, the last finals are told, and `closed`.

        Args:
            reason: one word, for the client and the metrics.
            deadline_s: how long what is still undecoded may take.
        """
        if self._closing is None:
            try:
                await self._work()
                self._unheard = self._audio.finish()
                await self._hand_on()
                while self._audio.pending and self._closing is None:
                    await asyncio.sleep(0)
                    self._unheard = self._audio.finish()
                    await self._hand_on()
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
        await asyncio.shield(self._begin_close(reason, total_s))

    def begin_close(self, reason: str) -> None:
        """End it within the node's deadline, without waiting for it."""
        self._begin_close(reason, self._settings.shutdown_deadline_s)

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

    async def _work(self) -> None:
        """Hear all that has come. Between two awaits it leaves nothing half done, so several may work at once."""
        while self._closing is None:
            await self._hand_on()
            if self._unheard.shape[1]:
                continue  # somebody else has brought more
            if self._audio.pending:
                self._unheard = self._audio.feed(b"")
            elif self._unread:
                data = self._unread[0]
                piece = data[self._read_to : self._read_to + self._audio.slice_bytes]
                self._read_to += len(piece)
                if self._read_to == len(data):
                    self._unread.popleft()
                    self._read_to = 0
                self._unheard = self._audio.feed(piece)
            else:
                return
            if self._audio.pending or self._unread:
                await asyncio.sleep(0)  # a few milliseconds' work at a time, also where no audio comes of it

    async def _hand_on(self) -> None:
        """Push what has been decoded, block by block, each when there is room for it."""
        self.touch()  # a message may be minutes of audio: taking it is not idleness, nor is waiting for room
        while self._unheard.shape[1]:
            await self._room()
            if self._closing is not None:
                return
            block, self._unheard = self._unheard[:, :BLOCK_SAMPLES], self._unheard[:, BLOCK_SAMPLES:]
            self.channels.push(block)

    async def _work_alone(self) -> None:
        """Hear what a connection brought that is gone."""
        try:
            await self._work()
        except MediaError as error:
            self.channels.fail(error)
            self.begin_close("undecodable")

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._working = None
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._log.error("feed failed", exc_info=failure)
            self.begin_close("error")

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
        if self._idle_timeout_s is None or not self._is_attached:
            return ends_s
        return min(ends_s, self.last_data_s + self._idle_timeout_s)

    def _rearm(self) -> None:
        self._timer.cancel()
        if self._closing is None:
            self._timer = self._loop.call_at(self._next_look_s(), self._look)

    def _look(self) -> None:
        """Look once at the next deadline whether it has moved: messages set no timers."""
        if self._closing is not None:
            return
        now_s = self._loop.time()
        if now_s < self._next_look_s():
            self._timer = self._loop.call_at(self._next_look_s(), self._look)
            return
        is_idle = now_s < self._started_s + self._settings.session_max_s
        self.begin_close("timeout" if is_idle else "session_max")

    def _begin_close(self, reason: str, total_s: float) -> asyncio.Task[None]:
        if self._closing is None:
            self._timer.cancel()
            self.reason = reason
            self._closing = asyncio.create_task(self._close(reason, total_s), name="feed-close")
        return self._closing

    async def _close(self, reason: str, total_s: float) -> None:
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)
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
