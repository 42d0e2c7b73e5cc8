"""What others read of a connection: as it happens, again, after the end; and what is dropped where it does not fit."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mediaserver.errors import CapacityError, VoiceForgeError
from mediaserver.events import Closed, Event, Final, Interim, Metadata, Pong, Ready, SpeechStarted
from mediaserver.session.channels import Channels
from mediaserver.session.eventlog import BATCH_ENTRIES, LISTENERS_MAX, Entry, EventLog, Listener
from mediaserver.session.tap import Tee
from mediaserver.session_config import SessionConfig


class Source:
    """Events in the order of their numbers."""

    def __init__(self, *, kept_letters: int = 100_000) -> None:
        self.log = EventLog("s1", kept_letters=kept_letters)
        self.seq = 0

    def tell(self, *events: Event, channel: int = 0) -> None:
        for event in events:
            self.log.send(event, self.seq, channel)
            self.seq += 1


def interim(utterance: int, text: str = "a") -> Interim:
    return Interim(utterance, text, "", 1.0, 0.0, 1.0, 1.0, [])


def final(utterance: int, text: str = "a") -> Final:
    return Final(utterance, text, 1.0, 0.0, 1.0, 1.0, None, None, [])


def told(entries: list[Entry]) -> list[tuple[int, str]]:
    return [(entry.seq, json.loads(entry.text)["type"]) for entry in entries]


async def rest(listener: Listener) -> list[dict[str, Any]]:
    """All that there is to read now."""
    found: list[dict[str, Any]] = []
    while entries := await listener.read(timeout_s=0.01):
        found += [json.loads(entry.text) for entry in entries]
    return found


async def test_everything_but_old_interims_is_read_again_in_order() -> None:
    source = Source()
    source.tell(Ready({}, "m"), SpeechStarted(0.5), interim(1), interim(1), final(1), interim(2))
    listener = source.log.listen()
    assert told(await listener.read(timeout_s=1)) == [(0, "ready"), (1, "speech_started"), (4, "final"), (5, "interim")]


async def test_a_cursor_goes_on_behind_what_is_known() -> None:
    source = Source()
    source.tell(Ready({}, "m"), final(1), final(2), final(3))
    assert [seq for seq, _ in told(await source.log.listen(after=1).read(timeout_s=1))] == [2, 3]


async def test_who_waits_is_woken_and_gets_the_newest_interim_only() -> None:
    source = Source()
    listener = source.log.listen()
    reading = asyncio.create_task(listener.read(timeout_s=5))
    await asyncio.sleep(0)
    source.tell(interim(1, "one"), interim(1, "one two"), interim(1, "one two three"))
    assert [json.loads(entry.text)["transcript"] for entry in await reading] == ["one two three"]
    assert await listener.read(timeout_s=0.01) == []


async def test_channels_keep_an_interim_each_and_a_final_ends_only_its_own() -> None:
    source = Source()
    source.tell(interim(1), channel=0)
    source.tell(interim(1), channel=1)
    source.tell(final(1), channel=0)
    assert told(await source.log.listen().read(timeout_s=1)) == [(1, "interim"), (2, "final")]


async def test_a_final_leaves_the_interim_of_a_later_utterance() -> None:
    source = Source()
    source.tell(interim(2), final(1))
    assert told(await source.log.listen().read(timeout_s=1)) == [(0, "interim"), (1, "final")]


async def test_much_is_read_in_pieces() -> None:
    source = Source(kept_letters=1_000_000)
    source.tell(*(final(n) for n in range(3 * BATCH_ENTRIES)))
    listener = source.log.listen()
    assert len(await listener.read(timeout_s=1)) == BATCH_ENTRIES
    assert [event["seq"] for event in await rest(listener)] == list(range(BATCH_ENTRIES, 3 * BATCH_ENTRIES))


async def test_what_is_not_said_is_dropped_first_then_the_oldest_finals() -> None:
    source = Source(kept_letters=2000)
    source.tell(Ready({}, "m"), *(SpeechStarted(n) for n in range(20)), final(1, "x" * 400))
    source.tell(final(2, "y" * 400), final(3, "z" * 400))
    kinds = [kind for _, kind in told(source.log.after(-1))]
    assert kinds.count("final") == 3
    assert "ready" not in kinds
    assert len(kinds) < 10
    source.tell(final(4, "w" * 400))
    assert [json.loads(entry.text)["utterance_id"] for entry in source.log.after(-1)] == [2, 3, 4]
    assert source.log.letters <= 2000


async def test_a_gap_is_told_once_and_says_whether_finals_are_missing() -> None:
    source = Source(kept_letters=2000)
    source.tell(Ready({}, "m"), *(final(n, "x" * 400) for n in range(1, 6)))
    fresh = await rest(source.log.listen())
    assert fresh[0]["type"] == "warning"
    assert fresh[0]["error"]["code"] == "EVENTS_LOST"
    assert "finals among them" in fresh[0]["error"]["message"]
    assert "no finals" not in fresh[0]["error"]["message"]
    assert [event["type"] for event in fresh[1:]] == ["final"] * 3
    late = await source.log.listen(after=2).read(timeout_s=1)
    assert [entry.is_event for entry in late] == [True, True, True]  # it knows what is lost
    noisy = Source(kept_letters=1000)
    noisy.tell(*(SpeechStarted(n) for n in range(50)))
    assert "no finals among them" in (await rest(noisy.log.listen()))[0]["error"]["message"]


async def test_a_listener_that_falls_behind_is_told_too_and_costs_nothing() -> None:
    source = Source(kept_letters=2000)
    source.tell(Ready({}, "m"))
    slow = source.log.listen()
    await slow.read(timeout_s=1)
    source.tell(*(final(n, "x" * 400) for n in range(20)))
    events = await rest(slow)
    assert [event["type"] for event in events] == ["warning", "final", "final", "final"]
    assert source.log.letters <= 2000


async def test_the_end_is_read_and_then_it_is_over() -> None:
    source = Source()
    source.tell(final(1), Metadata(1.0, 1.0, 1, 0.0, "m"), Closed("client"))
    source.tell(final(2))  # never after `closed`
    listener = source.log.listen()
    assert not listener.is_over
    assert [event["type"] for event in await rest(listener)] == ["final", "metadata", "closed"]
    assert listener.is_over
    assert source.log.listen(after=2).is_over
    assert await source.log.listen(after=2).read(timeout_s=5) == []


async def test_a_connection_that_was_cut_ends_its_listeners() -> None:
    source = Source()
    source.tell(final(1), interim(2))
    listener = source.log.listen(after=1)
    reading = asyncio.create_task(listener.read(timeout_s=5))
    await asyncio.sleep(0)
    source.log.end()
    assert await reading == []
    assert listener.is_over


async def test_listeners_are_bounded_and_a_place_is_free_again() -> None:
    source = Source()
    listeners = [source.log.listen() for _ in range(LISTENERS_MAX)]
    with pytest.raises(CapacityError) as caught:
        source.log.listen()
    assert caught.value.code == "TOO_MANY_LISTENERS"
    with listeners[0]:
        pass
    assert source.log.listeners == LISTENERS_MAX - 1
    source.log.listen()


class FakeSession:
    """What a listener's messages act on."""

    def __init__(self) -> None:
        self.config = SessionConfig(metadata={"caller": "+49"}, channel_labels=["agent", "customer"])
        self.calls: list[str] = []

    def finalize(self) -> None:
        self.calls.append("finalize")

    def fail(self, error: VoiceForgeError) -> None:
        self.calls.append(error.code)

    async def close(self, reason: str, *, deadline_s: float = 1.0) -> None: ...


class Nobody:
    def send(self, event: Event, seq: int, channel: int) -> None: ...


async def test_a_listener_is_heard_as_the_client_is_until_the_connection_closes() -> None:
    session, log = FakeSession(), EventLog("s1", kept_letters=10_000)
    log.hear('{"type":"finalize"}')  # before the connection has come about
    tee = Tee(Nobody(), [log])
    channels = Channels(lambda sink: session, outlet=tee, count=1)  # type: ignore[arg-type, return-value]
    tee.begin(channels)
    log.hear('{"type":"finalize"}')
    log.hear("{")
    log.hear(b"\xff")
    assert session.calls == ["finalize", "MALFORMED_MESSAGE", "MALFORMED_MESSAGE"]
    await channels.close("client")
    log.hear('{"type":"finalize"}')
    assert len(session.calls) == 3


async def test_events_carry_metadata_and_labels() -> None:
    session, log = FakeSession(), EventLog("s1", kept_letters=10_000)
    tee = Tee(Nobody(), [log])
    channels = Channels(lambda sink: session, outlet=tee, count=2)  # type: ignore[arg-type, return-value]
    tee.begin(channels)
    tee.send(final(1), 0, 1)
    tee.send(Pong(0.0), 1, 0)
    spoken, pong = (json.loads(entry.text) for entry in log.after(-1))
    assert (spoken["channel"], spoken["channel_label"], spoken["metadata"]) == (1, "customer", {"caller": "+49"})
    assert pong["metadata"] == {"caller": "+49"}
