"""One way of ending utterances, played over recordings, and held against where their turns end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus import Recording, Turn
from mediaserver.audio.clock import FRAME_SAMPLES, Samples, samples_in, seconds
from mediaserver.audio.endpoint import HYSTERESIS, Ended, Endpointer, EndpointerConfig, Paused
from mediaserver.audio.turn import HEARD_SAMPLES, TurnModel, is_complete

SAME_PLACE_S = 0.1
"""An end this near to where somebody finished is at that place: three frames of the VAD."""

GOES_ON_S = 1.0
"""Somebody who speaks again so soon, with nobody in between, has not finished: references break turns at breaths."""

ANSWER_MS = 128
"""From a question to its answer in this comparison: a call of 0.1 s and the frame after it. The same on every machine,
so that the curves are; what a call costs here is told under the table."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A way of ending utterances."""

    name: str
    config: EndpointerConfig

    @property
    def is_semantic(self) -> bool:
        """Whether the model is asked."""
        return self.config.turn_waits is not None


@dataclass(slots=True)
class Heard:
    """A recording as the endpointer sees it; `answers` keeps what the model said of each stretch of it."""

    recording: Recording
    samples: Samples
    probabilities: NDArray[np.float32]
    turns: list[Turn]
    answers: dict[tuple[int, int], float] = field(default_factory=dict)


@dataclass(slots=True)
class Tally:
    """What one policy did to several recordings.

    Args:
        cuts: ends within a turn.
        waits_ms: from where somebody finished to the moment at which that was noticed.
        run_together: turns whose end was not noticed before the next began.
        said_s: length of all turns.
        asked: questions to the model.
        at_ends, inside: how many questions came at the end of a turn, and within one, and of these how many were
            answered with "finished".
    """

    cuts: int = 0
    waits_ms: list[float] = field(default_factory=list)
    run_together: int = 0
    said_s: float = 0.0
    asked: int = 0
    at_ends: tuple[int, int] = (0, 0)
    inside: tuple[int, int] = (0, 0)

    @property
    def cuts_per_minute(self) -> float:
        """Cuts within turns, per minute of them."""
        return self.cuts * 60 / self.said_s if self.said_s else float("nan")

    @property
    def mean_wait_ms(self) -> float:
        """The mean of the waits."""
        return float(np.mean(self.waits_ms)) if self.waits_ms else float("nan")

    def wait_ms(self, quantile: int) -> float:
        """A percentile of the waits."""
        return float(np.percentile(self.waits_ms, quantile)) if self.waits_ms else float("nan")

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.cuts + other.cuts,
            self.waits_ms + other.waits_ms,
            self.run_together + other.run_together,
            self.said_s + other.said_s,
            self.asked + other.asked,
            (self.at_ends[0] + other.at_ends[0], self.at_ends[1] + other.at_ends[1]),
            (self.inside[0] + other.inside[0], self.inside[1] + other.inside[1]),
        )


class TimedModel:
    """The end-of-turn model, and what its calls cost."""

    def __init__(self, model: TurnModel) -> None:
        self._model = model
        self.cpu_ms: list[float] = []

    def probability(self, heard: Heard, paused: Paused) -> float:
        """What it says of a pause; each stretch is asked about once."""
        key = (max(paused.start_sample, paused.position_sample - HEARD_SAMPLES), paused.position_sample)
        if key not in heard.answers:
            started_s = time.thread_time()
            heard.answers[key] = self._model.probability(heard.samples[slice(*key)])
            self.cpu_ms.append((time.thread_time() - started_s) * 1000)
        return heard.answers[key]


def turns_of(recording: Recording) -> list[Turn]:
    """Who speaks when, in seconds of the recording; all of it where nobody wrote that down."""
    if not recording.segments:
        return [Turn(start=0.0, end=recording.duration_s)]
    turns: list[Turn] = []
    for turn in sorted(recording.segments, key=lambda turn: turn.start):
        last = turns[-1] if turns else None
        if last is not None and last.speaker == turn.speaker and turn.start - last.end < GOES_ON_S:
            turns[-1] = Turn(start=last.start, end=max(last.end, turn.end), speaker=turn.speaker)
        else:
            turns.append(turn)
    return turns


def tally_of(ends: Sequence[Ended], told_samples: Sequence[int], turns: Iterable[tuple[float, float]]) -> Tally:
    """Hold the ends of one recording against where its turns were spoken.

    Args:
        ends: as the endpointer told them.
        told_samples: stream position at which each was told.
        turns: where each turn's speech begins and ends, in seconds.
    """
    tally = Tally()
    spans = list(turns)
    tally.said_s = sum(end - start for start, end in spans)
    silences = [
        (seconds(end.speech_end_sample), seconds(told))
        for end, told in zip(ends, told_samples, strict=True)
        if end.reason == "silence"
    ]
    tally.cuts = sum(
        any(start + SAME_PLACE_S < at_s < end - SAME_PLACE_S for start, end in spans) for at_s, _ in silences
    )
    for _, end in spans:
        waits = [told_s - end for at_s, told_s in silences if abs(at_s - end) <= SAME_PLACE_S]
        if waits:
            tally.waits_ms.append(waits[0] * 1000)
        else:
            tally.run_together += 1
    return tally


def play_policy(policy: Policy, heard: Heard, model: TimedModel) -> Tally:
    """One recording through one endpointer; answers come `ANSWER_MS` after their questions."""
    endpointer = Endpointer(policy.config)
    ends: list[Ended] = []
    told: list[int] = []
    asked: list[tuple[Paused, bool]] = []
    on_their_way: list[tuple[int, Paused, bool]] = []
    for probability in heard.probabilities:
        while on_their_way and on_their_way[0][0] <= endpointer.position_samples:
            _, paused, finished = on_their_way.pop(0)
            endpointer.turned(paused.speech_end_sample, is_complete=finished)
        for edge in endpointer.feed(float(probability)):
            if isinstance(edge, Ended):
                ends.append(edge)
                told.append(endpointer.position_samples)
            elif isinstance(edge, Paused):
                finished = is_complete(model.probability(heard, edge))
                asked.append((edge, finished))
                on_their_way.append((edge.position_sample + samples_in(ms=ANSWER_MS), edge, finished))
    spoken = _spoken(heard, policy.config.threshold - HYSTERESIS)
    tally = tally_of(ends, told, spoken)
    tally.asked = len(asked)
    for paused, finished in asked:
        at_s = seconds(paused.speech_end_sample)
        if any(start + SAME_PLACE_S < at_s < end - SAME_PLACE_S for start, end in spoken):
            tally.inside = (tally.inside[0] + 1, tally.inside[1] + finished)
        elif any(abs(at_s - end) <= SAME_PLACE_S for _, end in spoken):
            tally.at_ends = (tally.at_ends[0] + 1, tally.at_ends[1] + finished)
    return tally


def _spoken(heard: Heard, threshold: float) -> list[tuple[float, float]]:
    """From the first to the last speech that the VAD hears in each turn, in seconds; turns without any are left out."""
    frame_s = seconds(FRAME_SAMPLES)
    spans = []
    for turn in heard.turns:
        first, last = round(turn.start / frame_s), round((turn.end + SAME_PLACE_S) / frame_s)
        frames = np.flatnonzero(heard.probabilities[first:last] >= threshold)
        if len(frames):
            spans.append(((first + frames[0]) * frame_s, (first + frames[-1] + 1) * frame_s))
    return spans
