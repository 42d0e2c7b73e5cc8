"""A bad network before a WebRTC client: what it loses is lost, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pytest

from tests.conftest import Speech
from tests.faults.calls import Peer, Told, call
from tests.faults.node import Node, unharmed
from tests.faults.pulse import Pulse
from tests.faults.udp_proxy import Kind, Network, UdpProxy, Way
from tests.scoring import word_errors

PACKET_MS = 20

SILENCE_FROM_PACKET = 125
SILENCE_FROM_S = SILENCE_FROM_PACKET * PACKET_MS / 1000
SILENCE_PACKETS = 100
SILENCE_S = SILENCE_PACKETS * PACKET_MS / 1000

EDGE_S = 0.5
"""A word whose part is lost may be heard as another one."""

NETWORKS: Mapping[str, Network] = {
    "lossless": Network(),
    "loss 1 %": Network(loss=0.01),
    "loss 3 %": Network(loss=0.03),
    "loss 5 %": Network(loss=0.05),
    "loss 10 %": Network(loss=0.10),
    "reordering": Network(reordered=0.10),
    "silence": Network(silence_from_packet=SILENCE_FROM_PACKET, silence_packets=SILENCE_PACKETS),
}

WORDS = {"loss 1 %": 0.05, "loss 3 %": 0.1, "loss 5 %": 0.15, "loss 10 %": 0.25, "reordering": 0.05}
"""Word error rate against the lossless call: one word of twenty is 0.05. aiortc sends no error correction."""

LATE_S = 3.0
"""Within this after the lossless call's all is told too: SCTP sends again after 1 s, and once more after 2 s."""


AT_ONCE = 4
"""Speakers that two cores decode in time; more of them would test the decoder, not the network."""


def batched(networks: Iterable[Network]) -> Iterator[list[Network]]:
    rest = list(networks)
    while rest:
        some, rest = rest[:AT_ONCE], rest[AT_ONCE:]
        yield some


@dataclass
class Outcome:
    peer: Peer
    proxy: UdpProxy

    @property
    def told(self) -> Told:
        return self.peer.told

    def audio(self, fate: str) -> int:
        """Packets of audio to the server by what became of them."""
        return self.proxy.fates[Way.TO_SERVER, Kind.RTP, fate]

    @property
    def concealed_ms(self) -> float:
        return float(self.told.of("metadata")[0]["concealed_duration"]) * 1000


@pytest.fixture(scope="module")
def outcomes(node: Node, pulse: Pulse, longest: Speech) -> dict[str, Outcome]:
    """The same words over each network, as many at the same time as two cores decode well."""

    async def all_calls() -> dict[str, Outcome]:
        results = []
        async with unharmed(node, pulse):
            for some in batched(NETWORKS.values()):
                results += await asyncio.gather(*(call(node.url, longest, network=network) for network in some))
        return {name: Outcome(*result) for name, result in zip(NETWORKS, results, strict=True)}

    return asyncio.run(all_calls())


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith("loss ")])
def test_packet_loss_costs_the_audio_of_the_lost_packets_and_no_final(outcomes: dict[str, Outcome], name: str) -> None:
    lossless, outcome = outcomes["lossless"], outcomes[name]
    outcome.told.assert_whole()
    assert word_errors(lossless.told.text, outcome.told.text) <= WORDS[name], outcome.told.text
    lost = outcome.audio("lost")
    assert lost / (lost + outcome.audio("passed")) == pytest.approx(NETWORKS[name].loss, abs=0.02)
    assert outcome.concealed_ms <= (lost + 1) * PACKET_MS  # nothing but what the network lost
    assert outcome.peer.connected_in_s <= 10.0  # a lost flight of DTLS or SCTP is sent again after 1 to 3 s


def test_reordering_costs_nothing(outcomes: dict[str, Outcome]) -> None:
    lossless, outcome = outcomes["lossless"], outcomes["reordering"]
    outcome.told.assert_whole()
    assert outcome.audio("held") > 20
    assert word_errors(lossless.told.text, outcome.told.text) <= WORDS["reordering"], outcome.told.text
    assert outcome.concealed_ms <= 10 * PACKET_MS  # until the jitter buffer knows how late packets come


def test_silence_on_the_wire_costs_what_was_said_in_it(outcomes: dict[str, Outcome]) -> None:
    lossless, outcome = outcomes["lossless"], outcomes["silence"]
    outcome.told.assert_whole()
    assert outcome.audio("silenced") == SILENCE_PACKETS
    ends_s = SILENCE_FROM_S + SILENCE_S
    before = [word for word in lossless.told.words if word["end"] <= SILENCE_FROM_S - EDGE_S]
    after = [word for word in lossless.told.words if word["start"] >= ends_s + EDGE_S]
    assert len(before) >= 4
    assert len(after) >= 4
    heard_before = [word for word in outcome.told.words if word["end"] <= SILENCE_FROM_S - EDGE_S / 2]
    heard_after = [word for word in outcome.told.words if word["start"] >= ends_s + EDGE_S / 2]
    assert _follows(before, heard_before), (before, heard_before)
    assert _follows(after, heard_after), (after, heard_after)
    lasted_s = lossless.told.of("metadata")[0]["duration"]
    assert outcome.told.of("metadata")[0]["duration"] == pytest.approx(lasted_s, abs=0.3)  # one timeline


@pytest.mark.parametrize("name", NETWORKS)
def test_all_is_told_soon_after_the_last_word(outcomes: dict[str, Outcome], name: str) -> None:
    lossless, outcome = outcomes["lossless"].told, outcomes[name].told
    took_s = outcome.when("final") - outcome.when("ready")
    assert took_s <= lossless.when("final") - lossless.when("ready") + LATE_S
    assert outcome.of("closed")[0]["reason"] == "client"


def _follows(wanted: list[dict[str, object]], heard: list[dict[str, object]]) -> bool:
    """Whether words were heard as they were said, but for one of them."""
    as_text = [" ".join(str(word["word"]) for word in words) for words in (wanted, heard)]
    return word_errors(*as_text) * len(wanted) <= 2
