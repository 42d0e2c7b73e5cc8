"""The sessions of one connection, told as one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mediaserver.audio.clock import Samples
from mediaserver.errors import VoiceForgeError
from mediaserver.events import Closed, Event, Final, Metadata, Pong, Ready, SpeechStarted, UtteranceBegan
from mediaserver.session import Sink
from mediaserver.session.channels import Channels
from mediaserver.session.dialect import NativeDialect
from mediaserver.session_config import SessionConfig

CONFIG = SessionConfig(metadata={"caller": "+49"}, channel_labels=["agent", "customer"])


class FakeSession:
    """A session that says what it is told to say."""

    def __init__(self, sink: Sink, config: SessionConfig = CONFIG) -> None:
        self.sink = sink
        self.config = config
        self.on_close_stream: Callable[[], None] | None = None
        self.on_finalized: Callable[[], None] | None = None
        self.on_inner: Callable[[Event], None] | None = None
        self.heard: list[Samples] = []
        self.stream_time_s = self.concealed_s = self.unjudged_s = self.undecoded_s = 0.0
        self.undecoded_utterances = 0
        self.calls: list[str] = []

    def start(self) -> None:
        self.sink.send(Ready(config={}, model="m"), 0)

    def push(self, samples: Samples, *, concealed: int = 0) -> None:
        self.heard.append(samples)

    def configure(self, changes: object) -> None:
        self.calls.append("configure")

    def finalize(self) -> None:
        self.calls.append("finalize")

    def keep_alive(self) -> None:
        self.sink.send(Pong(timestamp=0.0), 1)

    def warn(self, error: VoiceForgeError) -> None:
        self.calls.append("warn")

    def fail(self, error: VoiceForgeError) -> None:
        self.calls.append("fail")

    async def close(self, reason: str, *, deadline_s: float = 1.0) -> None:
        self.sink.send(final(9), 7)
        self.sink.send(Metadata(2.0, 1.5, 3, 0.25, "m"), 8)
        self.sink.send(Closed(reason), 9)


class Told:
    """An outlet that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[Event, int, int]] = []

    def send(self, event: Event, seq: int, channel: int) -> None:
        self.events.append((event, seq, channel))


def final(utterance: int) -> Final:
    return Final(utterance, "a", 1.0, 0.0, 1.0, 1.0, None, None, [])


@pytest.fixture
def told() -> Told:
    return Told()


def made(told: Told, count: int) -> tuple[Channels, list[FakeSession]]:
    sessions: list[FakeSession] = []

    def make(sink: Sink) -> FakeSession:
        sessions.append(FakeSession(sink))
        return sessions[-1]

    return Channels(make, outlet=told, count=count), sessions  # type: ignore[arg-type]


def test_each_channel_hears_its_own_samples(told: Told) -> None:
    channels, (left, right) = made(told, 2)
    channels.push(np.array([[1, 2], [3, 4]], np.float32))
    channels.push_to(1, np.array([5], np.float32))
    assert [list(block) for block in left.heard] == [[1, 2]]
    assert [list(block) for block in right.heard] == [[3, 4], [5]]


async def test_what_is_of_the_connection_is_told_once_and_counted_through(told: Told) -> None:
    channels, (left, right) = made(told, 2)
    channels.start()
    channels.keep_alive()
    right.sink.send(SpeechStarted(at=1.0), 0)
    left.sink.send(final(1), 1)
    await channels.close("client")
    assert [(type(event).__name__, channel) for event, _, channel in told.events] == [
        ("Ready", 0),
        ("Pong", 0),
        ("SpeechStarted", 1),
        ("Final", 0),
        ("Final", 0),
        ("Final", 1),
        ("Metadata", 0),
        ("Closed", 0),
    ]
    assert [seq for _, seq, _ in told.events] == list(range(8))
    totals = told.events[-2][0]
    assert isinstance(totals, Metadata)
    assert (totals.duration, totals.speech_duration, totals.utterances, totals.concealed_duration) == (2.0, 3.0, 6, 0.5)


async def test_a_connection_that_was_refused_is_told_to_nobody(told: Told) -> None:
    channels, _ = made(told, 2)
    await channels.close("error")
    assert not [event for event, _, _ in told.events if isinstance(event, Metadata | Closed)]


async def test_what_is_withheld_while_a_session_moves_is_told_where_it_does_not_and_then_nobody_is(told: Told) -> None:
    channels, _ = made(told, 1)
    channels.start()
    channels.is_sealed = True
    await channels.close("client")
    assert len(told.events) == 1
    channels.is_sealed = False
    assert [type(event).__name__ for event, _, _ in told.events] == ["Ready", "Final", "Metadata", "Closed"]
    assert not [name for name, value in vars(channels).items() if value is told]


def test_commands_reach_every_channel_and_faults_are_told_once(told: Told) -> None:
    channels, (left, right) = made(told, 2)
    channels.configure({})
    channels.finalize()
    channels.finalize_channel(1)
    channels.fail(VoiceForgeError("CODE", "a", "b"))
    assert left.calls == ["configure", "finalize", "fail"]
    assert right.calls == ["configure", "finalize", "finalize"]


def test_whoever_finalizes_hears_of_each_channel(told: Told) -> None:
    channels, (_, right) = made(told, 2)
    assert right.on_finalized is not None
    right.on_finalized()  # nobody wants to know
    done: list[int] = []
    channels.on_finalized = done.append
    right.on_finalized()
    assert done == [1]


def test_what_is_inner_is_told_where_it_is_asked_for_and_not_counted(told: Told) -> None:
    channels, (left,) = made(told, 1)
    assert left.on_inner is not None
    left.on_inner(UtteranceBegan(1))
    assert told.events == []
    channels.tells_inner = True
    left.on_inner(UtteranceBegan(2))
    channels.start()
    assert [(event.type, seq) for event, seq, _ in told.events] == [("utterance_began", 0), ("ready", 0)]


def test_the_backlog_is_that_of_the_channel_furthest_behind(told: Told) -> None:
    channels, (left, right) = made(told, 2)
    left.unjudged_s, left.undecoded_s = 1.0, 2.0
    right.unjudged_s = 2.5
    assert channels.unjudged_s == 2.5
    assert channels.backlog_s == 3.0
    left.undecoded_utterances, right.undecoded_utterances = 1, 2
    assert channels.undecoded_utterances == 2


@pytest.mark.parametrize(("count", "labelled"), [(2, True), (1, False)])
def test_native_events_carry_metadata_and_where_they_were_heard(told: Told, count: int, labelled: bool) -> None:
    config = CONFIG if labelled else SessionConfig(metadata={"caller": "+49"})
    channels = Channels(lambda sink: FakeSession(sink, config), outlet=told, count=count)  # type: ignore[arg-type, return-value]
    dialect = NativeDialect("s1")
    dialect.begin(channels)
    (telling,) = dialect.tell(final(1), 3, count - 1)
    assert '"metadata":{"caller":"+49"}' in telling.text
    assert ('"channel":1,"channel_label":"customer"' in telling.text) is labelled
    (ready,) = dialect.tell(Ready(config={}, model="m"), 0, 0)
    assert '"channel"' not in ready.text
