"""The audio tracks of one call, each the audio of a channel, or of two, on one clock.

The clock of a call begins with the first packet of any track. A track that begins later (a second party who joins) is
silent until then, so that the times in its events are those of the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from aiortc import RTCPeerConnection

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.ingest.receiver import AudioReceiver, ReceiverStatus
from mediaserver.ingest.routing import route_by_mid
from mediaserver.ingest.sdp import Offer
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings

SILENCE_STEP_S = 1.0
"""How far a track that has not begun may be behind the call: silence is heard by the second."""

CATCH_UP_MAX_S = 30.0
"""Most silence at once, as in a gap (`mediaserver.ingest.jitter.MAX_GAP_S`); more is due only where all tracks were
silent, and then the call's clock stood still for the others too."""


@dataclass(frozen=True, slots=True)
class TrackEvents:
    """Whom the tracks tell, always on the event loop.

    Args:
        on_samples: gets a channel's samples, [n] float32 16 kHz mono, and how many of them were made up.
        on_silence: gets the silence of a channel whose track has not begun, [n] float32.
        on_bye: a track's sender said goodbye.
    """

    on_samples: Callable[[int, Samples, int], None]
    on_silence: Callable[[int, Samples], None]
    on_bye: Callable[[int], None]


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
        self._started_s: float | None = None
        self._offer = offer
        self._silent = dict.fromkeys(range(len(offer.tracks)), 0)  # samples given to those that have not begun
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

    def _on_samples(self, track: int, samples: Samples, concealed: int) -> None:
        if self._started_s is None:
            self._started_s = self._loop.time()
        if self._silent:
            self._silence(track, self._loop.time() - self._started_s)
        if not self._offer.is_stereo:
            self._events.on_samples(track, samples, concealed)
            return
        for side, channel in enumerate(self._offer.channels_of(track)):
            self._events.on_samples(channel, np.ascontiguousarray(samples[:, side]), concealed)

    def _silence(self, heard: int, call_s: float) -> None:
        """Bring the tracks that have not begun up to the call's clock, and with them the one that begins now."""
        for track, given in list(self._silent.items()):
            due = min(int(call_s * SAMPLE_RATE) - given, int(CATCH_UP_MAX_S * SAMPLE_RATE))
            if due >= SILENCE_STEP_S * SAMPLE_RATE or (track == heard and due > 0):
                self._silent[track] = given + due
                for channel in self._offer.channels_of(track):
                    self._events.on_silence(channel, np.zeros(due, np.float32))
        self._silent.pop(heard, None)
