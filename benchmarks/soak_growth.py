"""Whether something grows over a long run, and how many speakers are a share of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_SPEAKERS = 64

LEAST_CORES = 0.01
"""A speaker costs more than this; where no more is seen, all who were watched did not load the machine."""

SETTLED_SHARE = 1 / 3
"""The first third of a run is for caches and allocators; memory is judged by what follows."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How something went after the first third of a run.

    Args:
        per_hour: of a line through the looks (least squares).
        step: mean of the last third less that of the second.
        third_h: how long a third is, in hours.
    """

    per_hour: float
    step: float
    third_h: float

    @property
    def hourly(self) -> float:
        """The lesser of the two ways to see it: noise raises the one or the other, a leak raises both."""
        return min(self.per_hour, self.step / self.third_h)


def growth(times_s: Sequence[float], values: Sequence[float]) -> Growth | None:
    """How values went after the first third of their time; None of fewer than six looks."""
    if len(values) < 6:
        return None
    settled = [(at, value) for at, value in zip(times_s, values, strict=True) if at >= times_s[-1] * SETTLED_SHARE]
    late = [value for at, value in settled if at >= times_s[-1] * 2 / 3]
    middle = [value for at, value in settled if at < times_s[-1] * 2 / 3]
    if not late or not middle or len(settled) < 3:
        return None
    line = np.polyfit([at / 3600 for at, _ in settled], [value for _, value in settled], 1)
    return Growth(float(line[0]), float(np.mean(late) - np.mean(middle)), times_s[-1] / 3 / 3600)


def speakers_for(load: float, watched: Sequence[tuple[int, float]], *, cores: float) -> int:
    """How many may speak at once for that share of the cores, by a line through what was watched.

    Args:
        load: from 0 to 1.
        watched: speakers, and the cores that were used meanwhile.
        cores: that there are for the server.
    """
    if len(watched) < 2:
        return 1
    counts, used = zip(*watched, strict=True)
    slope, base = np.polyfit(counts, used, 1)
    if slope < LEAST_CORES:
        return int(max(counts))
    return max(1, min(MOST_SPEAKERS, int(float((load * cores - base) / slope))))
