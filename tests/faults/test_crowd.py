"""Many at once: offers that are answered and never connect, and a stop while everybody speaks."""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.ingest.ice import close_peer_connection, new_peer_connection
from tests.conftest import Speech
from tests.faults.calls import Peer, Told, call, peer, socket, talk
from tests.faults.conftest import warm_up
from tests.faults.node import CALM_S, MIB, POLL_S, STOP_S, Node, served, unharmed
from tests.faults.pulse import Pulse
from tests.scoring import word_errors

FILES_EACH = 3
"""A half-open peer has a socket on each of loopback's two addresses, and for a moment its HTTP connection."""

OFFERS = min(1000, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200) // FILES_EACH)

AT_ONCE = 25

CONNECT_TIMEOUT_S = 8.0
RESUME_WINDOW_S = 2.0

HALF_OPEN_MEMORY_BYTES = 192 * MIB
"""What is left of a thousand peers that are gone (105 MiB): small blocks between those of others, which the next
thousand use again. With a leak of a ring or a connection each it were 700."""

SEARCH_S = 0.25
"""No search for garbage takes longer, while a thousand peers are there (5 ms) and when they are gone (27 ms). When all
of their 500,000 objects were searched it took 0.56 s, and 0.9 s to find that they had gone."""

SPEAKERS = 3
"""Of each kind, when the server is told to stop."""

HEARD_S = 3.0
"""How much they have said by then."""

DEADLINE_S = 10.0


@pytest.fixture(scope="module")
def crowded(
    tmp_path_factory: pytest.TempPathFactory, model_files: ModelFiles, vad_model_path: Path, longest: Speech
) -> Iterator[Node]:
    """A server with room for a thousand sessions."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the server inherits it
    with served(
        tmp_path_factory.mktemp("crowded"),
        max_sessions=OFFERS + 20,
        connect_timeout_s=CONNECT_TIMEOUT_S,
        shutdown_deadline_s=DEADLINE_S,
        resume_window_s=RESUME_WINDOW_S,
    ) as running:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        warm_up(running, longest)
        yield running


async def an_offer() -> str:
    """As a browser makes it."""
    pc = new_peer_connection()
    pc.addTransceiver("audio", direction="sendonly")
    pc.createDataChannel("transcripts")
    await pc.setLocalDescription(await pc.createOffer())
    sdp: str = pc.localDescription.sdp
    await close_peer_connection(pc)
    return sdp


async def offer_many(node: Node) -> Counter[int]:
    """A thousand offers that nothing follows; how they were answered."""
    answers: Counter[int] = Counter()
    sdp = (await an_offer()).encode()
    left = iter(range(OFFERS))

    async def some(http: aiohttp.ClientSession) -> None:
        for _ in left:
            async with http.post(f"{node.url}/whip", data=sdp, headers={"Content-Type": "application/sdp"}) as response:
                answers[response.status] += 1
                if response.status != 201:
                    assert response.status == 503, await response.text()
                    assert int(response.headers["Retry-After"]) > 0

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as http:
        await asyncio.gather(*(some(http) for _ in range(AT_ONCE)))
    return answers


async def call_until_taken(node: Node, speech: Speech) -> Told:
    """A call by somebody who comes again when told to."""
    while True:
        client = Peer(node.url, speech)
        try:
            status, body = await client.offer()
            if status == 201:
                await client.said()
                await client.hang_up()
                return client.told
            assert status == 503, body
            assert client.retry_after_s > 0
        finally:
            await client.close()
        await asyncio.sleep(client.retry_after_s)


async def assert_searches_were_short(node: Node, pulse: Pulse, *, since_s: float) -> None:
    """Those of the young while they came, and the one of all there is once they had gone."""
    async with asyncio.timeout(CALM_S):
        while not (metrics := await node.metrics()).total("gc_pause_seconds_count", generation="2"):
            await asyncio.sleep(POLL_S)
    limit_s = SEARCH_S + pulse.latest_s(since_s=since_s)
    for generation in ("1", "2"):
        assert metrics.slower("gc_pause_seconds", limit_s, generation=generation) == 0, limit_s


async def test_a_thousand_half_open_offers_leave_nothing_and_others_are_served(
    crowded: Node, pulse: Pulse, speech: Speech
) -> None:
    began_s = time.monotonic()
    async with unharmed(
        crowded,
        pulse,
        memory_bytes=HALF_OPEN_MEMORY_BYTES,
        calm_s=CONNECT_TIMEOUT_S + 10,
    ):
        talking = asyncio.create_task(talk(crowded.url, speech, pace=1.0))
        offering = asyncio.create_task(offer_many(crowded))
        calling = asyncio.create_task(call_until_taken(crowded, speech))
        answers = await offering
        for told in (await talking, await calling):
            told.assert_whole()
            assert word_errors(speech.text, told.text) <= 0.2, told.text
        assert answers[201] > 0, answers
        assert answers.total() == OFFERS
    await assert_searches_were_short(crowded, pulse, since_s=began_s)
    assert word_errors(speech.text, (await call(crowded.url, speech))[0].told.text) <= 0.2


async def test_sigterm_while_everybody_speaks_tells_every_final_and_keeps_its_deadline(
    crowded: Node, longest: Speech
) -> None:
    """The last test of this server."""
    crowded.new_errors()
    said = " ".join(longest.text.split()[: int(len(longest.text.split()) * HEARD_S / longest.duration_s)])

    async def speak_over_webrtc() -> Told:
        async with peer(crowded.url, longest) as (client, _):
            await client.told.until("closed", limit_s=HEARD_S + STOP_S)
            return client.told

    async def speak_over_websocket() -> Told:
        async with socket(crowded.url) as client:
            speaking = asyncio.create_task(client.speak(longest))
            await client.gone(limit_s=HEARD_S + STOP_S)
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
            assert client.ws.close_code == 1001  # going away
            return client.told

    calls = [
        asyncio.create_task(speak()) for speak in (speak_over_webrtc, speak_over_websocket) for _ in range(SPEAKERS)
    ]
    await crowded.until(sessions=2 * SPEAKERS)
    await asyncio.sleep(HEARD_S)
    began_s = time.monotonic()
    crowded.popen.send_signal(signal.SIGTERM)
    everybody = await asyncio.gather(*calls)
    assert await asyncio.to_thread(crowded.popen.wait, STOP_S) == 0
    assert time.monotonic() - began_s < DEADLINE_S + 2.0
    for told in everybody:
        told.assert_whole()
        assert told.of("closed")[0]["reason"] == "shutdown"
        heard = told.text.split()
        assert len(heard) >= len(said.split()) // 2, told.text
        assert word_errors(" ".join(longest.text.split()[: len(heard)]), told.text) <= 0.3, told.text
    assert not (errors := crowded.new_errors()), "\n".join(errors)
