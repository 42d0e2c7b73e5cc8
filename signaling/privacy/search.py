"""Looks for names in the very bytes of SQLite's files: what no question to the database would show is seen there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 1 << 20
"""Read at a time: searching it holds other threads up for a millisecond at most."""

FILES = ("", "-wal", "-journal")


@dataclass(frozen=True, slots=True)
class Searched:
    """What was found.

    Args:
        looked_for: how many names.
        found: how many of them are there.
        bytes: how many were read.
    """

    looked_for: int
    found: int
    bytes: int


def search(database: Path, names: Sequence[str]) -> Searched:
    """Look for names in the files of a database. Blocks: a second for some hundred megabytes.

    Args:
        database: SQLite's file; those beside it are searched too.
        names: of some letters at least.

    Raises:
        OSError: a file cannot be read.
    """
    wanted = [name.encode() for name in names]
    overlap = max((len(name) for name in wanted), default=1) - 1
    found: set[bytes] = set()
    count = 0
    for suffix in FILES:
        path = database.with_name(database.name + suffix)
        if not path.exists():
            continue
        with path.open("rb") as file:
            before = b""
            while chunk := file.read(CHUNK_BYTES):
                count += len(chunk)
                piece = before + chunk
                for name in wanted:
                    if name in piece:
                        found.add(name)
                before = piece[len(piece) - overlap :] if overlap else b""
    return Searched(len(wanted), len(found), count)
