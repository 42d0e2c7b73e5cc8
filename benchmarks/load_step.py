"""One step of `voiceforge bench load`: a row of its table, and what it says of the promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks import reels
from benchmarks.job import BUSY_CORES
from benchmarks.latency import pair
from benchmarks.report import Cell, Column
from benchmarks.rtp_peer import SetUp
from benchmarks.scoring import Errors, percentile
from benchmarks.screen import ScreenScore

MEDIA_PERCENT = 1.0
PEERS_PER_CORE = 80
PEER_MIB = 1.0
READY_P95_MS = 300.0
"""The promises: CPU of the media process for each connected peer, peers that a core carries, memory of a peer, and the
time from an offer to the first event where they come in turn."""

HEARD_SHARE = 0.98
"""A step in which the server heard less of what was sent was no measurement: somebody else had the processor."""

COLUMNS = (
    Column("what"),
    Column("peers"),
    Column("ready p50 / p95 / p99 ms"),
    Column("set-ups per s", ".1f"),
    Column("media % of a core per peer", ".2f"),
    Column("engine cores", ".2f"),
    Column("MiB per peer", ".2f"),
    Column("loop lag p99 / max ms"),
    Column("heard %", ".1f"),
    Column("word p50 / p95 s"),
    Column("final p50 / p95 s"),
    Column("WER %", ".1f"),
    Column("refused"),
    Column("lost"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One number of peers doing one thing.

    Args:
        heard_share: of the packets that were sent meanwhile.
        others_cores: that the rest of the machine kept busy.
        drivers_cores: what the peers themselves cost.
        score, errors: of what was said in it; None where nobody spoke.
    """

    what: str
    peers: int
    seconds: float
    set_ups: Sequence[SetUp]
    set_ups_s: float
    media_cores: float
    engine_cores: float
    drivers_cores: float
    others_cores: float
    mib_each: float | None
    lag_p99_s: float | None
    lag_max_s: float | None
    heard_share: float | None
    refused: int
    lost: int
    score: ScreenScore | None = None
    errors: Errors | None = None
    unheard: Sequence[str] = field(default_factory=tuple)

    @property
    def media_percent(self) -> float:
        """CPU of the media process for one peer, in percent of a core."""
        return 100 * self.media_cores / self.peers

    @property
    def ready_ms(self) -> list[float]:
        """From offer to first event, of each peer that came in it."""
        return [1000 * item.ready_s for item in self.set_ups]

    @property
    def is_clean(self) -> bool:
        """Whether nothing else used the machine, so that its times are worth something."""
        return self.others_cores <= BUSY_CORES

    @property
    def summary(self) -> str:
        """What a person is told as soon as it is over."""
        ready_ms = percentile(self.ready_ms, 95)
        return (
            f"{self.peers} peers, {self.what}: media {self.media_cores:.2f} cores, {self.media_percent:.2f} % a peer; "
            f"engine {self.engine_cores:.2f} cores"
            + ("" if ready_ms is None else f"; ready p95 {ready_ms:.0f} ms")
            + f"; {self.refused} refused, {self.lost} lost"
        )

    @property
    def row(self) -> list[Cell]:
        """The table's row."""
        ready = [percentile(self.ready_ms, share) for share in (50, 95, 99)]
        lags = (self.lag_p99_s, self.lag_max_s)
        return [
            self.what,
            self.peers,
            " / ".join(f"{value:.0f}" for value in ready if value is not None) or None,
            len(self.set_ups) / self.set_ups_s if self.set_ups else None,
            self.media_percent,
            self.engine_cores,
            self.mib_each,
            " / ".join(f"{1000 * value:.0f}" for value in lags if value is not None) or None,
            None if self.heard_share is None else 100 * self.heard_share,
            None if self.score is None else pair(self.score.word_s),
            None if self.score is None else pair(self.score.final_s),
            None if self.errors is None else 100 * self.errors.rate,
            self.refused,
            self.lost,
        ]


NAMES: Mapping[str, str] = {reels.ROOM: "room noise", reels.MUTED: "muted", reels.DTX: "silent, DTX"}
"""What peers that say nothing are called in the table."""


def unclean(step: Step) -> list[str]:
    """What makes its figures less than certain."""
    label = f"{step.what}, {step.peers}"
    found = []
    if not step.is_clean:
        found.append(f"{label}: other processes kept {step.others_cores:.1f} cores busy; times are not clean.")
    if step.heard_share is not None and step.heard_share < HEARD_SHARE:
        found.append(f"{label}: only {100 * step.heard_share:.0f} % of the packets were heard; its costs say nothing.")
    return found


def broken(step: Step, *, is_largest: bool) -> list[str]:
    """The promises that it breaks; those of costs are for the largest number of silent peers."""
    label = f"{step.what}, {step.peers} peers"
    found = []
    if is_largest and step.media_percent > MEDIA_PERCENT:
        found.append(f"{label}: {step.media_percent:.2f} % of a core each; {MEDIA_PERCENT:.0f} % is promised.")
    if is_largest and step.media_percent > 100 / PEERS_PER_CORE:
        found.append(f"{label}: a core carries {100 / step.media_percent:.0f}; {PEERS_PER_CORE} are promised.")
    if is_largest and step.mib_each is not None and step.mib_each > PEER_MIB:
        found.append(f"{label}: {step.mib_each:.2f} MiB each; {PEER_MIB:.0f} is promised.")
    ready_p95 = percentile(step.ready_ms, 95)
    if step.what in NAMES.values() and step.is_clean and ready_p95 is not None and ready_p95 > READY_P95_MS:
        found.append(f"{label}: the first event came after {ready_p95:.0f} ms (p95); {READY_P95_MS:.0f} are promised.")
    if step.lost:
        found.append(f"{label}: {step.lost} sessions were lost.")
    if step.unheard:
        found.append(f"{label}: no final for {len(step.unheard)} utterances ({', '.join(step.unheard[:3])}).")
    return found
