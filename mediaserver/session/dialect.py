"""What is said over a connection and in which words: the native protocol here, others at the front door.

A dialect is sans-IO: events of the channels become texts, texts of the client become calls and answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mediaserver.errors import VoiceForgeError
from mediaserver.events import Channel, Event, Failed, Final, Interim, to_json
from mediaserver.session.channels import Channels
from mediaserver.session.messages import handle_message


@dataclass(frozen=True, slots=True)
class Telling:
    """One message to the client.

    Args:
        text: as it goes over the wire.
        droppable: may be left out where the client is slow.
        is_precious: the last to be dropped from a full queue.
        topic: a kept droppable message is superfluous once another of its topic comes.
    """

    text: str
    droppable: bool = False
    is_precious: bool = False
    topic: tuple[int, int] | None = None


class Dialect(Protocol):
    """One protocol, for one connection."""

    @property
    def label(self) -> str:
        """Of the data channel that it is spoken on, where the connection is a peer's."""
        ...

    def begin(self, channels: Channels) -> None:
        """The connection has come about; its first event has not been told."""
        ...

    def tell(self, event: Event, seq: int, channel: int) -> Sequence[Telling]:
        """What an event of a channel comes to; perhaps nothing. Never raises."""
        ...

    def hear(self, message: str | bytes, channels: Channels) -> Sequence[Telling]:
        """Act on a client's message; what is wrong with it is told. Never raises.

        Returns:
            What is answered at once, beside the events that come of it.
        """
        ...

    def refuse(self, error: VoiceForgeError) -> str:
        """How a data channel is told that it is of no use."""
        ...


class NativeDialect:
    """The native protocol: one JSON object a message.

    Args:
        session_id: for the events; not a secret.
    """

    label = "transcripts"

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id
        self._channels: Channels | None = None

    def begin(self, channels: Channels) -> None:
        """Events carry the metadata and labels of its configuration."""
        self._channels = channels

    def tell(self, event: Event, seq: int, channel: int) -> Sequence[Telling]:
        """The event, as `mediaserver.events` writes it."""
        text = to_json(
            event,
            session_id=self._session_id,
            seq=seq,
            channel=self._channel(channel),
            metadata=None if self._channels is None else self._channels.config.metadata,
        )
        topic = (channel, event.utterance_id) if isinstance(event, Interim | Final) else None
        return [Telling(text, event.droppable, isinstance(event, Final), topic)]

    def hear(self, message: str | bytes, channels: Channels) -> Sequence[Telling]:
        """`configure`, `finalize`, `keep_alive`, `close_stream`; all answers are events."""
        handle_message(channels, message)
        return ()

    def refuse(self, error: VoiceForgeError) -> str:
        """An error outside the session's count of events."""
        return to_json(Failed(error=error.as_dict()), session_id=self._session_id, seq=0)

    def _channel(self, number: int) -> Channel | None:
        if self._channels is None:
            return None
        labels = self._channels.labels
        if self._channels.count == 1 and not labels:
            return None
        return Channel(number, labels[number] if number < len(labels) else None)
