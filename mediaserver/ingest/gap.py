"""The time without a connection, as silence in the stream: one timeline, in step with wall time."""

from __future__ import annotations

import asyncio

import numpy as np

from mediaserver.audio.clock import samples_in
from mediaserver.session.channels import Channels

SILENCE_S = 1.0
"""So much silence is pushed at once."""

UNJUDGED_AHEAD_S = 4.0
"""So much may wait for the VAD before more follows: nothing is dropped from what it has to judge."""

POLL_S = 0.01
"""How often it is looked whether it may: the VAD takes a millisecond or two for a second of silence."""


class Gap:
    """The gap in the stream of one session, where there is one. Times are of the event loop's clock.

    Args:
        longest_s: most silence for one gap; a client that was away for longer finds the clock behind.
    """

    def __init__(self, *, longest_s: float) -> None:
        self._longest_s = longest_s
        self._heard_to_s: float | None = None
        self._left_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether there is one that is still to be filled."""
        return self._heard_to_s is not None

    def begin(self, last_packet_s: float | None) -> None:
        """The connection is gone; its last packet came then. Without one there was no stream yet, and is no gap."""
        if last_packet_s is not None:
            self._heard_to_s, self._left_s = last_packet_s, self._longest_s

    async def fill(self, channels: Channels) -> None:
        """Fill all but the last second; the rest is for `end`. Several may do so at once."""
        loop = asyncio.get_running_loop()
        while self._heard_to_s is not None and channels.is_open:
            due_s = loop.time() - self._heard_to_s
            if min(due_s, self._left_s) < SILENCE_S:
                return
            self._heard_to_s += SILENCE_S
            self._left_s -= SILENCE_S
            _push(channels, SILENCE_S)
            while channels.unjudged_s > UNJUDGED_AHEAD_S and channels.is_open:  # noqa: ASYNC110 - the VAD tells nobody
                await asyncio.sleep(POLL_S)

    def end(self, channels: Channels, until_s: float) -> None:
        """Samples of another connection come, whose first was spoken then: fill what is left. Nothing where all is."""
        if self._heard_to_s is not None:
            _push(channels, min(until_s - self._heard_to_s, self._left_s))
            self._heard_to_s = None


def _push(channels: Channels, silence_s: float) -> None:
    """All channels are silent for so long, from where the one is that has come furthest."""
    received = [channels.received_samples(channel) for channel in range(channels.count)]
    end = max(received) + samples_in(s=max(0.0, silence_s))
    for channel, position in enumerate(received):
        if end > position:
            channels.push_to(channel, np.zeros(end - position, np.float32))
