"""One queue for all sessions; what happens when a decode fails, gives way, or the engine stops."""

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from mediaserver.audio.clock import Samples
from mediaserver.decoder import load
from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.decoder.engine import Engine, open_engine
from mediaserver.decoder.window import Hypothesis, HypothesisWord, Kind, Replaced, Window
from mediaserver.errors import ModelError, VoiceForgeError
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings


class Scripted:
    """A model that waits for a permit and then says each window's session; `bad` sessions make it fail."""

    def __init__(self, *, held: bool = False) -> None:
        self.permit = threading.Event()
        if not held:
            self.permit.set()
        self.batches: list[list[str]] = []
        self.bad: set[str] = set()

    def decode(self, windows: list[Window]) -> list[Hypothesis]:
        if windows[0].session_id == "warm-up":
            return [Hypothesis()]
        assert self.permit.wait(10)
        names = [window.session_id for window in windows]
        self.batches.append(names)
        if self.bad & set(names):
            raise RuntimeError("a bad item fails its batch")
        return [Hypothesis(words=[HypothesisWord(name, 0.0, 0.1, 1.0)]) for name in names]


def window(session: str, kind: Kind = Kind.FINAL) -> Window:
    return Window(session, kind, np.zeros(16_000, dtype=np.float32), 0, "en")


@asynccontextmanager
async def running(model: Scripted, *, slots: int = 1, max_batch: int = 8) -> AsyncIterator[Engine]:
    engine = Engine(
        name="scripted",
        languages=("en",),
        load=lambda: model,
        slots=slots,
        max_batch=max_batch,
        interim_period_s=0.6,
        metrics=Metrics(),
    )
    await engine.start()
    try:
        yield engine
    finally:
        model.permit.set()
        await engine.close()


async def test_windows_that_wait_together_are_decoded_together() -> None:
    model = Scripted(held=True)
    async with running(model) as engine:
        first = asyncio.create_task(engine.decode(window("a")))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(engine.decode(window(name))) for name in "bcd"]
        await asyncio.sleep(0.01)
        model.permit.set()
        results = await asyncio.gather(first, *others)
    assert model.batches == [["a"], ["b", "c", "d"]]
    assert [result.words[0].text for result in results] == ["a", "b", "c", "d"]
    assert results[1].batch_windows == 3


async def test_a_bad_window_fails_alone() -> None:
    model = Scripted(held=True)
    model.bad = {"bad"}
    async with running(model) as engine:
        tasks = [asyncio.create_task(engine.decode(window(name))) for name in ("x", "good", "bad", "fine")]
        await asyncio.sleep(0.01)
        model.permit.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[2], VoiceForgeError)
    assert results[2].code == "DECODE_FAILED"
    assert [r.words[0].text for r in results if isinstance(r, Hypothesis)] == ["x", "good", "fine"]


async def test_audio_of_an_interim_that_gave_way_is_freed_without_a_search() -> None:
    async def give_way(engine: Engine, samples: Samples) -> None:
        with suppress(Replaced):
            await engine.decode(Window("a", Kind.INTERIM, samples, 0, "en"))

    async def replaced(engine: Engine) -> weakref.ref[Samples]:
        samples = np.zeros(16_000, dtype=np.float32)
        waiting = asyncio.create_task(give_way(engine, samples))
        await asyncio.sleep(0.01)
        newer = asyncio.create_task(give_way(engine, np.zeros(16_000, dtype=np.float32)))
        await waiting
        newer.cancel()
        return weakref.ref(samples)

    gc.disable()
    try:
        async with running(Scripted(held=True)) as engine:
            busy = asyncio.create_task(engine.decode(window("busy")))
            await asyncio.sleep(0.01)
            freed = await replaced(engine)
            await asyncio.sleep(0)
            assert freed() is None
            busy.cancel()
    finally:
        gc.enable()


async def test_a_newer_interim_replaces_the_waiting_one() -> None:
    model = Scripted(held=True)
    async with running(model) as engine:
        busy = asyncio.create_task(engine.decode(window("busy")))
        await asyncio.sleep(0.01)
        old = asyncio.create_task(engine.decode(window("a", Kind.INTERIM)))
        await asyncio.sleep(0.01)
        new = asyncio.create_task(engine.decode(window("a", Kind.INTERIM)))
        with pytest.raises(Replaced):
            await old
        model.permit.set()
        assert (await new).words
        await busy


async def test_a_caller_that_gives_up_leaves_nothing_in_the_queue() -> None:
    model = Scripted(held=True)
    async with running(model) as engine:
        busy = asyncio.create_task(engine.decode(window("busy")))
        await asyncio.sleep(0.01)
        gone = asyncio.create_task(engine.decode(window("gone")))
        await asyncio.sleep(0.01)
        gone.cancel()
        model.permit.set()
        await busy
        await engine.decode(window("next"))
    assert model.batches == [["busy"], ["next"]]


async def test_closing_fails_what_waits_and_what_comes_after() -> None:
    model = Scripted(held=True)
    async with running(model) as engine:
        tasks = [asyncio.create_task(engine.decode(window(name))) for name in "ab"]
        await asyncio.sleep(0.01)
        model.permit.set()
        await engine.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(
            isinstance(r, Hypothesis) or (isinstance(r, VoiceForgeError) and r.code == "ENGINE_CLOSED") for r in results
        )
        with pytest.raises(VoiceForgeError, match="stopping"):
            await engine.decode(window("late"))


async def test_late_finals_close_the_door_and_say_for_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Scripted(held=True)
    async with running(model) as engine:
        assert engine.overload_retry_after_s() is None
        busy = asyncio.create_task(engine.decode(window("busy", Kind.REVISION)))
        await asyncio.sleep(0.01)
        waiting = asyncio.create_task(engine.decode(window("waiting")))
        await asyncio.sleep(0.01)
        monkeypatch.setattr(load, "LATE_FINAL_S", 0.001)
        monkeypatch.setattr(load, "CALM_WAIT_S", 0.001)
        retry_after_s = engine.overload_retry_after_s()
        assert retry_after_s is not None
        assert retry_after_s >= 1
        model.permit.set()
        await asyncio.gather(busy, waiting)
        monkeypatch.setattr(load, "WAITS_S", 1e-6)
        monkeypatch.setattr(load, "FULL_SHARE", 10.0)
        monkeypatch.setattr(load, "CALM_SHARE", 10.0)  # as if it were long ago
        assert engine.overload_retry_after_s() is None


async def test_interims_that_wait_close_no_door(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Scripted(held=True)
    async with running(model) as engine:
        busy = asyncio.create_task(engine.decode(window("busy", Kind.REVISION)))
        await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(engine.decode(window(name, Kind.INTERIM))) for name in "abc"]
        await asyncio.sleep(0.01)
        monkeypatch.setattr(load, "LATE_FINAL_S", 0.001)
        assert engine.overload_retry_after_s() is None
        model.permit.set()
        await asyncio.gather(busy, *waiting)


def test_a_language_that_the_model_does_not_know_is_refused_at_start(tmp_path: Path) -> None:
    model = ModelFiles("tiny.en", tmp_path, ("en",), "path")
    with pytest.raises(VoiceForgeError, match="does not know 'de'"):
        open_engine(Settings(language="de"), model, Metrics())


def test_languages_to_choose_from_that_the_model_does_not_know_are_refused_at_start(tmp_path: Path) -> None:
    model = ModelFiles("base", tmp_path, ("en", "de"), "path")
    with pytest.raises(VoiceForgeError, match="`languages`: 'base' does not know 'tlh'"):
        open_engine(Settings(languages=["de", "tlh"]), model, Metrics())


async def test_a_model_that_cannot_be_loaded_is_told_at_start() -> None:
    def fail() -> Scripted:
        raise ModelError("MODEL_UNLOADABLE", "It cannot be loaded.", "Fetch it again.")

    engine = Engine(
        name="broken", languages=("en",), load=fail, slots=1, max_batch=1, interim_period_s=0.6, metrics=Metrics()
    )
    with pytest.raises(ModelError):
        await engine.start()
    assert not engine.ready
    await engine.close()
