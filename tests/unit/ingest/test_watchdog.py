"""The deadlines of a peer, without a clock."""

from __future__ import annotations

import pytest

from mediaserver.ingest.watchdog import Alarm, Watchdog
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
        if (alarm := dog.check(now_s)) is not None:
            found.append((now_s, alarm))
            if alarm not in (Alarm.MEDIA_STILL, Alarm.MEDIA_PAUSED):
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
    assert dog.check(103.0) is Alarm.MEDIA_STILL
    assert dog.check(117.0) is Alarm.MEDIA_PAUSED
    dog.media(102.0)  # the same packet again is no new one
    assert dog.check(118.0) is None
    dog.media(120.0)
    assert dog.check(121.0) is Alarm.MEDIA_STILL
    assert dog.check(134.0) is None
    assert dog.check(135.0) is Alarm.MEDIA_PAUSED


def test_a_session_that_lasts_too_long(dog: Watchdog) -> None:
    dog.connected(101.0)
    now_s = 101.0
    while now_s < 1100.0:
        dog.media(now_s)
        assert dog.check(now_s) is None
        now_s += 1.0
    dog.media(1099.5)
    assert dog.check(1100.0) is Alarm.SESSION_MAX


def test_nothing_is_due_before_the_deadline_it_names(dog: Watchdog) -> None:
    due_s, alarm = dog.deadline()
    assert dog.check(due_s - 0.001) is None
    assert dog.check(due_s) is alarm
