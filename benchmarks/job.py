"""What every benchmark is given."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.corpus import Corpus, Recording
from benchmarks.drive import Drive, Take
from benchmarks.loops import loops
from benchmarks.machine import Provenance
from benchmarks.scoring import Errors, Normaliser, total, word_errors
from benchmarks.screen import ScreenScore, final_text, score_stream
from benchmarks.stack import Models
from mediaserver.errors import ConfigError
from mediaserver.events import Final, Revision
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings

LOST_S = 0.1
"""A session that says it received this much less than was pushed has lost audio; less is the last partial frame."""

BUSY_CORES = 0.1
"""If others keep more than this many cores busy during a run, its times are told as not clean."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to measure with, and where progress is shown.

    Args:
        short: whether a small subset is enough: for trying things out, not for publishing.
        out: folder for what is written while it is measured; None: nothing is.
        where: the machine and the command, for that.
    """

    corpus: Corpus
    settings: Settings
    models: Models
    console: Console
    normaliser: Normaliser
    short: bool = False
    out: Path | None = None
    where: Provenance | None = None

    def say(self, line: str) -> None:
        """A line of how it goes, for people; in one piece also where the console is no terminal."""
        with suppress(OSError):  # of a terminal that is closed there is still a file to be written
            self.console.print(f"[dim]{escape(line)}[/dim]", highlight=False, soft_wrap=True)

    def progress(self, *, in_seconds: bool) -> Progress:
        """A progress bar on the console; steps are counted in files or in seconds of audio."""
        count = TextColumn("{task.completed:.0f}/{task.total:.0f} s") if in_seconds else MofNCompleteColumn()
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            count,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,  # it would leave blank lines in a file
        )

    def heard_languages(self, languages: Sequence[str]) -> list[str]:
        """The languages asked for that the model knows; asked for none: all that it knows.

        Raises:
            ConfigError: the model knows none of them.
        """
        known = self.models.whisper.languages
        chosen = [language for language in languages or known if language in known]
        if not chosen:
            raise ConfigError(
                "UNKNOWN_LANGUAGE",
                f"{self.settings.model} knows none of {', '.join(languages)}.",
                "Choose another model.",
            )
        return chosen

    def config(self, recording: Recording, *, interims: bool = True) -> SessionConfig:
        """A session's configuration for a recording: its language is told, as it is to the yardstick."""
        code = recording.language_code
        known = code if code in self.models.whisper.languages else None
        return SessionConfig.model_validate({"language": known, "interim_results": interims})

    def errors(self, take: Take) -> Errors:
        """The word errors of a stream's finals, all that was said in it taken as one text."""
        words = [
            word
            for item in take.script.said
            for word in self.normaliser.words(item.recording.text or "", item.recording.language_code)
        ]
        language = take.script.said[0].recording.language_code if take.script.said else None
        return word_errors(words, self.normaliser.words(final_text(take.seen), language))

    def set_errors(self, takes: Sequence[Take]) -> Errors:
        """The word errors of several streams together."""
        return total(self.errors(take) for take in takes)


def screen_score(takes: Sequence[Take]) -> ScreenScore:
    """The screen figures of several streams together."""
    return sum((score_stream(take.seen) for take in takes), ScreenScore())


def loops_of(take: Take, normaliser: Normaliser) -> list[str]:
    """Phrases that a final, a revision or all of what remains repeats on end, and nobody said so often."""
    reference = " ".join(item.recording.text or "" for item in take.script.said)
    language = take.script.said[0].recording.language_code if take.script.said else "en"
    texts = [item.event.transcript for item in take.seen if isinstance(item.event, Final | Revision)]
    found = [loop for text in [*texts, final_text(take.seen)] for loop in loops(text, reference, normaliser, language)]
    return list(dict.fromkeys(found))


def broken_promises(drive: Drive, *, label: str, normaliser: Normaliser | None = None) -> list[str]:
    """What must not happen however loaded the machine is. Repetition loops are looked for if a normaliser is given."""
    score = screen_score(drive.takes)
    found = []
    lost = [take.script.name for take in drive.takes if _lost(take)]
    if lost:
        found.append(f"{label}: {len(lost)} sessions lost audio or never ended ({', '.join(lost[:3])}).")
    if score.stable_broken:
        found.append(f"{label}: stable text shrank or changed {score.stable_broken} times.")
    if score.unfinished:
        found.append(f"{label}: {score.unfinished} utterances showed text and got no final.")
    if normaliser is not None:
        repeated = {take.script.name: loops_of(take, normaliser) for take in drive.takes}
        found += [
            f"{label}: {name} has repetition loops: {'; '.join(some)}." for name, some in repeated.items() if some
        ]
    return found


def unclean(drive: Drive, *, label: str) -> list[str]:
    """A note if others used the machine meanwhile."""
    cores = drive.load.others_cores
    return [f"{label}: other processes kept {cores:.1f} cores busy; times are not clean."] if cores > BUSY_CORES else []


def _lost(take: Take) -> bool:
    return take.received_s is None or take.received_s < take.script.duration_s - LOST_S
