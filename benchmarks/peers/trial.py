"""What a server did with a number of speakers: a row of the table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.job import BUSY_CORES
from benchmarks.latency import pair
from benchmarks.peers.contenders import Contender
from benchmarks.peers.perform import Cost
from benchmarks.report import Cell, Column
from benchmarks.scoring import Errors, percentile
from benchmarks.screen import ScreenScore

LATE_S = 0.1
"""Blocks that leave later than this, at the 99th percentile, are told: the clients were not on time."""

COLUMNS = (
    Column("server"),
    Column("at once"),
    Column("first text s", ".1f"),
    Column("word p50 / p95 s"),
    Column("final p95 s", ".1f"),
    Column("flicker %", ".1f"),
    Column("WER %", ".1f"),
    Column("cores each", ".2f"),
    Column("RSS MiB", ".0f"),
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One server with one number of speakers.

    Args:
        score: of all text on screen.
        settled: of the text alone that the server calls final.
        words: how many words the yardstick heard; those that a server showed otherwise have no latency.
    """

    contender: str
    server: str
    speakers: int
    score: ScreenScore
    settled: ScreenScore
    errors: Errors
    words: int
    cost: Cost
    texts: tuple[str, ...]

    @property
    def p95_s(self) -> float:
        """p95 of the word latency; infinite if nothing was shown."""
        value = percentile(self.score.word_s, 95)
        return float("inf") if value is None else value

    @property
    def row(self) -> list[Cell]:
        """The table's row."""
        return [
            self.contender,
            self.speakers,
            percentile(self.score.first_text_from_word_s, 50),
            pair(self.score.word_s),
            percentile(self.settled.word_s, 95),
            100 * self.score.flicker,
            100 * self.errors.rate,
            self.cost.cores_per_stream,
            self.cost.rss_peak_mib,
        ]

    @property
    def notes(self) -> list[str]:
        """What is not clean about it."""
        label = f"{self.contender}, {self.speakers}"
        found = []
        if self.cost.others_cores > BUSY_CORES:
            found.append(f"{label}: other processes kept {self.cost.others_cores:.1f} cores busy; times are not clean.")
        if self.cost.late_p99_s > LATE_S:
            found.append(f"{label}: clients were up to {self.cost.late_p99_s:.2f} s late (p99).")
        return found

    def as_dict(self) -> dict[str, Any]:
        """For the JSON: every figure, and every latency behind it."""
        return {
            "server": self.server,
            "contender": self.contender,
            "speakers": self.speakers,
            "p50_word_s": percentile(self.score.word_s, 50),
            "p95_word_s": self.p95_s,
            "p95_final_word_s": percentile(self.settled.word_s, 95),
            "flicker": self.score.flicker,
            "wer": self.errors.rate,
            "timed_words_share": len(self.score.word_s) / self.words if self.words else 0.0,
            "cost": asdict(self.cost),
            "screen": asdict(self.score),
            "final_words_s": self.settled.word_s,
            "texts": self.texts,
        }


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a contender came: the most speakers within the bound, 0 if not one; `failures` in the server's words."""

    contender: Contender
    speakers: int
    trials: tuple[Trial, ...]
    failures: tuple[str, ...] = ()
