"""Whether the language is found, how soon, and what is written when the speaker changes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.corpus import Recording, spread
from benchmarks.drive import Sink, Take, rush
from benchmarks.job import Job
from benchmarks.offline import Offline
from benchmarks.report import Cell, Column, Result
from benchmarks.scoring import Errors, letter_errors, total, word_errors
from benchmarks.screen import final_text
from benchmarks.scripts import Script, join, single
from benchmarks.stack import Stack, placement_of, serving
from mediaserver.audio.clock import samples_in
from mediaserver.decoder.language import SURE
from mediaserver.decoder.window import Kind, Window
from mediaserver.errors import ConfigError
from mediaserver.events import Final, SpeechStarted
from mediaserver.session import Session
from mediaserver.session_config import SessionConfig

CATEGORIES = ("multilingual", "multilingual-untranscribed", "english-read")
LIMIT, SHORT_LIMIT = 8, 2
"""Recordings of each language."""

SWITCHES, SHORT_SWITCHES = 12, 3
"""Joined sessions: two recordings of one language and two of another."""

HEARD_S = (1.0, 2.0, 3.0)
PRE_ROLL_S = 0.3
"""Speech after which an interim is asked for its language, and what a session's windows have before it."""

MAX_S = 20.0
"""Longest recording: base takes a third of real time for finals and yardstick on two cores."""

RIGHT, RATE = Column("right %", ".0f"), Column("rate %", ".1f")
"""How the numbers of a cell that holds several are written: a column each would not fit a terminal."""

COLUMNS = (
    Column("language"),
    Column("files"),
    Column(f"right at {'/'.join(f'{heard_s:.0f}' for heard_s in HEARD_S)} s %"),
    Column("sure at 1 s %", ".0f"),
    Column("finals right %", ".0f"),
    Column("WER/offline %"),
    Column("CER/offline %"),
)


@dataclass(slots=True)
class Heard:
    """What came of one recording."""

    recording: Recording
    finals: list[bool]
    """Whether each final was in the recording's language."""
    early: dict[float, tuple[bool, bool]] = field(default_factory=dict)
    """By seconds of speech: whether the language was right, and whether it was sure."""
    streamed: str = ""
    offline: str = ""


@dataclass(frozen=True, slots=True)
class Switch:
    """A session whose speaker changed language: which of the finals after the change were in the new one."""

    before: str
    after: str
    right: tuple[bool, ...]


async def measure(job: Job, *, categories: Sequence[str], limit: int | None, switches: int | None) -> Result:
    """Let sessions find the language of every recording, then of joined ones.

    Raises:
        ConfigError: the model knows one language, or no recording fits.
    """
    if len(job.models.whisper.languages) == 1:
        raise ConfigError(
            "ONE_LANGUAGE", f"{job.settings.model} knows one language alone.", "Choose another, as by --model base."
        )
    piles = _piles(job, categories or CATEGORIES, limit or (SHORT_LIMIT if job.short else LIMIT))
    pairs = list(_pairs(piles, switches or (SHORT_SWITCHES if job.short else SWITCHES)))
    recordings = [recording for pile in piles.values() for recording in pile]
    async with serving(job.settings, job.models) as stack:
        takes = await _stream(job, stack, [single(recording) for recording in recordings], label="recordings")
        heard = [
            Heard(r, _finals_right(t, r), streamed=final_text(t.seen)) for r, t in zip(recordings, takes, strict=True)
        ]
        await _listen_early(job, stack, takes, heard)
        scripts = [join(f"{a[0].path} > {b[0].path}", [*a, *b], seed=n) for n, (a, b) in enumerate(pairs)]
        changed = await _stream(job, stack, scripts, label="changes of language")
    await _offline(job, heard)
    return _result(job, heard, [_switch(take) for take in changed])


def _piles(job: Job, categories: Sequence[str], limit: int) -> dict[str, list[Recording]]:
    """The recordings of each language, by language."""
    known = job.heard_languages(())
    found = job.corpus.select(categories=categories, languages=known, with_text=False, min_s=1.0, max_s=MAX_S)
    if not found:
        raise ConfigError("NO_SPEECH", "No recording fits the selection.", "Widen --category.")
    piles: dict[str, list[Recording]] = {}
    for recording in spread(found):
        piles.setdefault(recording.language_code or "", []).append(recording)
    return {code: piles[code][:limit] for code in sorted(piles)}


def _pairs(piles: dict[str, list[Recording]], count: int) -> Iterator[tuple[list[Recording], list[Recording]]]:
    """Two recordings each of two languages, every language with the next ones in turn."""
    codes = [code for code, pile in piles.items() if len(pile) >= 2]
    for number in range(count if len(codes) > 1 else 0):
        shift = 1 + number // len(codes)
        first, second = codes[number % len(codes)], codes[(number + shift) % len(codes)]
        if first != second:
            yield piles[first][:2], piles[second][:2]


async def _stream(job: Job, stack: Stack, scripts: Sequence[Script], *, label: str) -> list[Take]:
    def open_session(name: str, sink: Sink) -> Session:
        return stack.open(name, sink, SessionConfig.model_validate({"interim_results": False}))

    with job.progress(in_seconds=False) as progress:
        task = progress.add_task(label, total=len(scripts))
        drive = await rush(
            scripts, open_session, busy=stack.decoder.busy, at_once=2, on_done=lambda take: progress.advance(task)
        )
    return drive.takes


def _finals_right(take: Take, recording: Recording) -> list[bool]:
    finals = [item.event for item in take.seen if isinstance(item.event, Final) and item.event.transcript]
    return [final.language == recording.language_code for final in finals]


async def _listen_early(job: Job, stack: Stack, takes: Sequence[Take], heard: Sequence[Heard]) -> None:
    """Ask for the language after the first seconds of speech, as a session's interims do."""
    with job.progress(in_seconds=False) as progress:
        task = progress.add_task("first seconds", total=len(takes))
        for take, item in zip(takes, heard, strict=True):
            progress.advance(task)
            begun = next((seen.event.at for seen in take.seen if isinstance(seen.event, SpeechStarted)), None)
            if begun is None:
                continue
            for heard_s in HEARD_S:
                start, end = samples_in(s=max(begun - PRE_ROLL_S, 0.0)), samples_in(s=begun + heard_s)
                if begun + heard_s > take.script.said[-1].end_s:
                    continue
                window = Window(take.script.name, Kind.FIRST_INTERIM, take.script.samples[start:end], start)
                found = await stack.decoder.decode(window)
                is_sure = (found.language_probability or 0.0) >= SURE
                item.early[heard_s] = found.language == item.recording.language_code, is_sure


def _switch(take: Take) -> Switch:
    first, second = take.script.said[0].recording, take.script.said[2].recording
    changed_s = take.script.said[2].start_s
    finals = [item.event for item in take.seen if isinstance(item.event, Final) and item.event.transcript]
    after = [final for final in finals if final.start + final.duration / 2 > changed_s]
    return Switch(
        before=first.language_code or "",
        after=second.language_code or "",
        right=tuple(final.language == second.language_code for final in after),
    )


async def _offline(job: Job, heard: Sequence[Heard]) -> None:
    """The yardstick: whole files, with the language told."""
    offline = await asyncio.to_thread(Offline, job.models.whisper.directory, placement_of(job.settings))
    with job.progress(in_seconds=False) as progress:
        task = progress.add_task("offline", total=len(heard))
        for item in heard:
            if item.recording.text:
                samples, code = item.recording.read(), item.recording.language_code
                item.offline = await asyncio.to_thread(offline.transcribe, samples, code)
            progress.advance(task)


def _share(flags: Sequence[bool]) -> float | None:
    return 100 * sum(flags) / len(flags) if flags else None


def _errors(job: Job, heard: Sequence[Heard]) -> tuple[Errors, Errors, Errors, Errors]:
    """Words and letters: streamed, offline, streamed, offline."""
    sums: list[list[Errors]] = [[], [], [], []]
    for item in heard:
        if not item.recording.text:
            continue
        code = item.recording.language_code
        for at, text in enumerate((item.streamed, item.offline)):
            pair = job.normaliser.pair(item.recording.text, text, code)
            sums[at].append(word_errors(*pair))
            sums[at + 2].append(letter_errors(*pair))
    return total(sums[0]), total(sums[1]), total(sums[2]), total(sums[3])


def _row(job: Job, label: str, heard: Sequence[Heard]) -> list[Cell]:
    early = {at: [item.early[at] for item in heard if at in item.early] for at in HEARD_S}
    rates = [RATE.write(100 * error.rate if error.words else None) for error in _errors(job, heard)]
    return [
        label,
        len(heard),
        "/".join(RIGHT.write(_share([right for right, _ in early[at]])) for at in HEARD_S),
        _share([sure for _, sure in early[HEARD_S[0]]]),
        _share([right for item in heard for right in item.finals]),
        f"{rates[0]}/{rates[1]}",
        f"{rates[2]}/{rates[3]}",
    ]


def _result(job: Job, heard: Sequence[Heard], switches: Sequence[Switch]) -> Result:
    codes = sorted({item.recording.language_code or "" for item in heard})
    rows = [_row(job, code, [item for item in heard if item.recording.language_code == code]) for code in codes]
    rows.append(_row(job, "all", heard))
    sure = {
        at: [right for item in heard for right, is_sure in [item.early.get(at, (False, False))] if is_sure]
        for at in HEARD_S
    }
    told = [switch for switch in switches if switch.right]
    return Result(
        name="languages",
        title=f"Languages that {job.settings.model} finds",
        columns=COLUMNS,
        rows=rows,
        notes=[
            "Right at n s: the language of an interim's window with so much speech. Finals: streaming sessions that "
            "were told no language; offline: faster-whisper over the whole file, beam 5, told the language.",
            "Of those that were sure, right: "
            + ", ".join(f"{sum(flags)} of {len(flags)} at {at:.0f} s" for at, flags in sure.items())
            + ".",
            f"Sessions whose speaker changes language: {sum(s.right[0] for s in told)} of {len(told)} wrote the first "
            f"utterance after the change in its language, {sum(all(s.right[1:]) for s in told)} all later ones.",
        ],
        details={
            "recordings": [
                {
                    "path": item.recording.path,
                    "language": item.recording.language_code,
                    "early": {str(at): list(flags) for at, flags in item.early.items()},
                    "finals_right": item.finals,
                    "reference": item.recording.text,
                    "streaming": item.streamed,
                    "offline": item.offline,
                }
                for item in heard
            ],
            "switches": [{"before": s.before, "after": s.after, "right": list(s.right)} for s in switches],
        },
        draw=lambda axes: _draw(axes, heard),
    )


def _draw(axes: Any, heard: Sequence[Heard]) -> None:
    labels = [*(f"{at:.0f} s" for at in HEARD_S), "final"]
    early = [[item.early[at] for item in heard if at in item.early] for at in HEARD_S]
    right = [*(_share([r for r, _ in flags]) for flags in early), _share([r for item in heard for r in item.finals])]
    axes.bar(labels, [value or 0.0 for value in right], color="tab:blue", label="right")
    axes.plot(
        labels[:-1], [_share([s for _, s in flags]) or 0.0 for flags in early], "o-", color="tab:orange", label="sure"
    )
    axes.set_ylabel("share of windows, %")
    axes.set_xlabel("speech heard")
    axes.set_ylim(0, 105)
    axes.legend(loc="lower right")
