"""`voiceforge tenants …`: for how long things of a tenant are kept, on the database itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from mediaserver.errors import ConfigError
from signaling.cli.audited import audited
from signaling.cli.keys import PIPE_COLUMNS
from signaling.cli.knobs import load_settings
from signaling.seeing.telemetry import configure_logging

if TYPE_CHECKING:
    from signaling.privacy.tenants import Retention, Tenants

T = TypeVar("T")

UNSET = "-"


@click.group()
def tenants() -> None:
    """Say for how long things of a tenant are kept."""


@tenants.command("list")
def list_() -> None:
    """Show all that have keys or a retention of their own."""

    async def work(store: Tenants) -> dict[str, Retention]:
        return await store.all()

    table = Table("tenant", "transcripts", "uploads", "usage in detail", box=None)
    for name, retention in _with_tenants(work, "tenant.list").items():
        table.add_row(
            name,
            _shown(retention.transcript_keep_s, "s"),
            _shown(retention.upload_keep_s, "s"),
            _shown(retention.usage_keep_days, "days"),
        )
    console = Console()
    (console if console.is_terminal else Console(width=PIPE_COLUMNS)).print(table)


@tenants.command("set")
@click.argument("tenant")
@click.option("--transcript-keep-s", metavar="SECONDS", help="After its end, a recording with its transcript.")
@click.option("--upload-keep-s", metavar="SECONDS", help="An upload that waits to become a recording.")
@click.option("--usage-keep-days", metavar="DAYS", help="Which session used what; totals of days stay.")
def set_(*, tenant: str, **given: str | None) -> None:
    """Say for how long things of TENANT are kept, those too that are there; `-` is the node's setting."""
    from signaling.privacy.tenants import Retention  # noqa: PLC0415 - brings the database

    async def work(store: Tenants) -> None:
        known = (await store.get(tenant)).model_dump()
        wanted = {name: None if value == UNSET else value for name, value in given.items() if value is not None}
        try:
            retention = Retention.model_validate({**known, **wanted})
        except ValidationError as exc:
            problem = exc.errors()[0]
            raise ConfigError("INVALID_CONFIG", f"`{problem['loc'][0]}`: {problem['msg']}.", "See --help.") from exc
        await store.set(tenant, retention)

    _with_tenants(work, "tenant.set", tenant=tenant)
    click.echo(f"{tenant} is changed.")


def _with_tenants(work: Callable[[Tenants], Awaitable[T]], action: str, **about: str) -> T:
    from mediaserver.storage.database import Database  # noqa: PLC0415
    from signaling.privacy.tenants import Tenants  # noqa: PLC0415

    configure_logging(level="warning", log_format="auto")
    settings = load_settings({})

    async def run() -> T:
        database = Database(settings.jobs_database_url)
        try:
            tenants = Tenants(database, usage_keep_days=settings.usage_keep_days)
            return await audited(settings, action, lambda: work(tenants), about=about)
        finally:
            await database.close()

    return asyncio.run(run())


def _shown(value: float | None, unit: str) -> str:
    return "as set" if value is None else f"{value:g} {unit}"
