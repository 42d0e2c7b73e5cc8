"""A peer against a real WebRTC client (aiortc) on loopback: what it hears, how it tells, and every way it ends."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import av
import numpy as np
import psutil
import pytest
from aiortc import (
    InvalidStateError,
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)

from mediaserver.audio.clock import SAMPLE_RATE
from mediaserver.errors import MediaError, VoiceForgeError
from mediaserver.events import Closed, Event, Failed, Final, Metadata, Pong, Ready, Warned
from mediaserver.ingest.ice import close_peer_connection, connections_of, transports_of
from mediaserver.ingest.peer import Peer
from mediaserver.metrics import Metrics
from mediaserver.session import Sink
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from tests.waiting import until

pytestmark = [pytest.mark.usefixtures("no_leaked_tasks"), pytest.mark.timeout(60)]

TONE_HZ = 440

EARLY_S = 12.0
"""Sooner than any limit that a test has not set (15 s and more), and later than a busy machine keeps one."""


class RecordingSession:
    """Keeps what it hears and speaks the events of a session whose speech is one final."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.config = SessionConfig()
        self.samples: list[np.ndarray[Any, Any]] = []
        self.concealed = 0
        self.finalized = 0
        self.closed_with: str | None = None
        self.seq = 0
        self.on_close_stream: Callable[[], None] | None = None

    @property
    def heard(self) -> np.ndarray[Any, Any]:
        return np.concatenate(self.samples) if self.samples else np.zeros(0, np.float32)

    @property
    def stream_time_s(self) -> float:
        return sum(map(len, self.samples)) / SAMPLE_RATE

    @property
    def concealed_s(self) -> float:
        return self.concealed / SAMPLE_RATE

    def emit(self, event: Event) -> None:
        self.sink.send(event, self.seq)
        self.seq += 1

    def start(self) -> None:
        self.emit(Ready(config={}, model="recorder"))

    def push(self, samples: np.ndarray[Any, Any], *, concealed: int = 0) -> None:
        assert samples.dtype == np.float32
        assert self.closed_with is None
        self.samples.append(samples)
        self.concealed += concealed

    def configure(self, changes: object) -> None: ...

    def finalize(self) -> None:
        self.finalized += 1

    def keep_alive(self) -> None:
        self.emit(Pong(timestamp=self.stream_time_s))

    def warn(self, error: VoiceForgeError) -> None:
        self.emit(Warned(error=error.as_dict()))

    def fail(self, error: VoiceForgeError) -> None:
        self.emit(Failed(error=error.as_dict()))

    async def close(self, reason: str, *, deadline_s: float) -> None:
        self.closed_with = reason
        await asyncio.sleep(0.05)  # a last decode
        words = "x" * 3000  # more than one SCTP packet
        self.emit(Final(1, words, 1.0, 0.0, 1.0, 1.0, "en", 1.0, []))
        self.emit(Metadata(self.stream_time_s, 0.0, 1, 0.0, "recorder"))
        self.emit(Closed(reason=reason))


class Tone(MediaStreamTrack):
    """A sine in packets of 20 ms, in real time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.position = 0
        self.playing = asyncio.Event()
        self.playing.set()
        self._start_s: float | None = None

    async def recv(self) -> av.AudioFrame:
        loop = asyncio.get_running_loop()
        if self._start_s is None:
            self._start_s = loop.time()
        await self.playing.wait()
        await asyncio.sleep(max(0.0, self._start_s + self.position / 48_000 - loop.time()))
        at = (self.position + np.arange(960)) / 48_000
        frame = av.AudioFrame.from_ndarray(
            (np.sin(2 * np.pi * TONE_HZ * at) * 12_000).astype(np.int16)[None, :], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = 48_000, self.position, Fraction(1, 48_000)
        self.position += 960
        return frame


class Call:
    """A client and the peer that serves it."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.metrics = Metrics()
        self.session: RecordingSession | None = None
        self.ended: list[str] = []
        self.client = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.tone = Tone()
        self.events: list[dict[str, Any]] = []
        self.channels: list[RTCDataChannel] = []
        self.client.on("datachannel", self.listen)
        self.peer = Peer(
            session_id="s1",
            settings=self.settings,
            metrics=self.metrics,
            make_session=self._make_session,  # type: ignore[arg-type]
        )
        self.peer.on_ended = self.ended.append

    def _make_session(self, sink: Sink) -> RecordingSession:
        self.session = RecordingSession(sink)
        return self.session

    def listen(self, channel: RTCDataChannel) -> RTCDataChannel:
        self.channels.append(channel)
        channel.on("message", lambda text: self.events.append(json.loads(text)))
        return channel

    def open(self, label: str = "transcripts", **options: Any) -> RTCDataChannel:
        return self.listen(self.client.createDataChannel(label, **options))

    def add_tone(self, codec: str | None = None) -> None:
        transceiver = self.client.addTransceiver(self.tone, direction="sendonly")
        if codec is not None:
            known = RTCRtpSender.getCapabilities("audio").codecs
            transceiver.setCodecPreferences([item for item in known if item.mimeType.lower() == f"audio/{codec}"])

    async def dial(self, change: Callable[[str], str] = lambda sdp: sdp) -> str:
        await self.client.setLocalDescription(await self.client.createOffer())
        answer = await self.peer.accept(change(self.client.localDescription.sdp))
        await self.client.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        return answer

    async def hang_up(self) -> None:
        await close_peer_connection(self.client)
        await self.peer.close("client", deadline_s=1.0)

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


@asynccontextmanager
async def call(**settings: Any) -> AsyncIterator[Call]:
    made = Call(**settings)
    try:
        yield made
    finally:
        await made.hang_up()


def without_candidates(sdp: str) -> str:
    return "".join(
        line for line in sdp.splitlines(keepends=True) if not line.startswith(("a=candidate", "a=end-of-candidates"))
    )


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


async def test_the_servers_close_brings_the_last_events_to_the_client() -> None:
    async with call() as it:
        it.add_tone()
        it.open()
        await it.dial()
        await until(lambda: "ready" in it.types())
        await asyncio.gather(it.peer.close("shutdown"), it.peer.close("error"))
        await until(lambda: "closed" in it.types())
        assert it.types()[-3:] == ["final", "metadata", "closed"]
        assert it.events[-1]["reason"] == "shutdown"
        await until(lambda: it.client.connectionState == "closed")
    assert it.ended == ["shutdown"]


async def test_the_last_events_arrive_even_where_packets_are_lost() -> None:
    """Closing right after sending would lose what is on its way: SCTP has to be let repeat it."""
    async with call() as it:
        it.add_tone()
        it.open()
        await it.dial()
        await until(lambda: "ready" in it.types())
        await asyncio.sleep(0.2)
        assert it.peer._link is not None
        assert it.peer._link._pc is not None
        transport = it.peer._link._pc.getTransceivers()[0].receiver.transport.transport
        send, lossy_until_s = transport._send, asyncio.get_running_loop().time() + 0.5

        async def lossy(data: bytes) -> None:
            if asyncio.get_running_loop().time() > lossy_until_s:
                await send(data)

        transport._send = lossy
        await it.peer.close("shutdown")
        await until(lambda: "closed" in it.types())
        assert it.types()[-3:] == ["final", "metadata", "closed"]


async def test_what_the_jitter_buffer_holds_is_heard_before_the_session_closes() -> None:
    async with call() as it:
        it.add_tone()
        it.open()
        await it.dial()
        assert it.peer._link is not None
        assert it.peer._link._tracks is not None
        receiver = it.peer._link._tracks._receivers[0]
        take, seen = receiver._take, []

        def watch(packet: Any) -> None:
            seen.append(packet)
            take(packet)

        receiver._take = watch  # type: ignore[method-assign]
        await until(lambda: len(seen) > 20)
        it.tone.playing.clear()
        await asyncio.sleep(0.3)
        last = seen[-1]
        after_a_gap = last._replace(
            sequence_number=(last.sequence_number + 2) % 2**16, timestamp=(last.timestamp + 1920) % 2**32
        )
        assert it.session is not None
        before_s = it.session.stream_time_s
        take(after_a_gap)
        assert it.session.stream_time_s == before_s
        await it.peer.close("shutdown")
        assert it.session.stream_time_s == pytest.approx(before_s + 0.04, abs=0.001)


async def test_an_answer_that_nobody_waits_for_any_more_leaves_nothing(no_leaked_threads: None) -> None:
    made = Call()
    made.add_tone()
    await made.client.setLocalDescription(await made.client.createOffer())
    accepting = asyncio.create_task(made.peer.accept(made.client.localDescription.sdp))
    await asyncio.sleep(0)
    accepting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await accepting
    assert made.peer.describe()["state"] == "closed"
    assert made.session is None
    await made.hang_up()


@pytest.mark.parametrize("steps", range(8))
async def test_a_peer_that_is_closed_while_it_answers_leaves_nothing(steps: int, no_leaked_threads: None) -> None:
    made = Call()
    made.add_tone()
    await made.client.setLocalDescription(await made.client.createOffer())
    accepting = asyncio.create_task(made.peer.accept(made.client.localDescription.sdp))
    for _ in range(steps):
        await asyncio.sleep(0)
    await made.peer.close("shutdown", deadline_s=1.0)
    outcome = (await asyncio.gather(accepting, return_exceptions=True))[0]
    assert isinstance(outcome, str | MediaError | RuntimeError | InvalidStateError)
    assert made.peer.describe()["state"] == "closed"
    await made.hang_up()


async def test_close_stream_ends_the_session_in_order() -> None:
    async with call() as it:
        it.add_tone()
        channel = it.open()
        await it.dial()
        await until(lambda: "ready" in it.types())
        channel.send('{"type":"close_stream"}')
        await until(lambda: "closed" in it.types())
        assert it.events[-1]["reason"] == "client"
        await until(lambda: it.ended == ["client"])


async def test_a_client_that_closes_ends_the_session() -> None:
    async with call() as it:
        it.add_tone()
        it.open()
        await it.dial()
        await until(lambda: "ready" in it.types())
        await it.client.close()
        await until(lambda: it.ended == ["client"])
        assert it.session is not None
        assert it.session.closed_with == "client"
        assert it.session.finalized >= 1


async def test_a_closed_channel_ends_the_session() -> None:
    async with call() as it:
        it.add_tone()
        channel = it.open()
        await it.dial()
        await until(lambda: "ready" in it.types())
        channel.close()
        await until(lambda: it.ended == ["client"])


async def test_a_client_that_never_connects_is_given_up() -> None:
    async with call(connect_timeout_s=0.3) as it:
        it.add_tone()
        it.open()
        await it.client.setLocalDescription(await it.client.createOffer())
        await it.peer.accept(it.client.localDescription.sdp)
        await until(lambda: it.ended == ["timeout"], EARLY_S)


async def test_a_client_that_sends_nothing_is_told_and_given_up() -> None:
    async with call(first_media_timeout_s=1.5) as it:
        it.tone.playing.clear()
        it.add_tone()
        it.open()
        await it.dial()
        await until(lambda: it.ended == ["no_media"], EARLY_S)
        assert [event["error"]["code"] for event in it.events if event["type"] == "error"] == ["NO_MEDIA"]
        assert it.events[-1]["reason"] == "no_media"


async def test_a_pause_is_told_once_and_ends_the_session_when_it_is_long() -> None:
    async with call(media_pause_warning_s=1.0, media_pause_timeout_s=2.5) as it:
        it.add_tone()
        it.open()
        await it.dial()
        await until(lambda: it.session is not None and it.session.stream_time_s > 0.3)
        it.tone.playing.clear()
        await until(lambda: it.ended == ["timeout"], EARLY_S)
        assert it.types().count("warning") == 1
        assert it.events[-1]["reason"] == "timeout"


async def test_a_session_has_a_longest_time() -> None:
    async with call(session_max_s=2.0) as it:
        it.add_tone()
        it.open()
        await it.dial()
        await until(lambda: it.ended == ["session_max"], EARLY_S)
        assert it.events[-1]["reason"] == "session_max"


async def test_a_client_that_vanishes_is_noticed() -> None:
    """A killed process says no goodbye: its sockets are simply gone."""
    async with call(ping_timeout_s=1.0) as it:
        it.add_tone()
        it.open()
        await it.dial()
        await until(lambda: "ready" in it.types())
        ice = it.client.getSenders()[0].transport.transport
        for protocol in ice._connection._protocols:
            protocol.transport.abort()
        await until(lambda: it.ended == ["peer_lost"], EARLY_S)
        assert it.session is not None
        assert it.session.closed_with == "peer_lost"


async def test_a_message_that_is_too_large_is_refused_and_a_broken_one_told() -> None:
    async with call() as it:
        it.add_tone()
        channel = it.open()
        answer = await it.dial(lambda sdp: sdp)
        assert "a=max-message-size:65536" in answer
        await until(lambda: "ready" in it.types())
        channel.transport._remote_max_message_size = 0
        channel.send("x" * 70_000)
        await until(lambda: "error" in it.types())
        channel.send("{")
        await until(lambda: it.types().count("error") == 2)
        codes = [event["error"]["code"] for event in it.events if event["type"] == "error"]
        assert codes == ["MESSAGE_TOO_LARGE", "MALFORMED_MESSAGE"]


async def test_speech_that_stops_being_sent_gets_its_final() -> None:
    async with call() as it:
        it.add_tone()
        await it.dial()
        await until(lambda: it.session is not None and len(it.session.samples) > 10)
        assert it.session.finalized == 0
        it.tone.playing.clear()
        await until(lambda: it.session.finalized == 1)
        it.tone.playing.set()
        heard_s = it.session.stream_time_s
        await until(lambda: it.session.stream_time_s > heard_s + 0.3)
        it.tone.playing.clear()
        await until(lambda: it.session.finalized == 2, EARLY_S)  # at once again, though a pause lasts longer


# --- and nothing is left


async def test_thirty_peers_leave_nothing_behind() -> None:
    async def one(number: int) -> None:
        async with call(connect_timeout_s=5.0) as it:
            it.add_tone()
            if number % 2:
                it.open()
            await it.dial()
            if number % 3:  # the others are closed half-open
                await until(lambda: it.session is not None and it.session.stream_time_s > 0.1, 20.0)
            if number % 5 == 0:
                await it.client.close()
            else:
                await it.peer.close("shutdown")
            await until(lambda: len(it.ended) == 1)

    await one(1)  # whatever the process starts once (the client's encoder threads) is there now
    process = psutil.Process()
    sockets = len(process.net_connections(kind="inet"))
    tasks = len(asyncio.all_tasks())
    for start in range(0, 30, 10):
        await asyncio.gather(*(one(number) for number in range(start, start + 10)))
    await until(lambda: len(asyncio.all_tasks()) == tasks, EARLY_S)
    gc.collect()
    # Fewer are no leak: sockets of tests before this one may end meanwhile.
    await until(lambda: len(process.net_connections(kind="inet")) <= sockets, EARLY_S)
    ours = [thread.name for thread in threading.enumerate() if "decoder" in thread.name or "voiceforge" in thread.name]
    assert ours == []


@pytest.mark.parametrize("connects", [True, False], ids=["a call", "half open"])
async def test_a_peer_that_has_ended_is_freed_without_a_search(connects: bool) -> None:
    """A circle of objects is freed only by a search through all of them, which stops the event loop."""
    gc.collect()
    gc.disable()
    try:
        parts = await parts_of_an_ended_peer(connects=connects)
        assert len(parts) >= 7
        await until(lambda: all(part() is None for part in parts), EARLY_S)  # tasks that were cancelled end first
    finally:
        gc.enable()


async def parts_of_an_ended_peer(*, connects: bool) -> list[weakref.ref[object]]:
    it = Call()
    it.add_tone()
    it.open()
    if connects:
        await it.dial()
        await until(lambda: "ready" in it.types() and it.session is not None and it.session.stream_time_s > 0.2)
    else:
        await it.client.setLocalDescription(await it.client.createOffer())
        offer = it.client.localDescription.sdp
        await close_peer_connection(it.client)  # who is there answers checks, within less time than it takes to look
        await it.peer.accept(offer)
        (connection,) = connections_of(pc_of(it.peer))
        await until(lambda: any(pair.task is not None for pair in connection._check_list))
    await it.hang_up()
    pc = pc_of(it.peer)
    transports = transports_of(pc)
    parts = [it.peer, pc, pc.sctp, *connections_of(pc), *transports, *pc.getReceivers()]
    parts += [transport.transport for transport in transports]
    del it.peer  # which knows this call, for it made its session
    return [weakref.ref(part) for part in parts]


def pc_of(peer: Peer) -> RTCPeerConnection:
    assert peer._link is not None
    assert peer._link._pc is not None
    return peer._link._pc
