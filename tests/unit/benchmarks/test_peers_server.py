"""A server under test as a child process: coming up, being measured, failing, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.peers import server as server_
from benchmarks.peers.server import Launch, serving
from mediaserver.errors import VoiceForgeError

LISTEN = """
import socket, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listening:
    while True:
        listening.accept()[0].close()
"""


async def listens(port: int) -> bool:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    return True


async def never(port: int) -> bool:
    return False


def launch(code: str, ready: server_.Ready = listens) -> Launch:
    return Launch("a server", (sys.executable, "-c", code, "{port}"), {"WORD": "x"}, ready)


async def test_it_runs_while_it_is_used_and_its_children_go_with_it(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "server.log"
    async with serving(launch(LISTEN), log) as server:
        assert await listens(server.port)
        usage = server.usage()
        assert usage.rss_mib > 5  # two interpreters
        child = int(log.read_text().split()[1])
        assert psutil.pid_exists(child)
    with pytest.raises(OSError, match=r"refused|Connect"):
        await listens(server.port)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


async def test_one_that_ends_at_once_says_why(tmp_path: Path) -> None:
    with pytest.raises(VoiceForgeError, match=r"status 3\. no such model") as caught:
        async with serving(launch("import sys; print('no such model', flush=True); sys.exit(3)"), tmp_path / "log"):
            pass
    assert caught.value.code == "SERVER_FAILED"
    assert str(tmp_path / "log") in caught.value.hint


async def test_one_that_never_takes_clients_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_, "READY_S", 0.5)
    before = set(psutil.Process().children())  # of other tests
    with pytest.raises(VoiceForgeError, match="took no clients"):
        async with serving(launch("import time; time.sleep(600)", never), tmp_path / "log"):
            pass
    left = set(psutil.Process().children()) - before
    assert not [child for child in left if child.status() != psutil.STATUS_ZOMBIE]


async def test_one_that_ends_while_it_is_measured_is_told(tmp_path: Path) -> None:
    async with serving(launch(LISTEN), tmp_path / "log") as server:
        await server.stop()
        with pytest.raises(VoiceForgeError, match="ended while it was measured"):
            server.usage()


async def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(VoiceForgeError, match="cannot be started") as caught:
        async with serving(Launch("a server", (str(tmp_path / "none"),), {}, listens), tmp_path / "log"):
            pass
    assert caught.value.code == "SERVER_FAILED"
