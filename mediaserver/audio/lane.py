"""What the VAD remembers of one stream between two frames: the model's state and the denoiser's delay.

A lane belongs to the VAD's worker thread. It turns what a stream has waiting into steps, one a frame, in stream order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import structlog
from numpy.typing import NDArray

from mediaserver.audio.clock import FRAME_SAMPLES, Samples
from mediaserver.audio.denoise import Denoiser

log = structlog.get_logger(__name__)

CONTEXT_SAMPLES = 64
"""End of the frame before, which the model wants in front of each frame."""

STATE_SHAPE = (2, 128)
"""The model's recurrent state for one stream."""

DROPPED_PROBABILITY = 0.0
"""The verdict on frames that nobody looked at: 30 s behind, the node is overloaded, and to decode what may be silence
would make it worse."""

FAILED_PROBABILITY = 1.0
"""The verdict where the model failed: audio that cannot be judged is decoded, for words are worth more than work."""

SILENT_PEAK = 1e-4
"""80 dB below full scale: with no sample above it, a frame is digital silence, as of a muted microphone."""

SILENT_FRAMES = 31
"""Digital silence in a row (1 s) after which the model is not asked and its state rests. Measured on 40 recordings
after 3 to 5 s of zeros: no onset is noticed more than one frame later than with the model always asked, some earlier.
Without the wait the state has not settled, and onsets come up to 15 frames late."""

SILENT_PROBABILITY = 0.1
"""Above it the model still hears the end of speech and goes on being asked."""

_SILENCE: Samples = np.zeros(FRAME_SAMPLES, dtype=np.float32)
_NO_CONTEXT: Samples = np.zeros(CONTEXT_SAMPLES, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Lost:
    """Frames that were dropped from a backlog."""

    frames: int


@dataclass(frozen=True, slots=True)
class Restart:
    """Another denoiser, and a model that remembers nothing, from here on."""

    denoiser: Denoiser | None


@dataclass(frozen=True, slots=True)
class End:
    """Everything that a denoiser holds back comes out now."""


Item = Samples | Lost | Restart | End


@dataclass(slots=True)
class Step:
    """A frame on its way to a probability, which is NaN until it has one.

    `forgets` says that the frame has nothing to do with the one before it. In a run, `peak` is its loudest sample,
    without sign, `is_asleep` that it will not need the model, and `place` where else its encoding lies.
    """

    frame: Samples
    probability: float = float("nan")
    forgets: bool = False
    peak: float = float("nan")
    is_asleep: bool = False
    place: int = 0


class Lane:
    """What the model and the denoiser remember of one stream. Belongs to the worker thread.

    Args:
        denoiser: of this stream alone, or None.
    """

    def __init__(self, denoiser: Denoiser | None) -> None:
        self._forgets_next = False
        self._use(denoiser)
        self._forget()

    def _use(self, denoiser: Denoiser | None) -> None:
        self.denoiser = denoiser
        # The denoiser's delay is rounded up to whole frames, so that its output can be told frame by frame.
        self._late_frames = -(-denoiser.delay_samples // FRAME_SAMPLES) if denoiser else 0
        rest = self._late_frames * FRAME_SAMPLES - denoiser.delay_samples if denoiser else 0
        self._carry: Samples = np.zeros(rest, dtype=np.float32)
        self._inside: deque[Samples] = deque()  # frames given to the denoiser and not out yet: at most `_late_frames`

    def _forget(self) -> None:
        self.context: Samples = _NO_CONTEXT
        self.state: NDArray[np.float32] = np.zeros(STATE_SHAPE, dtype=np.float32)
        self._silent_frames = 0
        self._probability = 0.0

    def steps(self, items: list[Item]) -> list[Step]:
        """Denoise [512] frames and do as requested; one step for each frame that is out."""
        steps: list[Step] = []
        for item in items:
            match item:
                case Lost():
                    steps += self._drain()
                    steps += [Step(_SILENCE, DROPPED_PROBABILITY) for _ in range(item.frames)]
                    self._forgets_next = True
                case Restart():
                    steps += self._drain()
                    self._use(item.denoiser)
                    self._forgets_next = True
                case End():
                    steps += self._drain()
                case _:
                    steps += self._take(item)
        return steps

    def _take(self, frame: Samples) -> list[Step]:
        if self.denoiser is None:
            return [self._step(frame)]
        self._inside.append(frame)
        out = self._denoise(frame)
        if out is None:
            return self._give_up_denoising()
        if len(self._inside) <= self._late_frames:
            return []  # it came from before the first frame
        self._inside.popleft()
        return [self._step(out)]

    def _drain(self) -> list[Step]:
        steps: list[Step] = []
        # The first outputs of a stream shorter than the delay come from before it.
        for zeros_fed in range(1, self._late_frames + 1 if self._inside else 1):
            out = self._denoise(_SILENCE)
            if out is None:
                return steps + self._give_up_denoising()
            if len(self._inside) > self._late_frames - zeros_fed:
                self._inside.popleft()
                steps.append(self._step(out))
        return steps

    def _denoise(self, frame: Samples) -> Samples | None:
        """The next aligned [512]; None where the denoiser fails."""
        assert self.denoiser is not None
        try:
            late = np.concatenate((self._carry, self.denoiser.process(frame)))
        except Exception:
            log.exception("denoiser failed; the stream goes on without it")
            return None
        self._carry = late[FRAME_SAMPLES:]
        return late[:FRAME_SAMPLES]

    def _give_up_denoising(self) -> list[Step]:
        raw = [self._step(frame) for frame in self._inside]
        self._inside.clear()
        self.denoiser, self._late_frames = None, 0
        return raw

    def _step(self, frame: Samples) -> Step:
        step = Step(frame, forgets=self._forgets_next)
        self._forgets_next = False
        return step

    def contexts(self, steps: Sequence[Step]) -> Iterator[Samples]:
        """What the model wants in front of each of the next steps."""
        before = self.context
        for step in steps:
            yield _NO_CONTEXT if step.forgets else before
            before = step.frame[-CONTEXT_SAMPLES:]

    def sleeps_through(self, steps: Sequence[Step]) -> Iterator[Step]:
        """Those of the next steps, whose peaks are known, that will not need the model; not all of them perhaps."""
        if self._silent_frames > SILENT_FRAMES and self._probability < SILENT_PROBABILITY:
            yield from takewhile(lambda step: step.peak < SILENT_PEAK and not step.forgets, steps)

    def begins(self, step: Step) -> bool:
        """Make ready for the next step, in order; False: it has its probability already."""
        if step.probability == DROPPED_PROBABILITY:
            return False
        if step.forgets:
            self._forget()
        return True

    def needs_model(self, step: Step) -> bool:
        """Whether the model must be asked of a step that has begun; if not, it has its probability now."""
        self._silent_frames = self._silent_frames + 1 if step.peak < SILENT_PEAK else 0
        if self._silent_frames <= SILENT_FRAMES or self._probability >= SILENT_PROBABILITY:
            return True
        self.context = step.frame[-CONTEXT_SAMPLES:]
        step.probability = 0.0
        return False

    def judged(self, step: Step, probability: float, state: NDArray[np.float32]) -> None:
        """Take what the model said: a probability and its new state, [2, 128], which is copied."""
        self.state[:] = state  # a view would keep the states of the whole batch
        self.context = step.frame[-CONTEXT_SAMPLES:]
        self._probability = step.probability = probability

    def failed(self, step: Step) -> None:
        """The model said nothing of use; the next frame begins anew."""
        self._forget()
        step.probability = FAILED_PROBABILITY
