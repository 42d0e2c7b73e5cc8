"""The data channel: which channel carries the events, and what is left out when its client is slow.

Either side may open it. One channel is in use at a time: the client's own wins over the one that the server opened,
and of several that the client opens the first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from aiortc import InvalidStateError, RTCDataChannel

from mediaserver.errors import MediaError, VoiceForgeError
from mediaserver.ingest.answer import MESSAGE_MAX_BYTES
from mediaserver.metrics import Metrics
from mediaserver.session.dialect import Telling

log = structlog.get_logger(__name__)

PENDING_MESSAGES_MAX = 256
"""Messages kept until a channel opens: minutes of speech. Interims are dropped first, then what is no final, then the
oldest finals."""

INTERIMS_STOP_BYTES = 16 * 1024
"""With more than this unsent, interims are left out: it is some ten of them, and older ones would only come late."""

STALLED_BYTES = 1024 * 1024
"""With more than this unsent, some half an hour of finals, nobody reads: the peer counts as gone."""

ACKNOWLEDGED_POLL_S = 0.02
"""How often a closing channel looks whether all has arrived; SCTP tells nobody when it has."""


@dataclass(frozen=True, slots=True)
class ChannelEvents:
    """Whom a sink tells, always on the event loop.

    Args:
        on_message: a message of the client, at most `MESSAGE_MAX_BYTES`.
        on_error: a message that was not taken; to be told to the client.
        on_gone: the channel is of no more use; `client` closed it, or it stalled (`peer_lost`).
    """

    on_message: Callable[[str | bytes], None]
    on_error: Callable[[VoiceForgeError], None]
    on_gone: Callable[[str], None]


NOBODY = ChannelEvents(on_message=lambda _message: None, on_error=lambda _error: None, on_gone=lambda _reason: None)
"""Told after the end."""


class ChannelSink:
    """Text messages of one connection.

    Args:
        session_id: for the log.
        label: of the channel that carries them.
        refuse: what a channel that is of no use is told.
        metrics: counts what is dropped.
        events: whom it tells.

    Messages stay whole, whatever their length: aiortc cuts them into SCTP packets that fit a path of 1280 bytes
    (`tests/unit/ingest/test_channel.py` holds it to that).
    """

    def __init__(
        self,
        *,
        session_id: str,
        label: str,
        refuse: Callable[[VoiceForgeError], str],
        metrics: Metrics,
        events: ChannelEvents,
    ) -> None:
        self._label = label
        self._refusal = refuse
        self._metrics = metrics
        self._events = events
        self._log = log.bind(session=session_id)
        self._channel: RTCDataChannel | None = None
        self._own = False
        self._gone = False
        # Bound: PENDING_MESSAGES_MAX, see there for what is dropped first.
        self._pending: deque[Telling] = deque()

    @property
    def channel(self) -> RTCDataChannel | None:
        """The channel in use."""
        return self._channel

    @property
    def state(self) -> str:
        """`none`, or the state of the channel in use: `connecting`, `open`, `closing`, `closed`."""
        return "none" if self._channel is None else str(self._channel.readyState)

    def send(self, telling: Telling) -> None:
        """Send a message, or keep it until the channel opens. Never blocks, never raises."""
        if self._gone:
            return
        if self._channel is not None and self._channel.readyState == "open":
            self._transmit(self._channel, telling)
        else:
            self._keep(telling)

    def accept(self, channel: RTCDataChannel) -> None:
        """A channel that the client opened: use it, or say why not and close it."""
        if channel.label != self._label:
            self._refuse(channel, "UNKNOWN_CHANNEL", f"No data channel of the label {channel.label!r:.80} is served.")
        elif not channel.ordered or channel.maxRetransmits is not None or channel.maxPacketLifeTime is not None:
            self._refuse(channel, "UNRELIABLE_CHANNEL", "Finals are sent over an ordered, reliable channel only.")
        elif self._channel is not None and not self._own:
            self._refuse(channel, "CHANNEL_IN_USE", f"Another channel `{self._label}` carries the events.")
        else:
            self._use(channel, own=False)

    def open_own(self, create: Callable[[str], RTCDataChannel]) -> None:
        """Open the channel from this side, unless the client has."""
        if self._channel is None and not self._gone:
            self._use(create(self._label), own=True)

    async def drained(self, deadline_s: float) -> bool:
        """Wait until the client has acknowledged everything sent, for at most that long.

        Returns:
            Whether it has. At once False where there is no channel that could carry anything.
        """
        try:
            async with asyncio.timeout(deadline_s):
                while self.state in ("connecting", "open"):
                    if not self._unacknowledged():
                        return True
                    await asyncio.sleep(ACKNOWLEDGED_POLL_S)
        except TimeoutError:
            pass
        return False

    def discard(self) -> None:
        """Nothing more is sent, and nothing more is told."""
        self._gone = True
        self._pending.clear()

    def close(self) -> None:
        """The connection is over: whoever was told is let go of."""
        self.discard()
        self._events = NOBODY
        if self._channel is not None:
            self._channel.remove_all_listeners()

    def _unacknowledged(self) -> bool:
        if self._pending or self._channel is None or self._channel.bufferedAmount:
            return True
        # `bufferedAmount` says what SCTP has not taken yet. What is on its way is lost too if the association is
        # aborted now, and aiortc has no name for it. To go when it has one, or shuts associations down gracefully.
        sctp = self._channel.transport
        return bool(sctp._outbound_queue or sctp._sent_queue)

    def _use(self, channel: RTCDataChannel, *, own: bool) -> None:
        before, self._channel, self._own = self._channel, channel, own
        channel.on("message", lambda message: self._receive(channel, message))
        channel.on("close", lambda: self._closed(channel))
        if before is not None:
            before.close()  # what it has queued still arrives first
        if channel.readyState == "open":
            self._flush()
        else:
            channel.on("open", self._flush)

    def _flush(self) -> None:
        while self._pending and self._channel is not None and self._channel.readyState == "open":
            self._transmit(self._channel, self._pending.popleft())

    def _transmit(self, channel: RTCDataChannel, telling: Telling) -> None:
        unsent_bytes = channel.bufferedAmount
        if unsent_bytes > STALLED_BYTES:
            self._log.warning("data channel stalled", unsent_bytes=unsent_bytes)
            self.discard()
            self._events.on_gone("peer_lost")
        elif telling.droppable and unsent_bytes > INTERIMS_STOP_BYTES:
            self._metrics.events_dropped_total.inc()
        else:
            try:
                channel.send(telling.text)
            except (InvalidStateError, ValueError) as exc:  # closing, or larger than the client takes
                self._log.warning("message not sent", letters=len(telling.text), error=str(exc))

    def _keep(self, telling: Telling) -> None:
        """Queue a message; interims that it makes superfluous go."""
        if telling.topic is not None:
            self._drop(lambda kept: kept.droppable and kept.topic == telling.topic)
        self._pending.append(telling)
        if len(self._pending) > PENDING_MESSAGES_MAX:
            victim = next(
                (kept for kept in self._pending if kept.droppable),
                next((kept for kept in self._pending if not kept.is_precious), self._pending[0]),
            )
            self._drop(lambda kept: kept is victim)

    def _drop(self, superfluous: Callable[[Telling], bool]) -> None:
        kept = [item for item in self._pending if not superfluous(item)]
        self._metrics.events_dropped_total.inc(len(self._pending) - len(kept))
        self._pending = deque(kept)

    def _receive(self, channel: RTCDataChannel, message: str | bytes) -> None:
        if channel is not self._channel or self._gone:
            return
        size_bytes = len(message.encode() if isinstance(message, str) else message)
        if size_bytes > MESSAGE_MAX_BYTES:
            self._events.on_error(
                MediaError(
                    "MESSAGE_TOO_LARGE",
                    f"A message has {size_bytes} bytes; at most {MESSAGE_MAX_BYTES} are taken.",
                    "Send less in one message.",
                )
            )
            return
        self._events.on_message(message)

    def _closed(self, channel: RTCDataChannel) -> None:
        if channel is self._channel and not self._gone:
            self.discard()
            self._events.on_gone("client")

    def _refuse(self, channel: RTCDataChannel, code: str, message: str) -> None:
        error = MediaError(code, message, f"Open one ordered, reliable data channel with the label `{self._label}`.")
        try:
            channel.send(self._refusal(error))
        except ValueError:  # the client takes only messages shorter than this
            self._log.warning("channel refused without a word", code=code)
        channel.close()
