"""Every way that a peer ends, against a real WebRTC client (aiortc) on loopback; and that nothing is left."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import psutil
import pytest
from aiortc import (
    InvalidStateError,
    RTCPeerConnection,
)

from mediaserver.errors import MediaError
from mediaserver.ingest.ice import close_peer_connection, connections_of, transports_of
from mediaserver.ingest.peer import Peer
from tests.integration.peer_call import EARLY_S, Call, call
from tests.waiting import until

pytestmark = [pytest.mark.usefixtures("no_leaked_tasks"), pytest.mark.timeout(60)]


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
