"""Tables, JSON, Markdown and plots of a result; and the command line around them."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner
from rich.console import Console

from benchmarks.capacity import search
from benchmarks.cli import bench
from benchmarks.machine import Provenance, provenance
from benchmarks.report import Column, Result, markdown, save, show

COMMANDS = sorted(bench.commands)

WHERE = Provenance("python -m benchmarks x", "abc123", "2026-01-01T00:00:00+00:00", "CPU", 2, 8.0, 0, 0.1, "Linux", {})


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command sets up logging for its process; here that is the tests' own."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def result(**more: Any) -> Result:
    return Result(
        name="x",
        title="A title",
        columns=[Column("what"), Column("s", ".2f")],
        rows=[["one", 1.234], ["none", None], ["never", math.inf]],
        notes=["A note."],
        **more,
    )


def test_markdown_carries_where_it_comes_from() -> None:
    text = markdown(result(failed=["It broke."]), WHERE)
    assert "`python -m benchmarks x` · CPU, 2 cores, 8 GiB · commit abc123" in text
    assert "| one | 1.23 |" in text
    assert "| none | – |" in text
    assert "| never | – |" in text
    assert "**Failed:** It broke." in text


def test_files_are_written(tmp_path: Path) -> None:
    paths = save(result(draw=lambda axes: axes.plot([1, 2]), details={"p95": math.nan}), WHERE, tmp_path / "out")
    assert [path.name for path in paths] == ["x.json", "x.md", "x.png"]
    body = json.loads(paths[0].read_text())
    assert body["commit"] == "abc123"
    assert body["cores"] == 2
    assert body["rows"] == [["one", 1.234], ["none", None], ["never", None]]
    assert body["details"] == {"p95": None}
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_a_wide_table_is_printed_upright() -> None:
    wide = Result("x", "t", [Column(f"heading {k}") for k in range(12)], [[f"cell {k}" for k in range(12)]])
    out = io.StringIO()
    show(wide, Console(file=out, width=80))
    assert any("heading 11" in line and "cell 11" in line for line in out.getvalue().splitlines())


def test_names_of_rows_are_not_cut() -> None:
    columns = [Column("noise"), *[Column(f"long heading {k}") for k in range(7)]]
    table = Result("x", "t", columns, [["doors and knocks", *["some words that are long"] * 7]])
    out = io.StringIO()
    show(table, Console(file=out, width=80))
    assert "doors and knocks" in out.getvalue()


def test_brackets_in_text_are_not_markup() -> None:
    out = io.StringIO()
    show(Result("x", "t", [Column("a")], [["[red]b[/red]"]], notes=["[x]"]), Console(file=out, width=80))
    assert "[red]b[/red]" in out.getvalue()
    assert "[x]" in out.getvalue()


def test_provenance_tells_the_machine() -> None:
    where = provenance(["python", "-m", "benchmarks", "latency", "--data", "a b"])
    assert where.command == "python -m benchmarks latency --data 'a b'"
    assert where.cores >= 1
    assert where.memory_gib > 0
    assert where.cpu
    assert "ctranslate2" in where.versions


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 5, 7, 8, 21, 64])
@pytest.mark.parametrize("start", [1, 2, 5])
async def test_the_search_finds_where_it_stops_holding(limit: int, start: int) -> None:
    tried: list[int] = []

    async def holds(count: int) -> bool:
        tried.append(count)
        return count <= limit

    assert await search(holds, start=start, most=64) == limit
    assert len(tried) == len(set(tried))
    assert len(tried) <= 13


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_measures_and_how_long_it_takes(command: str) -> None:
    outcome = CliRunner().invoke(bench, [command, "--help"])
    assert outcome.exit_code == 0
    assert "Takes" in outcome.output
    assert "--short" in outcome.output
    assert "--data" in outcome.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "endpointing"], "KNOB=VALUE"),
        (["--set", "endpointing_ms=soon"], "endpointing_ms"),
        (["--set", "no_such_knob=1"], "no_such_knob"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--data", "/no/such/folder"], "manifest.jsonl"),
    ],
)
def test_what_was_asked_wrongly_is_told(arguments: list[str], message: str, tmp_path: Path) -> None:
    outcome = CliRunner().invoke(bench, ["silent", "--out", str(tmp_path), *arguments])
    assert outcome.exit_code != 0
    assert message in outcome.output
    assert "Traceback" not in outcome.output


def test_a_command_runs_from_end_to_end(tmp_path: Path, model_files: object, vad_model_path: Path) -> None:
    arguments = ["silent", "--streams", "2", "--seconds", "2", "--markdown", "--out", str(tmp_path)]
    outcome = CliRunner().invoke(bench, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert "### CPU of connected streams" in outcome.stdout
    assert "| 2 |" in outcome.stdout
    body = json.loads((tmp_path / "silent.json").read_text())
    assert body["failed"] == []
    assert body["details"]["settings"]["endpointing_ms"] == 500
    assert (tmp_path / "silent.png").is_file()
