"""What all commands of `voiceforge bench` share: their options, the run, and where its result goes."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any

import click
import structlog
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from benchmarks import corpus
from benchmarks.ending import EndedError, heeding_signals
from benchmarks.job import Job
from benchmarks.machine import provenance, typed_command
from benchmarks.report import Result, markdown, save, show
from benchmarks.scoring import Normaliser
from benchmarks.stack import Models, find_models
from mediaserver.decoder import catalogue
from mediaserver.errors import VoiceForgeError
from mediaserver.session_config import config_error
from mediaserver.settings import Settings

DEFAULT_OUT = Path("benchmarks/out")

SIGNALLED = 128
"""What a shell adds to the number of the signal that ended a command, for its status."""

Measure = Callable[[Job], Coroutine[Any, Any, Result]]
"""A measurement with its own options chosen."""


def common(command: Callable[..., Measure]) -> Callable[..., None]:
    """The options that all benchmarks have. The wrapped function turns its own options into a measurement."""

    @click.option(
        "--data", type=click.Path(path_type=Path, file_okay=False), help="Folder of the corpus (manifest.jsonl)."
    )
    @click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        default=DEFAULT_OUT,
        show_default=True,
        help="Folder for JSON, Markdown and plot.",
    )
    @click.option("--model", help="Model: a catalogued name or a faster-whisper directory.  [default: the setting]")
    @click.option(
        "--set",
        "knobs",
        multiple=True,
        metavar="KNOB=VALUE",
        help="Set a server setting for this run, such as endpointing_ms=300; repeatable.",
    )
    @click.option("--short", is_flag=True, help="A small subset: for trying things out, not for publishing.")
    @click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown, to be pasted, instead of a table.")
    @wraps(command)
    def wrapped(
        *,
        data: Path | None,
        out: Path,
        model: str | None,
        knobs: tuple[str, ...],
        short: bool,
        as_markdown: bool,
        **own: Any,
    ) -> None:
        try:
            settings = _settings(model, knobs)
            _run(command(**own), data=data, out=out, settings=settings, short=short, as_markdown=as_markdown)
        except VoiceForgeError as error:
            raise click.ClickException(f"{error.message} {error.hint}") from error

    return wrapped


def _settings(model: str | None, knobs: tuple[str, ...]) -> Settings:
    given: dict[str, Any] = {"model": model} if model is not None else {}
    for knob in knobs:
        name, equals, value = knob.partition("=")
        if not equals:
            raise click.BadParameter(f"{knob!r} is not KNOB=VALUE.", param_hint="--set")
        given[name] = value
    try:
        return Settings(**given)
    except ValidationError as exc:
        raise config_error(exc, known=sorted(Settings.model_fields)) from exc


def _run(measure: Measure, *, data: Path | None, out: Path, settings: Settings, short: bool, as_markdown: bool) -> None:
    # Warnings of the server belong beside the progress bar, not into the table.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *names: structlog.PrintLogger(sys.stderr),
    )
    where = provenance(typed_command())
    aside = Console(stderr=True)
    job = Job(corpus.find(data), settings, _models(settings, aside), aside, Normaliser(), short, out, where)
    try:
        result = asyncio.run(heeding_signals(measure(job)))
    except EndedError as ended:
        job.say(f"ended by {ended.signal.name}, with nothing to tell")
        sys.exit(SIGNALLED + ended.signal)
    result.details["corpus"] = job.corpus.name
    result.details["settings"] = settings.model_dump(mode="json", exclude={"ice_servers", "cors_origins", "model_dir"})
    paths = save(result, where, out)
    if as_markdown:
        click.echo(markdown(result, where), nl=False)
    else:
        console = Console()
        show(result, console)
        console.print(f"[dim]{where.machine}, commit {where.commit}[/dim]", highlight=False)
    job.say(f"written: {', '.join(str(path) for path in paths)}")
    if result.failed:
        sys.exit(1)


def _models(settings: Settings, console: Console) -> Models:
    with Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=console, transient=True
    ) as bar:
        tasks: dict[str, Any] = {}

        def on_progress(progress: catalogue.Progress) -> None:
            if progress.what not in tasks:
                tasks[progress.what] = bar.add_task(f"{progress.model}: {progress.what}")
            bar.update(tasks[progress.what], completed=progress.done_bytes, total=progress.total_bytes or None)

        return find_models(settings, on_progress=on_progress)
