"""Tracks of a call on one clock, with receivers that are played by the test."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_sdp import tracks_of_a_call

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.ingest import tracks as module
from mediaserver.ingest.sdp import parse_offer
from mediaserver.ingest.tracks import CATCH_UP_MAX_S, TrackEvents, Tracks
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings


class Clock:
    """An event loop's clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def time(self) -> float:
        return self.now_s


class Rig:
    """Tracks whose packets come when the test says so."""

    def __init__(self, count: int, monkeypatch: pytest.MonkeyPatch, *, is_stereo: bool = False) -> None:
        self.clock = Clock()
        offer = parse_offer(tracks_of_a_call(count), allow_loopback=False, is_stereo=is_stereo)
        self.position = [0] * len(offer.channel_names)
        self.silent = list(self.position)
        self.loudness: dict[int, float] = {}
        self.play: list[Any] = []
        self.routed: list[object] = []

        def attach(receiver: Any, *, on_samples: Any, on_bye: Any, **_: Any) -> Any:
            self.play.append(on_samples)
            return SimpleNamespace()

        monkeypatch.setattr(module.AudioReceiver, "attach", attach)
        monkeypatch.setattr(module, "route_by_mid", self.routed.append)
        monkeypatch.setattr(module.asyncio, "get_running_loop", lambda: self.clock)
        transceivers = [
            SimpleNamespace(mid=str(number), receiver=SimpleNamespace(transport="dtls")) for number in range(count)
        ]
        self.tracks = Tracks(
            SimpleNamespace(getTransceivers=lambda: transceivers[::-1]),  # type: ignore[arg-type]
            offer,
            events=TrackEvents(self._heard, self._silence, lambda channel: None),
            settings=Settings(),
            metrics=Metrics(),
        )

    def _heard(self, channel: int, samples: Samples, concealed: int) -> None:
        assert samples.ndim == 1
        assert samples.flags.c_contiguous
        self.position[channel] += len(samples)
        self.loudness[channel] = float(samples.max())

    def _silence(self, channel: int, samples: Samples) -> None:
        assert samples.dtype == np.float32
        self.position[channel] += len(samples)
        self.silent[channel] += len(samples)

    def speak(self, channel: int, for_s: float) -> None:
        """Packets of 20 ms, each at its time."""
        for _ in range(round(for_s / 0.02)):
            self.play[channel](np.ones(320, np.float32), 0)
            self.clock.now_s += 0.02


def test_one_track_is_heard_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(1, monkeypatch)
    rig.clock.now_s += 60
    rig.speak(0, 2.0)
    assert (rig.position, rig.silent, rig.routed) == ([2 * SAMPLE_RATE], [0], [])


def test_a_track_that_begins_later_is_silent_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(2, monkeypatch)
    rig.speak(1, 10.5)
    assert abs(rig.position[0] - 10.5 * SAMPLE_RATE) <= SAMPLE_RATE  # by the second
    rig.play[0](np.ones(320, np.float32), 0)
    assert rig.position[0] == pytest.approx(10.5 * SAMPLE_RATE + 320, abs=16)
    assert rig.silent[1] == 0
    rig.clock.now_s += 60
    rig.play[0](np.ones(320, np.float32), 0)  # once it has begun its own packets say what passes
    assert rig.silent[0] == pytest.approx(10.5 * SAMPLE_RATE, abs=16)
    assert rig.routed == ["dtls"]


def test_silence_at_once_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(2, monkeypatch)
    rig.speak(0, 0.02)
    rig.clock.now_s += 1000
    rig.play[1](np.ones(320, np.float32), 0)
    assert rig.silent[1] == CATCH_UP_MAX_S * SAMPLE_RATE


def test_the_channels_of_a_stereo_track_go_their_own_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(2, monkeypatch, is_stereo=True)
    packet = np.tile(np.array([0.25, 0.5], np.float32), (320, 1))
    rig.play[1](packet, 0)
    assert rig.loudness == {2: 0.25, 3: 0.5}
    rig.clock.now_s += 2.0
    rig.play[0](packet, 0)
    assert rig.silent[:2] == [2 * SAMPLE_RATE] * 2
    assert rig.loudness == {0: 0.25, 1: 0.5, 2: 0.25, 3: 0.5}
