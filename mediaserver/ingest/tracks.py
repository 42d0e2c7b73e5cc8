"""The audio tracks of one call, each the audio of a channel, or of two, on one clock.

The clock of a call is that of the track that has come furthest. A track that begins later (a second party who joins),
or that is away for long (on hold), is silent for that time, so that the times in its events are those of the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from aiortc import RTCPeerConnection

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.ingest.jitter import MAX_GAP_S
from mediaserver.ingest.receiver import AudioReceiver, ReceiverStatus
from mediaserver.ingest.routing import route_by_mid
from mediaserver.ingest.sdp import Offer
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings

LOOK_S = 1.0
"""How often the tracks are compared: one that has not begun is never further behind than this."""

AWAY_S = MAX_GAP_S + 1.0
"""Without a packet for so long (a call on hold), what comes next is no gap to be filled but a new beginning."""

FLOWING_S = 0.5
"""A track whose last packet is younger is there; one that pauses fills its own gap when it goes on."""

BEHIND_S = 2.0
"""Further behind than jitter and clocks explain: its sender counted no time while it paused. It is seen twice before it
is acted upon, for what a network held back comes in a burst."""

CATCH_UP_MAX_S = MAX_GAP_S
"""Most silence at once; the rest follows at the next look."""


@dataclass(frozen=True, slots=True)
class TrackEvents:
    """Whom the tracks tell, always on the event loop.

    Args:
        on_samples: gets a channel's samples, [n] float32 16 kHz mono, and how many of them were made up.
        on_silence: gets the silence of a channel whose track has not begun or is away, [n] float32.
        on_bye: a track's sender said goodbye.
    """

    on_samples: Callable[[int, Samples, int], None]
    on_silence: Callable[[int, Samples], None]
    on_bye: Callable[[int], None]


NOBODY = TrackEvents(
    on_samples=lambda _channel, _samples, _concealed: None,
    on_silence=lambda _channel, _samples: None,
    on_bye=lambda _track: None,
)
"""Told after the end."""


class Tracks:
    """The receivers of a peer connection's tracks. Make it between the two descriptions.

    Args:
        pc: has its remote description (so its receivers exist) and no local one yet (so none has started).
        offer: that it was given.
        events: whom it tells.
        settings: the jitter buffers'.
        metrics: where packets are counted.

    Raises:
        VoiceForgeError: LIBOPUS_MISSING.
    """

    def __init__(
        self, pc: RTCPeerConnection, offer: Offer, *, events: TrackEvents, settings: Settings, metrics: Metrics
    ) -> None:
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._offer = offer
        self._position = [0] * len(offer.tracks)  # samples that each has been given
        self._waiting = set(range(len(offer.tracks)))  # those that have not begun
        self._behind: set[int] = set()  # those that were too far behind at the last look
        self._look_s = 0.0
        by_mid = {transceiver.mid: transceiver.receiver for transceiver in pc.getTransceivers()}
        self._receivers = [
            AudioReceiver.attach(
                by_mid[track.mid],
                on_samples=partial(self._on_samples, number),
                on_bye=partial(events.on_bye, number),
                settings=settings,
                metrics=metrics,
                channels=offer.channels_each,
            )
            for number, track in enumerate(offer.tracks)
        ]
        if len(offer.tracks) > 1:
            route_by_mid(by_mid[offer.tracks[0].mid].transport)

    def last_packets_s(self) -> list[float | None]:
        """For each track, when its last packet came, on the event loop's clock; None before the first."""
        return [receiver.last_packet_s for receiver in self._receivers]

    def statuses(self) -> list[ReceiverStatus]:
        """A look at each track."""
        return [receiver.status() for receiver in self._receivers]

    def stop(self) -> None:
        """Hand on what is held, free the decoders and take no more packets; idempotent."""
        for receiver in self._receivers:
            receiver.stop()
        self._events = NOBODY

    def _on_samples(self, track: int, samples: Samples, concealed: int) -> None:
        if len(self._position) > 1:
            self._keep_in_step(track)
        self._position[track] += len(samples)
        if not self._offer.is_stereo:
            self._events.on_samples(track, samples, concealed)
            return
        for side, channel in enumerate(self._offer.channels_of(track)):
            self._events.on_samples(channel, np.ascontiguousarray(samples[:, side]), concealed)

    def _keep_in_step(self, heard: int) -> None:
        """Bring those up to the call's clock that do not come there by themselves; `heard` has samples to hand on."""
        if heard in self._waiting:
            self._waiting.discard(heard)
            self._be_silent(heard)
        now_s = self._loop.time()
        if now_s < self._look_s:
            return
        self._look_s = now_s + LOOK_S
        for track, last_packet_s in enumerate(self.last_packets_s()):
            if track == heard:
                continue  # its own gap may be being filled just now
            age_s = AWAY_S if last_packet_s is None else now_s - last_packet_s
            if track in self._waiting or age_s >= AWAY_S:
                self._be_silent(track)
            elif age_s <= FLOWING_S and max(self._position) - self._position[track] > BEHIND_S * SAMPLE_RATE:
                if track in self._behind:
                    self._be_silent(track)
                self._behind ^= {track}
            else:
                self._behind.discard(track)

    def _be_silent(self, track: int) -> None:
        due = min(max(self._position) - self._position[track], int(CATCH_UP_MAX_S * SAMPLE_RATE))
        if due <= 0:
            return
        self._position[track] += due
        for channel in self._offer.channels_of(track):
            self._events.on_silence(channel, np.zeros(due, np.float32))
