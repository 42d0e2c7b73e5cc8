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
from mediaserver.ingest.tracks import CATCH_UP_MAX_S, LOOK_S, TrackEvents, Tracks
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
        self.receivers: list[Any] = []
        self.routed: list[object] = []

        def attach(receiver: Any, *, on_samples: Any, on_bye: Any, **_: Any) -> Any:
            self.play.append(on_samples)
            self.receivers.append(SimpleNamespace(last_packet_s=None))
            return self.receivers[-1]

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

    def packet(self, track: int, samples: Samples | None = None) -> None:
        """What one packet holds, 20 ms, or what the jitter buffer makes of a gap before it."""
        self.play[track](np.ones(320, np.float32) if samples is None else samples, 0)
        self.receivers[track].last_packet_s = self.clock.now_s

    def speak(self, for_s: float, *tracks: int) -> None:
        """Packets of some tracks, each at its time."""
        for _ in range(round(for_s / 0.02)):
            for track in tracks:
                self.packet(track)
            self.clock.now_s += 0.02

    def at_s(self) -> list[float]:
        """How far each channel has come."""
        return [position / SAMPLE_RATE for position in self.position]


def test_one_track_is_heard_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(1, monkeypatch)
    rig.clock.now_s += 60
    rig.speak(2.0, 0)
    assert (rig.position, rig.silent, rig.routed) == ([2 * SAMPLE_RATE], [0], [])


def test_a_track_that_begins_later_is_silent_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(2, monkeypatch)
    rig.speak(10.5, 1)
    assert rig.at_s()[0] == pytest.approx(10.5, abs=LOOK_S)
    rig.packet(0)
    assert rig.position[0] == rig.position[1] + 320
    rig.speak(5.0, 0, 1)
    assert rig.silent == [int(10.5 * SAMPLE_RATE), 0]
    assert rig.routed == ["dtls"]


def test_a_pause_is_left_to_the_packets_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(2, monkeypatch)
    rig.speak(2.0, 0, 1)
    rig.speak(20.0, 0)
    for _ in range(20):  # its jitter buffer fills the gap, by the second
        rig.packet(1, np.zeros(SAMPLE_RATE, np.float32))
    rig.speak(5.0, 0, 1)
    assert max(rig.silent) <= 320  # the packet that the other began with
    assert rig.at_s() == pytest.approx([27.0, 27.0], abs=0.03)


def test_a_sender_that_counts_no_time_on_hold_is_brought_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(2, monkeypatch)
    rig.speak(2.0, 0, 1)
    rig.speak(20.0, 0)
    rig.speak(5.0, 0, 1)
    assert rig.at_s() == pytest.approx([27.0, 27.0], abs=0.05)


def test_a_long_hold_is_silence_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(2, monkeypatch)
    rig.speak(2.0, 0, 1)
    rig.speak(120.0, 0)
    assert rig.at_s()[1] == pytest.approx(122.0, abs=LOOK_S + 0.1)
    rig.speak(2.0, 0, 1)
    assert rig.at_s() == pytest.approx([124.0, 124.0], abs=LOOK_S + 0.1)


def test_a_hold_of_all_is_no_time_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(2, monkeypatch)
    rig.speak(2.0, 0, 1)
    rig.clock.now_s += 600
    rig.speak(2.0, 0, 1)
    assert max(rig.silent) <= 320  # the packet that the other began with


def test_what_a_network_held_back_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(2, monkeypatch)
    rig.speak(5.0, 0, 1)
    rig.speak(3.0, 0)
    for _ in range(150):  # all at once, with packets of the other in between
        rig.packet(1)
        rig.packet(0)
        rig.position[0] -= 320
        rig.tracks._position[0] -= 320
    rig.speak(5.0, 0, 1)
    assert max(rig.silent) <= 320  # the packet that the other began with


def test_silence_at_once_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(2, monkeypatch)
    rig.packet(0, np.zeros(1000 * SAMPLE_RATE, np.float32))
    rig.packet(1)
    assert rig.silent[1] == CATCH_UP_MAX_S * SAMPLE_RATE


def test_the_channels_of_a_stereo_track_go_their_own_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(2, monkeypatch, is_stereo=True)
    samples = np.tile(np.array([0.25, 0.5], np.float32), (2 * SAMPLE_RATE, 1))
    rig.packet(1, samples)
    assert rig.loudness == {2: 0.25, 3: 0.5}
    rig.packet(0, samples)
    assert rig.silent[:2] == [2 * SAMPLE_RATE] * 2
    assert rig.loudness == {0: 0.25, 1: 0.5, 2: 0.25, 3: 0.5}
