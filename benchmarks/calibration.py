"""How far a word's confidence can be believed, and where words lie: whole sessions against references.

Sessions run on raw probabilities here, so that a new curve can be fitted; the one that ships is applied afterwards, as
the session would. *Held out*: a curve fitted on one half of the speakers is judged on the other half, and the other
way round; so the figure is about speakers whom the curve has not met.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.corpus import Recording
from benchmarks.drive import Drive, Sink, Take
from benchmarks.job import Job, broken_promises
from benchmarks.march import march
from benchmarks.offline import BEAM_SIZE, Offline
from benchmarks.reliability import BINS, Judge, Reliability, equal_mass, fit, reliability
from benchmarks.report import Cell, Column, Result
from benchmarks.scoring import percentile
from benchmarks.scripts import single
from benchmarks.stack import Stack, placement_of, serving
from benchmarks.word_times import Boundary, boundaries, misplaced
from mediaserver.decoder.confidence import RAW, Calibration, Curve, calibration_of, text_confidence
from mediaserver.errors import ConfigError
from mediaserver.events import Event, Final, Interim, Revision, Word
from mediaserver.session import Session

LONGEST_S = 150.0
"""Longest recording: one speaker of eight minutes would outweigh fifty others."""

SHORT_LIMIT = 6
"""Recordings per category of a short run."""

COLUMNS = (
    Column("what"),
    Column("curve"),
    Column("n"),
    Column("right %", ".1f"),
    Column("sure %", ".1f"),
    Column("ECE", ".3f"),
    Column("by width", ".3f"),
    Column("Brier", ".3f"),
    Column("AUC", ".3f"),
)


@dataclass(frozen=True, slots=True)
class Spoken:
    """A word that was told, and whether it is right.

    Args:
        stage: `interim`; `final` as first sent; `settled`: what remains of finals and revisions.
        raw: the mean probability of its tokens.
        text: tells the utterance from all others of the run.
    """

    recording: Recording
    stage: str
    raw: float
    is_right: bool
    text: tuple[str, int]

    @property
    def half(self) -> int:
        """The half of the corpus that it belongs to, by its speaker: copies with noise or by telephone go along."""
        name = self.recording.speaker or self.recording.path
        return hashlib.sha256(name.encode()).digest()[0] % 2


Curves = Callable[[Spoken], float]
"""The confidence of a word."""


async def measure(
    job: Job,
    *,
    categories: Sequence[str],
    languages: Sequence[str],
    collections: Sequence[str],
    limit: int | None,
    at_once: int,
    fit_curves: bool,
) -> Result:
    """Play each recording through a session of its own, tell right words from wrong ones, align the whole of it."""
    recordings = job.corpus.select(
        categories=categories,
        languages=job.heard_languages(languages),
        collections=collections,
        max_s=LONGEST_S,
        limit=limit if limit is not None else SHORT_LIMIT if job.short else None,
    )
    if not recordings:
        raise ConfigError(
            "NO_SPEECH", "No recording fits the selection.", "Widen --category, --collection or --language."
        )
    async with serving(job.settings, job.models, faster=True) as stack:
        drive = await _stream(job, stack, recordings, at_once=at_once)
    places = await _places(job, drive.takes)
    judge = Judge(job.normaliser)
    spoken = [word for take in drive.takes for word in spoken_in(take, judge)]
    return _result(job, drive, spoken, places, fit_curves=fit_curves)


async def _stream(job: Job, stack: Stack, recordings: Sequence[Recording], *, at_once: int) -> Drive:
    by_name = {recording.path: recording for recording in recordings}

    def open_session(name: str, sink: Sink) -> Session:
        return stack.open(name, sink, job.config(by_name[name]), calibration=RAW)

    scripts = [single(recording) for recording in recordings]
    with job.progress(in_seconds=True) as progress:
        task = progress.add_task("streaming", total=sum(script.duration_s for script in scripts))
        return await march(
            scripts,
            open_session,
            held=stack.held,
            at_once=at_once,
            on_progress=lambda played_s: progress.update(task, completed=played_s),
        )


async def _places(job: Job, takes: Sequence[Take]) -> list[Boundary]:
    """How far the settled words of all streams lie from those of whole-file transcriptions."""
    offline = await asyncio.to_thread(Offline, job.models.whisper.directory, placement_of(job.settings))
    found: list[Boundary] = []
    with job.progress(in_seconds=False) as progress:
        task = progress.add_task("aligning", total=len(takes))
        for take in takes:
            language = job.config(take.script.said[0].recording).language
            words = await asyncio.to_thread(offline.words, take.script.samples, language)
            settled = _settled(item.event for item in take.seen)
            found += boundaries([word for number in sorted(settled) for word in settled[number].words], words)
            progress.advance(task)
    return found


def spoken_in(take: Take, judge: Judge) -> list[Spoken]:
    """The words of a stream's interims, finals as first sent, and what remains of them; marks and fillers left out."""
    recording = take.script.said[0].recording
    events = [item.event for item in take.seen]
    finals = {event.utterance_id: event for event in reversed(events) if isinstance(event, Final)}
    settled = _settled(events)
    found: list[Spoken] = []

    def add(stage: str, words: Sequence[tuple[int, Word]], counted: slice) -> None:
        right = judge.right_words(recording.text or "", [word.word for _, word in words], recording.language_code)
        for (number, word), is_right in list(zip(words, right, strict=True))[counted]:
            if is_right is not None:
                found.append(Spoken(recording, stage, word.confidence, is_right, (recording.path, number)))

    for stage, texts in (("final", finals), ("settled", settled)):
        add(stage, [(number, word) for number in sorted(texts) for word in texts[number].words], slice(None))
    rest = [(number, word) for number in sorted(settled) for word in settled[number].words]
    for event in events:
        if isinstance(event, Interim) and event.words:
            # What was said before and after it is taken from what remains in the end, so that only its words count.
            number, end_s = event.utterance_id, event.words[-1].end
            before = [item for item in rest if item[0] < number]
            after = [item for item in rest if item[0] > number or (item[0] == number and _middle_s(item[1]) >= end_s)]
            own = [(number, word) for word in event.words]
            add("interim", [*before, *own, *after], slice(len(before), len(before) + len(own)))
    return found


def _settled(events: Iterable[Event]) -> dict[int, Final | Revision]:
    return {event.utterance_id: event for event in events if isinstance(event, Final | Revision)}


def _middle_s(word: Word) -> float:
    return (word.start + word.end) / 2


def fitted(spoken: Sequence[Spoken]) -> Calibration:
    """The curves of these words: one for what remains in the end, one for interims."""

    def curve(stage: str) -> Curve:
        words = [word for word in spoken if word.stage == stage]
        return fit([word.raw for word in words], [word.is_right for word in words])

    return Calibration(final=curve("settled"), interim=curve("interim"))


def _applied(calibration: Calibration) -> Curves:
    return lambda word: (calibration.interim if word.stage == "interim" else calibration.final)(word.raw)


def _held_out(spoken: Sequence[Spoken]) -> Curves:
    halves = [_applied(fitted([word for word in spoken if word.half != half])) for half in (0, 1)]
    return lambda word: halves[word.half](word)


def of_words(spoken: Sequence[Spoken], curves: Curves) -> Reliability:
    """How far the words' confidence can be believed."""
    return reliability([curves(word) for word in spoken], [word.is_right for word in spoken])


def of_texts(spoken: Sequence[Spoken], curves: Curves) -> Reliability:
    """How far a text's confidence can be believed to be the share of its words that are right."""
    texts: dict[tuple[str, int], list[Spoken]] = {}
    for word in spoken:
        texts.setdefault(word.text, []).append(word)
    return reliability(
        [text_confidence([curves(word) for word in words]) for words in texts.values()],
        [sum(word.is_right for word in words) / len(words) for words in texts.values()],
    )


def _result(
    job: Job, drive: Drive, spoken: Sequence[Spoken], places: Sequence[Boundary], *, fit_curves: bool
) -> Result:
    shipped = calibration_of(job.settings.model)
    held_out = _held_out(spoken)
    curves = {"none": _applied(RAW), "held out": held_out}
    if shipped is not RAW:
        curves["shipped"] = _applied(shipped)
    of_stage = {stage: [word for word in spoken if word.stage == stage] for stage in ("settled", "final", "interim")}
    settled = of_stage["settled"]
    judged = [
        (f"{stage} words", how, of_words(words, curve))
        for stage, words in of_stage.items()
        for how, curve in curves.items()
    ]
    judged += [("settled texts", how, of_texts(settled, curve)) for how, curve in curves.items()]
    for category in sorted({word.recording.category for word in settled}):
        words = [word for word in settled if word.recording.category == category]
        judged.append((category, "held out", of_words(words, held_out)))
    wrong = [
        f"{take.script.name}: {place}" for take in drive.takes for place in misplaced(item.event for item in take.seen)
    ]
    errors_s = [abs(value) for place in places for value in (place.start_s, place.end_s)]
    made = fitted(spoken)
    return Result(
        name="calibration",
        title=f"Confidence of {job.settings.model}: expected calibration error",
        columns=COLUMNS,
        rows=[_row(what, how, found) for what, how, found in judged],
        notes=[
            f"{len(drive.takes)} recordings, played faster than real time. ECE: {BINS} bins of equal numbers of words, "
            "beside it of equal width. Held out: fitted on one half of the speakers, judged on the other, both ways. "
            "Shipped: the curve of this version, which may have been fitted on these recordings.",
            f"Word boundaries against faster-whisper over the whole file (beam {BEAM_SIZE}, same weights) where "
            f"{len(places)} words match: median {_ms(errors_s, 50)}, p95 {_ms(errors_s, 95)}. "
            f"Words out of order or outside the audio: {len(wrong)}.",
            *([f"Fitted on all: final {made.final.knots}, interim {made.interim.knots}."] if fit_curves else []),
        ],
        details={
            "reliability": [{"what": what, "curve": how, **asdict(found)} for what, how, found in judged],
            "fitted": asdict(made),
            "boundary_median_s": percentile(errors_s, 50),
            "boundary_p95_s": percentile(errors_s, 95),
            "start_bias_s": percentile([place.start_s for place in places], 50),
            "end_bias_s": percentile([place.end_s for place in places], 50),
            "matched_words": len(places),
            "misplaced": wrong,
        },
        failed=[*broken_promises(drive, label="calibration"), *(f"Misplaced word: {place}." for place in wrong[:5])],
        draw=lambda axes: _draw(axes, settled, curves),
    )


def _row(what: str, how: str, found: Reliability) -> list[Cell]:
    return [
        what,
        how,
        found.count,
        100 * found.accuracy,
        100 * found.confidence,
        found.ece,
        found.ece_width,
        found.brier,
        found.auc,
    ]


def _ms(values_s: Sequence[float], percent: float) -> str:
    value_s = percentile(values_s, percent)
    return "–" if value_s is None else f"{1000 * value_s:.0f} ms"


def _draw(axes: Any, spoken: Sequence[Spoken], curves: dict[str, Curves]) -> None:
    """The reliability plot: share of right words over confidence, in bins of equal numbers of words."""
    truth = np.array([word.is_right for word in spoken], dtype=np.float64)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for how, curve in curves.items():
        sure = np.array([curve(word) for word in spoken])
        bins = equal_mass(sure)
        points = [(sure[bins == b].mean(), truth[bins == b].mean()) for b in np.unique(bins)]
        axes.plot(*zip(*points, strict=True), "o-", label=how)
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of right words")
    axes.legend()
