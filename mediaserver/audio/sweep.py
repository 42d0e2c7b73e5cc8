"""Voice activity over a whole recording: the model of the live streams, in long runs.

The model works frame by frame, so one stream costs a call a frame, most of it overhead. A recording is known in
advance: pieces of it are judged side by side as rows of one call, each begun a little early so that its state has
settled. Four times as fast, and 1 frame in 1000 falls on the other side of the threshold.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mediaserver.audio.clock import FRAME_SAMPLES, SAMPLE_RATE, Samples
from mediaserver.audio.lane import CONTEXT_SAMPLES, STATE_SHAPE

ROWS = 8
"""Pieces judged side by side: 16 are a tenth faster and need twice the memory."""

WARM_FRAMES = 64
"""How early (2 s) a piece is begun: with 1 s twice as many frames differ from those of one long run."""

BLOCK_FRAMES = 64 * SAMPLE_RATE // FRAME_SAMPLES
"""64 s, 4 MB: what is judged at a time, in a fifth of a second."""

Judge = Callable[[NDArray[np.float32], NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""The model: [B, 576] and states [2, B, 128] in, probabilities [B, 1] and new states out."""


class Sweep:
    """The frames of one channel, block after block. Blocks.

    Args:
        judge: the model.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
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
        starts = np.arange(rows) * each
        depth, width = STATE_SHAPE
        states = np.zeros((depth, rows, width), dtype=np.float32)
        found = np.zeros((rows, each), dtype=np.float32)
        for step in range(-WARM_FRAMES if rows > 1 else 0, each):
            if step == 0:
                states[:, 0] = self._state[:, 0]  # the first row goes on where the block before ended
            probabilities, states = self._judge(inputs[np.clip(starts + step, 0, count - 1)], states)
            if step >= 0:
                found[:, step] = probabilities[:, 0]
                if starts[-1] + step == count - 1:
                    self._state = states[:, -1:].copy()
        self._before = frames[-1, -CONTEXT_SAMPLES:].copy()
        return found.reshape(-1)[:count]
