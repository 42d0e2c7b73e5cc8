"""Words written about sounds in which nobody speaks: there must be none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.drive import Sink, Take, play
from benchmarks.job import Job, broken_promises, unclean
from benchmarks.noises import generated, is_voiced, recorded
from benchmarks.report import Cell, Column, Result
from benchmarks.screen import final_text, interim_words, score_stream, tokens
from benchmarks.stack import serving
from mediaserver.events import SpeechStarted
from mediaserver.session import Session
from mediaserver.settings import SessionConfig

NOISE_CATEGORY = "noise"

SECONDS_EACH, SHORT_SECONDS_EACH = 40.0, 12.0
"""Length of each noise: as long as the recordings are, and two or three utterances' worth."""

QUOTE_LETTERS = 30
"""What of the words fits a line; all of them are in the JSON."""

COLUMNS = (
    Column("noise"),
    Column("s", ".0f"),
    Column("speech"),
    Column("shown"),
    Column("in finals"),
    Column("what they were"),
)


async def measure(job: Job, *, seconds_each: float | None) -> Result:
    """Play every noise in a session of its own, all at once in real time, interims on."""
    length_s = seconds_each if seconds_each is not None else SHORT_SECONDS_EACH if job.short else SECONDS_EACH
    recordings = job.corpus.select(categories=[NOISE_CATEGORY], with_text=False)
    scripts = [*generated(length_s), *recorded(recordings, length_s)]
    async with serving(job.settings, job.models) as stack:

        def open_session(name: str, sink: Sink) -> Session:
            return stack.open(name, sink, SessionConfig.model_validate({}))

        with job.progress(in_seconds=True) as progress:
            task = progress.add_task(f"{len(scripts)} noises", total=length_s)
            drive = await play(
                scripts, open_session, on_progress=lambda played_s: progress.update(task, completed=played_s)
            )
    rows = [_row(take) for take in drive.takes]
    invented = sum(_shown(take) for take in drive.takes if not is_voiced(take.script.name))
    return Result(
        name="invention",
        title=f"Words that {job.settings.model} writes where nobody speaks: {invented}",
        columns=COLUMNS,
        rows=rows,
        notes=[
            "Speech: how often the VAD heard some. Shown: words that came up in interims or finals. "
            "Babble consists of voices and is not counted.",
            *unclean(drive, label="noises"),
        ],
        details={
            "invented_words": invented,
            "finals": {take.script.name: final_text(take.seen) for take in drive.takes},
            "interims": {take.script.name: interim_words(take.seen) for take in drive.takes},
        },
        failed=[
            *([f"{invented} words were invented."] if invented else []),
            *broken_promises(drive, label="noises"),
        ],
        draw=lambda axes: _draw(axes, rows),
    )


def _shown(take: Take) -> int:
    return score_stream(take.seen).shown_words


def _row(take: Take) -> list[Cell]:
    text = final_text(take.seen)
    said = text or " ".join(interim_words(take.seen))
    return [
        Path(take.script.name).stem,
        take.script.duration_s,
        sum(isinstance(item.event, SpeechStarted) for item in take.seen),
        _shown(take),
        len(tokens(text)),
        said if len(said) <= QUOTE_LETTERS else said[: QUOTE_LETTERS - 1] + "…",
    ]


def _draw(axes: Any, rows: list[list[Cell]]) -> None:
    axes.barh([row[0] for row in rows], [row[3] for row in rows])
    axes.set_xlabel("words shown")
