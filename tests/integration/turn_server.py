"""A real coturn on loopback, run from the configuration that `voiceforge turn config` writes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from stun_turn.coturn import CoturnPlan
from stun_turn.probe import TurnError, ask_stun
from stun_turn.servers import IceServers
from stun_turn.urls import ServerUrl

SECRET = "a-secret-that-only-tests-know"

START_S = 15.0
STOP_S = 5.0


@dataclass
class TurnServer:
    """What runs."""

    port: int
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Its URL."""
        return f"turn:127.0.0.1:{self.port}"

    @property
    def url(self) -> ServerUrl:
        return ServerUrl.parse(self.text)

    @property
    def over_tcp(self) -> ServerUrl:
        return ServerUrl.parse(f"{self.text}?transport=tcp")

    def servers(self, *, secret: str = SECRET) -> IceServers:
        """What a node with this TURN server tells its clients."""
        return IceServers((), turn_urls=(self.text,), turn_secret=secret, turn_ttl_s=600)

    def log(self) -> str:
        return "\n".join(self.lines)


def free_port() -> int:
    """A port that is free for UDP and TCP on loopback."""
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            return int(tcp.getsockname()[1])


def plan(tmp_path: Path, **changes: Any) -> CoturnPlan:
    """A configuration for one machine."""
    chosen: dict[str, Any] = {
        "secret": SECRET,
        "media_addresses": (ip_network("127.0.0.1"),),
        "max_sessions": 4,
        "listening_ips": ("127.0.0.1",),
        "listening_port": free_port(),
        "relay_ips": ("127.0.0.1",),
        "allow_loopback": True,
        "log_sessions": True,
        "pidfile": str(tmp_path / "turnserver.pid"),
    }
    return CoturnPlan(**{**chosen, **changes})


@asynccontextmanager
async def run_coturn(chosen: CoturnPlan, tmp_path: Path, *more: str) -> AsyncIterator[TurnServer]:
    """Run it until the block ends; `more` lines are added to the configuration."""
    path = tmp_path / "turnserver.conf"
    path.write_text("\n".join((chosen.render(), *more)) + "\n")
    process = await asyncio.create_subprocess_exec(
        *("turnserver", "-c", str(path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    server = TurnServer(chosen.listening_port)

    async def read() -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            server.lines.append(line.decode(errors="replace").rstrip())

    reading = asyncio.create_task(read())
    try:
        async with asyncio.timeout(START_S):
            while True:
                assert process.returncode is None, server.log()
                try:
                    await ask_stun(server.over_tcp)
                    break
                except TurnError:
                    await asyncio.sleep(0.05)
        yield server
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()
        await reading
