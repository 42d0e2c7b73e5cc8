"""`voiceforge keys …`: on the database itself, so that the first key needs no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import click
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from mediaserver.errors import ConfigError
from signaling.auth.principal import LOCAL_TENANT, KeyLimits, Scope
from signaling.cli.audited import audited
from signaling.cli.knobs import load_settings
from signaling.seeing.telemetry import configure_logging

T = TypeVar("T")

DAY_S = 86_400
PIPE_COLUMNS = 160
"""The table's width where no terminal says how wide it is."""

OVERLAP_S = DAY_S
"""A day to change over: every program has been started again by then, or somebody was told."""

SHOWN_ONCE = "This is the only time that the key is shown."


@click.group()
def keys() -> None:
    """Make and end API keys. From the first one on, nobody is served without a key."""


@keys.command()
@click.argument("name")
@click.option("--tenant", default=LOCAL_TENANT, show_default=True, help="Whose recordings and usage it sees.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([str(scope) for scope in Scope]),
    multiple=True,
    default=(str(Scope.STREAM), str(Scope.JOBS)),
    show_default=True,
    help="What it may do; may be given several times.",
)
@click.option("--expires-in-days", type=click.FloatRange(0, min_open=True), help="[default: never]")
@click.option("--network", "networks", multiple=True, metavar="NETWORK", help="Where it may come from.  [default: any]")
@click.option("--plan", help="Its limits, by the name of a plan in the settings; the options below count before it.")
@click.option("--sessions", type=int, help="Most sessions at once.")
@click.option("--sessions-per-minute", type=int, help="Most new sessions in a minute.")
@click.option("--minutes-per-month", type=float, help="Most minutes of audio in a month.")
@click.option("--session-s", type=float, help="Longest session in seconds.")
def create(
    *,
    name: str,
    tenant: str,
    scopes: tuple[str, ...],
    expires_in_days: float | None,
    networks: tuple[str, ...],
    plan: str | None,
    **limits: float | None,
) -> None:
    """Make a key with a NAME for people, and show it."""
    from signaling.auth.keys import Keys, NewKey  # noqa: PLC0415 - brings the database, which --help need not wait for

    try:
        wanted = NewKey(
            name=name,
            tenant=tenant,
            scopes=[Scope(scope) for scope in scopes],
            limits=KeyLimits.model_validate(limits),
            plan=plan,
            networks=networks,
            expires_at=None if expires_in_days is None else time.time() + expires_in_days * DAY_S,
        )
    except ValidationError as exc:
        problem = exc.errors()[0]
        raise ConfigError("INVALID_KEY", f"`{problem['loc'][0]}`: {problem['msg']}.", "See --help.") from exc

    async def work(store: Keys) -> str:
        return (await store.create(wanted))[1]

    _show(_with_keys(work, "key.create", tenant=tenant))


@keys.command("list")
@click.option("--tenant", help="Only this one's.")
def list_(*, tenant: str | None) -> None:
    """Show all keys, the newest first; none of them in full, for that is known to nobody."""
    from signaling.auth.keys import PREFIX, Keys  # noqa: PLC0415
    from signaling.auth.tables import ApiKey  # noqa: PLC0415

    async def work(store: Keys) -> list[ApiKey]:
        return await store.all(tenant=tenant)

    table = Table("key", "name", "tenant", "plan", "scopes", "made", "used", "state", box=None)
    for row in _with_keys(work, "key.list"):
        state = "active" if row.expires_at is None else f"until {_time(row.expires_at)}"
        if row.expires_at is not None and row.expires_at <= time.time():
            state = "expired"
        if row.revoked_at is not None:
            state = "revoked"
        made, used = _time(row.created_at), "never" if row.last_used_at is None else _time(row.last_used_at)
        table.add_row(
            f"{PREFIX}{row.id}_…", row.name, row.tenant, row.plan or "", ",".join(row.scopes), made, used, state
        )
    console = Console()
    (console if console.is_terminal else Console(width=PIPE_COLUMNS)).print(table)


@keys.command()
@click.argument("key")
@click.option(
    "--overlap-s", type=click.FloatRange(0), default=OVERLAP_S, show_default=True, help="How long the old one goes on."
)
def rotate(*, key: str, overlap_s: float) -> None:
    """Make a key like KEY, and end that one after a while."""
    from signaling.auth.keys import Keys  # noqa: PLC0415

    async def work(store: Keys) -> str:
        return (await store.rotate(_id(key), overlap_s=overlap_s))[1]

    _show(_with_keys(work, "key.rotate", key=_id(key)))


@keys.command()
@click.argument("key")
def revoke(*, key: str) -> None:
    """End KEY within seconds, and the sessions that were opened with it or its tokens."""
    from signaling.auth.keys import Keys  # noqa: PLC0415

    async def work(store: Keys) -> None:
        await store.revoke(_id(key))

    _with_keys(work, "key.revoke", key=_id(key))
    click.echo(f"{_id(key)} is revoked.")


@keys.command()
@click.argument("key")
@click.argument("name")
def plan(*, key: str, name: str) -> None:
    """Give KEY the plan NAME; `-` is none."""
    from signaling.auth.keys import Keys  # noqa: PLC0415

    async def work(store: Keys) -> None:
        await store.change_plan(_id(key), None if name == "-" else name)

    _with_keys(work, "key.change", key=_id(key))
    click.echo(f"{_id(key)} has the plan {name}." if name != "-" else f"{_id(key)} has no plan.")


def _with_keys(work: Callable[..., Awaitable[T]], action: str, **about: str) -> T:
    from signaling.auth.accounts import Accounts  # noqa: PLC0415

    configure_logging(level="warning", log_format="auto")  # what is printed is the key, and nothing else

    async def run() -> T:
        settings = load_settings({})
        accounts = Accounts(settings)
        try:
            return await audited(settings, action, lambda: work(accounts.keys), about=about)
        finally:
            await accounts.close()

    return asyncio.run(run())


def _show(value: str) -> None:
    click.echo(value)
    click.echo(SHOWN_ONCE, err=True)


def _id(key: str) -> str:
    """A key's id, also where it was copied as it is listed."""
    return key.removeprefix("vf_").partition("_")[0]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
