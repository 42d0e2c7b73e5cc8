"""`voiceforge worker`."""

from __future__ import annotations

import sys
from typing import Any

import click

from signaling.cli.knobs import KnobCommand, load_settings


@click.command(cls=KnobCommand)
def worker(**given: Any) -> None:
    """Transcribe recordings that a server on another machine takes in.

    Jobs come through Redis (`jobs_broker_url`), and are kept in the server's database (`database_url`, PostgreSQL
    where there are several machines). Uploaded recordings are read from `data_dir`, which has to be the server's own;
    those at URLs are fetched. The worker has an engine of its own, by the same settings as `serve`.
    """
    settings = load_settings(given)
    from signaling.jobs_worker import run  # noqa: PLC0415 - brings the engine, which --help need not wait for

    sys.exit(run(settings))
