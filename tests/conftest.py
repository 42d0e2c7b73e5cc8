"""What tests share: models, speech, and checks that nothing is left behind.

A test that needs a program of the system says so by `@pytest.mark.needs("chromium")`. Without it the test is skipped by
name; under CI=true it fails instead, so that a missing install step cannot hide.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
import pytest_asyncio

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.decoder.catalogue import ModelFiles, resolve, turn_model, vad_model
from mediaserver.settings import Settings

FIXTURES = Path(__file__).parent / "fixtures"
SPEECH = FIXTURES / "speech"

SETTLE_S = 15.0
"""How long threads, tasks and sockets may take to go after a test; executors end their threads lazily. What is
left behind stays, so this says only how busy the machine may be."""


@dataclass(frozen=True)
class Speech:
    """A recording and what is said in it."""

    path: Path
    text: str
    duration_s: float
    language: str = "en"

    def samples(self) -> Samples:
        """The whole recording, [n] float32 at 16 kHz mono."""
        return read_16k(self.path)


@dataclass(frozen=True)
class SpeechData:
    """A directory of recordings with a manifest, for tests that want more than the fixtures."""

    root: Path
    entries: list[dict[str, Any]]

    def select(self, **wanted: object) -> list[Speech]:
        """Recordings with a text whose manifest fields have these values, in the manifest's order."""
        return [
            Speech(self.root / entry["path"], entry["text"], entry["duration_s"], entry["language"])
            for entry in self.entries
            if entry.get("text") and all(entry.get(key) == value for key, value in wanted.items())
        ]


def read_16k(path: Path) -> Samples:
    """A file's audio, [n] float32 at 16 kHz mono."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    with av.open(str(path)) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32)


def in_ci() -> bool:
    """Whether this is a run in which nothing may be left out."""
    return os.environ.get("CI", "").lower() == "true"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): programs of the system without which the test cannot run")
    config.addinivalue_line("markers", "slow: takes more than a few seconds")
    # Tests share the machine with each other: what they would find out of its cores is not to be kept.
    os.environ.setdefault("VOICEFORGE_CALIBRATE", "false")
    # Nor are their recordings, beside those of whoever runs the tests.
    os.environ["VOICEFORGE_DATA_DIR"] = tempfile.mkdtemp(prefix="voiceforge-tests-")


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["VOICEFORGE_DATA_DIR"], ignore_errors=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = [program for mark in item.iter_markers("needs") for program in mark.args if shutil.which(program) is None]
    if missing:
        what = f"needs {', '.join(missing)}, not installed here"
        if in_ci():
            pytest.fail(what, pytrace=False)
        pytest.skip(what)


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """Where models are kept between runs: VOICEFORGE_MODEL_DIR, or the user's cache."""
    return Settings().model_dir


@pytest.fixture(scope="session")
def model_files(model_dir: Path) -> ModelFiles:
    """tiny.en, fetched once a machine."""
    return resolve("tiny.en", model_dir=model_dir, fetch=True)


@pytest.fixture(scope="session")
def vad_model_path(model_dir: Path) -> Path:
    """The Silero VAD, fetched once a machine."""
    return vad_model(model_dir=model_dir, fetch=True)


@pytest.fixture(scope="session")
def turn_model_path(model_dir: Path) -> Path:
    """The end-of-turn model, fetched once a machine."""
    return turn_model(model_dir=model_dir, fetch=True)


@pytest.fixture(scope="session")
def speeches() -> dict[str, Speech]:
    """The committed recordings by name: `gettysburg-slt`, `darwin-rms`, `alice-awb`."""
    listed = json.loads((SPEECH / "speech.json").read_text())
    return {Path(item["file"]).stem: Speech(SPEECH / item["file"], item["text"], item["duration_s"]) for item in listed}


@pytest.fixture(scope="session")
def speech(speeches: dict[str, Speech]) -> Speech:
    """The shortest recording: 5.9 s, one sentence."""
    return speeches["alice-awb"]


@pytest.fixture(scope="session")
def speech_data() -> SpeechData:
    """The data directory with its manifest: VOICEFORGE_DATA, or `shared/data` beside the checkout."""
    root = Path(os.environ.get("VOICEFORGE_DATA") or Path(__file__).parents[2] / "shared" / "data")
    manifest = root / "manifest.jsonl"
    if not manifest.is_file():
        pytest.skip("no data directory (set VOICEFORGE_DATA to one with a manifest.jsonl)")
    lines = manifest.read_text(encoding="utf-8").splitlines()
    return SpeechData(root, [json.loads(line) for line in lines if line.strip()])


@pytest.fixture
def no_leaked_threads() -> Iterator[None]:
    """Fails when the test leaves threads or sockets behind."""
    process = psutil.Process()
    threads_before = set(threading.enumerate())
    sockets_before = len(process.net_connections(kind="inet"))
    yield
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        threads = [thread for thread in threading.enumerate() if thread not in threads_before]
        sockets = len(process.net_connections(kind="inet")) - sockets_before
        if not threads and sockets <= 0:
            return
        time.sleep(0.05)
    pytest.fail(f"left behind: threads {[thread.name for thread in threads]}, {sockets} sockets")


@pytest_asyncio.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fails when the test leaves tasks of its event loop behind."""
    before = asyncio.all_tasks()
    yield
    deadline = time.monotonic() + SETTLE_S
    left: set[asyncio.Task[Any]] = set()
    while time.monotonic() < deadline:
        left = {
            task
            for task in asyncio.all_tasks()
            if task not in before and task is not asyncio.current_task() and not task.done()
        }
        if not left:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"left behind: {sorted(task.get_coro().__qualname__ for task in left)}")  # type: ignore[union-attr]
