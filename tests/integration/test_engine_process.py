"""The real engine in a real process: killed in the middle of a session, shared, orphaned, and stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import psutil
import pytest

from mediaserver.audio.clock import FRAME_SAMPLES, SAMPLE_RATE
from mediaserver.audio.vad import VadPool
from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.decoder.remote.client import RemoteEngine
from mediaserver.decoder.window import Kind, Window
from mediaserver.errors import VoiceForgeError
from mediaserver.events import Event, Failed, Final, Warned
from mediaserver.metrics import Metrics
from mediaserver.session import Session
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from signaling.engine_order import child_engine
from tests.conftest import Speech
from tests.scoring import word_errors
from tests.waiting import until

pytestmark = pytest.mark.timeout(120)

LIMIT_S = 60.0
"""A start takes 2 or 3 s on a free machine."""

PACE = 4.0
"""How much faster than real time speech is fed: slow enough that the engine dies in the middle of it."""


@dataclass
class Recorder:
    events: list[Event] = field(default_factory=list)

    def send(self, event: Event, seq: int) -> None:
        self.events.append(event)

    @property
    def finals(self) -> list[str]:
        return [event.transcript for event in self.events if isinstance(event, Final)]


def engines_of(parent: int) -> list[psutil.Process]:
    """The engines that a process has started and that live."""
    children = psutil.Process(parent).children(recursive=True)
    return [child for child in children if "engine" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE]


def own_directories() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("voiceforge-engine-*"))


@asynccontextmanager
async def own_engine(files: ModelFiles, metrics: Metrics) -> AsyncIterator[RemoteEngine]:
    engine = child_engine(Settings(calibrate=False), files, metrics)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


@pytest.mark.usefixtures("no_leaked_threads", "no_leaked_tasks")
async def test_a_session_outlives_its_engine(model_files: ModelFiles, vad_model_path: Path, speech: Speech) -> None:
    before = own_directories()
    metrics, recorder = Metrics(), Recorder()
    vad = await asyncio.to_thread(VadPool, vad_model_path, metrics=metrics)
    async with own_engine(model_files, metrics) as engine:
        (process,) = engines_of(os.getpid())
        session = Session(
            session_id="s",
            config=SessionConfig(),
            settings=Settings(),
            decoder=engine,
            vad=vad,
            metrics=metrics,
            sink=recorder,
        )
        session.start()
        samples = np.concatenate([speech.samples(), np.zeros(SAMPLE_RATE, dtype=np.float32)])
        frames = np.array_split(samples, len(samples) // FRAME_SAMPLES)
        for number, frame in enumerate(frames):
            session.push(frame)
            await asyncio.sleep(len(frame) / SAMPLE_RATE / PACE)
            if number == len(frames) // 2:
                process.kill()
        await session.close("done", deadline_s=LIMIT_S)
        assert metrics.registry.get_sample_value("voiceforge_engine_restarts_total") == 1.0
        assert engine.ready
    await vad.close()
    assert word_errors(speech.text, " ".join(recorder.finals)) < 0.1, recorder.finals
    assert not [event for event in recorder.events if isinstance(event, Failed | Warned)]
    assert engines_of(os.getpid()) == []
    assert own_directories() <= before  # a server that starts meanwhile sweeps up what killed ones have left


async def test_a_final_in_hand_when_the_engine_dies_is_decoded_by_the_next(
    model_files: ModelFiles, speech: Speech
) -> None:
    async with own_engine(model_files, Metrics()) as engine:
        (process,) = engines_of(os.getpid())
        process.suspend()  # so that the window is surely in hand, and not answered
        decoding = asyncio.create_task(engine.decode(Window("s", Kind.FINAL, speech.samples(), 0, "en")))
        await until(lambda: engine._outbox._in_flight == 1)
        process.kill()
        hypothesis = await decoding
    assert word_errors(speech.text, "".join(word.text for word in hypothesis.words)) < 0.1


async def test_two_processes_share_an_engine_that_is_started_by_hand(
    model_files: ModelFiles, speech: Speech, tmp_path: Path
) -> None:
    path = tmp_path / "engine"
    command = (sys.executable, "-m", "signaling.cli", "engine", "--socket", str(path), "--no-calibrate")
    running = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    one, other = (RemoteEngine(path, metrics=Metrics(), interim_period_s=0.6) for _ in range(2))
    try:
        await asyncio.gather(one.start(), other.start())
        window = Window("same", Kind.FINAL, speech.samples(), 0, "en")
        results = await asyncio.gather(one.decode(window), other.decode(window))
        for hypothesis in results:
            assert word_errors(speech.text, "".join(word.text for word in hypothesis.words)) < 0.1
    finally:
        await one.close()
        await other.close()
        running.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.wait(), LIMIT_S) == 0
    assert not path.exists()


async def test_what_an_engine_cannot_do_is_told_by_its_parent(model_files: ModelFiles) -> None:
    engine = child_engine(Settings(compute_type="nonsense"), model_files, Metrics())
    with pytest.raises(VoiceForgeError) as caught:
        await engine.start()
    await engine.close()
    assert caught.value.code == "UNSUPPORTED_COMPUTE_TYPE"
    assert engines_of(os.getpid()) == []


class Server:
    """`voiceforge serve` with an engine in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    async def ready(self) -> tuple[int, str]:
        """Status and body of /readyz."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/readyz") as response:
            return response.status, await response.text()

    async def metrics(self) -> dict[str, float]:
        """What /metrics shows, but for what has labels."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/metrics") as response:
            lines = (await response.text()).splitlines()
        return {
            name: float(value)
            for name, value in (line.split(" ") for line in lines if line[0] not in "#" and "{" not in line)
        }

    async def until_ready(self, status: int) -> str:
        async with asyncio.timeout(LIMIT_S):
            while True:
                found, text = await self.ready()
                if found == status:
                    return text
                await asyncio.sleep(0.02)


@asynccontextmanager
async def server() -> AsyncIterator[Server]:
    command = (sys.executable, "-m", "signaling.cli", "serve", "--port", "0", "--engine-process", "--no-calibrate")
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        running = Server(process, line.split()[-1])
        await running.until_ready(200)
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_server_shows_that_its_engine_is_down_and_takes_it_along_when_it_stops() -> None:
    before = own_directories()
    async with server() as running:
        (engine,) = engines_of(running.process.pid)
        shown = await running.metrics()
        assert (shown["voiceforge_engine_up"], shown["voiceforge_ready"]) == (1.0, 1.0)
        assert shown["voiceforge_engine_slots"] >= 1
        assert shown["voiceforge_engine_resident_bytes"] > 20_000_000  # of the engine's process: the model is there
        assert shown["voiceforge_engine_cpu_seconds"] > 0
        engine.kill()
        assert "the decoder is down" in await running.until_ready(503)
        async with aiohttp.ClientSession() as http:
            headers = {"Content-Type": "application/sdp"}
            async with http.post(f"{running.url}/whip", data="v=0\r\n", headers=headers) as response:
                assert response.status == 503
                assert int(response.headers["Retry-After"]) > 0
                assert "ENGINE_DOWN" in await response.text()
        await running.until_ready(200)
        (engine,) = engines_of(running.process.pid)
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.process.wait(), LIMIT_S) == 0
        assert not engine.is_running()
    assert own_directories() <= before  # a server that starts meanwhile sweeps up what killed ones have left


async def test_an_engine_whose_parent_is_killed_ends() -> None:
    before = own_directories()
    async with server() as running:
        (engine,) = engines_of(running.process.pid)
        running.process.kill()
        await until(lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE)
    await until(lambda: own_directories() == before)
