"""Databases to test with: SQLite always, PostgreSQL where its programs are."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from mediaserver.storage.database import Database
from tests.conftest import in_ci

START_S = 20


def postgres_programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, which Debian keeps off the path; the newest of several."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parents[1].name))
    return installed[-1].parent if installed else None


def unable(reason: str) -> None:
    """PostgreSQL refuses to run as root and is on few machines: those tests are left out by name, but not in CI."""
    if in_ci():
        pytest.fail(f"needs PostgreSQL: {reason}", pytrace=False)
    pytest.skip(f"needs PostgreSQL: {reason}")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server of its own for the tests, on a free port, in a temporary folder."""
    programs = postgres_programs()
    if programs is None:
        unable("initdb is not installed here")
        return
    as_user: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("runuser") is None:
            unable("it does not run as root, and there is no runuser")
        as_user = ["runuser", "-u", "nobody", "--"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = Path(tempfile.mkdtemp(prefix="vf-pg-", dir="/tmp"))
    try:
        if as_user:
            shutil.chown(root, "nobody")
        data = root / "data"

        def run(*command: str) -> None:
            done = subprocess.run([*as_user, *command], cwd=root, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                unable(f"{Path(command[0]).name} failed: {done.stderr[-300:]}")

        run(str(programs / "initdb"), "-D", str(data), "-U", "voiceforge", "-A", "trust", "--no-sync")
        options = f"-p {port} -k {root} -c listen_addresses=127.0.0.1 -c fsync=off -c shared_buffers=16MB"
        control = [str(programs / "pg_ctl"), "-D", str(data), "-w", "-t", str(START_S)]
        run(*control, "-l", str(root / "log"), "-o", options, "start")
        yield f"postgresql://voiceforge@127.0.0.1:{port}/postgres"
        run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """One with its tables, and without them again afterwards: PostgreSQL's server is shared by the tests."""
    opened = Database(database_url)
    await opened.open()
    yield opened
    if not opened.is_sqlite:
        await forget(opened)
    await opened.close()


async def forget(opened: Database) -> None:
    from sqlalchemy import text

    async with opened.writing() as session:
        await session.execute(text("DROP SCHEMA public CASCADE"))
        await session.execute(text("CREATE SCHEMA public"))
