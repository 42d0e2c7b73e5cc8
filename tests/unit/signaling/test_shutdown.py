"""The order of a stop, what bounds it, and what a whole server does when it is asked to stop."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from front_door import OFFER, SDP, FakeEngine, FakePeer, Node

from mediaserver.errors import ModelError, VoiceForgeError
from mediaserver.metrics import Metrics
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from signaling import registry as registry_module
from signaling import serving as serving_module
from signaling import shutdown as shutdown_module
from signaling.app import ADMISSION, REGISTRY
from signaling.limits import Admission
from signaling.loading import Loaded
from signaling.registry import Registry
from signaling.serving import run, serve
from signaling.shutdown import StopSignals, drain, shut_down


class Diary:
    """What happened, in order."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def step(self, name: str) -> tuple[str, Any]:
        async def act() -> None:
            self.entries.append(name)

        return name, act


class DiaryPeer(FakePeer):
    """A peer that writes into a common diary when it is closed."""

    def __init__(self, name: str, diary: Diary, admission: Admission) -> None:
        super().__init__(name, SessionConfig.model_validate({}))
        self._diary = diary
        self._admission = admission

    async def close(self, reason: str, *, deadline_s: float | None = None) -> None:
        self._diary.entries.append(f"{self.session_id} {reason} stopping={self._admission.stopping}")
        await asyncio.sleep(0)  # finals take a while: the others' turn
        await super().close(reason, deadline_s=deadline_s)
        self._diary.entries.append(f"{self.session_id} closed")


def parts() -> tuple[Diary, Registry, Admission]:
    registry = Registry(max_sessions=8, metrics=Metrics())
    engine = FakeEngine()
    return Diary(), registry, Admission(engine=lambda: engine, require_room=registry.require_room)


async def test_the_order_is_admission_sessions_models_http() -> None:
    diary, registry, admission = parts()
    for name in ("a", "b"):
        registry.add(name, DiaryPeer(name, diary, admission), door="whip")
    completed = await shut_down(
        admission=admission,
        registry=registry,
        then=[diary.step("models"), diary.step("http")],
        deadline_s=1.0,
        force=asyncio.Event(),
    )
    assert completed
    assert diary.entries[:2] == ["a shutdown stopping=True", "b shutdown stopping=True"]  # both at once
    assert sorted(diary.entries[2:4]) == ["a closed", "b closed"]
    assert diary.entries[4:] == ["models", "http"]


async def test_while_sessions_close_readyz_says_so_and_offers_are_refused(node: Node) -> None:
    await node.client.post("/whip", data=OFFER, headers=SDP)
    peer = node.peers[0]
    peer.may_close.clear()
    stopping = asyncio.create_task(
        shut_down(
            admission=node.app[ADMISSION],
            registry=node.app[REGISTRY],
            then=[],
            deadline_s=1.0,
            force=asyncio.Event(),
        )
    )
    await asyncio.sleep(0.01)
    assert (await node.client.get("/readyz")).status == 503
    refused = await node.client.post("/whip", data=OFFER, headers=SDP)
    assert (refused.status, "Retry-After" in refused.headers) == (503, True)
    assert (await node.client.get("/healthz")).status == 200
    peer.may_close.set()
    assert await stopping
    assert peer.closed == ["shutdown"]


async def test_a_session_that_hangs_does_not_hold_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "CUT_GRACE_S", 0.05)
    diary, registry, admission = parts()
    peer = DiaryPeer("a", diary, admission)
    peer.may_close.clear()
    registry.add("a", peer, door="whip")
    async with asyncio.timeout(2.0):
        await shut_down(
            admission=admission, registry=registry, then=[diary.step("http")], deadline_s=0.1, force=asyncio.Event()
        )
    assert diary.entries[-1] == "http"


async def test_a_step_that_fails_does_not_stop_those_after_it() -> None:
    diary, registry, admission = parts()

    async def fail() -> None:
        raise RuntimeError("broken")

    then = [("models", fail), diary.step("http")]
    assert await shut_down(admission=admission, registry=registry, then=then, deadline_s=0.2, force=asyncio.Event())
    assert diary.entries == ["http"]


async def test_a_step_that_hangs_is_cut() -> None:
    diary, registry, admission = parts()
    then = [("models", asyncio.Event().wait), diary.step("http")]
    async with asyncio.timeout(3.0):
        await shut_down(admission=admission, registry=registry, then=then, deadline_s=0.1, force=asyncio.Event())
    assert diary.entries == ["http"]


async def test_force_leaves_the_order_where_it_stands() -> None:
    diary, registry, admission = parts()
    peer = DiaryPeer("a", diary, admission)
    peer.may_close.clear()
    registry.add("a", peer, door="whip")
    force = asyncio.Event()
    stopping = asyncio.create_task(
        shut_down(admission=admission, registry=registry, then=[diary.step("http")], deadline_s=30.0, force=force)
    )
    await asyncio.sleep(0.01)
    force.set()
    assert await asyncio.wait_for(stopping, 1.0) is False
    assert "http" not in diary.entries
    peer.may_close.set()
    await registry.close_all("shutdown", deadline_s=1.0)


async def drained_after(registry: Registry, hurry: asyncio.Event, *, drain_s: float) -> float:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await drain(registry, drain_s=drain_s, hurry=hurry)
    return loop.time() - began_s


async def test_a_drain_waits_for_sessions_to_end_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown_module, "LOOK_S", 0.01)
    monkeypatch.setattr(shutdown_module, "READY_GRACE_S", 0.05)
    diary, registry, admission = parts()
    peer = DiaryPeer("a", diary, admission)
    registry.add("a", peer, door="whip")
    draining = asyncio.create_task(drained_after(registry, asyncio.Event(), drain_s=60.0))
    await asyncio.sleep(0.1)
    assert not draining.done()
    assert diary.entries == []
    assert peer.on_ended is not None
    peer.on_ended("client")
    await asyncio.wait_for(draining, 5.0)


async def test_a_drain_ends_when_its_time_is_over_or_somebody_is_in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown_module, "LOOK_S", 0.01)
    diary, registry, admission = parts()
    registry.add("a", DiaryPeer("a", diary, admission), door="whip")
    assert await drained_after(registry, asyncio.Event(), drain_s=0.05) >= 0.05
    assert await drained_after(registry, asyncio.Event(), drain_s=0.0) < 1.0
    hurry = asyncio.Event()
    draining = asyncio.create_task(drained_after(registry, hurry, drain_s=60.0))
    await asyncio.sleep(0.02)
    hurry.set()
    await asyncio.wait_for(draining, 5.0)
    await registry.close_all("shutdown", deadline_s=1.0)


async def test_a_server_without_sessions_stays_until_load_balancers_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown_module, "LOOK_S", 0.01)
    monkeypatch.setattr(shutdown_module, "READY_GRACE_S", 0.2)
    _, registry, _ = parts()
    assert await drained_after(registry, asyncio.Event(), drain_s=60.0) >= 0.2


async def test_sessions_end_as_the_server_says() -> None:
    diary, registry, admission = parts()
    given: list[float] = []

    async def hand_over(deadline_s: float) -> None:
        given.append(deadline_s)

    assert await shut_down(
        admission=admission,
        registry=registry,
        then=[diary.step("http")],
        deadline_s=10.0,
        force=asyncio.Event(),
        end_sessions=hand_over,
    )
    assert (given, diary.entries) == ([8.0], ["http"])


async def test_the_first_signal_asks_and_the_second_forces() -> None:
    signals = StopSignals()
    signals.install()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(signals.stop.wait(), 1.0)
        assert not signals.force.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(signals.force.wait(), 1.0)
    finally:
        signals.remove()


STUBBORN_SERVER = """
import asyncio
from mediaserver.settings import Settings
from signaling.serving import serve

async def load(settings, metrics):
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("asked to stop", flush=True)

asyncio.run(serve(Settings(port=0, shutdown_deadline_s=30.0), load=load))
"""


async def test_a_second_signal_ends_a_server_that_does_not_stop() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        STUBBORN_SERVER,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30.0):
            assert b"open http://" in await process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            assert b"asked to stop" in await process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 1
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class FakeVad:
    async def close(self) -> None:
        pass


class ClosableEngine(FakeEngine):
    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def quiet_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve` configures the logging of the process; a test should not."""
    monkeypatch.setattr(serving_module, "configure_logging", lambda **_: None)


async def url_printed(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """The URL that the server says, and all that it has said until then."""
    said = ""
    async with asyncio.timeout(5.0):
        while True:
            said += capsys.readouterr().out
            if found := re.search(r"open (http://\S+)", said):
                return found[1], said
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("quiet_logging")
async def test_the_server_listens_while_it_loads_and_stops_at_a_signal(capsys: pytest.CaptureFixture[str]) -> None:
    may_load = asyncio.Event()
    engine = ClosableEngine()

    async def load(_settings: Settings, _metrics: Metrics) -> Any:
        await may_load.wait()
        return Loaded(engine, cast(Any, FakeVad()))

    serving = asyncio.create_task(serve(Settings(port=0), load=load))
    url, _ = await url_printed(capsys)
    async with aiohttp.ClientSession() as client:
        assert (await client.get(f"{url}/healthz")).status == 200
        assert (await client.get(f"{url}/readyz")).status == 503
        may_load.set()
        async with asyncio.timeout(5.0):
            while True:
                if (await client.get(f"{url}/readyz")).status == 200:
                    break
                await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 5.0)
    assert engine.closed


@pytest.mark.usefixtures("quiet_logging")
async def test_a_signal_during_loading_stops_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    async def load(_settings: Settings, _metrics: Metrics) -> Any:
        await asyncio.Event().wait()

    serving = asyncio.create_task(serve(Settings(port=0), load=load))
    await url_printed(capsys)
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(serving, 3.0)


@pytest.mark.usefixtures("quiet_logging")
async def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_error() -> None:
    async def load(_settings: Settings, _metrics: Metrics) -> Any:
        raise ModelError("MODEL_MISSING", "It is not here.", "Fetch it.")

    with pytest.raises(ModelError):
        await asyncio.wait_for(serve(Settings(port=0), load=load), 5.0)


@pytest.mark.usefixtures("quiet_logging")
async def test_a_server_without_keys_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def load(_settings: Settings, _metrics: Metrics) -> Any:
        raise ModelError("MODEL_MISSING", "It is not here.", "Fetch it.")

    with pytest.raises(ModelError):
        await serve(Settings(host="0.0.0.0", port=0, data_dir=tmp_path, keyless_access="everyone"), load=load)
    said = capsys.readouterr()
    assert "open http://127.0.0.1:" in said.out
    assert "lets in whoever reaches 0.0.0.0" in said.err


@pytest.mark.usefixtures("quiet_logging")
def test_a_port_in_use_is_a_sentence_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run(Settings(port=taken.getsockname()[1])) == 1
    said = capsys.readouterr()
    assert "already in use" in said.err
    assert "--port" in said.err
    assert "Traceback" not in said.err


@pytest.mark.usefixtures("quiet_logging")
async def test_an_address_of_another_machine_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(VoiceForgeError) as caught:
        await serve(Settings(host="192.0.2.1", port=0, data_dir=tmp_path, keyless_access="everyone"))
    assert caught.value.code == "ADDRESS_UNAVAILABLE"


@pytest.mark.usefixtures("quiet_logging")
async def test_a_server_for_the_network_does_not_start_without_keys(tmp_path: Path) -> None:
    with pytest.raises(VoiceForgeError, match="voiceforge keys create") as caught:
        await serve(Settings(host="0.0.0.0", port=0, data_dir=tmp_path))
    assert caught.value.code == "NO_KEYS"
