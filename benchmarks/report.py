"""Results as a person reads them (a table), as a program does (JSON), as a page shows them (Markdown) and as a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.machine import Provenance

Cell = str | int | float | None

PLOT_DPI = 120

MOST_COLUMNS = 9
"""A table with more is printed with its rows as columns: twelve headings do not fit a terminal's 80 letters."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading with the unit, and how its numbers are written."""

    heading: str
    form: str = ""

    def write(self, value: Cell) -> str:
        """The cell's text; a dash where there is nothing to tell."""
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return "–"
        return format(value, self.form) if self.form and not isinstance(value, str) else str(value)


@dataclass(frozen=True, slots=True)
class Result:
    """What a benchmark found.

    Args:
        name: the command's name, also the files'.
        title: one line over the table.
        columns, rows: the table.
        notes: sentences under it: how it was measured, what is not clean.
        details: everything else, for the JSON.
        failed: promises that were broken, one sentence each; the command then ends with status 1.
        draw: draws the plot into the matplotlib axes that it is given.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    details: dict[str, Any] = field(default_factory=dict)
    failed: Sequence[str] = ()
    draw: Callable[[Any], None] | None = None

    @property
    def cells(self) -> list[list[str]]:
        """The table's texts."""
        return [[column.write(value) for column, value in zip(self.columns, row, strict=True)] for row in self.rows]


def show(result: Result, console: Console) -> None:
    """Print the table, its notes and what failed."""
    lines = [[column.heading for column in result.columns], *result.cells]
    upright = len(result.columns) > MOST_COLUMNS
    if upright:
        lines = [list(line) for line in zip(*lines, strict=True)]
    table = Table(title=escape(result.title), title_justify="left")
    for number, heading in enumerate(lines[0]):
        table.add_column(escape(heading), justify="left" if number == 0 else "right", no_wrap=upright or number == 0)
    for line in lines[1:]:
        table.add_row(*(escape(cell) for cell in line))
    console.print(table)
    for note in result.notes:
        console.print(f"[dim]{escape(note)}[/dim]")
    for sentence in result.failed:
        console.print(f"[red]failed:[/red] {escape(sentence)}")


def markdown(result: Result, where: Provenance) -> str:
    """The table with its command, machine and commit, to be pasted."""
    lines = [
        f"### {result.title}",
        "",
        f"`{where.command}` · {where.machine} · commit {where.commit} · {where.date}",
        "",
        "| " + " | ".join(column.heading for column in result.columns) + " |",
        "|" + "|".join(["---"] + ["---:"] * (len(result.columns) - 1)) + "|",
        *("| " + " | ".join(row) + " |" for row in result.cells),
        "",
        *(f"{note}  " for note in result.notes),
        *(f"**Failed:** {sentence}  " for sentence in result.failed),
    ]
    return "\n".join(lines).rstrip() + "\n"


def save(result: Result, where: Provenance, folder: Path) -> list[Path]:
    """Write the JSON, the Markdown and, if the result has one, the plot; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{result.name}.json", folder / f"{result.name}.md"]
    body = {
        "name": result.name,
        "title": result.title,
        **asdict(where),
        "columns": [column.heading for column in result.columns],
        "rows": result.rows,
        "notes": result.notes,
        "failed": result.failed,
        "details": result.details,
    }
    paths[0].write_text(json.dumps(_finite(body), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    paths[1].write_text(markdown(result, where), encoding="utf-8")
    if result.draw is not None:
        paths.append(folder / f"{result.name}.png")
        _plot(result, where, paths[-1])
    return paths


def _plot(result: Result, where: Provenance, path: Path) -> None:
    import matplotlib  # noqa: PLC0415 - takes half a second, and only benchmarks that draw need it

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    if result.draw is not None:
        result.draw(axes)
    axes.set_title(result.title, loc="left", fontsize="medium")
    figure.text(0.995, 0.995, f"{where.machine} · {where.commit}", ha="right", va="top", fontsize=6, color="grey")
    figure.savefig(path, dpi=PLOT_DPI)
    pyplot.close(figure)


def _finite(value: Any) -> Any:
    """JSON knows no infinity: what has no finite value is null."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
