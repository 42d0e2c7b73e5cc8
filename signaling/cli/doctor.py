"""`voiceforge doctor`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from mediaserver.errors import VoiceForgeError
from mediaserver.settings import SETTINGS_FILE
from signaling.cli.knobs import KnobCommand, knobs, load_settings

if TYPE_CHECKING:
    from signaling.doctor.finding import Check, Report

EXIT_UNWELL = 1

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "red"), "skipped": ("–", "dim")}


@click.command(cls=KnobCommand)
@click.option("--url", help="Server to look at, for example https://voice.example.  [default: this machine's]")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object instead of lines.")
def doctor(url: str | None, as_json: bool, **given: Any) -> None:
    """Look at everything that a server needs, and say what is wrong.

    Takes the settings that `serve` takes: by the same flags, environment and file. Exit status 1 if something does not
    work; a warning alone is 0.
    """
    if url is not None and not url.startswith(("http://", "https://")):
        raise click.UsageError("--url begins with http:// or https://.")
    from signaling.doctor.all_checks import all_checks  # noqa: PLC0415 - brings everything, some seconds of imports
    from signaling.doctor.finding import Report, failed, failed_by, fine  # noqa: PLC0415 - as above

    try:
        settings = load_settings(given)
        checks = all_checks(settings, url=url)
    except click.UsageError as exc:
        reports = [Report("settings", failed(exc.message, "`voiceforge serve --help` explains every setting."), 0.0)]
    except VoiceForgeError as exc:
        reports = [Report("settings", failed_by(exc), 0.0)]
    else:
        reports = [Report("settings", fine(_sources(given)), 0.0), *asyncio.run(_examine(checks, quiet=as_json))]
    if as_json:
        click.echo(json.dumps(_summary(reports), ensure_ascii=False, indent=2))
    else:
        _show(reports)
    sys.exit(EXIT_UNWELL if _unwell(reports) else 0)


async def _examine(checks: Sequence[Check], *, quiet: bool) -> list[Report]:
    """Run the checks, with a line on the terminal that says what is still waited for."""
    from signaling.doctor.finding import examine  # noqa: PLC0415 - as above

    waited_for = [check.name for check in checks]
    console = Console(stderr=True, quiet=quiet or not sys.stderr.isatty())
    with console.status("") as spinner:

        def show() -> None:
            done = len(checks) - len(waited_for)
            spinner.update(f"{done} of {len(checks)}, waiting for {', '.join(waited_for)}")

        def on_done(report: Report) -> None:
            waited_for.remove(report.name)
            show()

        show()
        return await examine(checks, on_done=on_done)


def _sources(given: Mapping[str, Any]) -> str:
    """Where the settings that are not defaults come from; names only, for some values are secrets."""
    flags = [knob.flag for knob in knobs() if given.get(knob.name) not in (None, ())]
    variables = [knob.variable for knob in knobs() if knob.variable in os.environ]
    files = [str(SETTINGS_FILE)] if SETTINGS_FILE.is_file() else []
    sources = [*flags, *variables, *files]
    return f"They are valid; not only defaults: {', '.join(sources)}." if sources else "They are valid: all defaults."


def _summary(reports: Sequence[Report]) -> dict[str, object]:
    return {"ok": not _unwell(reports), "checks": [report.as_dict() for report in reports]}


def _unwell(reports: Sequence[Report]) -> bool:
    return any(report.finding.status == "failed" for report in reports)


def _show(reports: Sequence[Report]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for report in reports:
        mark, style = MARKS[report.finding.status]
        line = Text.assemble((mark, style), " ", (report.name, "bold"), f": {report.finding.message}")
        if report.finding.hint:
            line.append(f" {report.finding.hint}", style="italic")
        console.print(line)
