"""Where watchers hear of sessions: what is not opened after all is not kept."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest

from mediaserver.session.channels import Channels
from signaling.registry import LiveSession
from signaling.seeing.requests import _CURRENT, RequestInfo
from signaling.seeing.session_watch import SessionWatch, Watched, Watcher
from signaling.seeing.spans import Span, Value
from signaling.seeing.tracing import Tracing


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


class FakeSpans:
    """A trace's root, and what became of it."""

    trace_id = "0" * 32

    def __init__(self) -> None:
        self.ends: list[str] = []

    def begin(self, name: str, start_ns: int, attributes: Mapping[str, Value], *, traceparent: str | None) -> Span:
        return self

    def child(self, name: str, start_ns: int, attributes: Mapping[str, Value]) -> Span:
        return self

    def set(self, attributes: Mapping[str, Value]) -> None:
        self.reason = str(attributes.get("voiceforge.end_reason"))

    def event(self, name: str, at_ns: int, attributes: Mapping[str, Value]) -> None:
        pass

    def end(self, at_ns: int, *, error: str | None = None) -> None:
        self.ends.append(self.reason)


@pytest.fixture
def returning() -> Iterator[None]:
    """A request of a client that comes back, which opens no session."""
    token = _CURRENT.set(RequestInfo("r1", "127.0.0.1", "POST", "/whip/{secret}", began_ns=1))
    yield
    _CURRENT.reset(token)


@pytest.mark.usefixtures("returning")
def test_the_trace_of_a_session_that_could_not_go_on_here_ends() -> None:
    watch = SessionWatch([tracing := Tracing(spans := FakeSpans())])
    tap = watch.tap("s1", model="tiny")
    assert tap is not None
    del tap
    gc.collect()
    assert spans.ends == ["no_session"]
    assert not tracing._traces


@pytest.mark.usefixtures("returning")
def test_a_session_that_goes_on_at_the_second_try_keeps_its_trace() -> None:
    watch = SessionWatch([tracing := Tracing(spans := FakeSpans())])
    first = watch.tap("s1", model="tiny")
    second = watch.tap("s1", model="tiny")
    assert first is not None
    assert second is not None
    del first
    gc.collect()
    assert spans.ends == ["no_session"]
    assert "s1" in tracing._traces
