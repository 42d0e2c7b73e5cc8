"""A peer against a real WebRTC client (aiortc) on loopback: what it hears, how it tells, what it refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from mediaserver.audio.clock import SAMPLE_RATE
from mediaserver.errors import MediaError
from mediaserver.session import Sink
from tests.integration.peer_call import TONE_HZ, Call, call, without_candidates
from tests.waiting import until

pytestmark = [pytest.mark.usefixtures("no_leaked_tasks"), pytest.mark.timeout(60)]


@pytest.mark.parametrize("codec", ["opus", "pcmu", "pcma", "g722"])
async def test_what_is_sent_is_heard(codec: str) -> None:
    async with call() as it:
        it.add_tone(codec)
        await it.dial()
        await until(lambda: it.session is not None and it.session.stream_time_s >= 1.0)
        assert it.session is not None
        heard = it.session.heard[SAMPLE_RATE // 4 : SAMPLE_RATE]
        spectrum = np.abs(np.fft.rfft(heard))
        loudest_hz = np.fft.rfftfreq(len(heard), 1 / SAMPLE_RATE)[spectrum.argmax()]
        assert abs(loudest_hz - TONE_HZ) < 5
        description = it.peer.describe()
        assert description["state"] == "connected"
        assert description["codec"] == codec
        assert description["packets"]["received"] >= 40  # type: ignore[index]
    assert it.ended == ["client"]


async def test_events_come_over_the_channel_that_the_client_opens() -> None:
    async with call() as it:
        it.add_tone()
        channel = it.open()
        await it.dial()
        await until(lambda: "ready" in it.types())
        channel.send('{"type":"keep_alive"}')
        await until(lambda: "pong" in it.types())
        await asyncio.sleep(0.7)
        assert it.channels == [channel]


async def test_the_server_opens_the_channel_where_the_client_does_not() -> None:
    async with call() as it:
        it.add_tone()
        it.client.createDataChannel("negotiated", negotiated=True, id=100)
        await it.dial()
        await until(lambda: "ready" in it.types())
        assert [channel.label for channel in it.channels] == ["transcripts"]
        it.channels[0].send('{"type":"keep_alive"}')
        await until(lambda: "pong" in it.types())


async def test_a_late_channel_of_the_client_takes_over_and_the_servers_is_closed() -> None:
    async with call() as it:
        it.add_tone()
        it.client.createDataChannel("negotiated", negotiated=True, id=100)
        await it.dial()
        await until(lambda: "ready" in it.types())
        own = it.open()
        await until(lambda: it.channels[0].readyState == "closed")
        own.send('{"type":"keep_alive"}')
        await until(lambda: "pong" in it.types())
        assert it.ended == []


@pytest.mark.parametrize(
    ("label", "options", "code"),
    [
        ("chat", {}, "UNKNOWN_CHANNEL"),
        ("transcripts", {"maxRetransmits": 0}, "UNRELIABLE_CHANNEL"),
        ("transcripts", {"ordered": False}, "UNRELIABLE_CHANNEL"),
    ],
)
async def test_another_channel_is_refused_with_its_reason(label: str, options: dict[str, Any], code: str) -> None:
    async with call() as it:
        it.add_tone()
        channel = it.open(label, **options)
        await it.dial()
        await until(lambda: channel.readyState == "closed")
        assert it.events[0]["error"]["code"] == code
        await until(lambda: "ready" in it.types())  # over the server's own channel
        assert it.ended == []


async def test_a_second_channel_is_refused() -> None:
    async with call() as it:
        it.add_tone()
        first = it.open()
        await it.dial()
        await until(lambda: "ready" in it.types())
        second = it.open()
        await until(lambda: second.readyState == "closed")
        assert it.events[-1]["error"]["code"] == "CHANNEL_IN_USE"
        assert first.readyState == "open"


async def test_a_peer_without_data_channels_is_served() -> None:
    async with call() as it:
        it.add_tone()
        answer = await it.dial()
        assert "m=application" not in answer
        await until(lambda: it.session is not None and it.session.stream_time_s > 0.2)


async def test_candidates_are_not_needed_for_the_client_to_be_found() -> None:
    async with call() as it:
        it.add_tone()
        await it.dial(without_candidates)
        await until(lambda: it.session is not None and it.session.stream_time_s > 0.2)


async def test_a_client_that_insists_on_being_the_dtls_server_is_served() -> None:
    async with call() as it:
        it.add_tone()
        answer = await it.dial(lambda sdp: without_candidates(sdp).replace("setup:actpass", "setup:passive"))
        assert "a=setup:active" in answer
        await until(lambda: it.session is not None and it.session.stream_time_s > 0.2)


async def test_trickled_candidates_are_taken_and_a_restart_is_refused() -> None:
    async with call() as it:
        it.add_tone()
        await it.dial(without_candidates)
        lines = it.client.localDescription.sdp.splitlines()
        fragment = [line for line in lines if line.startswith(("a=ice-ufrag", "a=ice-pwd", "a=candidate", "a=mid"))]
        await it.peer.add_candidates("\r\n".join(fragment))
        with pytest.raises(MediaError) as caught:
            await it.peer.add_candidates("a=ice-ufrag:other\r\n")
        assert caught.value.code == "ICE_RESTART_UNSUPPORTED"
        await until(lambda: it.session is not None and it.session.stream_time_s > 0.2)


async def test_a_refused_offer_makes_no_session() -> None:
    made = Call()
    with pytest.raises(MediaError):
        await made.peer.accept("v=0\r\n")
    assert made.session is None
    await made.hang_up()


async def test_when_the_session_is_refused_nothing_is_left(no_leaked_threads: None) -> None:
    def full(_: Sink) -> Any:
        raise MediaError("NODE_FULL", "No.", "Later.")

    made = Call()
    made.add_tone()
    made.peer._make_session = full
    with pytest.raises(MediaError, match="Later"):
        await made.dial()
    assert made.ended == []
    assert made.peer.describe()["state"] == "closed"
    await made.hang_up()
