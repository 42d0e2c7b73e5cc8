"""Several tracks of one peer connection (aiortc on loopback): each its own channel, none the end of another."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from mediaserver.audio.clock import SAMPLE_RATE
from mediaserver.errors import ConfigError
from mediaserver.session import Sink
from mediaserver.session_config import MAX_CHANNELS, SessionConfig
from tests.integration.peer_call import EARLY_S, TONE_HZ, Call, RecordingSession, Tone
from tests.waiting import until

pytestmark = [pytest.mark.usefixtures("no_leaked_tasks"), pytest.mark.timeout(60)]


class Party(Call):
    """A call with several people in it; each whistles at a pitch of their own."""

    def __init__(self, count: int, *, config: SessionConfig | None = None, **settings: Any) -> None:
        self.sessions: list[RecordingSession] = []
        self.config = config or SessionConfig()
        super().__init__(**settings)
        self.tones = [self.tone, *(Tone() for _ in range(count - 1))]

    def _make_session(self, sink: Sink) -> RecordingSession:
        session = super()._make_session(sink)
        session.config = self.config
        self.sessions.append(session)
        return session

    def add_tones(self) -> None:
        for tone in self.tones:
            self.client.addTransceiver(tone, direction="sendonly")


@asynccontextmanager
async def party(count: int, **options: Any) -> AsyncIterator[Party]:
    made = Party(count, **options)
    made.add_tones()
    try:
        yield made
    finally:
        await made.hang_up()


def without_sources(sdp: str) -> str:
    """As gateways offer that announce no sources: only the tag in the packets tells them apart."""
    return re.sub(r"a=(?:ssrc|msid)[:-].*\r\n", "", sdp)


def level(session: RecordingSession, last_s: float) -> float:
    return float(np.abs(session.heard[-int(last_s * SAMPLE_RATE) :]).mean())


async def test_each_track_is_heard_in_its_channel_and_a_silent_one_ends_nothing() -> None:
    async with party(2, media_pause_warning_s=1.3, media_pause_timeout_s=1.8) as it:
        it.open()
        it.tones[1].playing.clear()
        await it.dial()
        await until(lambda: it.sessions[0].stream_time_s > 1.5)
        assert level(it.sessions[0], 0.5) > 0.1
        # The second has not begun: it is silent, on the first one's clock.
        assert 0.4 < it.sessions[1].stream_time_s <= it.sessions[0].stream_time_s + 0.1
        assert level(it.sessions[1], 0.4) == 0.0
        it.tones[1]._start_s = asyncio.get_running_loop().time()  # in real time, not what it would have said by now
        it.tones[1].playing.set()
        await until(lambda: level(it.sessions[1], 0.2) > 0.1)
        assert it.sessions[1].stream_time_s == pytest.approx(it.sessions[0].stream_time_s, abs=0.4)
        # The first stops: what it said becomes final, the call goes on.
        it.tones[0].playing.clear()
        await until(lambda: it.sessions[0].finalized == 1)
        assert it.sessions[1].finalized == 0
        await asyncio.sleep(1.0)
        assert it.ended == []
        assert "warning" not in it.types()
        tracks: Any = it.peer.describe()["tracks"]
        assert [track["codec"] for track in tracks] == ["opus", "opus"]
        assert all(track["packets"]["received"] > 20 for track in tracks)
        # Now all are silent.
        it.tones[1].playing.clear()
        await until(lambda: it.ended == ["timeout"], EARLY_S)
        assert it.types().count("warning") == 1


@pytest.mark.parametrize("change", [lambda sdp: sdp, without_sources])
async def test_what_is_sent_on_a_track_is_heard_on_no_other(change: Any) -> None:
    async with party(2) as it:
        it.tones[1].playing.clear()
        await it.dial(change)
        await until(lambda: it.sessions[0].stream_time_s > 1.2)
        spectrum = np.abs(np.fft.rfft(it.sessions[0].heard[-SAMPLE_RATE:]))
        assert abs(int(spectrum.argmax()) - TONE_HZ) < 5
        assert not it.sessions[1].heard.any()


async def test_more_tracks_than_channels_are_inactive_in_the_answer_and_told() -> None:
    async with party(MAX_CHANNELS + 1) as it:
        it.open()
        answer = await it.dial()
        directions = re.findall(r"a=(recvonly|inactive)", answer)
        assert directions == ["recvonly"] * MAX_CHANNELS + ["inactive"]
        await until(lambda: "warning" in it.types())
        warning = next(event for event in it.events if event["type"] == "warning")
        assert warning["error"]["code"] == "TRACKS_REFUSED"
        await until(lambda: all(session.stream_time_s > 0.2 for session in it.sessions))
        assert len(it.sessions) == MAX_CHANNELS


async def test_labels_for_tracks_that_are_not_offered_are_refused() -> None:
    made = Party(2, config=SessionConfig(channel_labels=["a", "b", "c"]))
    made.add_tones()
    with pytest.raises(ConfigError) as caught:
        await made.dial()
    assert caught.value.code == "INVALID_CONFIG"
    assert "`channel_labels`" in caught.value.message
    assert made.peer.describe()["state"] == "closed"
    await made.hang_up()


async def test_the_goodbye_of_the_client_ends_all_channels_in_order() -> None:
    async with party(2) as it:
        it.open()
        await it.dial()
        await until(lambda: all(session.stream_time_s > 0.3 for session in it.sessions))
        await it.client.close()
        await until(lambda: it.ended == ["client"])
        assert [session.closed_with for session in it.sessions] == ["client", "client"]
        assert all(session.finalized >= 1 for session in it.sessions)
