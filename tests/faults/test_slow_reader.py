"""A client whose data channel takes next to nothing: it is spared interims, and gets every final."""

from __future__ import annotations

import json
import time

from tests.conftest import Speech
from tests.faults.calls import peer
from tests.faults.node import MIB, Node, unharmed
from tests.faults.pulse import Pulse
from tests.faults.udp_proxy import Kind, Network, Way
from tests.scoring import word_errors

NARROW = Network(to_client_bytes_s=800, to_client_queue_bytes=2500)
"""Events of this speech come at 3 kB/s and more, so most of them are too many."""

METADATA = {f"field {number}": "x" * 256 for number in range(16)}
"""As much as there may be, given back with every event: without it a busy machine makes so few interims that all
of them fit into what may wait."""

FASTER_BYTES_S = 20_000
"""Once all has been said: how long the last events take is not of interest below that."""

CAUGHT_UP_S = 30.0
"""16 KiB are waiting at most, beside finals; SCTP sends again after 1, 2, 4 … s what was lost before the link."""


async def test_a_slow_reader_loses_interims_and_no_final(node: Node, pulse: Pulse, longest: Speech) -> None:
    query = {"metadata": json.dumps(METADATA)}
    async with (
        unharmed(node, pulse, memory_bytes=24 * MIB),
        peer(node.url, longest, network=NARROW, query=query) as (client, proxy),
    ):
        counted = (await node.metrics()).total("events_dropped_total")
        await client.said()
        began_s = time.monotonic()
        proxy.network = Network(to_client_bytes_s=FASTER_BYTES_S)
        await client.told.until("final", limit_s=CAUGHT_UP_S)
        await client.hang_up()
        assert time.monotonic() - began_s < CAUGHT_UP_S
        dropped = (await node.metrics()).total("events_dropped_total") - counted
    told = client.told
    assert proxy.fates[Way.TO_CLIENT, Kind.DTLS, "overflowed"] > 0
    assert dropped > 0
    sequence = [event["seq"] for event in told.events]
    assert sequence == sorted(set(sequence))
    assert len(sequence) == sequence[-1] + 1 - dropped  # what is missing was an interim
    assert [event["type"] for event in told.events][-2:] == ["metadata", "closed"]
    assert word_errors(longest.text, told.text) <= 0.2, told.text
