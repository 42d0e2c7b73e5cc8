"""The UDP port range and the announced address, from the settings to what a client reads in its answer."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer
from aiortc import RTCPeerConnection

from mediaserver.audio.vad import VadPool
from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.decoder.engine import open_engine
from mediaserver.ingest.ice import close_peer_connection, new_peer_connection
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.app import make_app

pytestmark = pytest.mark.timeout(60)

PORTS = 3

StartNode = Callable[..., Awaitable[TestServer]]


@pytest_asyncio.fixture
async def start(model_files: ModelFiles, vad_model_path: Path) -> AsyncIterator[StartNode]:
    """Starts servers with the settings of a test, over one engine."""
    engine = open_engine(Settings(), model_files, Metrics())
    await engine.start()
    vad = VadPool(vad_model_path, metrics=Metrics())
    servers: list[TestServer] = []

    async def start(**settings: Any) -> TestServer:
        server = TestServer(make_app(Settings(**settings), metrics=Metrics(), engine=engine, vad=vad))
        await server.start_server()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.close()
    await engine.close()
    await vad.close()


def free_range(count: int) -> range:
    """UDP ports in a row that nothing uses on loopback."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            first = probe.getsockname()[1]
        ports = range(first, first + count)
        with suppress(OSError, OverflowError):
            for port in ports:
                for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                    with socket.socket(family, socket.SOCK_DGRAM) as sock:
                        sock.bind((host, port))
            return ports


async def offer() -> tuple[RTCPeerConnection, str]:
    """A client's offer, as browsers make it: everything in one bundle."""
    pc = new_peer_connection()
    pc.addTransceiver("audio", direction="sendonly")
    pc.createDataChannel("transcripts")
    await pc.setLocalDescription(await pc.createOffer())
    return pc, pc.localDescription.sdp


class Client:
    """Opens sessions and keeps them."""

    def __init__(self, server: TestServer, http: aiohttp.ClientSession) -> None:
        self._server = server
        self._http = http

    async def call(self) -> tuple[int, str, Any]:
        """Status, body and headers of a POST."""
        pc, sdp = await offer()
        try:
            headers = {"Content-Type": "application/sdp"}
            async with self._http.post(self._server.make_url("/whip"), data=sdp, headers=headers) as response:
                return response.status, await response.text(), response.headers
        finally:
            await close_peer_connection(pc)

    async def end(self, location: str) -> None:
        async with self._http.delete(self._server.make_url(location)) as response:
            assert response.status == 200


def candidates(answer: str) -> set[tuple[str, int]]:
    """Address and port of each candidate, and of the media lines that repeat one."""
    found = re.findall(r"^a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ host", answer, re.MULTILINE)
    return {(host, int(port)) for host, port in found}


async def test_media_stays_within_the_ports_that_a_firewall_names(start: StartNode) -> None:
    ports = free_range(PORTS)
    server = await start(udp_port_min=ports[0], udp_port_max=ports[-1])
    async with aiohttp.ClientSession() as http:
        client = Client(server, http)
        seen: list[tuple[str, int]] = []
        locations = []
        for _ in ports:
            status, answer, headers = await client.call()
            assert status == 201, answer
            offered = candidates(answer)
            assert {host for host, _ in offered} <= {"127.0.0.1", "::1"}
            assert {port for _, port in offered} <= set(ports)
            assert {int(port) for port in re.findall(r"^m=\S+ (\d+) ", answer, re.MULTILINE)} <= {0, 9, *ports}
            seen += offered
            locations.append(headers["Location"])
        assert len(seen) == len(set(seen)), "no two sessions share a port"
        status, body, headers = await client.call()
        assert status == 503
        assert '"NO_UDP_PORT"' in body
        assert 1 <= int(headers["Retry-After"]) <= 60
        await client.end(locations[0])
        status, _, headers = await client.call()
        assert status == 201, "the port of a session that ended is free again"
        for location in (*locations[1:], headers["Location"]):
            await client.end(location)


async def test_the_announced_address_is_what_clients_are_told(start: StartNode) -> None:
    server = await start(announced_address="198.51.100.7")
    async with aiohttp.ClientSession() as http:
        client = Client(server, http)
        _, answer, headers = await client.call()
        offered = {host for host, _ in candidates(answer)}
        assert "198.51.100.7" in offered
        assert "127.0.0.1" not in offered
        assert "127.0.0.1" not in answer
        await client.end(headers["Location"])
