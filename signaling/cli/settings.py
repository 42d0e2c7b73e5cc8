"""`voiceforge settings`."""

from __future__ import annotations

from pathlib import Path

import click

from signaling.cli.knobs import reference


@click.command()
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write.  [default: standard output]"
)
def settings(output: Path | None) -> None:
    """Write the reference of all settings, as Markdown."""
    if output is None:
        click.echo(reference(), nl=False)
    else:
        output.write_text(reference(), encoding="utf-8")
