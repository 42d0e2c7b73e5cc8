"""The sink of events on a data channel: what waits, what is left out, and which channel is used."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from aiortc import InvalidStateError
from aiortc.rtcsctptransport import SCTP_MAX_PACKET_LENGTH, RTCSctpTransport

from mediaserver.errors import VoiceForgeError
from mediaserver.events import Event, Final, Interim, SpeechStarted
from mediaserver.ingest.answer import MESSAGE_MAX_BYTES
from mediaserver.ingest.channel import (
    INTERIMS_STOP_BYTES,
    PENDING_MESSAGES_MAX,
    STALLED_BYTES,
    ChannelEvents,
    ChannelSink,
)
from mediaserver.metrics import Metrics
from mediaserver.session.dialect import NativeDialect


class FakeSctp:
    def __init__(self) -> None:
        self._outbound_queue: deque[object] = deque()
        self._sent_queue: deque[object] = deque()


class FakeChannel:
    """An RTCDataChannel whose network is a list."""

    def __init__(self, label: str = "transcripts", *, state: str = "open", **options: Any) -> None:
        self.label = label
        self.readyState = state
        self.ordered = options.get("ordered", True)
        self.maxRetransmits = options.get("maxRetransmits")
        self.maxPacketLifeTime = options.get("maxPacketLifeTime")
        self.bufferedAmount = 0
        self.transport = FakeSctp()
        self.sent: list[dict[str, Any]] = []
        self.handlers: dict[str, Callable[..., None]] = {}

    def on(self, name: str, handler: Callable[..., None]) -> None:
        self.handlers[name] = handler

    def send(self, text: str) -> None:
        if self.readyState != "open":
            raise InvalidStateError
        self.sent.append(json.loads(text))

    def close(self) -> None:
        self.readyState = "closed"
        if "close" in self.handlers:
            self.handlers["close"]()

    def opens(self) -> None:
        self.readyState = "open"
        self.handlers["open"]()


class Rig:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.messages: list[str | bytes] = []
        self.errors: list[VoiceForgeError] = []
        self.gone: list[str] = []
        self.dialect = NativeDialect("s1")
        self.sink = ChannelSink(
            session_id="s1",
            label=self.dialect.label,
            refuse=self.dialect.refuse,
            metrics=self.metrics,
            events=ChannelEvents(self.messages.append, self.errors.append, self.gone.append),
        )
        self.seq = 0

    def send(self, *events: Event) -> None:
        for event in events:
            for telling in self.dialect.tell(event, self.seq, 0):
                self.sink.send(telling)
            self.seq += 1

    def use(self, channel: FakeChannel) -> FakeChannel:
        self.sink.accept(channel)  # type: ignore[arg-type]
        return channel

    @property
    def dropped(self) -> float:
        value = self.metrics.registry.get_sample_value("voiceforge_events_dropped_total")
        assert value is not None
        return value


def interim(utterance: int, text: str = "a") -> Interim:
    return Interim(utterance, text, "", 1.0, 0.0, 1.0, 1.0, [])


def final(utterance: int, text: str = "a") -> Final:
    return Final(utterance, text, 1.0, 0.0, 1.0, 1.0, None, None, [])


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_events_wait_for_the_channel_and_keep_their_order(rig: Rig) -> None:
    rig.send(SpeechStarted(at=0.5), interim(1), final(1))
    channel = rig.use(FakeChannel())
    rig.send(SpeechStarted(at=2.0))
    assert [(event["type"], event["seq"]) for event in channel.sent] == [
        ("speech_started", 0),
        ("final", 2),
        ("speech_started", 3),
    ]
    assert channel.sent[0]["session_id"] == "s1"
    assert rig.dropped == 1


def test_of_a_waiting_utterance_the_newest_interim_is_kept(rig: Rig) -> None:
    rig.send(interim(1, "old"), interim(2, "other"), interim(1, "new"))
    assert [event["transcript"] for event in rig.use(FakeChannel()).sent] == ["other", "new"]


def test_a_full_queue_gives_up_interims_first_then_others_then_old_finals(rig: Rig) -> None:
    rig.send(SpeechStarted(at=0.0), interim(0), *(final(n) for n in range(1, PENDING_MESSAGES_MAX - 1)))
    rig.send(final(1000))
    rig.send(final(1001))
    rig.send(final(1002))
    sent = rig.use(FakeChannel()).sent
    assert len(sent) == PENDING_MESSAGES_MAX
    assert {event["type"] for event in sent} == {"final"}
    assert sent[0]["utterance_id"] == 2
    assert sent[-1]["utterance_id"] == 1002


def test_the_servers_own_channel_gets_what_waited_when_it_opens(rig: Rig) -> None:
    own = FakeChannel(state="connecting")
    rig.sink.open_own(lambda label: own)  # type: ignore[arg-type, return-value]
    rig.send(final(1))
    assert own.sent == []
    own.opens()
    assert [event["type"] for event in own.sent] == ["final"]


def test_the_server_opens_none_where_the_client_has(rig: Rig) -> None:
    rig.use(FakeChannel())
    rig.sink.open_own(lambda label: pytest.fail("a second channel"))


def test_the_clients_channel_takes_over_from_the_servers(rig: Rig) -> None:
    own = FakeChannel()
    rig.sink.open_own(lambda label: own)  # type: ignore[arg-type, return-value]
    theirs = rig.use(FakeChannel())
    rig.send(final(1))
    assert own.readyState == "closed"
    assert own.sent == []
    assert len(theirs.sent) == 1
    assert rig.gone == []


@pytest.mark.parametrize(
    ("channel", "code"),
    [
        (FakeChannel("chat"), "UNKNOWN_CHANNEL"),
        (FakeChannel(ordered=False), "UNRELIABLE_CHANNEL"),
        (FakeChannel(maxRetransmits=0), "UNRELIABLE_CHANNEL"),
        (FakeChannel(maxPacketLifeTime=100), "UNRELIABLE_CHANNEL"),
    ],
)
def test_other_channels_are_told_why_and_closed(rig: Rig, channel: FakeChannel, code: str) -> None:
    rig.use(channel)
    assert [event["error"]["code"] for event in channel.sent] == [code]
    assert channel.readyState == "closed"
    assert rig.sink.channel is None
    assert rig.gone == []


def test_a_second_channel_of_the_client_is_refused(rig: Rig) -> None:
    first = rig.use(FakeChannel())
    second = rig.use(FakeChannel())
    assert second.sent[0]["error"]["code"] == "CHANNEL_IN_USE"
    assert rig.sink.channel is first  # type: ignore[comparison-overlap]


def test_a_slow_client_loses_interims_and_no_finals(rig: Rig) -> None:
    channel = rig.use(FakeChannel())
    channel.bufferedAmount = INTERIMS_STOP_BYTES + 1
    rig.send(interim(1), final(1), interim(2))
    assert [event["type"] for event in channel.sent] == ["final"]
    assert rig.dropped == 2
    channel.bufferedAmount = 0
    rig.send(interim(2))
    assert [event["seq"] for event in channel.sent] == [1, 3]


def test_a_client_that_reads_nothing_counts_as_gone(rig: Rig) -> None:
    channel = rig.use(FakeChannel())
    channel.bufferedAmount = STALLED_BYTES + 1
    rig.send(final(1), final(2))
    assert rig.gone == ["peer_lost"]
    assert channel.sent == []


def test_sending_never_raises(rig: Rig) -> None:
    channel = rig.use(FakeChannel())
    rig.send(final(1))

    def refuse(text: str) -> None:
        raise ValueError("larger than the remote takes")

    channel.send = refuse  # type: ignore[method-assign]
    rig.send(final(2))


def test_messages_are_passed_on_up_to_a_size(rig: Rig) -> None:
    channel = rig.use(FakeChannel())
    fits = "é" * (MESSAGE_MAX_BYTES // 2)
    channel.handlers["message"](fits)
    channel.handlers["message"](b"{}")
    channel.handlers["message"](fits + "x")
    assert rig.messages == [fits, b"{}"]
    assert [error.code for error in rig.errors] == ["MESSAGE_TOO_LARGE"]


def test_a_closed_channel_is_told_once_and_gets_nothing_more(rig: Rig) -> None:
    channel = rig.use(FakeChannel())
    channel.close()
    rig.send(final(1))
    channel.handlers["message"]("{}")
    assert rig.gone == ["client"]
    assert channel.sent == []
    assert rig.messages == []


async def test_drained_waits_for_what_is_on_its_way(rig: Rig) -> None:
    assert not await rig.sink.drained(0.05)
    channel = rig.use(FakeChannel())
    assert await rig.sink.drained(0.05)
    channel.transport._sent_queue.append(object())
    assert not await rig.sink.drained(0.05)
    channel.transport._sent_queue.clear()
    channel.bufferedAmount = 1
    assert not await rig.sink.drained(0.05)
    channel.bufferedAmount = 0
    channel.readyState = "closed"
    assert not await rig.sink.drained(0.05)


def test_contract_aiortc_has_the_queues_that_are_looked_at() -> None:
    source = RTCSctpTransport.__init__.__code__.co_names
    assert {"_outbound_queue", "_sent_queue"} <= set(source)


def test_contract_aiortc_cuts_messages_to_packets_that_fit_1280_bytes() -> None:
    """IPv6 and UDP headers take 48 bytes, a DTLS record 37 at most: messages need not be short for a small MTU."""
    assert SCTP_MAX_PACKET_LENGTH + 48 + 37 <= 1280
