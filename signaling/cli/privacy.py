"""`voiceforge privacy …`: delete a tenant's data, and check what a certificate of that says."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mediaserver.errors import ConfigError, VoiceForgeError
from signaling.cli.audited import audited
from signaling.cli.knobs import load_settings
from signaling.seeing.telemetry import configure_logging

if TYPE_CHECKING:
    from signaling.privacy.certificate import Signer

BY = "command line"

EXIT_INCOMPLETE = 1

SERVER_FIRST_S = 3.0
"""How long the request is left to a server that runs: it looks every 2 s, and has the sessions to be ended. Without one
it is carried out here after that."""

LOOK_PERIOD_S = 0.5
"""How often it is looked whether a server that runs, and was faster to take the request, is done."""


@click.group()
def privacy() -> None:
    """Delete a tenant's data, and show that it was deleted."""


@privacy.command()
@click.argument("tenant")
@click.option("--usage-totals", type=click.Choice(["keep", "delete"]), default="keep", show_default=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(*, tenant: str, usage_totals: str, yes: bool) -> None:
    """Delete all data of TENANT that is there now, and print the certificate."""
    if not yes:
        click.confirm(f"Delete all recordings, transcripts and usage of {tenant}?", abort=True, err=True)
    configure_logging(level="warning", log_format="auto")
    keeps_totals = usage_totals == "keep"
    erasing = audited(
        load_settings({}), "data.delete", lambda: _erase(tenant, keeps_totals=keeps_totals), about={"tenant": tenant}
    )
    certificate = asyncio.run(erasing)
    click.echo(json.dumps(certificate, indent=2, ensure_ascii=False))
    if not certificate["statement"]["is_complete"]:
        click.echo("It is not complete: see `found_afterwards` and `processes_not_heard`.", err=True)
        sys.exit(EXIT_INCOMPLETE)


@privacy.command()
@click.argument("request_id")
def certificate(*, request_id: str) -> None:
    """Print the certificate of a deletion."""
    configure_logging(level="warning", log_format="auto")
    click.echo(json.dumps(asyncio.run(_certificate(request_id)), indent=2, ensure_ascii=False))


@privacy.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--public-key", help="Of who is said to have signed it.  [default: this server's own]")
def verify(*, file: Path, public_key: str | None) -> None:
    """Check that the certificate in FILE says what was signed."""
    from signaling.privacy.certificate import CERTIFICATE_MAX_BYTES, problem_of  # noqa: PLC0415 - brings cryptography

    with file.open("rb") as opened:
        told = opened.read(CERTIFICATE_MAX_BYTES + 1)
    try:
        read: Any = json.loads(told) if len(told) <= CERTIFICATE_MAX_BYTES else None
    except (ValueError, RecursionError):
        read = None
    problem = problem_of(read, public_key or _signer(may_make=False).public_key)
    if problem is not None:
        raise VoiceForgeError("CERTIFICATE_INVALID", problem, "Compare it with what the server gave out.")
    said = read["statement"]
    what = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in said["deleted"].items())
    found = "nothing was found afterwards" if said["is_complete"] else "IT IS NOT COMPLETE"
    click.echo(f"The signature is good. Deleted of {said['tenant']} until {said['ended_at']}: {what}; {found}.")


@privacy.command("public-key")
def public_key() -> None:
    """Print what anybody checks this server's certificates with."""
    click.echo(_signer(may_make=True).public_key)


@privacy.command()
def compact() -> None:
    """Write the database anew without what was ever deleted; nobody else can write to it meanwhile."""
    from mediaserver.storage.database import Database  # noqa: PLC0415
    from signaling.privacy.eraser import TABLES  # noqa: PLC0415

    configure_logging(level="warning", log_format="auto")

    async def work() -> None:
        database = Database(load_settings({}).jobs_database_url)
        try:
            if database.exists:
                await database.compact(TABLES)
                await database.scrub()
        finally:
            await database.close()

    asyncio.run(work())
    click.echo("The database is compact.")


async def _erase(tenant: str, *, keeps_totals: bool) -> dict[str, Any]:
    """Have it deleted: by a server that runs on the same database, or here."""
    from mediaserver.jobs.files import Files  # noqa: PLC0415
    from mediaserver.storage.database import Database  # noqa: PLC0415
    from signaling.privacy.certificate import Signer  # noqa: PLC0415
    from signaling.privacy.eraser import Eraser  # noqa: PLC0415
    from signaling.privacy.erasures import Erasures  # noqa: PLC0415

    settings = load_settings({})
    database = Database(settings.jobs_database_url)
    try:
        erasures = Erasures(database)
        eraser = Eraser(database, Files(settings.data_dir), erasures, signer=lambda: Signer.of(settings))
        request = await erasures.request(tenant, requested_by=BY, keeps_totals=keeps_totals)
        own_turn_s = time.monotonic() + SERVER_FIRST_S
        while True:
            if time.monotonic() >= own_turn_s and (claimed := await erasures.claim()) is not None:
                await eraser.erase(claimed)
            row = await erasures.get(request.id)
            if row is not None and row.certificate is not None:
                return row.certificate
            await asyncio.sleep(LOOK_PERIOD_S)
    finally:
        await database.close()


async def _certificate(request_id: str) -> dict[str, Any]:
    from mediaserver.storage.database import Database  # noqa: PLC0415
    from signaling.privacy.erasures import Erasures  # noqa: PLC0415

    database = Database(load_settings({}).jobs_database_url)
    try:
        row = await Erasures(database).get(request_id)
    finally:
        await database.close()
    if row is None or row.certificate is None:
        raise ConfigError(
            "ERASURE_NOT_FOUND",
            "There is no such deletion, or it is not completed.",
            "GET /api/v1/erasures lists them.",
        )
    return row.certificate


def _signer(*, may_make: bool) -> Signer:
    from signaling.privacy.certificate import Signer  # noqa: PLC0415

    return Signer.of(load_settings({}), may_make=may_make)
