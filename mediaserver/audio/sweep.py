"""Voice activity over a whole recording: the model of the live streams, in long runs.

The model's memory goes frame by frame, so one stream costs a call a frame, most of it overhead. A recording is known in
advance: what the model hears of its frames is had in large products, and pieces of it are remembered side by side, each
begun a little early so that its state has settled. Five times as fast, and 1 frame in 1000 falls on the other side of
the threshold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mediaserver.audio.clock import FRAME_SAMPLES, SAMPLE_RATE, Samples
from mediaserver.audio.lane import CONTEXT_SAMPLES, STATE_SHAPE
from mediaserver.audio.silero import Network

ROWS = 8
"""Pieces judged side by side: 16 are a tenth faster and need twice the memory."""

WARM_FRAMES = 64
"""How early (2 s) a piece is begun: with 1 s twice as many frames differ from those of one long run."""

BLOCK_FRAMES = 64 * SAMPLE_RATE // FRAME_SAMPLES
"""64 s, 4 MB: what is judged at a time, in a tenth of a second."""

ENCODED_FRAMES = 256
"""So many are heard in one product: more of them do not stay in the processor's cache."""


class Sweep:
    """The frames of one channel, block after block. Blocks.

    Args:
        network: the model.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        depth, width = STATE_SHAPE
        self._state: NDArray[np.float32] = np.zeros((depth, 1, width), dtype=np.float32)
        self._before: Samples = np.zeros(CONTEXT_SAMPLES, dtype=np.float32)

    def probabilities(self, samples: Samples) -> NDArray[np.float32]:
        """The speech probability of each frame of the next samples.

        Args:
            samples: [n * 512], in order; better few long blocks than many short ones.

        Returns:
            [n] float32.
        """
        frames = samples.reshape(-1, FRAME_SAMPLES)
        count = len(frames)
        if not count:
            return np.zeros(0, dtype=np.float32)
        rows = max(1, min(ROWS, count // (2 * WARM_FRAMES)))
        each = -(-count // rows)
        # What the model wants before each frame is the end of the frame before it.
        contexts = np.concatenate((self._before[None], frames[:-1, -CONTEXT_SAMPLES:]))
        inputs = np.concatenate((contexts, frames), axis=1, dtype=np.float32)
        parts = [inputs[at : at + ENCODED_FRAMES] for at in range(0, count, ENCODED_FRAMES)]
        encoded = np.concatenate([self._network.encode(part) for part in parts])
        starts = np.arange(rows) * each
        depth, width = STATE_SHAPE
        states = np.zeros((depth, rows, width), dtype=np.float32)
        found = np.zeros((rows, each), dtype=np.float32)
        for step in range(-WARM_FRAMES if rows > 1 else 0, each):
            if step == 0:
                states[:, 0] = self._state[:, 0]  # the first row goes on where the block before ended
            probabilities, states = self._network.step(encoded[np.clip(starts + step, 0, count - 1)], states)
            if step >= 0:
                found[:, step] = probabilities[:, 0]
                if starts[-1] + step == count - 1:
                    self._state = states[:, -1:].copy()
        self._before = frames[-1, -CONTEXT_SAMPLES:].copy()
        return found.reshape(-1)[:count]
