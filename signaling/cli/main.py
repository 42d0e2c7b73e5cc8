"""The command line's root, and how its failures look: one sentence, one hint, an exit status."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import Any

import click

from mediaserver.errors import VoiceForgeError
from signaling.cli.doctor import doctor
from signaling.cli.engine import engine
from signaling.cli.jobs import jobs
from signaling.cli.keys import keys
from signaling.cli.metrics import metrics
from signaling.cli.models import models
from signaling.cli.privacy import privacy
from signaling.cli.serve import serve
from signaling.cli.settings import settings
from signaling.cli.tenants import tenants
from signaling.cli.transcribe import transcribe
from signaling.cli.turn import turn
from signaling.cli.worker import worker

EXIT_FAILED = 1
"""What was asked for could not be done. 2 is a wrong command line or setting, 130 a second Ctrl-C."""

EXTRA_COMMANDS = "voiceforge.commands"
"""Entry points of this group are commands too. So the benchmarks can be one, though nothing here may import them."""


class Root(click.Group):
    """A group whose further commands come from entry points, and whose failures are not tracebacks."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands by name."""
        return sorted({*super().list_commands(ctx), *(point.name for point in entry_points(group=EXTRA_COMMANDS))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command; the others' modules are not imported."""
        if (known := super().get_command(ctx, cmd_name)) is not None:
            return known
        for point in entry_points(group=EXTRA_COMMANDS, name=cmd_name):
            try:
                loaded = point.load()
            except ModuleNotFoundError as exc:
                return _unavailable(cmd_name, exc.name or str(exc))
            return loaded if isinstance(loaded, click.Command) else None
        return None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a failure that a person can do something about is told as such."""
        try:
            return super().invoke(ctx)
        except VoiceForgeError as exc:
            click.echo(f"Error: {exc.message}\n{exc.hint}", err=True)
            sys.exit(EXIT_FAILED)


def _unavailable(name: str, module: str) -> click.Command:
    """A command whose packages are not installed: shown, and honest about what it lacks."""

    def say() -> None:
        raise VoiceForgeError(
            "COMMAND_UNAVAILABLE",
            f"`voiceforge {name}` needs the package `{module}`, which is not installed.",
            "Install the development requirements: `pip install --require-hashes -r requirements-dev.lock`.",
        )

    return click.Command(
        name,
        callback=say,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        short_help=f"Not available: needs {module}.",
    )


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="voiceforge", prog_name="voiceforge", message="%(prog)s %(version)s")
def main() -> None:
    """Write down what people say while they say it.

    `serve` runs the server, `transcribe` sends it a file, `models` shows and fetches what it listens with.
    """


COMMANDS = (doctor, engine, jobs, keys, metrics, models, privacy, serve, settings, tenants, transcribe, turn, worker)
for command in COMMANDS:
    main.add_command(command)
