"""Bytes to the sessions of a connection: back-pressure, and every way that it may end."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from mediaserver.audio.clock import Samples
from mediaserver.errors import ConfigError, VoiceForgeError
from mediaserver.ingest.bytestream import AudioFormat, Encoding
from mediaserver.ingest.feed import AHEAD_S, Feed
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings

LINEAR = AudioFormat(Encoding.LINEAR16, 16_000)
SECOND = np.zeros(16_000, "<i2").tobytes()


class FakeChannels:
    """Channels that keep a diary and are as far behind as they are told to be."""

    count = 1

    def __init__(self) -> None:
        self.samples = 0
        self.unjudged_s = self.backlog_s = self.stream_time_s = 0.0
        self.undecoded_utterances = 0
        self.warnings: list[str] = []
        self.closed: list[str] = []

    def push(self, samples: Samples) -> None:
        self.samples += samples.shape[1]

    def warn(self, error: VoiceForgeError) -> None:
        self.warnings.append(error.code)

    async def close(self, reason: str, *, deadline_s: float) -> None:
        self.closed.append(reason)


def made(channels: FakeChannels, *, idle_timeout_s: float | None = None, **settings: Any) -> Feed:
    return Feed(
        session_id="s1",
        audio_format=LINEAR,
        open_channels=lambda: channels,  # type: ignore[arg-type, return-value]
        settings=Settings(**settings),
        metrics=Metrics(),
        idle_timeout_s=idle_timeout_s,
    )


async def test_all_that_was_given_is_heard_before_the_end() -> None:
    channels = FakeChannels()
    feed = made(channels)
    ended: list[str] = []
    feed.on_ended = ended.append
    await feed.push(SECOND)
    await feed.push(SECOND[:1001])  # half a sample waits for its other half
    await feed.finish()
    assert channels.samples == pytest.approx(16_500, abs=1)
    assert (channels.closed, ended, feed.reason) == (["client"], ["client"], "client")
    assert feed.ended.is_set()
    await feed.push(SECOND)
    assert channels.samples == pytest.approx(16_500, abs=1)


@pytest.mark.parametrize("bound", ["unjudged_s", "backlog_s", "undecoded_utterances"])
async def test_a_source_that_is_too_fast_is_held_back_and_told_once(bound: str) -> None:
    channels = FakeChannels()
    feed = made(channels)
    setattr(channels, bound, AHEAD_S + 1)
    pushing = asyncio.create_task(feed.push(SECOND))
    await asyncio.sleep(0.1)
    assert channels.samples == 0
    assert channels.warnings == ([] if bound == "unjudged_s" else ["AUDIO_AHEAD"])
    setattr(channels, bound, 0)
    await pushing
    assert channels.samples == 16_000
    await feed.close("client")


async def test_being_held_back_is_no_idleness() -> None:
    channels = FakeChannels()
    feed = made(channels, idle_timeout_s=0.05)
    channels.backlog_s = AHEAD_S + 1
    pushing = asyncio.create_task(feed.push(SECOND))
    await asyncio.sleep(0.15)
    assert feed.is_open
    channels.backlog_s = 0.0
    await pushing
    assert channels.samples == 16_000
    await asyncio.wait_for(feed.ended.wait(), 2.0)
    assert feed.reason == "timeout"  # only what the client does from then on counts


async def test_a_source_that_is_held_back_is_let_go_when_the_feed_ends() -> None:
    channels = FakeChannels()
    feed = made(channels)
    channels.backlog_s = AHEAD_S + 1
    pushing = asyncio.create_task(feed.push(SECOND))
    await asyncio.sleep(0)
    await feed.close("shutdown")
    await asyncio.wait_for(pushing, 1.0)
    assert channels.samples == 0


@pytest.mark.parametrize(
    ("idle_timeout_s", "session_max_s", "reason"), [(0.05, 100.0, "timeout"), (None, 0.05, "session_max")]
)
async def test_deadlines_end_it(idle_timeout_s: float | None, session_max_s: float, reason: str) -> None:
    channels = FakeChannels()
    feed = made(channels, idle_timeout_s=idle_timeout_s, session_max_s=session_max_s)
    await asyncio.wait_for(feed.ended.wait(), 2.0)
    assert (feed.reason, channels.closed) == (reason, [reason])


async def test_a_format_that_cannot_be_leaves_nothing_behind() -> None:
    with pytest.raises(ConfigError):
        Feed(
            session_id="s1",
            audio_format=AudioFormat(Encoding.LINEAR16, None),
            open_channels=FakeChannels,  # type: ignore[arg-type]
            settings=Settings(),
            metrics=Metrics(),
        )
