"""Live captions and progress on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from signaling.transcript import Transcript

REFRESH_PER_S = 8
"""Screens a second: faster than words come, slow enough to cost nothing."""


class Captions:
    """Finals scroll up; below them stands what is heard now, its stable part bright, the rest dim, and a bar."""

    def __init__(self, console: Console, *, duration_s: float | None) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), console=console
        )
        self._task = self._bar.add_task("starting", total=duration_s)
        self._interim = Text()
        self._live = Live(
            Group(self._interim, self._bar),
            console=console,
            refresh_per_second=REFRESH_PER_S,
            transient=True,
            auto_refresh=not console.quiet,
        )

    def __enter__(self) -> Captions:
        if not self._console.quiet:
            self._live.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if not self._console.quiet:
            self._live.stop()

    def say(self, line: str) -> None:
        """A line about the server while it starts."""
        self._bar.update(self._task, description=line[:60])

    def position(self, seconds: float) -> None:
        """How much of the recording has been sent."""
        self._bar.update(self._task, description="speaking", completed=seconds)

    def show(self, event: Mapping[str, Any], transcript: Transcript) -> None:
        """What an event changed on the screen."""
        if event.get("type") in ("final", "revision"):
            mark = "" if event["type"] == "final" else "↺ "
            self._console.print(
                Text.assemble((f"{float(event['start']):7.1f}  ", "cyan"), f"{mark}{event['transcript']}")
            )
        self._interim.plain = ""
        self._interim.append(transcript.stable, style="bold")
        self._interim.append(transcript.unstable, style="dim")
