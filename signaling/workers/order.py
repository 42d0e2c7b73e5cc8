"""What the supervisor tells a worker that it starts: its settings, secrets too, and what is shared. It goes through a
pipe that only the two hold, never through the command line or a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from mediaserver.settings import Settings


@dataclass(frozen=True, slots=True)
class Order:
    """The first line on a worker's standard input.

    Args:
        settings: of this worker.
        number: which it is, from 1; its successor has the same.
        node: of all workers of this server.
        folder: where their sockets lie, of this user alone.
        state: the socket of what they share; None: what `redis_url` names.
        ports: the public port's sockets, open and inherited.
    """

    settings: Settings
    number: int
    node: str
    folder: Path
    state: Path | None
    ports: tuple[int, ...]

    def to_line(self) -> str:
        """One line of JSON, without its end."""
        said = asdict(self) | {"settings": _plain(self.settings)}
        return json.dumps(said, default=str)

    @classmethod
    def from_line(cls, line: str) -> Order:
        """What `to_line` wrote.

        Raises:
            ValueError, KeyError, TypeError: it did not.
        """
        said = json.loads(line)
        return cls(
            settings=Settings(**said["settings"]),
            number=said["number"],
            node=said["node"],
            folder=Path(said["folder"]),
            state=None if said["state"] is None else Path(said["state"]),
            ports=tuple(said["ports"]),
        )


def _plain(settings: Settings) -> dict[str, Any]:
    """All values, secrets as they are."""
    said = settings.model_dump(mode="json")
    return said | {name: value.get_secret_value() for name, value in settings if isinstance(value, SecretStr)}


def workers_of(settings: Settings) -> int:
    """How many there are to be."""
    return settings.workers or _cores()


def settings_of_worker(settings: Settings, number: int, count: int, given: Mapping[str, object]) -> Settings:
    """A worker's share of what a node may.

    Args:
        settings: of the node.
        number: of the worker, from 1.
        count: of all workers.
        given: what all of them get in place of the node's.
    """
    share = {
        "max_sessions": max(1, _share(settings.max_sessions, number, count)),
        "max_recordings": max(1, _share(settings.max_recordings, number, count)),
        # One of them runs the recordings that wait; its successor goes on with them.
        "jobs_concurrency": settings.jobs_concurrency if number == 1 else 0,
        "engine_process": False,
        "workers": 1,
    }
    return settings.model_copy(update=share | dict(given))


def _share(whole: int, number: int, count: int) -> int:
    return whole // count + (number <= whole % count)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
