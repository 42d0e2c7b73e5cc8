"""What recorded peers play: Opus packets that were encoded once, so that a thousand peers cost no encoder.

A reel is a list of packets, 20 ms each; an empty one stands for 20 ms in which nothing is sent (DTX). Drivers are
processes of their own, so reels travel in a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.corpus import Recording
from benchmarks.peers.voiceforge import opus
from benchmarks.scripts import room
from mediaserver.audio.clock import samples_in

PACKET_MS = 20
"""What browsers put into a packet."""

IDLE_S = 10.0
"""Length of what silent peers play again and again; each begins elsewhere in it."""

ROOM, MUTED, DTX = "room", "muted", "dtx"
"""A microphone in a quiet room; a muted one, whose digital silence is sent; a pause of a sender with DTX."""

DTX_PACKETS = 20
"""A sender with DTX sends one packet of so many: 400 ms (RFC 7587 §3.1.3)."""

LEAD_S, TAIL_S = 0.3, 0.7
"""Room noise before and after a recording. The decoder's memory is that of the reel before for some milliseconds, which
are in the noise; and the silence that ends an utterance is part of what was said."""

Reel = list[bytes]


def idle_reels() -> dict[str, Reel]:
    """What peers play that say nothing, by name. Blocks for some 100 ms."""
    length = samples_in(s=IDLE_S)
    quiet = _packets(room(length, np.random.default_rng(5)))
    return {
        ROOM: quiet,
        MUTED: _packets(np.zeros(length, np.float32)),
        DTX: [packet if index % DTX_PACKETS == 0 else b"" for index, packet in enumerate(quiet)],
    }


def spoken_reel(recording: Recording, *, seed: int) -> Reel:
    """A recording with room around it. Blocks: 1 s takes some milliseconds."""
    generator = np.random.default_rng(seed)
    before, after = (room(samples_in(s=length_s), generator) for length_s in (LEAD_S, TAIL_S))
    return _packets(np.concatenate([before, recording.read(), after]))


def write(path: Path, idle: Mapping[str, Reel], spoken: Sequence[Reel]) -> None:
    """Put reels into a file."""
    body = {
        "idle": {name: [packet.hex() for packet in reel] for name, reel in idle.items()},
        "spoken": [[packet.hex() for packet in reel] for reel in spoken],
    }
    path.write_text(json.dumps(body), encoding="utf-8")


def read(path: Path) -> tuple[dict[str, Reel], list[Reel]]:
    """The reels of a file that `write` wrote."""
    body = json.loads(path.read_text(encoding="utf-8"))
    idle = {name: [bytes.fromhex(packet) for packet in reel] for name, reel in body["idle"].items()}
    return idle, [[bytes.fromhex(packet) for packet in reel] for reel in body["spoken"]]


def _packets(samples: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Reel:
    return [bytes(packet) for packet in opus(samples)]
