"""The decoder's policy against others: what each costs, how late words come with it and how many are wrong.

Sessions, VAD, scheduler and model are the real ones; time is virtual, and a decode takes as long as a model of its cost
says. So the variants hear the same audio on the same machine, and a difference between two of them is theirs.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ctranslate2

from benchmarks.drive import Drive, Sink, play
from benchmarks.job import Job, broken_promises, screen_score
from benchmarks.latency import pair, scripts_for
from benchmarks.report import Cell, Column, Result
from benchmarks.scoring import Errors, percentile
from benchmarks.screen import ScreenScore
from benchmarks.scripts import Script
from benchmarks.stack import serving
from benchmarks.variants import AS_SHIPPED, VARIANTS, Change, Variant, applied
from benchmarks.virtual import run_virtually
from mediaserver.audio.features import FRAMES_PER_SECOND
from mediaserver.decoder.device import place
from mediaserver.decoder.whisper import GREEDY, REVISION_BEAM, WhisperModel, context_frames
from mediaserver.decoder.window import Kind, Window
from mediaserver.session import Session

SECONDS_EACH, SHORT_SECONDS_EACH = 40.0, 15.0
"""Audio of a speaker: with eight speakers about 800 words, so that one wrong word is an eighth of a point."""

SHORT_SPEAKERS = 2

SHORT_VARIANTS = (AS_SHIPPED, "stable words only", "everything at once", "interim period 1200 ms")
"""The corners of the curves."""

COLUMNS = (
    Column("policy"),
    Column("word p50 / p95 s"),
    Column("stable word p50 / p95 s"),
    Column("first text p50 s", ".2f"),
    Column("final p50 / p95 s"),
    Column("flicker %", ".1f"),
    Column("stable corrected %", ".1f"),
    Column("WER %", ".1f"),
    Column("decode cores per stream", ".3f"),
)


@dataclass(frozen=True, slots=True)
class DecodeCosts:
    """What a batch takes in milliseconds, fitted to batches of 1 to 8 windows in contexts of 4 to 24 s.

    Measured as CPU time with tiny.en int8 on one thread of the AMD EPYC of RESULTS.md, the best of four rounds. Another
    machine is faster or slower by about one factor, and then so are all variants.

    Args:
        encode_per_s, encode_per_s2: encoding an item, by its context in s and the square of it (attention).
        step: a token of the whole batch.
        step_item: the same, for each item and each beam of it.
        step_per_s: the same, for each second of context (cross attention).
        align, align_token, align_per_s: aligning an item that has text: its call, its tokens, its context in s.
        features: the log-mel of an item.
        hop: any other work in a thread, such as a frame of the VAD.
    """

    encode_per_s: float = 7.2
    encode_per_s2: float = 0.35
    step: float = 6.5
    step_item: float = 0.7
    step_per_s: float = 0.05
    align: float = 8.0
    align_token: float = 0.9
    align_per_s: float = 1.2
    features: float = 1.5
    hop: float = 0.5

    def of(self, *, context_s: float, tokens: Sequence[int], beam: int) -> float:
        """Milliseconds of a batch; `tokens` are how many each of its items wrote."""
        items = len(tokens)
        encoding = items * (self.encode_per_s * context_s + self.encode_per_s2 * context_s**2)
        steps = 1 + max(tokens)  # the last one writes the end
        writing = steps * (self.step + self.step_item * items * beam + self.step_per_s * context_s)
        aligning = sum(
            self.align + self.align_token * count + self.align_per_s * context_s for count in tokens if count
        )
        return encoding + writing + aligning + self.features * items


class Meter:
    """Adds up what decodes would have cost, while a model decodes.

    Args:
        costs: of the modelled machine.
    """

    def __init__(self, costs: DecodeCosts) -> None:
        self._costs = costs
        self._unpaid_ms = 0.0
        self.spent_ms: defaultdict[str, float] = defaultdict(float)
        """By kind of window."""
        self.windows: Counter[str] = Counter()
        """Decoded, by kind."""

    def reset(self) -> None:
        """Forget what was spent until now."""
        self.spent_ms.clear()
        self.windows.clear()

    def take_s(self) -> float:
        """What has been done since the last call, in seconds; a hop to another thread where nothing was decoded."""
        cost_ms, self._unpaid_ms = self._unpaid_ms or self._costs.hop, 0.0
        return cost_ms / 1000

    def decoded(self, windows: Sequence[Window], tokens: Sequence[int]) -> None:
        """Take in a batch: its windows, and how many tokens each of them gave."""
        kind = windows[0].kind
        cost_ms = self._costs.of(
            context_s=max(context_frames(window) for window in windows) / FRAMES_PER_SECOND,
            tokens=tokens,
            beam=REVISION_BEAM if kind is Kind.REVISION else GREEDY,
        )
        self._unpaid_ms += cost_ms
        self.spent_ms[kind.name.lower()] += cost_ms
        self.windows[kind.name.lower()] += len(windows)

    @property
    def watching(self) -> Change:
        """What lets it see what models generate."""
        generate = WhisperModel._generate

        def watched(model: WhisperModel, encoded: ctranslate2.StorageView, windows: list[Window], *rest: Any) -> Any:
            items = generate(model, encoded, windows, *rest)
            self.decoded(windows, [len(item.tokens) for item in items])
            return items

        return Change(WhisperModel, "_generate", watched)


@dataclass(frozen=True, slots=True)
class Run:
    """One variant."""

    name: str
    drive: Drive
    score: ScreenScore
    errors: Errors
    meter: Meter
    took_s: float

    @property
    def cores_per_stream(self) -> float:
        """Modelled seconds of decoding per second of a stream."""
        return sum(self.meter.spent_ms.values()) / 1000 / self.drive.load.audio_s

    @property
    def row(self) -> list[Cell]:
        """The table's row."""
        score = self.score
        return [
            self.name,
            pair(score.word_s),
            pair(score.stable_word_s),
            percentile(score.first_text_s, 50),
            pair(score.final_s),
            100 * score.flicker,
            100 * score.stable_corrected_share,
            100 * self.errors.rate,
            self.cores_per_stream,
        ]

    def as_dict(self) -> dict[str, Any]:
        """For the JSON: every figure, and every latency behind it."""
        return {
            "variant": self.name,
            "wer": self.errors.rate,
            "words": self.errors.words,
            "p50_word_s": percentile(self.score.word_s, 50),
            "p95_word_s": percentile(self.score.word_s, 95),
            "cores_per_stream": self.cores_per_stream,
            "decode_ms": dict(self.meter.spent_ms),
            "windows": dict(self.meter.windows),
            "took_s": self.took_s,
            "screen": asdict(self.score),
        }


def replay(
    job: Job, name: str, scripts: Sequence[Script], *, costs: DecodeCosts, on_progress: Callable[[float], None]
) -> Run:
    """Play scripts to sessions under a variant, in virtual time. Blocks; call it where no loop runs.

    One variant at a time in a process: what it changes, it changes for all.
    """
    variant, meter, started_s = VARIANTS[name], Meter(costs), time.perf_counter()
    with applied([*variant.changes, meter.watching]):
        drive = run_virtually(_play(job, variant, scripts, meter, on_progress), cost_s=meter.take_s)
    score, errors = screen_score(drive.takes), job.set_errors(drive.takes)
    return Run(name, drive, score, errors, meter, time.perf_counter() - started_s)


async def _play(
    job: Job, variant: Variant, scripts: Sequence[Script], meter: Meter, on_progress: Callable[[float], None]
) -> Drive:
    # A slot of one thread a core: that is what the costs are of.
    one_thread_each = {"device": "cpu", "slots": 0, "calibrate": False}
    settings = job.settings.model_copy(update={**one_thread_each, **variant.settings})
    config = job.config(scripts[0].said[0].recording).model_copy(update=dict(variant.session))
    async with serving(settings, job.models) as stack:
        meter.reset()

        def open_session(name: str, sink: Sink) -> Session:
            return stack.open(name, sink, config)

        return await play(scripts, open_session, on_progress=on_progress)


async def measure(job: Job, *, speakers: int, seconds_each: float | None, names: Sequence[str]) -> Result:
    """Replay each variant over the same scripts."""
    length_s = seconds_each if seconds_each is not None else SHORT_SECONDS_EACH if job.short else SECONDS_EACH
    count = min(speakers, SHORT_SPEAKERS) if job.short else speakers
    scripts, costs = scripts_for(job, count, length_s), DecodeCosts()
    runs = [
        await _in_thread(job, name, scripts, costs)
        for name in dict.fromkeys(names or (SHORT_VARIANTS if job.short else VARIANTS))
    ]
    cores = place(device="cpu", compute_type=job.settings.compute_type, cpu_threads=job.settings.cpu_threads).slots
    broken = {item.name: broken_promises(item.drive, label=item.name, normaliser=job.normaliser) for item in runs}
    return Result(
        name="policy",
        title=f"Policies of {job.settings.model}: {count} speaker(s) at once on {cores} modelled core(s)",
        columns=COLUMNS,
        rows=[item.row for item in runs],
        notes=[
            "Words are the model's own; waits and cores are of a machine on which decodes cost what details.costs_ms "
            "of the JSON says, in virtual time: they compare variants, and are no measurement of this machine.",
            f"{length_s:.0f} s of read utterances a speaker, {runs[0].errors.words} words: a word is "
            f"{100 / max(runs[0].errors.words, 1):.1f} points of WER, and less than three of them are chance.",
            *(sentence for name, found in broken.items() if name != AS_SHIPPED for sentence in found),
        ],
        details={"costs_ms": asdict(costs), "speakers": count, "runs": [item.as_dict() for item in runs]},
        failed=broken.get(AS_SHIPPED, []),
        draw=lambda axes: _draw(axes, runs),
    )


async def _in_thread(job: Job, name: str, scripts: Sequence[Script], costs: DecodeCosts) -> Run:
    """Replay beside the loop that runs, which shows how far it is and can stop it."""
    stopped = threading.Event()
    with job.progress(in_seconds=True) as progress:
        task = progress.add_task(name, total=max(script.duration_s for script in scripts))

        def on_progress(played_s: float) -> None:
            if stopped.is_set():
                raise RuntimeError("stopped")
            progress.update(task, completed=played_s)

        try:
            return await asyncio.to_thread(replay, job, name, scripts, costs=costs, on_progress=on_progress)
        finally:
            stopped.set()  # a thread that nobody waits for any more would hold up the end of the command


def _draw(axes: Any, runs: Sequence[Run]) -> None:
    """WER and word latency against what decoding costs, one colour a variant."""
    rates = axes.twinx()
    for number, item in enumerate(runs):
        colour, cores = f"C{number % 10}", item.cores_per_stream
        middle_s, late_s = (percentile(item.score.word_s, percent) for percent in (50, 95))
        axes.plot(
            [cores, cores], [middle_s, late_s], "-", color=colour, linewidth=0.8, label=f"{number + 1} {item.name}"
        )
        axes.plot(cores, middle_s, "o", color=colour, markersize=4)
        axes.plot(cores, late_s, "^", color=colour, markersize=4)
        rates.plot(cores, 100 * item.errors.rate, "x", color=colour)
        if late_s is not None:
            axes.annotate(str(number + 1), (cores, late_s), xytext=(0, 4), textcoords="offset points", fontsize=6)
    axes.set_xlabel("decode cores per stream")
    axes.set_ylabel("word latency p50 ● and p95 ▲, s")
    axes.set_ylim(bottom=0)
    rates.set_ylabel("WER ×, %")
    rates.set_ylim(0, 2 * max(0.01, *(100 * item.errors.rate for item in runs)))  # below the latencies
    axes.legend(fontsize=5, loc="upper left", bbox_to_anchor=(1.08, 1.0))
