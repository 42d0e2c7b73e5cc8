"""Who takes part: each server in each of its modes."""

from __future__ import annotations

import os
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import voiceforge, whisperlive, whisperlivekit
from benchmarks.peers.client import Client, linear16
from benchmarks.peers.install import Plan
from benchmarks.peers.server import Launch
from benchmarks.scripts import Script
from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.settings import Settings

OWN = "VoiceForge"

PLANS = {"whisperlive": whisperlive.PLAN, "whisperlivekit": whisperlivekit.PLAN}
"""The rivals by the names that they are called by."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A server in one mode.

    Args:
        server: its name.
        mode: the mode's name; empty if it has one only.
        launch: how it is started for so many speakers.
        client: a client for a script, given the server's port.
    """

    server: str
    mode: str
    launch: Callable[[int], Launch]
    client: Callable[[Script, int], Client]

    @property
    def name(self) -> str:
        """Both, as they are told to people."""
        return f"{self.server} {self.mode}" if self.mode else self.server


def own(settings: Settings) -> Contender:
    """VoiceForge, with the settings of the run."""
    return Contender(
        OWN,
        "",
        lambda speakers: voiceforge.launch(settings, name=OWN, sessions=speakers),
        voiceforge.VoiceForgeClient,
    )


def whisperlives(python: Path, model: Path, *, cores: int) -> list[Contender]:
    """WhisperLive in the modes in which it was found best: with batches on all cores first."""
    server = "WhisperLive"

    def contender(mode: str, *, batch: bool, threads: int | None) -> Contender:
        launch = whisperlive.launch(python, model, name=f"{server} {mode}", batch=batch, threads=threads)
        return Contender(server, mode, lambda speakers: launch, whisperlive.WhisperLiveClient)

    return [
        contender(f"batch, {cores} threads", batch=True, threads=cores),
        *([contender("batch, 1 thread", batch=True, threads=1)] if cores > 1 else []),
        contender("default", batch=False, threads=None),
    ]


def whisperlivekits(python: Path, model: Path, *, decoder: Path | None, warm_up: Path) -> list[Contender]:
    """WhisperLiveKit: LocalAgreement, and AlignAtt where there are weights for its decoder."""
    server = "WhisperLiveKit"

    def contender(policy: str, weights: Path | None) -> Contender:
        launch = whisperlivekit.launch(
            python, model, name=f"{server} {policy}", policy=policy, decoder=weights, warm_up=warm_up
        )
        return Contender(server, policy, lambda speakers: launch, whisperlivekit.WhisperLiveKitClient)

    return [
        contender("localagreement", None),
        *([contender("simulstreaming", decoder)] if decoder is not None else []),
    ]


def rivals(
    pythons: dict[str, Path], model: Path, *, decoder: Path | None, warm_up: Path, cores: int, first_only: bool
) -> list[Contender]:
    """The modes of the rivals that are installed; of each only the first if `first_only`."""
    found: list[Contender] = []
    for name, python in pythons.items():
        modes = (
            whisperlives(python, model, cores=cores)
            if name == whisperlive.PLAN.name
            else whisperlivekits(python, model, decoder=decoder, warm_up=warm_up)
        )
        found.extend(modes[:1] if first_only else modes)
    return found


def plans(names: Sequence[str]) -> list[Plan]:
    """What is to be installed for these rivals."""
    return [PLANS[name] for name in names]


def own_cores() -> int:
    """Cores that a child of this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_wav(path: Path, samples: Samples) -> None:
    """[n] float32 at 16 kHz as a WAV file of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(linear16(samples))
