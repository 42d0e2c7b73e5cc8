"""Words written about sounds in which nobody speaks: there must be none."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.drive import Sink, Take
from benchmarks.job import Job, broken_promises
from benchmarks.march import BLOCK_SAMPLES, march
from benchmarks.noises import LOUD_DBFS, QUIET_DBFS, Noise, generated, recorded
from benchmarks.report import Cell, Column, Result
from benchmarks.screen import interim_words, tokens
from benchmarks.stack import serving
from mediaserver.audio.clock import seconds
from mediaserver.decoder.window import Kind
from mediaserver.events import Final, Revision, SpeechStarted
from mediaserver.session import Session
from mediaserver.session_config import SessionConfig

NOISE_CATEGORY = "noise"

SECONDS_EACH, SHORT_SECONDS_EACH = 600.0, 60.0
"""Length of each noise: ten minutes, as the promise says it; a tenth of it."""

AT_ONCE = 8
"""Sessions at a time: their VAD frames share calls, and their samples (38 MB each) stay a third of a gigabyte."""

VOICED_S = 20.0
"""Length of noises that consist of voices: they are not counted, and every second of them is decoded."""

QUOTE_LETTERS = 30
"""What of the words fits a line; all of them are in the JSON."""

COLUMNS = (
    Column("noise"),
    Column("s", ".0f"),
    Column("speech"),
    Column("decodes"),
    Column("thrown away"),
    Column("in interims"),
    Column("in finals"),
    Column("what they were"),
)

KINDS = tuple(kind.name.lower() for kind in Kind)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a session made of a noise.

    Args:
        triggers: how often the VAD heard speech.
        windows: windows by kind, and texts thrown away by the guard's reason.
        interims: every word that an interim showed.
        finals: every word that a final or revision had, even where a later one took it back.
    """

    noise: Noise
    duration_s: float
    triggers: int
    windows: Counter[str]
    interims: list[str]
    finals: list[str]

    @classmethod
    def of(cls, noise: Noise, take: Take, windows: Counter[str]) -> Heard:
        """What came back in a take."""
        texts = [item.event.transcript for item in take.seen if isinstance(item.event, Final | Revision)]
        return cls(
            noise=noise,
            duration_s=take.script.duration_s,
            triggers=sum(isinstance(item.event, SpeechStarted) for item in take.seen),
            windows=windows,
            interims=interim_words(take.seen),
            finals=[word for text in texts for word in tokens(text)],
        )

    @property
    def invented(self) -> int:
        """Words that nobody said; voices have said theirs."""
        return 0 if self.noise.is_voiced else len(self.interims) + len(self.finals)

    @property
    def rejections(self) -> dict[str, int]:
        """Texts thrown away, by the reason."""
        return {reason: count for reason, count in sorted(self.windows.items()) if reason not in (*KINDS, "replaced")}

    @property
    def row(self) -> list[Cell]:
        """The table's row."""
        said = " ".join(self.finals or self.interims)
        return [
            Path(self.noise.name).stem,
            self.duration_s,
            self.triggers,
            sum(self.windows[kind] for kind in KINDS),
            ", ".join(f"{reason} {count}" for reason, count in self.rejections.items()) or None,
            len(self.interims),
            len(self.finals),
            said if len(said) <= QUOTE_LETTERS else said[: QUOTE_LETTERS - 1] + "…",
        ]

    def as_dict(self) -> dict[str, Any]:
        """For the JSON."""
        return {
            "noise": self.noise.name,
            "seconds": self.duration_s,
            "triggers": self.triggers,
            "windows": dict(self.windows),
            "interims": self.interims,
            "finals": self.finals,
        }


async def measure(job: Job, *, seconds_each: float | None, without_vad: bool) -> Result:
    """Play every noise in a session of its own, interims on, as fast as VAD and decoder allow."""
    length_s = seconds_each if seconds_each is not None else SHORT_SECONDS_EACH if job.short else SECONDS_EACH
    recordings = job.corpus.select(categories=[NOISE_CATEGORY], with_text=False)
    noises = [*generated(length_s), *recorded(recordings, length_s, voiced_s=min(length_s, VOICED_S))]
    config = SessionConfig.model_validate({"vad_enabled": not without_vad})
    heard: dict[str, Heard] = {}
    broken: list[str] = []
    waiting = iter(noises)
    async with serving(job.settings, job.models, faster=True) as stack:

        def open_session(name: str, sink: Sink) -> Session:
            return stack.open(name, sink, config)

        with job.progress(in_seconds=True) as progress:
            task = progress.add_task(f"{len(noises)} noises", total=sum(noise.duration_s for noise in noises))

            async def work() -> None:
                for noise in waiting:
                    script = await asyncio.to_thread(noise.script)
                    drive = await march(
                        [script],
                        open_session,
                        held=stack.held,
                        at_once=1,
                        on_progress=lambda played_s: progress.advance(task, seconds(BLOCK_SAMPLES)),
                    )
                    broken.extend(broken_promises(drive, label=noise.name))
                    heard[noise.name] = Heard.of(noise, drive.takes[0], stack.decoder.by_session[noise.name])

            await asyncio.gather(*[work() for _ in range(AT_ONCE)])
    return _result(job, [heard[noise.name] for noise in noises], broken, length_s=length_s, without_vad=without_vad)


def _result(job: Job, heard: list[Heard], broken: list[str], *, length_s: float, without_vad: bool) -> Result:
    invented = sum(item.invented for item in heard)
    finals = sum(len(item.finals) for item in heard if not item.noise.is_voiced)
    rows = [item.row for item in heard]
    return Result(
        name="invention",
        title=f"Words that {job.settings.model} writes where nobody speaks: {invented}, {finals} of them in finals",
        columns=COLUMNS,
        rows=rows,
        notes=[
            "Speech: how often the VAD heard some"
            + (" (it was told to let everything through). " if without_vad else ". ")
            + "Thrown away: decoded texts, by the guard's reason. Words in interims are counted each time they show; "
            f"finals include revisions. Babble consists of voices: {VOICED_S:.0f} s of it, not counted.",
            f"{length_s:.0f} s of each, faster than real time, every interim decoded. Levels of {QUIET_DBFS:.0f} to "
            f"{LOUD_DBFS:.0f} dBFS in steps and swells. Recordings are 10 to 40 s long: pieces of 4 to 20 s from "
            "random places, at random levels and up to 6 % faster or slower, are strung together.",
        ],
        details={"invented_words": invented, "without_vad": without_vad, "noises": [item.as_dict() for item in heard]},
        failed=[*([f"{invented} words were invented."] if invented else []), *broken],
        draw=lambda axes: _draw(axes, heard),
    )


def _draw(axes: Any, heard: list[Heard]) -> None:
    names = [Path(item.noise.name).stem for item in heard]
    axes.barh(names, [sum(item.windows[kind] for kind in KINDS) for item in heard], color="lightgrey", label="decodes")
    axes.barh(names, [item.invented for item in heard], color="red", label="words invented")
    axes.set_xlabel("count")
    axes.legend()
