"""A server with a key, and a database on a disk of its own that can be filled."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.node import MIB, Node, served

DISK_BYTES = 300 * MIB
"""Recordings are taken where 256 MiB are left free."""

USAGE_S = 4.0
"""Usage is written every 3 s."""


@dataclass(frozen=True)
class Keyed:
    """The server, its key, its folder as this process reaches it, and its database as the server does."""

    node: Node
    key: str
    data_dir: Path
    database: Path
    has_own_disk: bool

    @property
    def headers(self) -> dict[str, str]:
        """Of a request with the key."""
        return {"Authorization": f"Bearer {self.key}"}

    async def audio_s(self) -> float:
        """What has been counted so far, in seconds of audio."""
        status, text = await asyncio.to_thread(self.node.fetch, "/api/v1/usage", headers=self.headers)
        assert status == 200, text
        return float(sum(line["audio_s"] for line in json.loads(text)["lines"]))

    async def until_counted(self, audio_s: float, *, limit_s: float) -> None:
        """Wait until so much has been counted, to a tenth of a second."""
        async with asyncio.timeout(limit_s):
            while abs(await self.audio_s() - audio_s) > 0.1:
                await asyncio.sleep(0.2)


LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


@contextmanager
def locked_database(server: Keyed) -> Iterator[None]:
    """Another program holds the database's lock for writing, in the server's own view of the disk."""
    enter = []
    if server.has_own_disk:
        own_user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        enter = ["nsenter", "--target", str(server.node.popen.pid), *own_user, "--mount"]
    path = str(server.database)
    with subprocess.Popen(
        [*enter, sys.executable, "-c", LOCKER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"locked"
        yield
        process.communicate(timeout=10)
    assert process.returncode == 0


def may_mount() -> bool:
    """Whether a process of this user may have a file system of its own."""
    command = [*namespace(Path("/tmp")), "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def namespace(mount: Path) -> list[str]:
    """What starts a program that has a small disk at this place; nobody else has."""
    own_user = [] if os.geteuid() == 0 else ["-Ur"]
    script = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs "$0" && exec "$@"'
    return ["unshare", *own_user, "-m", "sh", "-c", script, str(mount)]


@contextmanager
def keyed_server(folder: Path, **settings: Any) -> Iterator[Keyed]:
    """A server with a key."""
    data_dir = folder / "data"
    data_dir.mkdir(parents=True)
    has_own_disk = may_mount()
    with served(folder, prefix=namespace(data_dir) if has_own_disk else (), data_dir=data_dir, **settings) as node:
        seen = Path(f"/proc/{node.popen.pid}/root{data_dir}") if has_own_disk else data_dir
        wanted = {"name": "faults", "tenant": "acme", "scopes": ["stream", "jobs", "admin"]}
        yield Keyed(
            node, post_json(f"{node.url}/api/v1/admin/keys", wanted)["value"], seen, data_dir / "jobs.db", has_own_disk
        )


def post_json(url: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
    """What is answered; blocks."""
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json", **(headers or {})}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)
