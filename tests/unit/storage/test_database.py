"""Tables up and down on each kind of database, and what a client hears when one fails."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from click.testing import CliRunner
from sqlalchemy import inspect, text
from sqlalchemy.exc import OperationalError

import mediaserver.jobs.models
import mediaserver.storage.tenants
import mediaserver.storage.usage  # noqa: F401 - its tables
import signaling.auth.tables  # noqa: F401 - its tables
from mediaserver.errors import CapacityError, ConfigError, VoiceForgeError
from mediaserver.storage import database as module
from mediaserver.storage.base import Base
from mediaserver.storage.database import Database, StorageFullError, migrate, named_failures
from signaling.cli import main


async def in_connection(database: Database, work: Any) -> Any:
    async with database.writing() as session:
        return await (await session.connection()).run_sync(work)


async def test_migrations_make_what_the_models_say(database: Database) -> None:
    def differences(connection: Any) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))

    assert await in_connection(database, differences) == []


async def test_migrations_go_down_and_up_again(database: Database) -> None:
    def tables(connection: Any) -> set[str]:
        return set(inspect(connection).get_table_names())

    assert await in_connection(database, tables) == {*Base.metadata.tables, "alembic_version"}
    await in_connection(database, lambda connection: migrate(connection, "base"))
    assert await in_connection(database, tables) == {"alembic_version"}
    await in_connection(database, migrate)
    assert await in_connection(database, tables) == {*Base.metadata.tables, "alembic_version"}


async def test_several_processes_may_open_it_at_once(database_url: str) -> None:
    both = [Database(database_url) for _ in range(8)]
    await asyncio.gather(*(one.open() for one in both))
    await in_connection(both[0], lambda connection: migrate(connection, "base"))
    for one in both:
        await one.close()


async def test_a_database_of_a_later_version_is_left_alone(database: Database, database_url: str) -> None:
    async with database.writing() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    again = Database(database_url)
    with pytest.raises(ConfigError) as failure:
        await again.open()
    assert failure.value.code == "DATABASE_TOO_NEW"
    await again.close()


async def test_sqlite_is_as_safe_as_it_is_said_to_be(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'deep' / 'jobs.db'}")
    assert not database.exists
    async with database.reading() as session:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 5000)):
            assert (await session.execute(text(f"PRAGMA {pragma}"))).scalar_one() == value, pragma
    assert database.exists
    await database.close()


async def test_a_lock_that_stays_is_said_and_does_not_hold_the_loop_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT_S", 0.3)
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    await database.open()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    counting = asyncio.create_task(count())
    other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CapacityError) as failure:
        async with database.writing() as session:
            await session.execute(text("DELETE FROM uploads"))
    other.execute("ROLLBACK")
    other.close()
    counting.cancel()
    assert failure.value.code == "DATABASE_BUSY"
    assert turns >= 5
    async with database.writing() as session:  # and it goes on
        await session.execute(text("DELETE FROM uploads"))
    await database.close()


async def test_a_database_that_does_not_answer_is_said() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(CapacityError) as failure:
        await database.open()
    assert failure.value.code == "DATABASE_DOWN"
    await database.close()


def test_a_full_disk_is_said() -> None:
    with pytest.raises(StorageFullError) as failure, named_failures():
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))
    assert failure.value.code == "DISK_FULL"
    with pytest.raises(StorageFullError), named_failures():
        raise OSError(28, "No space left on device")


async def test_nobody_else_of_this_machine_reads_the_file(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new' / 'jobs.db'}")
    await database.open()
    for path in (tmp_path / "new").iterdir():  # also what lies beside it
        assert path.stat().st_mode & 0o077 == 0, path.name
    await database.close()


@pytest.mark.parametrize("url", ["", "jobs.db", "mysql://host/name", "sqlite://", "sqlite:///:memory:", "redis://host"])
def test_a_url_that_is_not_known_is_refused(url: str) -> None:
    with pytest.raises(VoiceForgeError) as failure:
        Database(url)
    assert failure.value.code == "DATABASE_URL_INVALID"


def test_the_usual_spellings_of_postgresql_are_known() -> None:
    for url in ("postgres://u@h/n", "postgresql://u@h/n", "postgresql+asyncpg://u@h/n"):
        assert Database(url).url.drivername == "postgresql+asyncpg"


def test_without_its_driver_postgresql_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigError) as failure:
        Database("postgresql://u@h/n")
    assert failure.value.code == "DATABASE_DRIVER_MISSING"


def test_a_server_does_not_start_with_a_wrong_url() -> None:
    done = CliRunner().invoke(main, ["serve", "--port", "0", "--database-url", "mysql://host/name"])
    assert done.exit_code == 1
    assert "is not the URL of a database" in done.output


async def test_what_is_deleted_is_in_no_file_of_sqlite(tmp_path: Path) -> None:
    path, mark = tmp_path / "jobs.db", "Mississippi-" * 700

    def lies_there() -> bool:
        return any(b"Mississippi" in file.read_bytes() for file in tmp_path.iterdir())

    database = Database(f"sqlite:///{path}")
    insert = text("INSERT INTO uploads VALUES (:id, 1, :name, 1, 1, 'local')")
    async with database.writing() as session:
        for number in range(20):
            await session.execute(insert, {"id": str(number), "name": mark})
    assert lies_there()
    async with database.writing() as session:
        await session.execute(text("DELETE FROM uploads"))
    assert lies_there(), "the log has pages from before: otherwise there would be nothing to scrub"
    async with database.reading() as session:
        await session.execute(text("SELECT count(*) FROM uploads"))
        assert not await database.scrub(), "somebody reads what was before"
    assert await database.scrub()
    assert not lies_there()
    await database.compact()
    assert await database.scrub()
    await database.close()


async def test_scrubbing_and_compacting_any_database(database: Database) -> None:
    assert await database.scrub()
    await database.compact(["uploads"])
