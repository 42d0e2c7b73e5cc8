"""What came out of it: how many times the speakers of each rival, the table and the plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.peers import whisperlive, whisperlivekit
from benchmarks.peers.client import BLOCK_MS
from benchmarks.peers.contenders import OWN
from benchmarks.peers.trial import COLUMNS, Standing
from benchmarks.peers.voiceforge import PACKET_MS
from benchmarks.report import Result


def ratio(standings: Sequence[Standing]) -> str:
    """Speakers of each server, a rival's in its best mode, and how many times those VoiceForge has."""
    mine = max((item.speakers for item in standings if item.contender.server == OWN), default=0)
    parts = [f"{OWN} {mine}"]
    for server in dict.fromkeys(item.contender.server for item in standings if item.contender.server != OWN):
        best = max((item for item in standings if item.contender.server == server), key=lambda item: item.speakers)
        if best.speakers:
            parts.append(f"{server} {best.speakers} ({mine / best.speakers:.1f} ×)")
        else:
            parts.append(f"{server} 0")
    return "; ".join(parts)


def result(standings: Sequence[Standing], *, bound_s: float, length_s: float, without: str | None) -> Result:
    """The table, its notes and the plot; `without` says what could not be run."""
    trials = [trial for item in standings for trial in item.trials]
    mine = [trial for trial in trials if trial.server == OWN]
    clients = max((trial.cost.clients_cpu_s / trial.cost.audio_s for trial in mine), default=0.0)
    others = max(
        (trial.cost.clients_cpu_s / trial.cost.audio_s for trial in trials if trial.server != OWN), default=0.0
    )
    return Result(
        name="peers",
        title=f"Speakers with p95 word latency < {bound_s:g} s: {ratio(standings)}",
        columns=COLUMNS,
        rows=[trial.row for trial in trials],
        notes=[
            f"{length_s:.0f} s or a little more of read utterances a speaker, in real time over loopback. Every server "
            "has the same weights, the same audio and a process of its own, started anew for each row.",
            "Most speakers in each mode: "
            + ", ".join(f"{item.contender.name} {item.speakers}" for item in standings)
            + ".",
            f"WhisperLive {whisperlive.VERSION}, WhisperLiveKit {whisperlivekit.VERSION}, as published.",
            "Words are timed by faster-whisper over each recording, the same for all; a word that a server writes "
            "otherwise, or never, has no latency and counts in the WER.",
            "First text: p50, from the start of a speaker's first word. Final: words of completed segments "
            "(WhisperLive), of lines (WhisperLiveKit), of finals (VoiceForge); at the stream's end if never.",
            f"VoiceForge is called by WebRTC in {PACKET_MS} ms packets, the others by WebSocket in {BLOCK_MS} ms "
            f"blocks. Clients are not in the figures; they took up to {clients:.3f} and {others:.3f} cores a speaker.",
            *([without] if without else []),
            *(note for item in standings for note in item.failures),
            *(note for trial in trials for note in trial.notes),
        ],
        details={
            "bound_s": bound_s,
            "speakers": {item.contender.name: item.speakers for item in standings},
            "trials": [trial.as_dict() for trial in trials],
        },
        draw=lambda axes: _draw(axes, standings, bound_s),
    )


def _draw(axes: Any, standings: Sequence[Standing], bound_s: float) -> None:
    for item in standings:
        trials = [trial for trial in item.trials if np.isfinite(trial.p95_s)]
        axes.plot(
            [trial.speakers for trial in trials], [trial.p95_s for trial in trials], "o-", label=item.contender.name
        )
    axes.axhline(bound_s, color="red", linewidth=0.8, label="bound")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("speakers at once")
    axes.set_ylabel("p95 word latency, s")
    axes.legend()
