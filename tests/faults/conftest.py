"""Servers that tests of faults share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mediaserver.decoder.catalogue import ModelFiles
from tests.conftest import Speech
from tests.faults.calls import call, talk
from tests.faults.node import Node, served
from tests.faults.pulse import Pulse, pulse_at
from tests.faults.slow_clients import Slow

PING_TIMEOUT_S = 5.0
"""After which the shared server gives a peer up: longer than the silence on the wire that is survived (2 s)."""

CONNECT_TIMEOUT_S = 6.0
"""Within which its peers must connect."""

RESUME_WINDOW_S = 2.0
"""For which it waits for clients to come back; none of its tests does."""

INTERIM_PERIOD_MS = 200
"""So many that a slow reader's do not all fit; no other client of it asks for any."""


@pytest.fixture(scope="session")
def pulse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulse]:
    """How late the machine itself is."""
    with pulse_at(tmp_path_factory.mktemp("pulse") / "late") as running:
        yield running


@pytest.fixture(scope="session")
def longest(speeches: dict[str, Speech]) -> Speech:
    """The longest recording: 8.6 s, two sentences."""
    return speeches["gettysburg-slt"]


@pytest.fixture(scope="session")
def node(
    tmp_path_factory: pytest.TempPathFactory, model_files: ModelFiles, vad_model_path: Path, longest: Speech
) -> Iterator[Node]:
    """A server for faults that it shares with other clients; one call of each kind has been through it."""
    with served(
        tmp_path_factory.mktemp("node"),
        ping_timeout_s=PING_TIMEOUT_S,
        connect_timeout_s=CONNECT_TIMEOUT_S,
        resume_window_s=RESUME_WINDOW_S,
        interim_period_ms=INTERIM_PERIOD_MS,
    ) as running:
        warm_up(running, longest)
        yield running


WARM_UP_SESSIONS = 8
"""As many as fill a batch: the decoder's workspaces grow with the largest one, and stay."""


def warm_up(node: Node, speech: Speech) -> None:
    """Have a server make what it makes once: threads, the decoder's workspaces, imports."""

    async def all_at_once() -> None:
        talks = (talk(node.url, speech) for _ in range(WARM_UP_SESSIONS))
        await asyncio.gather(call(node.url, speech), *talks)

    asyncio.run(all_at_once())


@pytest.fixture(scope="session")
def slow_clients(
    tmp_path_factory: pytest.TempPathFactory, model_files: ModelFiles, vad_model_path: Path
) -> Iterator[tuple[Slow, threading.Thread]]:
    """200 slow clients of a server."""
    with served(tmp_path_factory.mktemp("slow")) as node:
        slow = Slow(node)
        thread = threading.Thread(target=slow.run, name="slow-clients")
        thread.start()
        yield slow, thread
        thread.join()


@pytest.fixture(scope="session", autouse=True)
def slow_clients_from_the_beginning(request: pytest.FixtureRequest) -> None:
    """They take half a minute, in which the other tests run."""
    if any("slow_clients" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("slow_clients")
