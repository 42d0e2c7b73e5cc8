"""What of a recording is decoded together: pieces full of speech, cut where nobody speaks (sans-IO).

Whisper hears up to 30 s at once, and what it writes at an end is better the more of what follows it hears. So
utterances are joined up to `LONGEST_S`, and of the pauses that a piece could end with the longest is taken. Silence
between utterances is left out but for a second, so that a piece is full of speech.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mediaserver.audio.clock import FRAME_SAMPLES, Samples, samples_in
from mediaserver.audio.endpoint import Ended, Endpointer, EndpointerConfig, Started, TooLong

LONGEST_S = 24.0
"""Longest piece: with the 4 s of silence that a decode wants after it, it fits the 30 s that Whisper sees."""

LEAST_SHARE = 0.5
"""A piece is at least so full: of a lecture without pauses, a third of the time would be silence at the ends."""

CUT_ALLOWANCE_S = 2.0
"""So much later than it is told to, at most, the endpointer ends an utterance that is too long."""

PAUSE_MS = 300
"""Silence between two utterances."""

KEPT_GAP_S = 1.0
"""A pause up to this long is heard as it is; of longer ones only what belongs to the utterances beside it."""

HELD_S = KEPT_GAP_S + 4.0
"""How much audio before the present frame is kept: a pause, and what the endpointer looks back for."""


@dataclass(frozen=True, slots=True)
class Run:
    """A part of a piece that is whole in the recording: `length` samples from `offset` on lie at `sample`."""

    offset: int
    sample: int
    length: int


@dataclass(frozen=True, slots=True)
class Piece:
    """What is decoded at once.

    Args:
        channel: which one it is of.
        samples: [n] float32, 16 kHz.
        runs: where its parts lie in the recording, in order.
        joints: offsets of the pauses between its utterances.
    """

    channel: int
    samples: Samples
    runs: tuple[Run, ...]
    joints: tuple[int, ...] = ()

    @property
    def start_sample(self) -> int:
        """Where it begins in the recording."""
        return self.runs[0].sample

    @property
    def end_sample(self) -> int:
        """Where it ends in the recording."""
        return self.runs[-1].sample + self.runs[-1].length

    def split(self, at: int) -> tuple[Piece, Piece]:
        """Two pieces, the second of which begins at sample `at` of this one."""
        first, second = [], []
        for run in self.runs:
            before = min(max(at - run.offset, 0), run.length)
            if before:
                first.append(replace(run, length=before))
            if before < run.length:
                second.append(Run(run.offset + before - at, run.sample + before, run.length - before))
        return (
            Piece(self.channel, self.samples[:at], tuple(first), tuple(joint for joint in self.joints if joint < at)),
            Piece(
                self.channel, self.samples[at:], tuple(second), tuple(joint - at for joint in self.joints if joint > at)
            ),
        )

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Where something lies in the recording that begins and ends at these samples of the piece.

        It is in the run that its middle is in: nothing that is said reaches across audio that was left out.
        """
        middle = (start + end) // 2
        run = next((run for run in reversed(self.runs) if run.offset <= middle), self.runs[0])
        shift = run.sample - run.offset
        low, high = run.sample, run.sample + run.length
        return min(max(start + shift, low), high), min(max(end + shift, low), high)


@dataclass(frozen=True, slots=True)
class _Utterance:
    """Speech between pauses. `gap` samples at its beginning are the pause before it, where that is kept."""

    sample: int
    samples: Samples
    gap: int
    pause_samples: int  # before it, whether or not it is kept

    @property
    def alone(self) -> _Utterance:
        """Without the pause before it."""
        return replace(self, sample=self.sample + self.gap, samples=self.samples[self.gap :], gap=0)


class Cutter:
    """Makes pieces of one channel. Holds at most a block, an utterance and a piece and a half.

    Args:
        channel: written on every piece.
        endpoints: what begins and ends an utterance; the longest one is as long as a piece may be.
        longest_s: longest piece.
    """

    def __init__(self, channel: int, *, endpoints: EndpointerConfig, longest_s: float = LONGEST_S) -> None:
        self._channel = channel
        self._longest = samples_in(s=longest_s)
        self._endpointer = Endpointer(replace(endpoints, max_utterance_s=longest_s - CUT_ALLOWANCE_S))
        self._audio: Samples = np.zeros(0, dtype=np.float32)
        self._audio_sample = 0  # where `_audio` begins
        self._start_sample = 0  # of the utterance
        self._ended_sample = 0  # of the one before
        self._waiting: list[_Utterance] = []  # bound: `longest_s` and one utterance
        self.speech_samples = 0
        """Of all utterances so far."""

    def feed(self, samples: Samples, probabilities: NDArray[np.float32]) -> list[Piece]:
        """Take the next audio; the pieces that it completes.

        Args:
            samples: [n * 512].
            probabilities: [n], the speech probability of each frame.
        """
        self._audio = np.concatenate((self._audio, samples))
        pieces: list[Piece] = []
        for probability in probabilities.tolist():
            for edge in self._endpointer.feed(probability):
                match edge:
                    case Started():
                        self._start_sample = edge.start_sample
                    case TooLong():
                        pieces += self._take(edge.quietest_sample)
                        self._endpointer.cut(edge.quietest_sample)
                        self._start_sample = edge.quietest_sample
                    case Ended():
                        pieces += self._take(edge.end_sample)
        self._forget()
        return pieces

    def finish(self) -> list[Piece]:
        """The recording is over; what is left."""
        pieces: list[Piece] = []
        for edge in self._endpointer.flush():
            if isinstance(edge, Ended):
                pieces += self._take(edge.end_sample)
        if self._waiting:
            pieces.append(self._piece(self._waiting))
            self._waiting = []
        return pieces

    def _take(self, end_sample: int) -> list[Piece]:
        """An utterance has ended; the piece that had no room for it, if there is one."""
        self.speech_samples += end_sample - self._start_sample
        pause = self._start_sample - self._ended_sample
        gap = pause if self._waiting and pause <= samples_in(s=KEPT_GAP_S) else 0
        begin = max(self._start_sample - gap, self._audio_sample)
        gap = self._start_sample - begin
        samples = self._audio[begin - self._audio_sample : end_sample - self._audio_sample].copy()
        self._ended_sample = end_sample
        pieces = []
        self._waiting.append(_Utterance(begin, samples, gap, pause))
        while sum(len(utterance.samples) for utterance in self._waiting) > self._longest and len(self._waiting) > 1:
            at = self._best_cut()
            pieces.append(self._piece(self._waiting[:at]))
            self._waiting = [self._waiting[at].alone, *self._waiting[at + 1 :]]
        return pieces

    def _best_cut(self) -> int:
        """How many of the waiting utterances make the next piece: of those that fit, up to the longest pause."""
        best, longest_pause, length = 1, -1, 0
        for count, utterance in enumerate(self._waiting[:-1], start=1):
            length += len(utterance.samples)
            if length > self._longest:
                break
            pause = self._waiting[count].pause_samples
            if length >= LEAST_SHARE * self._longest and pause >= longest_pause:
                best, longest_pause = count, pause
            elif longest_pause < 0:
                best = count
        return best

    def _piece(self, utterances: Sequence[_Utterance]) -> Piece:
        runs: list[Run] = []
        joints: list[int] = []
        offset = 0
        for utterance in (utterances[0].alone, *utterances[1:]):
            length = len(utterance.samples)
            if runs:
                joints.append(offset)
            if runs and runs[-1].sample + runs[-1].length == utterance.sample:
                runs[-1] = replace(runs[-1], length=runs[-1].length + length)
            else:
                runs.append(Run(offset, utterance.sample, length))
            offset += length
        first, *others = utterances
        samples = np.concatenate([first.alone.samples, *(utterance.samples for utterance in others)])
        return Piece(self._channel, samples, tuple(runs), tuple(joints))

    def _forget(self) -> None:
        """Let go of the audio that nobody will ask for."""
        position = self._endpointer.position_samples
        needed = position - samples_in(s=HELD_S)
        if self._endpointer.in_utterance:
            needed = min(needed, self._start_sample - samples_in(s=KEPT_GAP_S))
        drop = needed - self._audio_sample
        if drop > 0:
            self._audio = self._audio[drop:].copy()
            self._audio_sample += drop


def whole_frames(samples: Samples) -> Samples:
    """The samples with silence behind them, so that frames come out even."""
    return np.pad(samples, (0, -len(samples) % FRAME_SAMPLES))
