"""The database, by URL: SQLite on threads of its own, or PostgreSQL. Its failures have names.

SQLite writes ahead (WAL), so that readers do not wait for a writer, and syncs at each commit: a job that was taken in
survives a power cut. What is deleted is overwritten (`secure_delete`), and `scrub` takes it out of the log. A
transaction that will write says so at its beginning, or two of them could wait for each other.
"""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random

from mediaserver.errors import CapacityError, ConfigError, VoiceForgeError

log = structlog.get_logger(__name__)

BUSY_TIMEOUT_S = 5.0
"""How long a writer of SQLite waits for another one; they take milliseconds."""

OPEN_AGAIN_S = (0.02, 0.1)
"""Between attempts to open a file that another process is opening: that takes it some milliseconds."""

SCRUB_WAIT_MS = 200
"""How long emptying the log waits for readers; nobody can write meanwhile. It is tried again later."""

BUSY = "DATABASE_BUSY"

CONNECTIONS_MAX = 5
CONNECTION_WAIT_S = 5.0
"""How long a request waits for a free connection."""

RETRY_AFTER_S = 5

OWNER_ONLY = 0o600

MIGRATION_LOCK = 0x564F4943
"""PostgreSQL's advisory lock under which one process migrates at a time."""

MIGRATIONS = Path(__file__).parent / "migrations"

_WRITES = "voiceforge_writes"


class StorageFullError(VoiceForgeError):
    """The disk is full: DISK_FULL."""

    status = HTTPStatus.INSUFFICIENT_STORAGE

    def __init__(self) -> None:
        super().__init__(
            "DISK_FULL",
            "The server's disk is full.",
            "Delete recordings that are no longer needed, or try again later.",
            retryable=True,
        )


class Database:
    """Connections to the database, opened at the first need.

    Args:
        url: SQLAlchemy's: `sqlite:////var/lib/voiceforge/jobs.db`, `postgresql://user:password@host/name`.

    Raises:
        ConfigError: DATABASE_URL_INVALID, or DATABASE_DRIVER_MISSING.
    """

    def __init__(self, url: str) -> None:
        self.url = _with_driver(url)
        try:
            self._engine = _make_engine(self.url)
        except ModuleNotFoundError as exc:
            raise ConfigError(
                "DATABASE_DRIVER_MISSING",
                f"`database_url` needs the package `{exc.name}`, which is not installed.",
                "Install it: `pip install 'voiceforge[postgres]'`.",
            ) from exc
        self._writing = self._engine.execution_options(**{_WRITES: True})
        self._opening = asyncio.Lock()
        self._opened = False

    @property
    def exists(self) -> bool:
        """Whether there may be something in it: always, but for a file of SQLite that is not there."""
        if not self.is_sqlite:
            return True
        try:
            return self.url.database is not None and Path(self.url.database).exists()
        except OSError:  # a folder of somebody else: opening it says so in words
            return True

    @property
    def path(self) -> Path | None:
        """The file of SQLite; None for a database that has none of its own."""
        return Path(self.url.database) if self.is_sqlite and self.url.database is not None else None

    @property
    def is_sqlite(self) -> bool:
        """Whether it is one file of this machine."""
        return self.url.get_backend_name() == "sqlite"

    async def open(self) -> None:
        """Bring its tables up to date, once.

        Raises:
            VoiceForgeError: as `reading`.
        """
        async with self._opening:
            if self._opened:
                return
            await asyncio.to_thread(_preload)
            # A file of SQLite changes to writing ahead once, and whoever comes meanwhile is sent away at once.
            again = retry_if_exception(lambda exc: isinstance(exc, CapacityError) and exc.code == BUSY)
            patience = AsyncRetrying(
                retry=again, stop=stop_after_delay(BUSY_TIMEOUT_S), wait=wait_random(*OPEN_AGAIN_S), reraise=True
            )
            await patience(self._open)
            self._opened = True

    async def _open(self) -> None:
        with named_failures():
            if self.is_sqlite and self.url.database is not None:
                await asyncio.to_thread(_make_private, Path(self.url.database))
            async with self._writing.begin() as connection:
                if not self.is_sqlite:
                    await connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
                await connection.run_sync(migrate)

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()

    async def scrub(self) -> bool:
        """Write what is in SQLite's log into the file and empty the log: pages from before a deletion lie there.

        Returns:
            Whether it is empty; not while somebody reads what was before. Another kind of database: True, it has its
            own ways.

        Raises:
            VoiceForgeError: as `reading`.
        """
        if not self.is_sqlite:
            return True
        await self.open()
        with named_failures():
            async with self._alone() as driver:
                await driver.execute(f"PRAGMA busy_timeout={SCRUB_WAIT_MS}")  # writers wait meanwhile
                try:
                    cursor = await driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    (was_busy, _, _) = await cursor.fetchone()
                finally:
                    await driver.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
        return not was_busy

    async def compact(self, tables: Sequence[str] = ()) -> None:
        """Write the file anew without what was deleted (SQLite), or free old versions of rows (PostgreSQL).

        Args:
            tables: of PostgreSQL; SQLite's file is written as a whole, and nobody else writes meanwhile.

        Raises:
            VoiceForgeError: as `reading`.
        """
        await self.open()
        with named_failures():
            async with self._alone() as driver:
                if self.is_sqlite:
                    await driver.execute("VACUUM")
                else:
                    for table in tables:
                        await driver.execute(f"VACUUM {table}")

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[Any]:
        """A driver's connection in no transaction."""
        async with self._engine.connect() as connection:
            raw = await connection.get_raw_connection()
            try:
                yield raw.driver_connection
            except sqlite3.Error as exc:  # as SQLAlchemy would tell it
                raise DBAPIError("", None, exc) from exc

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session that reads.

        Raises:
            CapacityError: DATABASE_BUSY or DATABASE_DOWN.
            StorageFullError: DISK_FULL.
        """
        await self.open()
        with named_failures():
            async with AsyncSession(self._engine, expire_on_commit=False) as session:
                yield session

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """A transaction that writes: committed at the end, rolled back by an exception. Raises as `reading`."""
        await self.open()
        with named_failures():
            async with AsyncSession(self._writing, expire_on_commit=False) as session, session.begin():
                yield session


def _preload() -> None:
    """Import what migrates: a quarter of a second, which `migrate` would take on the event loop."""
    import alembic.autogenerate  # noqa: PLC0415
    import alembic.command  # noqa: PLC0415, F401


def migrate(connection: Connection, revision: str = "head") -> None:
    """Bring the tables to a revision, up or down (`base` is none at all). Blocks: SQLAlchemy runs it in its own way."""
    from alembic import command  # noqa: PLC0415 - for those who have recordings
    from alembic.config import Config  # noqa: PLC0415
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    current = MigrationContext.configure(connection).get_current_revision()
    script = ScriptDirectory.from_config(config)
    if revision == "head" and current == script.get_current_head():
        return
    if current is not None and not any(step.revision == current for step in script.walk_revisions()):
        raise ConfigError(
            "DATABASE_TOO_NEW",
            "The database was written by a later version of VoiceForge.",
            "Run that version, or give another `database_url`.",
        )
    is_down = revision == "base" or (current is not None and revision < current)
    (command.downgrade if is_down else command.upgrade)(config, revision)
    log.info("database migrated", to_revision=revision)


@contextmanager
def named_failures() -> Iterator[None]:
    """Failures of the database as errors that a client can be told."""
    try:
        yield
    except PoolTimeoutError as exc:
        raise _busy() from exc
    except DBAPIError as exc:
        said = str(exc.orig).lower()
        log.warning("database failed", failure=type(exc.orig).__name__, said=said[:200])
        if "disk is full" in said or "no space left" in said:
            raise StorageFullError from exc
        if "locked" in said or "busy" in said or "lock timeout" in said or "deadlock" in said:
            raise _busy() from exc
        raise _down() from exc
    except (OSError, SQLAlchemyError) as exc:
        if isinstance(exc, OSError) and is_full(exc):
            raise StorageFullError from exc
        log.warning("database failed", failure=type(exc).__name__, said=str(exc)[:200])
        raise _down() from exc


def is_full(exc: OSError) -> bool:
    """Whether the disk, or what this user may use of it, is full."""
    return exc.errno in (errno.ENOSPC, errno.EDQUOT)


def _with_driver(text_: str) -> URL:
    try:
        url = make_url(text_)
    except ArgumentError as exc:
        raise _invalid_url() from exc
    backend = {"postgres": "postgresql"}.get(url.get_backend_name(), url.get_backend_name())
    drivers = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}
    if backend not in drivers or (backend == "sqlite" and url.database in (None, "", ":memory:")):
        raise _invalid_url()
    return url.set(drivername=f"{backend}+{drivers[backend]}")


def _invalid_url() -> ConfigError:
    return ConfigError(
        "DATABASE_URL_INVALID",
        "`database_url` is not the URL of a database that is known here.",
        "Give sqlite:////path/to/jobs.db or postgresql://user:password@host/name.",
    )


def _make_engine(url: URL) -> AsyncEngine:
    arguments: dict[str, Any] = {"timeout": BUSY_TIMEOUT_S} if url.get_backend_name() == "sqlite" else {}
    try:
        engine = create_async_engine(
            url,
            pool_size=CONNECTIONS_MAX,
            max_overflow=0,
            pool_timeout=CONNECTION_WAIT_S,
            pool_pre_ping=url.get_backend_name() != "sqlite",
            connect_args=arguments,
            hide_parameters=True,  # webhooks' secrets are among them
        )
    except NoSuchModuleError as exc:
        raise _invalid_url() from exc
    if url.get_backend_name() == "sqlite":
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _make_private(path: Path) -> None:
    """Make the file, where it is not there, so that only its owner reads what was said; SQLite's others follow it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.touch(mode=OWNER_ONLY)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver's guess
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _busy() -> CapacityError:
    return CapacityError(
        BUSY,
        "The database of recordings is busy.",
        f"Try again in {RETRY_AFTER_S} s.",
        retry_after_s=RETRY_AFTER_S,
    )


def _down() -> CapacityError:
    return CapacityError(
        "DATABASE_DOWN",
        "The database of recordings does not answer.",
        f"Try again in {RETRY_AFTER_S} s; if it stays, the server's log says why.",
        retry_after_s=RETRY_AFTER_S,
    )
