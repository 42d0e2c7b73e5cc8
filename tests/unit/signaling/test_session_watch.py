"""Where watchers hear of sessions: what is not opened after all is not kept."""

from __future__ import annotations

import gc
import weakref
from typing import Any, cast

import pytest

from mediaserver.session.channels import Channels
from signaling.registry import LiveSession
from signaling.session_watch import SessionWatch, Watched, Watcher


class FakeChannels:
    """What a tap is begun with."""

    def __init__(self) -> None:
        self.on_inner: list[object] = []


class FakePeer:
    """The other end of a session."""

    def describe(self) -> dict[str, object]:
        return {"codec": "audio/opus"}


class Diary(Watcher):
    """A watcher that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def made(self, session: Watched) -> None:
        self.heard.append(f"made {session.session_id}")

    def opened(self, session: Watched) -> None:
        self.heard.append(f"opened {session.session_id} {session.codec}")

    def ended(self, session: Watched, reason: str) -> None:
        self.heard.append(f"ended {session.session_id} {reason}")


def test_a_session_that_finds_no_room_is_not_kept() -> None:
    watch = SessionWatch([diary := Diary()])
    tap = watch.tap("s1", model="tiny")
    assert tap is not None
    channels = FakeChannels()
    tap.begin(cast(Channels, channels))
    kept = weakref.ref(channels)
    del tap, channels
    gc.collect()
    assert kept() is None
    assert diary.heard == ["made s1"]


@pytest.mark.parametrize("is_added_first", [True, False])
def test_a_session_is_opened_once_it_has_its_channels_and_its_place(is_added_first: bool) -> None:
    watch = SessionWatch([diary := Diary()])
    tap = watch.tap("s1", model="tiny")
    assert tap is not None
    live = LiveSession("s1", "whip", cast(Any, FakePeer()))
    if is_added_first:
        watch.added(live)
    tap.begin(cast(Channels, FakeChannels()))
    if not is_added_first:
        watch.added(live)
    live.reason = "client"
    for gone in live.on_gone:
        gone()
    assert diary.heard == ["made s1", "opened s1 audio/opus", "ended s1 client"]
