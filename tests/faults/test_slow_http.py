"""Clients that say next to nothing for as long as they are let, as Slowloris does."""

from __future__ import annotations

import asyncio
import socket as sockets
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mediaserver.decoder.catalogue import ModelFiles
from signaling.limits import BODY_TIMEOUT_S, IDLE_CONNECTION_S
from tests.conftest import Speech
from tests.faults.calls import call, talk
from tests.faults.node import MIB, Node, served
from tests.faults.udp_proxy import HOST
from tests.scoring import word_errors

CONNECTIONS = 200

BYTE_EVERY_S = 1.0

LATE_S = 3.0
"""aiohttp looks for idle connections once a second or so."""

HEADERS = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
BODY = (
    b"POST /whip HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/sdp\r\nContent-Length: 60000\r\n\r\nv=0\r\n"
)
NOTHING = b""

KINDS = {NOTHING: IDLE_CONNECTION_S, HEADERS: IDLE_CONNECTION_S, BODY: BODY_TIMEOUT_S}
"""What such a client has said at once, and how long it is let."""


@dataclass
class Slow:
    """Clients that say a byte a second, on a thread of their own, since `began_s`.

    They take half a minute, in which other tests run: so the fixture is asked for by the first of them all.
    """

    node: Node
    began_s: float = field(default_factory=time.monotonic)
    closed_after_s: dict[bytes, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def run(self) -> None:
        port = int(self.node.url.rsplit(":", 1)[1])
        clients: list[tuple[sockets.socket, bytes]] = []
        for number in range(CONNECTIONS):
            client = sockets.create_connection((HOST, port))
            kind = list(KINDS)[number % len(KINDS)]
            client.sendall(kind)
            client.setblocking(False)
            clients.append((client, kind))
        while clients and time.monotonic() < self.began_s + IDLE_CONNECTION_S + 2 * LATE_S:
            time.sleep(BYTE_EVERY_S / 2)
            for client, kind in list(clients):
                if _is_closed(client, kind):
                    self.closed_after_s[kind].append(time.monotonic() - self.began_s)
                    clients.remove((client, kind))
                    client.close()
        for client, _ in clients:
            client.close()


def _is_closed(client: sockets.socket, kind: bytes) -> bool:
    """Say one more byte, and see whether anybody still listens."""
    try:
        if kind:
            client.send(b"a")
        while (said := client.recv(4096)) != b"":
            if b"HTTP/1.1 408" in said:  # refused, with a reason
                return True
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


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


async def test_slow_clients_are_closed_and_others_are_served(
    slow_clients: tuple[Slow, threading.Thread], speech: Speech
) -> None:
    slow, thread = slow_clients
    node = slow.node
    before = node.vitals()
    (client, _), told = await asyncio.gather(call(node.url, speech), talk(node.url, speech, pace=1.0))
    for text in (client.told.text, told.text):
        assert word_errors(speech.text, text) <= 0.2, text
    await asyncio.to_thread(thread.join)
    for kind, limit_s in KINDS.items():
        closed = slow.closed_after_s[kind]
        assert len(closed) >= CONNECTIONS // len(KINDS), kind
        assert max(closed) <= limit_s + LATE_S, kind
    with suppress(TimeoutError):
        async with asyncio.timeout(LATE_S):
            while node.vitals().fds > before.fds:
                await asyncio.sleep(0.1)
    after = node.vitals()
    assert after.fds <= before.fds
    assert "RequestHandler.start" not in after.tasks
    assert after.rss_bytes < before.rss_bytes + 160 * MIB  # its first words are among it
    assert not (errors := node.new_errors()), "\n".join(errors)
