"""Real Redis servers on loopback, for tests: one, one with a password, Sentinels with a replica, a Cluster of three."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

READY_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A server that can be stopped and started again at the same port; it keeps nothing on disk."""

    def __init__(self, folder: Path, *options: str, port: int | None = None, password: str = "") -> None:
        self.port = port or free_port()
        self._password = password
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{f':{self._password}@' if self._password else ''}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        folder = self._folder / str(self.port)
        folder.mkdir(exist_ok=True)
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        if self._password:
            command += ["--requirepass", self._password]
        self._process = subprocess.Popen([*command, *self._options], stdout=subprocess.DEVNULL)
        self._until_ready()

    def stop(self, *, by: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(by)
            self._process.wait(timeout=READY_S)
            self._process = None

    def freeze(self) -> None:
        """It takes connections and answers nothing, as behind a network that swallows packets."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def tell(self, *words: str) -> str:
        """What redis-cli answers."""
        login = ["-a", self._password, "--no-auth-warning"] if self._password else []
        command = ["redis-cli", "-p", str(self.port), *login, *words]
        return subprocess.run(command, capture_output=True, check=False, timeout=READY_S).stdout.decode().strip()

    def _until_ready(self) -> None:
        deadline_s = time.monotonic() + READY_S
        while self.tell("ping") != "PONG":
            assert time.monotonic() < deadline_s, "redis-server did not start"
            time.sleep(0.02)


@contextmanager
def redis_server(*options: str, password: str = "") -> Iterator[RedisServer]:
    """One server."""
    folder = Path(tempfile.mkdtemp(prefix="vf-redis-"))
    server = RedisServer(folder, *options, password=password)
    server.start()
    try:
        yield server
    finally:
        server.stop(by=signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def redis_cluster() -> Iterator[list[RedisServer]]:
    """Three masters that share the slots."""
    folder = Path(tempfile.mkdtemp(prefix="vf-redis-"))
    servers = [RedisServer(folder, "--cluster-enabled", "yes", "--cluster-port", str(free_port())) for _ in range(3)]
    try:
        for server in servers:
            server.start()
        for number, server in enumerate(servers):
            first, last = number * 16384 // 3, (number + 1) * 16384 // 3 - 1
            assert server.tell("cluster", "addslotsrange", str(first), str(last)) == "OK"
            assert server.tell("config", "set", "cluster-require-full-coverage", "no") == "OK"
        for server in servers[1:]:
            bus = servers[0]._options[-1]
            assert server.tell("cluster", "meet", "127.0.0.1", str(servers[0].port), bus) == "OK"
        deadline_s = time.monotonic() + READY_S
        while not all(_knows_all(server) for server in servers):
            assert time.monotonic() < deadline_s, "the cluster did not come up"
            time.sleep(0.05)
        yield servers
    finally:
        for server in servers:
            server.stop(by=signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def redis_sentinels() -> Iterator[tuple[list[RedisServer], list[RedisServer]]]:
    """A master with a replica, and three Sentinels that fail over after a second."""
    folder = Path(tempfile.mkdtemp(prefix="vf-redis-"))
    master = RedisServer(folder)
    replica = RedisServer(folder, "--replicaof", "127.0.0.1", str(master.port))
    sentinels: list[RedisServer] = []
    try:
        master.start()
        replica.start()
        for _ in range(3):
            port = free_port()
            config = folder / f"sentinel-{port}.conf"
            config.write_text(
                f"sentinel monitor mymaster 127.0.0.1 {master.port} 2\n"
                "sentinel down-after-milliseconds mymaster 500\n"
                "sentinel failover-timeout mymaster 3000\n"
            )
            sentinels.append(_Sentinel(folder, config, port))
            sentinels[-1].start()
        deadline_s = time.monotonic() + READY_S
        while not all(_sees(sentinel, others=2, replicas=1) for sentinel in sentinels):
            assert time.monotonic() < deadline_s, "the sentinels do not see each other"
            time.sleep(0.05)
        yield [master, replica], sentinels
    finally:
        for server in (*sentinels, replica, master):
            server.stop(by=signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


class _Sentinel(RedisServer):
    def __init__(self, folder: Path, config: Path, port: int) -> None:
        super().__init__(folder, port=port)
        self._config = config

    def start(self) -> None:
        command = ["redis-server", str(self._config), "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._until_ready()


def _knows_all(server: RedisServer) -> bool:
    info = server.tell("cluster", "info")
    return "cluster_state:ok" in info and "cluster_slots_ok:16384" in info and "cluster_known_nodes:3" in info


def _sees(sentinel: RedisServer, *, others: int, replicas: int) -> bool:
    words = sentinel.tell("sentinel", "master", "mymaster").split("\n")
    told = dict(zip(words[::2], words[1::2], strict=False))
    return told.get("num-other-sentinels") == str(others) and told.get("num-slaves") == str(replicas)
