"""Clients that say next to nothing for as long as they are let, as Slowloris does."""

from __future__ import annotations

import socket as sockets
import time
from dataclasses import dataclass, field

from signaling.limits import BODY_TIMEOUT_S, IDLE_CONNECTION_S
from tests.faults.node import Node
from tests.faults.udp_proxy import HOST

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

    They take half a minute, in which other tests run: so they begin before all of them (conftest.py).
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
