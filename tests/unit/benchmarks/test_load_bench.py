"""The benchmarks of connected peers: what is told of a peer, of the server and of a long run."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import load_step, reels
from benchmarks.load import unheard_of
from benchmarks.load_server import Look, Part, lag_s
from benchmarks.load_step import Step, broken, unclean
from benchmarks.rtp_drivers import Drivers, Left, Report
from benchmarks.rtp_outcome import Away, Guest, Said, event_of, outcome, told_twice
from benchmarks.rtp_peer import RecordedPeer, SetUp
from benchmarks.screen import ScreenScore
from benchmarks.soak_course import Course, Diary, Sample
from benchmarks.soak_growth import growth, speakers_for
from mediaserver.events import Final, SpeechStarted, Word

STEP = Step(
    what="room noise",
    peers=100,
    seconds=30.0,
    set_ups=[SetUp(0.02, 0.05, 0.06)],
    set_ups_s=1.0,
    media_cores=0.8,
    engine_cores=0.0,
    drivers_cores=0.3,
    others_cores=0.0,
    mib_each=0.7,
    lag_p99_s=0.01,
    lag_max_s=0.02,
    heard_share=1.0,
    refused=0,
    lost=0,
)


class Wire:
    """What a peer sends, in the clear."""

    def __init__(self, idle: reels.Reel) -> None:
        self.packets: list[tuple[int, int, bytes]] = []
        self.peer = RecordedPeer("http://nowhere", idle=idle, on_event=lambda body, at_s: None, query={})
        self.peer._srtp = self
        self.peer._send = self.sent
        self.peer._at = 0

    def protect(self, packet: bytes) -> bytes:
        return packet

    def sent(self, packet: bytes) -> None:
        _, sequence, timestamp, _ = struct.unpack_from("!HHII", packet)
        self.packets.append((sequence, timestamp, packet[12:]))


def test_a_peer_plays_its_pause_again_and_again_and_a_recording_once() -> None:
    wire, played = Wire([b"quiet"]), [False]
    wire.peer.tick()
    wire.peer.play([b"a", b"b"], lambda: played.__setitem__(0, True))
    assert wire.peer.is_talking
    for _ in range(3):
        wire.peer.tick()
    assert [payload for _, _, payload in wire.packets] == [b"quiet", b"a", b"b", b"quiet"]
    assert played == [True]
    assert not wire.peer.is_talking


def test_what_is_not_sent_takes_time_and_no_sequence_number() -> None:
    wire = Wire([b"noise", b"", b""])
    for _ in range(4):
        wire.peer.tick()
    (first, begun, _), (second, later, _) = wire.packets
    assert (second - first) & 0xFFFF == 1
    assert (later - begun) & 0xFFFFFFFF == 3 * 960
    assert wire.peer.stream_s == pytest.approx(4 * 0.02)


def test_time_begins_with_the_first_packet() -> None:
    wire = Wire([b"", b"", b"noise"])
    wire.peer.tick()
    assert wire.peer.began_at_s is None
    wire.peer.tick()
    wire.peer.tick()
    assert wire.peer.began_at_s is not None
    assert wire.peer.ticks == 1


def test_reels_come_back_from_their_file(tmp_path: Path) -> None:
    idle = reels.idle_reels()
    assert len(idle[reels.ROOM]) == len(idle[reels.DTX]) == reels.IDLE_S * 1000 / reels.PACKET_MS
    assert sum(bool(packet) for packet in idle[reels.DTX]) == len(idle[reels.ROOM]) / reels.DTX_PACKETS
    path = tmp_path / "reels.json"
    reels.write(path, idle, [[b"a", b""]])
    assert reels.read(path) == (idle, [[b"a", b""]])


def final(number: int, text: str, start_s: float) -> dict[str, Any]:
    words = [{"word": text, "start": start_s, "end": start_s + 1.0, "confidence": 0.9, "speaker": None}]
    return {
        "type": "final",
        "session_id": "s",
        "seq": number,
        "utterance_id": number,
        "transcript": text,
        "confidence": 0.9,
        "start": start_s,
        "duration": 1.0,
        "timestamp": start_s + 2.0,
        "language": "en",
        "language_confidence": None,
        "words": words,
        "speaker": None,
        "is_final": True,
    }


def test_messages_become_events_where_they_count() -> None:
    event = event_of(final(1, "hello", 2.0))
    assert isinstance(event, Final)
    assert event.words == [Word("hello", 2.0, 3.0, 0.9)]
    assert event_of({"type": "speech_started", "seq": 1, "session_id": "s", "at": 1.5}) == SpeechStarted(1.5)
    assert event_of({"type": "pong", "timestamp": 1.0}) is None


def test_finals_belong_to_the_recording_within_which_they_lie() -> None:
    peer = RecordedPeer("http://nowhere", idle=[b"x"], on_event=lambda body, at_s: None, query={})
    peer.began_at_s = 100.0
    events: list[tuple[float, Mapping[str, Any]]] = [(103.5, final(1, "hello", 2.0)), (111.0, final(2, "stray", 9.0))]
    guest = Guest(peer, SetUp(0, 0, 0), events, said=[Said(4, 1.5, 4.0), Said(5, 20.0, 25.0)])
    told = outcome(guest)
    assert told["said"] == [(4, "hello", 1), (5, "", 0)]
    assert told["stray"] == ["stray"]
    assert told["score"]["word_s"] == [pytest.approx(0.5), pytest.approx(1.0)]


def test_what_is_played_while_its_peer_is_away_is_sent_to_nobody_and_takes_its_time() -> None:
    wire, played = Wire([b"quiet"]), [False]
    wire.peer.tick()
    wire.peer.play([b"a", b"b"], lambda: played.__setitem__(0, True))
    wire.peer.is_away, wire.peer._send = True, None
    wire.peer.tick()
    wire.peer.tick()
    assert played == [True]
    wire.peer.is_away, wire.peer._send = False, wire.sent
    wire.peer.tick()
    assert [payload for _, _, payload in wire.packets] == [b"quiet", b"quiet"]
    (first, begun, _), (second, later, _) = wire.packets
    assert ((second - first) & 0xFFFF, (later - begun) & 0xFFFFFFFF) == (1, 3 * 960)
    assert wire.peer.stream_s == pytest.approx(4 * 0.02)


def test_a_recording_that_a_drop_cut_is_left_out_and_so_is_the_lateness_of_what_was_told_again() -> None:
    peer = RecordedPeer("http://nowhere", idle=[b"x"], on_event=lambda body, at_s: None, query={})
    peer.began_at_s = 100.0
    events: list[tuple[float, Mapping[str, Any]]] = [
        (109.0, final(1, "before", 2.0)),  # told again, long after it was said
        (112.0, final(2, "cut", 7.0)),
        (121.5, final(3, "after", 20.0)),
    ]
    said = [Said(4, 1.5, 4.0), Said(5, 6.5, 9.5), Said(6, 19.5, 22.0)]
    told = outcome(Guest(peer, SetUp(0, 0, 0), events, said=said, aways=[Away(105.0, 110.0)]))
    assert told["said"] == [(4, "before", 1), (6, "after", 1)]
    assert (told["cut"], told["stray"], told["drops"], told["twice"]) == (1, [], 1, 0)
    assert told["score"]["word_s"] == [pytest.approx(0.5)]


def test_finals_that_come_again_are_counted() -> None:
    first, second = final(1, "a", 0.0), final(2, "b", 3.0)
    assert told_twice([first, second]) == 0
    assert told_twice([first, second, second]) == 1
    assert told_twice([first, second, {**first, "seq": 7}]) == 1
    assert told_twice([{"type": "interim", "seq": 9}, first]) == 1
    assert told_twice([first, {"type": "pong"}, second]) == 0


class Named:
    """A recording's path."""

    def __init__(self, path: str) -> None:
        self.path = path


def test_a_recording_without_a_final_is_told_unless_its_session_was_dropped() -> None:
    said = [(0, "", 0), (1, "text", 1)]
    left = Left(said, [], ScreenScore(), "client", 30.0, {})
    recordings: Any = [Named("a.flac"), Named("b.flac")]
    assert unheard_of(recordings, [left]) == ["a.flac"]
    assert unheard_of(recordings, [replace(left, reason="dropped")]) == []
    unfinished = replace(left, said=[], score=ScreenScore(unfinished=2))
    assert len(unheard_of(recordings, [unfinished])) == 2


def looked(lag: dict[float, float]) -> Look:
    return Look(0.0, Part(), Part(), lag, {}, 0.0)


def test_lag_is_read_from_the_difference_of_two_histograms() -> None:
    before = looked({0.01: 100.0, 0.1: 100.0, float("inf"): 100.0})
    after = looked({0.01: 190.0, 0.1: 200.0, float("inf"): 200.0})
    assert lag_s(before, after, 0.9) == pytest.approx(0.01)
    assert lag_s(before, after, 0.95) == pytest.approx(0.055)
    assert lag_s(before, after, 1.0) == pytest.approx(0.1)
    assert lag_s(before, before, 0.99) is None


def test_promises_that_hold_are_not_told() -> None:
    assert broken(STEP, is_largest=True) == []
    assert unclean(STEP) == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"media_cores": 1.1}, "is promised"),
        ({"mib_each": 1.2}, "MiB"),
        ({"set_ups": [SetUp(0.1, 0.2, 0.4)]}, "first event"),
        ({"lost": 1}, "lost"),
        ({"unheard": ("a.flac",)}, "no final"),
    ],
)
def test_each_broken_promise_is_told(changed: dict[str, Any], says: str) -> None:
    assert any(says in sentence for sentence in broken(replace(STEP, **changed), is_largest=True))


def test_times_of_a_busy_machine_break_no_promise_and_are_told() -> None:
    busy = replace(STEP, others_cores=1.0, set_ups=[SetUp(0.1, 0.2, 0.4)], heard_share=0.7)
    assert broken(busy, is_largest=True) == []
    assert len(unclean(busy)) == 2
    assert len(STEP.row) == len(load_step.COLUMNS)


HOURS_S = np.arange(0, 1800, 15.0)


@pytest.mark.parametrize(
    ("course", "grows"),
    [
        (lambda at: 200.0 + 0 * at, False),
        (lambda at: 200.0 + 60 * (1 - np.exp(-at / 120)), False),  # caches fill at first
        (lambda at: 200.0 + 3.0 * np.sin(at / 200), False),
        (lambda at: 200.0 + at / 3600 * 64, True),
    ],
)
def test_a_leak_is_told_from_a_warm_up_and_from_noise(course: Callable[[Any], Any], grows: bool) -> None:
    found = growth(list(HOURS_S), list(course(HOURS_S)))
    assert found is not None
    assert bool(found.hourly > 32) is grows


def test_a_short_run_says_nothing_of_growth() -> None:
    assert growth([0.0, 15.0], [1.0, 2.0]) is None


def test_speakers_are_a_share_of_the_machine() -> None:
    assert speakers_for(0.8, [(1, 0.5), (2, 0.8)], cores=2.0) == 4
    assert speakers_for(0.1, [(1, 0.5), (2, 0.8)], cores=2.0) == 1
    assert speakers_for(0.8, [(1, 0.5)], cores=2.0) == 1
    assert speakers_for(0.8, [(1, 0.5), (2, 0.5)], cores=2.0) == 2


LEFT = Left([(0, "text", 1)], [], ScreenScore(), "client", 30.0, {})


def test_a_long_run_counts_who_came_back_and_who_could_not(tmp_path: Path) -> None:
    recordings: Any = [Named("a.flac")]
    course = Course(recordings)
    left = [
        LEFT,
        replace(LEFT, reason="dropped"),
        replace(LEFT, reason="unresumed", drops=1),
        replace(LEFT, reason="shutdown"),
        replace(LEFT, said=[(0, "", 0)], drops=1, twice=2),
        replace(LEFT, said=[(0, "", 0)]),
    ]
    back = SetUp(0.01, 0.02, 0.03)
    course.take(Report(0, 0, 0, {}, 1, {"SESSION_NOT_FOUND": 1}, [], [back], left[:3], 0.0, 0.0, 0))
    course.take(Report(0, 0, 0, {}, 1, {"SESSION_NOT_FOUND": 1}, [], [back], left[3:], 0.0, 0.0, 0))
    course.samples.append(Sample(15.0, 200.0, 300.0, 50, 9, 30, 2, 0.3, 0.5, None))
    assert course.lost == 1
    with Diary(tmp_path / "out", None) as diary:
        diary.write(course.told())
        assert diary.path is not None
        _, line = diary.path.read_text().splitlines()  # before it is closed: a run that is killed closes nothing
    told = json.loads(line)
    assert told["sample"]["media_mib"] == 200.0
    assert (told["returned"], told["unreturned"], told["told_twice"]) == (2, {"SESSION_NOT_FOUND": 1}, 2)
    assert (told["unheard"], told["unheard_over_drops"]) == (["a.flac", "a.flac"], ["a.flac"])


class Echo:
    """A process that answers each line with its number, late."""

    def __init__(self) -> None:
        self.pid = 1
        self.stdin = self
        self.stdout = asyncio.StreamReader()
        self.asked = 0

    def write(self, line: bytes) -> None:
        self.asked += 1

    def answer(self, number: int) -> None:
        self.stdout.feed_data(b'{"number":%d}\n' % number)


async def test_the_answer_to_a_command_that_nobody_waits_for_any_more_is_no_answer_to_the_next() -> None:
    echo = Echo()
    process: Any = echo
    drivers = Drivers([process])
    first = asyncio.create_task(drivers._ask(process, do="report"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(drivers._ask(process, do="close"))
    await asyncio.sleep(0)
    assert echo.asked == 2
    echo.answer(1)
    echo.answer(2)
    assert await second == {"number": 2}
