"""`voiceforge serve`."""

from __future__ import annotations

import sys
from typing import Any

import click

from mediaserver.errors import ConfigError
from signaling.cli.knobs import KnobCommand, load_settings, unknown_variables
from signaling.data_folder import require_data_folder


@click.command(cls=KnobCommand)
def serve(**given: Any) -> None:
    """Run the server until it is told to stop (Ctrl-C or SIGTERM).

    Every setting can also be given in the environment (`VOICEFORGE_PORT=9000`) or in a file `voiceforge.toml` in the
    working directory (`port = 9000`). A flag wins over the environment, that over the file.
    """
    settings = load_settings(given)
    for line in unknown_variables():
        click.echo(line, err=True)
    try:
        require_data_folder(settings)
    except ConfigError as exc:
        raise click.ClickException(f"{exc.message}\n{exc.hint}") from exc
    if settings.workers == 1:
        from signaling.serving import run  # noqa: PLC0415 - brings the engine, a second of imports --help need not wait for
    else:
        from signaling.workers.supervisor import run  # noqa: PLC0415 - the same, less the engine

    sys.exit(run(settings))
