"""Streams that run faster than real time lose nothing and wait for what is outstanding."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from benchmarks.drive import Sink, Take
from benchmarks.job import broken_promises, loops_of
from benchmarks.march import BLOCK_SAMPLES, march
from benchmarks.scoring import Normaliser
from benchmarks.screen import Seen
from benchmarks.scripts import Script
from benchmarks.stack import StreamPacedDecoder
from mediaserver.audio.clock import Samples, samples_in, seconds
from mediaserver.decoder.window import Hypothesis, Kind, Replaced, Window
from mediaserver.events import Final, Metadata


class Thinking:
    """Thinks about every third block, beginning one turn of the loop after the push, as a session does."""

    def __init__(self, sink: Sink) -> None:
        self.pushed: list[Samples] = []
        self.thinking = False
        self.pushed_meanwhile = 0
        self._sink = sink
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        pass

    def push(self, samples: Samples, *, concealed: int = 0) -> None:
        self.pushed_meanwhile += self.thinking
        self.pushed.append(samples)
        if len(self.pushed) % 3 == 0:
            self._task = asyncio.create_task(self._think())

    async def _think(self) -> None:
        self.thinking = True
        await asyncio.sleep(0.003)
        self.thinking = False

    async def close(self, reason: str, *, deadline_s: float = 10.0) -> None:
        received = sum(len(samples) for samples in self.pushed)
        self._sink.send(Metadata(seconds(received), 0.0, 0, 0.0, "fake"), 0)


async def test_streams_are_played_whole_and_wait_for_themselves_only() -> None:
    sessions: dict[str, Thinking] = {}

    def open_session(name: str, sink: Sink) -> Thinking:
        sessions[name] = Thinking(sink)
        return sessions[name]

    scripts = [Script(str(k), np.arange(10 * BLOCK_SAMPLES + 7, dtype=np.float32)) for k in range(5)]
    told: list[float] = []
    drive = await march(
        scripts, open_session, held=lambda name: sessions[name].thinking, at_once=2, on_progress=told.append
    )
    assert broken_promises(drive, label="march") == []
    for script in scripts:
        session = sessions[script.name]
        assert np.array_equal(np.concatenate(session.pushed), script.samples)
        assert session.pushed_meanwhile == 0
    assert told == sorted(told)
    assert len(told) == 55


class Inner:
    model_name = "fake"
    languages = ("en",)

    def __init__(self) -> None:
        self.withdrawn: list[str] = []

    async def decode(self, window: Window) -> Hypothesis:
        return Hypothesis(rejected="no_speech" if window.kind is Kind.FINAL else None)

    def withdraw(self, session_id: str) -> None:
        self.withdrawn.append(session_id)


async def test_interims_are_a_period_of_stream_time_apart() -> None:
    decoder = StreamPacedDecoder(Inner(), period_ms=600)

    async def came(end_s: float, kind: Kind = Kind.INTERIM, session: str = "a") -> bool:
        window = Window(session, kind, np.zeros(160, dtype=np.float32), samples_in(s=end_s) - 160)
        try:
            await decoder.decode(window)
        except Replaced:
            return False
        return True

    assert [await came(end_s) for end_s in (1.0, 1.2, 1.5, 1.6, 1.8, 2.3)] == [True, False, False, True, False, True]
    assert await came(1.0, session="b")
    assert not await came(2.45, Kind.FIRST_INTERIM)
    assert await came(2.5, Kind.FIRST_INTERIM)
    assert await came(2.51, Kind.FINAL)
    assert decoder.decoded == {"interim": 4, "first_interim": 1, "replaced": 4, "final": 1}
    assert decoder.by_session["b"] == {"interim": 1, "no words": 1}
    assert decoder.by_session["a"]["no_speech"] == 1
    assert not decoder.waiting("a")


@pytest.mark.parametrize(("text", "found"), [("light light light", ["light × 3"]), ("light light", [])])
def test_a_loop_in_a_final_is_a_broken_promise(text: str, found: list[str]) -> None:
    take = Take(Script("one", np.zeros(0, dtype=np.float32)))
    take.seen.append(Seen(1.0, Final(1, text, 0.9, 0.0, 1.0, 1.0, "en", None, [])))
    assert loops_of(take, Normaliser()) == found
