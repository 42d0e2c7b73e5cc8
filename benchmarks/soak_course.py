"""What is seen of a long run while it lasts, and the file in which that stands if the run comes to no end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.corpus import Recording
from benchmarks.load import unheard_of
from benchmarks.load_server import Look, lag_s
from benchmarks.machine import Provenance
from benchmarks.rtp_drivers import Left, Report
from benchmarks.rtp_peer import SetUp

NAME = "soak.jsonl"


@dataclass(slots=True)
class Sample:
    """One look while it runs."""

    at_s: float
    media_mib: float
    engine_mib: float
    files: int
    threads: int
    guests: int
    talking: int
    media_cores: float
    engine_cores: float
    lag_p99_s: float | None


def sample_of(begun: Look, before: Look, after: Look, report: Report) -> Sample:
    """What the newest look says, beside the one before and the first."""
    wall_s = after.at_s - before.at_s
    return Sample(
        at_s=after.at_s - begun.at_s,
        media_mib=after.media.rss_mib,
        engine_mib=after.engine.rss_mib,
        files=after.media.files,
        threads=after.media.threads,
        guests=report.guests,
        talking=report.talking,
        media_cores=(after.media.cpu_s - before.media.cpu_s) / wall_s,
        engine_cores=(after.engine.cpu_s - before.engine.cpu_s) / wall_s,
        lag_p99_s=lag_s(before, after, 0.99),
    )


@dataclass(slots=True)
class Course:
    """What was seen over the whole run so far.

    Args:
        recordings: that are played, by their numbers.
        returned: how long those took who came back over another connection.
        unreturned: those who could not, by why.
        dropped: sessions whose client was gone for good.
    """

    recordings: Sequence[Recording]
    samples: list[Sample] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    set_ups: list[SetUp] = field(default_factory=list)
    returned: list[SetUp] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    unreturned: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    cut: bool = False
    others_cores: float = 0.0

    def take(self, report: Report) -> None:
        """Add what happened since the report before."""
        self.left += report.left
        self.set_ups += report.set_ups
        self.returned += report.returned
        self.refused, self.unreturned = Counter(report.refused), Counter(report.unreturned)
        self.dropped = report.dropped

    @property
    def reasons(self) -> Counter[str]:
        """Why sessions ended."""
        return Counter(peer.reason or "none" for peer in self.left)

    @property
    def lost(self) -> int:
        """Sessions that ended though their client wanted them, but for those that it could not come back to."""
        return self.reasons.total() - sum(self.reasons[reason] for reason in ("client", "dropped", "unresumed"))

    @property
    def unheard(self) -> list[str]:
        """Recordings that got no final, and text that got none."""
        return unheard_of(self.recordings, self.left)

    @property
    def unheard_over_drops(self) -> list[str]:
        """Those of them in sessions whose client was away in between."""
        return unheard_of(self.recordings, [peer for peer in self.left if peer.drops])

    @property
    def told_twice(self) -> int:
        """Finals that came again after their client did."""
        return sum(peer.twice for peer in self.left)

    def told(self) -> dict[str, Any]:
        """The newest look and all counts so far."""
        return {
            "sample": asdict(self.samples[-1]) if self.samples else None,
            "sessions": len(self.left),
            "reasons": self.reasons,
            "dropped": self.dropped,
            "returned": len(self.returned),
            "unreturned": self.unreturned,
            "refused": self.refused,
            "recordings": sum(len(peer.said) for peer in self.left),
            "unheard": self.unheard,
            "unheard_over_drops": self.unheard_over_drops,
            "told_twice": self.told_twice,
        }


class Diary(AbstractContextManager["Diary"]):
    """A file with a line of JSON for each look, written as it goes: what is left of a run that is killed.

    Args:
        folder: where it goes, in place of the one of the last run; None: nowhere.
        where: its first line.
    """

    def __init__(self, folder: Path | None, where: Provenance | None) -> None:
        self.path = None if folder is None else folder / NAME
        if folder is not None and self.path is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8")
            self.write({} if where is None else asdict(where))

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line. Blocks for the write."""
        if self.path is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path is not None:
            self._file.close()
