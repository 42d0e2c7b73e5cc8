"""`voiceforge engine`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from signaling.cli.knobs import KnobCommand, load_settings


@click.command(cls=KnobCommand)
@click.option(
    "--socket",
    "path",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to listen. Servers name the same path in `engine_socket`.",
)
@click.option("--supervised", is_flag=True, hidden=True, help="The order is on standard input, whose end is the end.")
def engine(path: Path, supervised: bool, **given: Any) -> None:
    """Run the decoder alone, for several servers on this machine to share.

    Only this user's processes may open the socket. Of the settings, those of the decoder and of logs matter here.
    """
    settings = None if supervised else load_settings(given)
    from signaling.engine_node import run, run_supervised  # noqa: PLC0415 - brings the engine, a second of imports

    sys.exit(run_supervised(path) if settings is None else run(settings, path))
