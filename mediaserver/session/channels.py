"""The sessions of one connection: a stereo recording or a call with two tracks has one a channel, a microphone has one.

To a door they look like one session. What is said of the connection is said once (`ready`, `pong`, `metadata`,
`closed`); what is said of speech comes from each channel, in its own order; `seq` counts what the connection was told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np

from mediaserver.audio.clock import Samples
from mediaserver.errors import VoiceForgeError
from mediaserver.events import Closed, Event, Metadata, Pong, Ready
from mediaserver.session.resumption import GoingOn, Position
from mediaserver.session.session import FLUSH_DEADLINE_S, Session
from mediaserver.session_config import SessionConfig

SETTLE_POLL_S = 0.02
"""How often it is looked whether all has been told: less than a decode."""

MakeSession = Callable[..., Session]
"""Makes the session of a channel, given the sink for its events; and `start`, its `Position`, where it goes on."""

TOLD_BEFORE: Mapping[str, VoiceForgeError] = {
    "key_ended": VoiceForgeError(
        "KEY_ENDED",
        "The key that opened this session no longer works.",
        "Open a new session with a key that does.",
    ),
    "minutes_used_up": VoiceForgeError(
        "MINUTES_USED_UP",
        "The key's minutes of this month are used up.",
        "Wait for the next month, by UTC, or ask for more.",
    ),
    "data_deleted": VoiceForgeError(
        "DATA_DELETED",
        "All data of this session's tenant is being deleted, and what the session knows with it.",
        "Open a new session.",
        retryable=True,
    ),
}
"""What a client is told before the end, where the end's reason alone would leave it guessing."""


class Outlet(Protocol):
    """Where a connection's events go: one for each protocol."""

    def send(self, event: Event, seq: int, channel: int) -> None:
        """Take an event of a channel. Never blocks and never raises; one that is `droppable` may be left out."""
        ...


class Nobody:
    """An outlet without a client."""

    def send(self, event: Event, seq: int, channel: int) -> None:
        """Leave it out."""


class Channels:
    """The sessions of one connection.

    Args:
        make_session: makes the session of a channel, given the sink for its events.
        outlet: where the connection's events go.
        count: how many channels.
        going_on: where they go on, of a connection that was begun elsewhere.

    Raises:
        ConfigError: what `make_session` raises.
        VoiceForgeError: likewise.
    """

    def __init__(
        self, make_session: MakeSession, *, outlet: Outlet, count: int = 1, going_on: GoingOn | None = None
    ) -> None:
        self._outlet = outlet
        self._seq = 0 if going_on is None else going_on.seq
        self._is_sealed = False
        self._withheld: list[tuple[Event, int]] = []  # bound: what is told in the seconds in which a session moves
        self._totals: list[Metadata] = []
        self._closed = 0
        self._is_told_of = self._is_closing = False
        self._track_names: tuple[str, ...] = ()
        self.on_finalized: Callable[[int], None] | None = None
        """Told the channel once what a `finalize` ended there has been told."""
        self.on_inner: list[Callable[[Event, int], None]] = []
        """Told the events that no client is told, and their channel; also where the outlet does not want them."""
        self.tells_inner = False
        """Whether the outlet wants the events that no client is told; `seq` does not count them."""
        starts = [{}] * count if going_on is None else [{"start": position} for position in going_on.positions]
        self._sessions = [make_session(_ChannelSink(self, channel), **starts[channel]) for channel in range(count)]
        first = min(session.received_samples for session in self._sessions) if going_on is not None else 0
        # Channels share their bytes: one that is further than another has heard the first of what comes again.
        self._known = [session.received_samples - first if going_on is not None else 0 for session in self._sessions]
        for channel, session in enumerate(self._sessions):
            session.on_finalized = partial(self._finalized, channel)
            session.on_inner = partial(self._inner, channel)

    @property
    def count(self) -> int:
        """How many channels."""
        return len(self._sessions)

    @property
    def is_sealed(self) -> bool:
        """Whether nobody is told anything any more: another process tells the rest. Where none does after all, what
        was withheld meanwhile is told when the seal is taken off.
        """
        return self._is_sealed

    @is_sealed.setter
    def is_sealed(self, is_sealed: bool) -> None:
        self._is_sealed = is_sealed
        if not is_sealed:
            withheld, self._withheld = self._withheld, []
            for event, channel in withheld:
                self._send(event, channel)
            if self._closed == self.count:
                self._let_go()

    @property
    def is_open(self) -> bool:
        """Whether it still hears its client: it has not begun to close."""
        return not self._is_closing

    @property
    def config(self) -> SessionConfig:
        """What the client asked for so far."""
        return self._sessions[0].config

    @property
    def labels(self) -> Sequence[str]:
        """What the channels are called, in their order: as the client chose, else by the names of its tracks."""
        chosen = self.config.channel_labels
        return [*chosen, *self._track_names[len(chosen) :]]

    @property
    def stream_time_s(self) -> float:
        """Seconds of audio received, of the channel that has received most."""
        return max(session.stream_time_s for session in self._sessions)

    def received_samples(self, channel: int) -> int:
        """Samples of audio received in one channel."""
        return self._sessions[channel].received_samples

    @property
    def speech_s(self) -> float:
        """Seconds of speech that have been judged as such, in all channels."""
        return sum(session.speech_s for session in self._sessions)

    @property
    def concealed_s(self) -> float:
        """Seconds of audio that were lost on the way and made up, in all channels."""
        return sum(session.concealed_s for session in self._sessions)

    @property
    def unjudged_s(self) -> float:
        """Seconds of audio that the VAD has still to judge, of the channel that is furthest behind."""
        return max(session.unjudged_s for session in self._sessions)

    @property
    def backlog_s(self) -> float:
        """Seconds of audio that are not judged or whose final is still to come, of the channel furthest behind."""
        return max(session.unjudged_s + session.undecoded_s for session in self._sessions)

    @property
    def undecoded_utterances(self) -> int:
        """How many utterances are over whose finals are still to come, in the channel that has most of them."""
        return max(session.undecoded_utterances for session in self._sessions)

    @property
    def on_close_stream(self) -> Callable[[], None] | None:
        """Called when the client asks to end the connection."""
        return self._sessions[0].on_close_stream

    @on_close_stream.setter
    def on_close_stream(self, callback: Callable[[], None] | None) -> None:
        self._sessions[0].on_close_stream = callback

    def name(self, tracks: Sequence[str]) -> None:
        """Call the channels by the names of their tracks, where the client has not chosen labels."""
        self._track_names = tuple(tracks)

    def start(self) -> None:
        """Tell the client that the connection is there."""
        self._is_told_of = True
        for session in self._sessions:
            session.start()

    def go_on(self, *, after: int) -> None:
        """The connection was begun elsewhere, where the client was told that it is there.

        Args:
            after: the last event that it knows: it may know of more than was written down there.
        """
        self._is_told_of = True
        self._seq = max(self._seq, after + 1)

    async def settle(self, *, deadline_s: float) -> None:
        """Wait until what was said in utterances that are over has been told, for at most so long."""
        ends_s = asyncio.get_running_loop().time() + deadline_s
        while not self.is_settled and asyncio.get_running_loop().time() < ends_s:  # noqa: ASYNC110 - several tell
            await asyncio.sleep(SETTLE_POLL_S)

    def say_goodbye(self, event: Event) -> None:
        """The last that is told here, though it is sealed."""
        self._outlet.send(event, self._seq, 0)
        self._seq += 1

    @property
    def seq(self) -> int:
        """The number of the next event."""
        return self._seq

    @property
    def positions(self) -> tuple[Position, ...]:
        """How far each channel has come."""
        return tuple(session.position for session in self._sessions)

    @property
    def is_settled(self) -> bool:
        """Whether all that was said in utterances that are over has been told."""
        return all(session.is_settled for session in self._sessions)

    def push(self, samples: Samples) -> None:
        """Take the next samples of all channels.

        Args:
            samples: [count, n] float32, 16 kHz.
        """
        for channel, of_channel in enumerate(samples):
            known = min(self._known[channel], len(of_channel))
            self._known[channel] -= known
            self._sessions[channel].push(np.ascontiguousarray(of_channel[known:]))

    def push_to(self, channel: int, samples: Samples, *, concealed: int = 0) -> None:
        """Take the next samples of one channel.

        Args:
            channel: from 0.
            samples: [n] float32, 16 kHz.
            concealed: how many of them were made up for lost ones.
        """
        self._sessions[channel].push(samples, concealed=concealed)

    def configure(self, changes: object) -> None:
        """Change the configuration from here on.

        Raises:
            ConfigError: names every field that is unknown or of a wrong type; nothing has changed then.
            VoiceForgeError: a suppressor that is not installed; nothing has changed then either.
        """
        for session in self._sessions:  # alike, so that the first refuses or none does
            session.configure(changes)

    def finalize(self) -> None:
        """End the running utterances with what has been received until now."""
        for session in self._sessions:
            session.finalize()

    def finalize_channel(self, channel: int) -> None:
        """End the running utterance of one channel."""
        self._sessions[channel].finalize()

    def keep_alive(self) -> None:
        """Answer a client that asks whether the connection lives."""
        self._sessions[0].keep_alive()

    def tell(self, event: Event) -> None:
        """Tell the client of something about the connection."""
        self._send(event, 0)

    def warn(self, error: VoiceForgeError) -> None:
        """Tell the client of something that does not end the connection."""
        self._sessions[0].warn(error)

    def fail(self, error: VoiceForgeError) -> None:
        """Tell the client of a request that failed."""
        self._sessions[0].fail(error)

    async def close(self, reason: str, *, deadline_s: float = FLUSH_DEADLINE_S) -> None:
        """Flush the finals of all channels, say how much there was, say `closed`. Further calls wait for the first."""
        if not self._is_closing and self._is_told_of and reason in TOLD_BEFORE:
            self.fail(TOLD_BEFORE[reason])
        self._is_closing = True
        await asyncio.gather(*(session.close(reason, deadline_s=deadline_s) for session in self._sessions))
        if not self._is_sealed:  # else what is withheld may have to be told yet, or a goodbye
            self._let_go()

    def _let_go(self) -> None:
        """Who was told refers to these channels: a circle, which only a search through all objects would find."""
        self._outlet = Nobody()
        self.on_finalized = None
        self.on_inner.clear()

    def _finalized(self, channel: int) -> None:
        if self.on_finalized is not None:
            self.on_finalized(channel)

    def _inner(self, channel: int, event: Event) -> None:
        for callback in self.on_inner:
            callback(event, channel)
        if self.tells_inner:
            self._outlet.send(event, self._seq, channel)

    def _take(self, event: Event, channel: int) -> None:
        """An event of a channel; what concerns the connection is told once."""
        if isinstance(event, Metadata | Closed) and not self._is_told_of:
            return  # refused after all: nobody was told that it is there
        if isinstance(event, Metadata):
            self._totals.append(event)
            if len(self._totals) == self.count:
                self._send(_sum(self._totals), 0)
        elif isinstance(event, Closed):
            self._closed += 1
            if self._closed == self.count:
                self._send(event, 0)
        elif channel == 0 or not isinstance(event, Ready | Pong):
            self._send(event, channel)

    def _send(self, event: Event, channel: int) -> None:
        if self._is_sealed:
            if not event.droppable:
                self._withheld.append((event, channel))
            return
        self._outlet.send(event, self._seq, channel)
        self._seq += 1


class _ChannelSink:
    """The sink of one channel's session."""

    def __init__(self, channels: Channels, channel: int) -> None:
        self._channels = channels
        self._channel = channel

    def send(self, event: Event, seq: int) -> None:
        self._channels._take(event, self._channel)


def _sum(totals: list[Metadata]) -> Metadata:
    """The totals of a connection: its channels ran side by side, and each had its own speech."""
    return replace(
        totals[0],
        duration=max(item.duration for item in totals),
        speech_duration=sum(item.speech_duration for item in totals),
        utterances=sum(item.utterances for item in totals),
        concealed_duration=sum(item.concealed_duration for item in totals),
    )
