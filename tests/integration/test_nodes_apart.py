"""Two servers in networks of their own, joined by a wire: what one says of itself must be true for the other too."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import Speech
from tests.redis_servers import free_port
from tests.served_nodes import peer, served
from tests.waiting import until

pytestmark = [pytest.mark.timeout(240), pytest.mark.needs("ip", "redis-server", "redis-cli")]

BRIDGE = "10.77.0.254"
ADDRESSES = ("10.77.0.1", "10.77.0.2")
INNER_PORT = 18081


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=20)


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """Two networks, and a bridge here that both are plugged into."""
    mark = secrets.token_hex(2)
    names, bridge = [f"vf{mark}{number}" for number in (1, 2)], f"vfb{mark}"
    try:
        run("ip", "link", "add", bridge, "type", "bridge")
    except subprocess.CalledProcessError:
        pytest.skip("networks cannot be made here: it takes root, and a kernel with bridges")
    try:
        run("ip", "addr", "add", f"{BRIDGE}/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        for name, address in zip(names, ADDRESSES, strict=True):
            run("ip", "netns", "add", name)
            run("ip", "link", "add", f"{name}o", "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "link", "set", f"{name}o", "master", bridge, "up")
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)


async def test_a_peer_offers_at_one_node_and_speaks_to_the_other(
    namespaces: list[str], tmp_path: Path, speech: Speech
) -> None:
    port = free_port()
    redis = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", BRIDGE, "--protected-mode", "no", "--save", ""],
        stdout=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    shared = {"REDIS_URL": f"redis://{BRIDGE}:{port}/0", "TOKEN_SECRET": secrets.token_urlsafe(32)}
    options = ("--keyless-access", "everyone", "--max-sessions", "1", "--port", "18080")
    try:
        one, two = (
            served(
                tmp_path / name,
                *options,
                "--host",
                address,
                "--node-address",
                f"http://{address}:{INNER_PORT}",
                namespace=("ip", "netns", "exec", name),
                **shared,
            )
            for name, address in zip(namespaces, ADDRESSES, strict=True)
        )
        async with one as first, two as second:
            async with (
                peer(speech, first.http, addresses=(BRIDGE,)) as filling,
                peer(speech, first.http, addresses=(BRIDGE,)) as speaking,
            ):
                await filling.call(first.url)
                await speaking.call(first.url)  # the first is full: its media goes straight to the second
                assert speaking.place != filling.place
                async with first.http.get(f"{first.url}{speaking.location}") as response:
                    assert response.status == 200
                await speaking.spoken()
                await speaking.close_stream()
                speaking.assert_says(speech)
                assert await filling.delete(second.url) == 200
            # Nobody but servers of the deployment is let in at the inner door.
            async with aiohttp.ClientSession() as http, http.post(f"http://{ADDRESSES[0]}:{INNER_PORT}/whip") as answer:
                assert answer.status == 403
            second.process.kill()
            await until(lambda: bool(first.lines(event="place gone", place=speaking.place)))
    finally:
        redis.terminate()
        await asyncio.to_thread(redis.wait)
