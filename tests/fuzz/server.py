"""The real application with an engine that says a word whatever it hears, on an event loop that tests drive by hand."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import numpy as np
import structlog
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.test_utils import TestServer
from structlog.testing import LogCapture
from yarl import URL

from mediaserver.audio.clock import FRAME_SAMPLES, SAMPLE_RATE, Samples
from mediaserver.audio.vad import Verdict
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Window
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.app import REGISTRY, make_app
from signaling.limits import IDLE_CONNECTION_S
from signaling.seeing.telemetry import AccessLogger

Outcome = TypeVar("Outcome")

MESSAGES = int(os.environ.get("VOICEFORGE_FUZZ_MESSAGES", "300"))
"""How many mutated messages each protocol gets: a few hundred in every run, 10 000 in a deep one."""

IS_DEEP = "VOICEFORGE_FUZZ_MESSAGES" in os.environ

SETTLE_S = 5.0
"""How long what belongs to a message may take to go; far more than it does."""

ANSWER_S = 20.0
"""Within this every request is answered and every socket closed."""

LOUD = 0.01

SERVICES = ("jobs-outbox", "jobs-upkeep", "jobs-queue")
"""Tasks of the application that begin once its database is open."""


class LoudnessVad:
    """Loud frames are speech."""

    def open(self, deliver: Callable[[Verdict], None], *, denoiser: object = None) -> LoudnessVad.Stream:
        return LoudnessVad.Stream(deliver)

    @property
    def network(self) -> LoudnessVad:
        """The model, as recordings ask it."""
        return self

    def encode(self, frames: Samples) -> Samples:
        """Frames [B, 576], with what came before them."""
        return (np.abs(frames).max(axis=1, keepdims=True) > LOUD).astype(np.float32)

    def step(self, encoded: Samples, states: Samples) -> tuple[Samples, Samples]:
        """The next frame of each stream."""
        return encoded, states

    class Stream:
        backlog_frames = 0

        def __init__(self, deliver: Callable[[Verdict], None]) -> None:
            self._deliver = deliver
            self._rest: Samples = np.zeros(0, dtype=np.float32)

        def push(self, samples: Samples) -> None:
            assert np.isfinite(samples).all()
            held = np.concatenate((self._rest, samples))
            frames = len(held) // FRAME_SAMPLES
            self._rest = held[frames * FRAME_SAMPLES :]
            if frames:
                loudest = np.abs(held[: frames * FRAME_SAMPLES].reshape(frames, -1)).max(axis=1)
                self._deliver(Verdict((loudest > LOUD).astype(np.float32)))

        def reset(self, denoiser: object) -> None:
            pass

        def finish(self) -> None:
            if len(self._rest):
                self.push(np.zeros(FRAME_SAMPLES - len(self._rest), dtype=np.float32))

        def close(self) -> None:
            pass


class OneWordEngine:
    """Hears `hello` in everything."""

    ready = True
    model_name = "tiny.en"
    languages = ("en",)
    can_translate = False

    async def decode(self, window: Window) -> Hypothesis:
        await asyncio.sleep(0)
        start = window.start_sample / SAMPLE_RATE
        return Hypothesis(words=[HypothesisWord(" hello", start, start + 0.2, 0.9)], language="en")

    def withdraw(self, session_id: str) -> None:
        pass

    def overload_retry_after_s(self) -> int | None:
        return None


class _Errors(logging.Handler):
    """What aiohttp, asyncio and others log as an error."""

    def __init__(self, found: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        what = record.exc_info[1] if record.exc_info else None
        if not isinstance(what, HttpProcessingError):  # what is no HTTP; `configure_logging` leaves it out too
            self._found.append(self.format(record))


class Fuzzed:
    """A server under fire.

    Args:
        data_dir: for what it keeps.
        settings: that differ from the default.
    """

    def __init__(self, data_dir: Path, **settings: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _loop, context: self._errors.append(repr(context)))
        self.data_dir = data_dir
        self.tally: Counter[str] = Counter()
        # One of the requests makes a key, and the others go on without it.
        keyless = {"keyless_access": "loopback"}
        self._settings = {
            "data_dir": data_dir,
            "max_sessions": 8,
            "shutdown_deadline_s": 1.0,
            "resume_window_s": 0.05,  # sessions wait for their clients, but nobody here for them
            **keyless,
            **settings,
        }
        self._errors: list[str] = []
        self._handler = _Errors(self._errors)
        self._lines = LogCapture()
        self._temporary = data_dir / "tmp"

    def start(self) -> None:
        """Listen, and remember what there was before any client came."""
        self._temporary.mkdir()
        self._threads = set(threading.enumerate())  # other tests' libraries have left some of their own
        self._tempdir, tempfile.tempdir = tempfile.tempdir, str(self._temporary)
        self._logged = structlog.get_config()["processors"]
        structlog.configure(processors=[structlog.processors.format_exc_info, self._lines])
        logging.getLogger().addHandler(self._handler)
        self.run(self._start())
        self._tasks = asyncio.all_tasks(self.loop)

    def stop(self) -> None:
        """Stop, and find nothing left: no task, no thread of ours, no file, no error."""
        self.run(self._stop())
        self.settled()
        left = asyncio.all_tasks(self.loop)
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        logging.getLogger().removeHandler(self._handler)
        structlog.configure(processors=self._logged)
        tempfile.tempdir = self._tempdir
        assert not left, left
        threads = [thread.name for thread in threading.enumerate() if thread not in self._threads]
        assert not threads, threads
        files = [str(path.relative_to(self.data_dir)) for path in self._temporary.rglob("*")]
        assert not files, files
        self.no_errors()

    def run(self, work: Coroutine[Any, Any, Outcome]) -> Outcome:
        """Do something while the server runs; whatever takes longer than `ANSWER_S` has hung."""

        async def bounded() -> Outcome:
            async with asyncio.timeout(ANSWER_S):
                return await work

        return self.loop.run_until_complete(bounded())

    def url(self, path: str, query: list[tuple[str, str]] | None = None) -> URL:
        """An address of the server, the query as it is given."""
        return self.server.make_url(path).with_query(query or [])

    @property
    def sessions(self) -> int:
        """How many sessions live."""
        return len(self.server.app[REGISTRY])

    def after_a_message(self) -> None:
        """Nothing that the client brought about is left, and nothing was logged as an error."""
        self.settled()
        assert self.sessions == 0
        self.no_errors()

    def settled(self) -> None:
        """Wait until no task is left that was not there at the start."""
        deadline = time.monotonic() + SETTLE_S
        left: list[str] = []
        while time.monotonic() < deadline:
            left = [
                f"{task.get_name()}: {task.get_stack(limit=3)}"
                for task in asyncio.all_tasks(self.loop)
                if task not in self._tasks and task.get_name() not in SERVICES and not task.done()
            ]
            if not left and (not hasattr(self, "server") or self.sessions == 0):
                return
            self.loop.run_until_complete(asyncio.sleep(0.001))
        raise AssertionError(f"left behind: {left}, {self.sessions} sessions")

    def no_errors(self) -> None:
        """Nothing was logged as an error since this was last asked."""
        errors, self._errors[:] = list(self._errors), []
        failed = [str(line) for line in self._lines.entries if line["log_level"] in ("error", "critical")]
        self._lines.entries.clear()
        found = errors + failed
        assert not found, "\n".join(found)

    async def _start(self) -> None:
        app = make_app(
            Settings(**self._settings),
            metrics=Metrics(),
            engine=OneWordEngine(),
            vad=LoudnessVad(),  # type: ignore[arg-type]
        )
        self.server = TestServer(app)
        await self.server.start_server(
            access_log_class=AccessLogger, auto_decompress=False, keepalive_timeout=IDLE_CONNECTION_S
        )
        connector = aiohttp.TCPConnector(force_close=True)  # a connection kept alive would look like one left behind
        self.http = aiohttp.ClientSession(connector=connector, auto_decompress=False)

    async def _stop(self) -> None:
        await self.http.close()
        await self.server.close()


@contextlib.contextmanager
def under_fire(data_dir: Path, **settings: Any) -> Iterator[Fuzzed]:
    """A server for the time of a test."""
    server = Fuzzed(data_dir, **settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        print(dict(server.tally))  # noqa: T201 - the figures of a deep run
