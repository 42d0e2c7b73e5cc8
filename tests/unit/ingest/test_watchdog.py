"""The deadlines of a peer, without a clock."""

from __future__ import annotations

import pytest

from mediaserver.ingest.watchdog import Alarm, Due, Watchdog
from mediaserver.settings import Settings

DEADLINES = Settings(
    connect_timeout_s=15,
    first_media_timeout_s=30,
    media_pause_warning_s=15,
    media_pause_timeout_s=60,
    session_max_s=1000,
)


@pytest.fixture
def dog() -> Watchdog:
    return Watchdog(DEADLINES, started_s=100.0)


def alarms(dog: Watchdog, until_s: float, step_s: float = 0.5) -> list[tuple[float, Alarm]]:
    """Every alarm up to a time, looked for at every step."""
    now_s, found = dog.started_s, []
    while now_s <= until_s:
        if (due := dog.check(now_s)) is not None:
            found.append((now_s, due.alarm))
            if due.alarm not in (Alarm.MEDIA_STILL, Alarm.MEDIA_PAUSED):
                break
        now_s += step_s
    return found


def test_a_peer_that_does_not_connect(dog: Watchdog) -> None:
    assert alarms(dog, 1000.0) == [(115.0, Alarm.TIMEOUT)]


def test_a_peer_that_connects_and_sends_nothing(dog: Watchdog) -> None:
    dog.connected(110.0)
    assert alarms(dog, 1000.0) == [(140.0, Alarm.NO_MEDIA)]


def test_a_pause_warns_once_and_then_ends(dog: Watchdog) -> None:
    dog.connected(101.0)
    dog.media(102.0)
    assert alarms(dog, 1000.0) == [
        (103.0, Alarm.MEDIA_STILL),
        (117.0, Alarm.MEDIA_PAUSED),
        (162.0, Alarm.TIMEOUT),
    ]


def test_audio_after_a_pause_allows_the_next_warning(dog: Watchdog) -> None:
    dog.connected(101.0)
    dog.media(102.0)
    assert dog.check(103.0) == Due(Alarm.MEDIA_STILL)
    assert dog.check(117.0) == Due(Alarm.MEDIA_PAUSED)
    dog.media(102.0)  # the same packet again is no new one
    assert dog.check(118.0) is None
    dog.media(120.0)
    assert dog.check(121.0) == Due(Alarm.MEDIA_STILL)
    assert dog.check(134.0) is None
    assert dog.check(135.0) == Due(Alarm.MEDIA_PAUSED)


def test_a_session_that_lasts_too_long(dog: Watchdog) -> None:
    dog.connected(101.0)
    now_s = 101.0
    while now_s < 1100.0:
        dog.media(now_s)
        assert dog.check(now_s) is None
        now_s += 1.0
    dog.media(1099.5)
    assert dog.check(1100.0) == Due(Alarm.SESSION_MAX)


def test_nothing_is_due_before_the_deadline_it_names(dog: Watchdog) -> None:
    due_s, due = dog.deadline()
    assert dog.check(due_s - 0.001) is None
    assert dog.check(due_s) == due


def test_a_track_that_is_silent_is_told_by_itself_and_ends_nothing() -> None:
    dog = Watchdog(DEADLINES, started_s=100.0, tracks=3)
    dog.connected(101.0)
    dog.media(102.0, 0)
    dog.media(102.5, 1)
    assert dog.media_s == 102.5
    assert dog.check(103.0) == Due(Alarm.MEDIA_STILL, 0)
    assert dog.check(103.5) == Due(Alarm.MEDIA_STILL, 1)
    for now_s in range(104, 1000):  # the third has never sent anything
        dog.media(float(now_s), 1)
        assert dog.check(now_s + 0.5) is None
    assert [dog.is_still(track) for track in range(3)] == [True, False, True]
    dog.media(1000.0, 0)
    assert not dog.is_still(0)
    assert dog.check(1000.5) == Due(Alarm.MEDIA_STILL, 1)
    assert dog.check(1001.0) == Due(Alarm.MEDIA_STILL, 0)


def test_a_call_is_paused_when_all_of_its_tracks_are() -> None:
    dog = Watchdog(DEADLINES, started_s=100.0, tracks=2)
    dog.connected(101.0)
    dog.media(102.0, 0)
    dog.media(110.0, 1)
    assert alarms(dog, 200.0) == [
        (103.0, Alarm.MEDIA_STILL),
        (111.0, Alarm.MEDIA_STILL),
        (125.0, Alarm.MEDIA_PAUSED),
        (170.0, Alarm.TIMEOUT),
    ]


def test_the_first_packet_of_any_track_is_the_first_of_the_call() -> None:
    dog = Watchdog(DEADLINES, started_s=100.0, tracks=2)
    dog.connected(101.0)
    dog.media(130.0, 1)
    assert dog.check(131.0) == Due(Alarm.MEDIA_STILL, 1)
    assert dog.check(132.0) is None
