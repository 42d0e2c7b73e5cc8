"""`voiceforge models …`."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

from mediaserver.decoder import catalogue
from mediaserver.errors import ModelError
from mediaserver.settings import Settings
from signaling.cli.knobs import load_settings

PIPE_COLUMNS = 140
"""The table's width where no terminal says how wide it is: wide enough that nothing is cut."""


class FetchBars:
    """Progress of fetches: a bar for each file on a terminal, a line for each elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> FetchBars:
        self._bars.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._bars.stop()

    def report(self, progress: catalogue.Progress) -> None:
        """Take one report of `catalogue` in."""
        key = f"{progress.model}: {progress.what}"
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(key, total=progress.total_bytes or None)
            if not self._console.is_terminal:
                size = f" ({progress.total_bytes / 1e6:.0f} MB)" if progress.total_bytes else ""
                self._console.print(f"{key}{size}", highlight=False)
        self._bars.update(self._tasks[key], completed=progress.done_bytes, total=progress.total_bytes or None)


@click.group()
def models() -> None:
    """Show, fetch and check the models that the server listens with."""


@models.command("list")
def list_() -> None:
    """Show all known models and which of them are here."""
    settings = load_settings({})
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_COLUMNS)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("name", "for", "languages", "MB", "licence", "from", "digests", "here"):
        table.add_column(heading, justify="right" if heading == "MB" else "left", no_wrap=heading == "name")
    for model in catalogue.MODELS:
        state, _ = catalogue.state_of(model, model_dir=settings.model_dir)
        sources = [*(["PyPI"] if model.requirements else []), *(["hub"] if model.hub else [])]
        table.add_row(
            model.name,
            str(model.purpose),
            _languages(model),
            str(model.size_mb),
            model.licence,
            f"{model.origin} ({', '.join(sources)})",
            "published" if model.weights_pinned else "as first fetched",
            "" if state is catalogue.State.ABSENT else f"[green]{state}[/green]",
        )
    console.print(table)


@models.command()
@click.argument("names", nargs=-1)
def fetch(names: tuple[str, ...]) -> None:
    """Fetch models, also over damaged ones. Without NAMES: what `serve` needs and is not here yet."""
    settings = load_settings({})
    with FetchBars(Console(stderr=True)) as bars:
        if not names:
            for path in _needed(settings, bars):
                click.echo(path)
        for name in names:
            directory = catalogue.fetch_model(name, model_dir=settings.model_dir, on_progress=bars.report)
            click.echo(directory)


@models.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Hold models against their digests. Without NAMES: all that are here. Exit status 1 if one is damaged."""
    settings = load_settings({})
    wanted = [catalogue.find(name) for name in names] or list(catalogue.MODELS)
    damaged = checked = 0
    for model in wanted:
        state, directory = catalogue.state_of(model, model_dir=settings.model_dir)
        if directory is None:
            if names:
                click.echo(f"{model.name}: not here. Run `voiceforge models fetch {model.name}`.", err=True)
                damaged += 1
            continue
        checked += 1
        try:
            catalogue.verify(model, directory)
        except ModelError as exc:
            damaged += 1
            click.echo(f"{model.name}: {exc.message} {exc.hint}", err=True)
        else:
            held_to = "as published" if model.weights_pinned else "as first fetched"
            click.echo(f"{model.name}: {held_to} ({state}, {directory})")
    if not checked and not damaged:
        click.echo("No model is here yet. Run `voiceforge models fetch`.")
    sys.exit(1 if damaged else 0)


@models.command()
@click.argument("name")
def path(name: str) -> None:
    """Print the directory of a model that is here."""
    model_dir = load_settings({}).model_dir
    if name == catalogue.VAD_NAME:
        click.echo(catalogue.vad_model(model_dir=model_dir, fetch=False).parent)
    elif name == catalogue.TURN_NAME:
        click.echo(catalogue.turn_model(model_dir=model_dir, fetch=False).parent)
    else:
        click.echo(catalogue.resolve(name, model_dir=model_dir, fetch=False).directory)


def _needed(settings: Settings, bars: FetchBars) -> list[Path]:
    model_dir = settings.model_dir
    needed = [
        catalogue.resolve(settings.model, model_dir=model_dir, fetch=True, on_progress=bars.report).directory,
        catalogue.vad_model(model_dir=model_dir, fetch=True, on_progress=bars.report).parent,
    ]
    if settings.wants_turn_model:
        needed.append(catalogue.turn_model(model_dir=model_dir, fetch=True, on_progress=bars.report).parent)
    return needed


def _languages(model: catalogue.Model) -> str:
    if len(model.languages) > 1:
        return f"{len(model.languages)} languages"
    return model.languages[0] if model.languages else "any"
