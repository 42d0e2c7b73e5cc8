"""The VAD pool: one call for all streams, the same result as alone, in order, and nothing while nobody speaks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from mediaserver.audio import vad as vad_module
from mediaserver.audio.clock import FRAME_SAMPLES, Samples
from mediaserver.audio.lane import SILENT_FRAMES
from mediaserver.audio.vad import (
    INLINE_FRAMES,
    MAX_BACKLOG_FRAMES,
    RUN_FRAMES,
    TURN_STREAMS,
    VadPool,
    VadStream,
    Verdict,
)
from mediaserver.errors import ModelError
from mediaserver.metrics import Metrics
from tests.waiting import until

TOLERANCE = 1e-4
"""Batches of other sizes add in another order; probabilities differ in the sixth digit."""


class Listener:
    """A stream with what was delivered to it."""

    def __init__(self, pool: VadPool, **options: object) -> None:
        self.verdicts: list[Verdict] = []
        self.threads: set[int] = set()
        self.stream: VadStream = pool.open(self.take, **options)  # type: ignore[arg-type]

    def take(self, verdict: Verdict) -> None:
        self.threads.add(threading.get_ident())
        self.verdicts.append(verdict)

    @property
    def probabilities(self) -> Samples:
        return np.concatenate([verdict.probabilities for verdict in self.verdicts] or [np.zeros(0, np.float32)])

    @property
    def denoised(self) -> Samples:
        return np.concatenate([verdict.denoised for verdict in self.verdicts if verdict.denoised is not None])

    async def finished(self) -> Samples:
        self.stream.finish()
        await until(lambda: self.stream.backlog_frames == 0)
        return self.probabilities


class Late:
    """A denoiser that only delays, and marks what it has seen by a gain."""

    def __init__(self, delay_samples: int, gain: float = 1.0) -> None:
        self.delay_samples = delay_samples
        self._held = np.zeros(delay_samples, dtype=np.float32)
        self._gain = np.float32(gain)

    def process(self, frame: Samples) -> Samples:
        self._held = np.concatenate((self._held, frame * self._gain))
        out, self._held = self._held[:FRAME_SAMPLES], self._held[FRAME_SAMPLES:]
        return out


class Broken(Late):
    """Fails at its third frame."""

    def __init__(self) -> None:
        super().__init__(700)
        self._left = 3

    def process(self, frame: Samples) -> Samples:
        self._left -= 1
        if not self._left:
            raise RuntimeError("broken")
        return super().process(frame)


class Model:
    """Stands for the network: says how loud each row's new samples are, counts calls, waits where told to."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self.fails = self.fails_to_hear = False
        self.heard_frames = 0
        self.gate = threading.Event()
        self.gate.set()

    def encode(self, frames: Samples) -> Samples:
        if self.fails_to_hear:
            raise RuntimeError("model failed")
        self.heard_frames += len(frames)
        return np.abs(frames[:, 64:]).max(axis=1, keepdims=True)

    def step(self, encoded: Samples, states: Samples) -> tuple[Samples, Samples]:
        self.batches.append(len(encoded))
        self.threads.add(threading.get_ident())
        self.gate.wait(10)
        if self.fails:
            raise RuntimeError("model failed")
        return encoded, states + 1


@pytest_asyncio.fixture
async def pool(vad_model_path: Path) -> AsyncIterator[VadPool]:
    pool = VadPool(vad_model_path)
    yield pool
    await pool.close()


@pytest.fixture
def model(pool: VadPool) -> Model:
    model = Model()
    pool.network = model
    return model


def levels(*values: float) -> Samples:
    """Frames of one level each, which is the probability that `Model` gives them."""
    return np.repeat(np.array(values, dtype=np.float32), FRAME_SAMPLES)


@pytest.fixture(scope="module")
def utterances(speeches: dict) -> list[Samples]:
    noise = np.random.default_rng(3).normal(0, 0.02, 16_000).astype(np.float32)
    spoken = [speech.samples()[:80_000] for speech in speeches.values()]
    return [*spoken, np.concatenate((noise, spoken[0][:30_000])), np.concatenate((spoken[1][:30_000], noise))]


async def alone(path: Path, samples: Samples) -> Samples:
    pool = VadPool(path)
    listener = Listener(pool)
    listener.stream.push(samples)
    result = await listener.finished()
    await pool.close()
    return result


async def test_speech_and_silence_are_told_apart(pool: VadPool, utterances: list[Samples]) -> None:
    listener = Listener(pool)
    listener.stream.push(np.concatenate((utterances[0][:48_000], np.zeros(32_000, np.float32))))
    probabilities = await listener.finished()
    assert len(probabilities) == 157  # ⌈80 000 / 512⌉
    assert np.mean(probabilities[15:90] > 0.5) > 0.9
    assert probabilities[-40:].max() < 0.2


async def test_a_stream_gets_what_it_would_get_alone_while_others_come_and_go(
    vad_model_path: Path, pool: VadPool, utterances: list[Samples]
) -> None:
    expected = [await alone(vad_model_path, samples) for samples in utterances]
    rng = np.random.default_rng(5)
    listeners: dict[int, Listener] = {}
    positions = [0] * len(utterances)
    visitor: Listener | None = None
    tick = 0
    while any(at < len(samples) for at, samples in zip(positions, utterances, strict=True)):
        for index, samples in enumerate(utterances):
            if tick < 7 * index or positions[index] >= len(samples):
                continue  # each joins at another time, and leaves at another
            if index not in listeners:
                listeners[index] = Listener(pool)
            listener = listeners[index]
            size = int(rng.integers(1, 6000))
            listener.stream.push(samples[positions[index] : positions[index] + size])
            positions[index] += size
        if tick % 3 == 0:
            if visitor is not None:
                visitor.stream.close()
            visitor = Listener(pool)
            visitor.stream.push(rng.normal(0, 0.3, 2000).astype(np.float32))
        tick += 1
        await asyncio.sleep(float(rng.uniform(0, 0.01)))
    for index, listener in listeners.items():
        np.testing.assert_allclose(await listener.finished(), expected[index], atol=TOLERANCE)


async def test_frames_of_one_tick_share_one_call(pool: VadPool, model: Model) -> None:
    listeners = [Listener(pool) for _ in range(5)]
    for listener in listeners[:4]:
        listener.stream.push(levels(0.5))
        await asyncio.sleep(0)
    await until(lambda: all(listener.verdicts for listener in listeners[:4]))
    assert model.batches == [4]


async def test_nobody_waits_once_every_stream_has_its_frame(
    pool: VadPool, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vad_module, "BATCH_WAIT_S", 1000.0)
    listeners = [Listener(pool) for _ in range(3)]
    for listener in listeners:
        listener.stream.push(levels(0.5))
    await until(lambda: all(listener.verdicts for listener in listeners))
    assert model.batches == [3]


async def test_verdicts_come_in_order_on_the_loops_thread(pool: VadPool, model: Model) -> None:
    listener = Listener(pool)
    sent = np.linspace(0.1, 0.9, 100, dtype=np.float32)
    for value in sent:
        listener.stream.push(levels(value))
        await asyncio.sleep(0)
    np.testing.assert_allclose(await listener.finished(), sent)
    assert listener.threads == {threading.get_ident()}


async def test_a_stream_that_catches_up_does_not_hold_back_the_others(pool: VadPool, model: Model) -> None:
    model.gate.clear()
    behind = Listener(pool, denoiser=Late(0))  # whose runs are on the thread, where they can be held
    behind.stream.push(levels(*[0.5] * 10 * RUN_FRAMES))
    await until(lambda: len(model.batches) == 1)
    calls_before_live: list[int] = []
    live = pool.open(lambda _: calls_before_live.append(len(model.batches)))
    live.push(levels(0.5))
    model.gate.set()
    assert len(await behind.finished()) == 10 * RUN_FRAMES
    assert max(len(verdict.probabilities) for verdict in behind.verdicts) == RUN_FRAMES
    assert calls_before_live == [2 * RUN_FRAMES], "the run that was in flight, and one more"


async def test_a_full_backlog_drops_the_oldest_frames_and_keeps_their_places(pool: VadPool, model: Model) -> None:
    model.gate.clear()
    blocker, listener = Listener(pool, denoiser=Late(0)), Listener(pool)
    blocker.stream.push(levels(0.5))
    await until(lambda: len(model.batches) == 1)
    listener.stream.push(levels(*np.linspace(0.3, 0.4, 60)))
    listener.stream.push(levels(*np.linspace(0.5, 0.9, MAX_BACKLOG_FRAMES - 10)))
    listener.stream.push(levels(*[0.95] * 10))
    assert listener.stream.dropped_frames == 60
    model.gate.set()
    probabilities = await listener.finished()
    assert len(probabilities) == 60 + MAX_BACKLOG_FRAMES
    np.testing.assert_array_equal(probabilities[:60], 0.0)
    np.testing.assert_allclose(probabilities[60:-10], np.linspace(0.5, 0.9, MAX_BACKLOG_FRAMES - 10), rtol=1e-5)


@pytest.mark.parametrize("streams", [INLINE_FRAMES, INLINE_FRAMES + 1])
async def test_a_frame_of_each_stream_is_judged_on_the_loop_unless_they_are_many(
    pool: VadPool, model: Model, streams: int
) -> None:
    listeners = [Listener(pool) for _ in range(streams)]
    for listener in listeners:
        listener.stream.push(levels(0.5))
    await until(lambda: all(listener.verdicts for listener in listeners))
    assert max(model.batches) == (TURN_STREAMS if streams <= INLINE_FRAMES else streams)
    assert sum(model.batches) == streams
    assert (model.threads == {threading.get_ident()}) == (streams <= INLINE_FRAMES)


async def test_a_crowd_is_judged_in_equal_turns_with_others_between_them(pool: VadPool, model: Model) -> None:
    listeners = [Listener(pool) for _ in range(TURN_STREAMS + 10)]
    told_at_tick: list[int] = []
    for listener in listeners:
        listener.stream.push(levels(0.5))
    while sum(told_at_tick) < len(listeners):
        await asyncio.sleep(0)
        told_at_tick.append(sum(bool(listener.verdicts) for listener in listeners) - sum(told_at_tick))
    assert [told for told in told_at_tick if told] == [TURN_STREAMS // 2 + 5] * 2
    assert model.threads == {threading.get_ident()}


async def test_muted_streams_in_a_batch_leave_the_others_their_own_verdicts(pool: VadPool, model: Model) -> None:
    muted, loud = Listener(pool), Listener(pool)
    for value in np.linspace(0.2, 0.9, SILENT_FRAMES + 10, dtype=np.float32):
        muted.stream.push(levels(0.0))
        loud.stream.push(levels(value))
        await asyncio.sleep(0)
    np.testing.assert_allclose(await loud.finished(), np.linspace(0.2, 0.9, SILENT_FRAMES + 10), rtol=1e-6)
    np.testing.assert_array_equal(await muted.finished(), 0.0)
    assert 1 in model.batches, "the muted one was left out in the end"


@pytest.mark.parametrize("is_set_later", [False, True])
async def test_nothing_is_denoised_on_the_loop(pool: VadPool, *, is_set_later: bool) -> None:
    threads: set[int] = set()

    class Noting(Late):
        def process(self, frame: Samples) -> Samples:
            threads.add(threading.get_ident())
            return super().process(frame)

    listener = Listener(pool) if is_set_later else Listener(pool, denoiser=Noting(0))
    if is_set_later:
        listener.stream.reset(Noting(0))
    listener.stream.push(levels(0.5))
    await until(lambda: bool(listener.verdicts))
    assert threads
    assert threading.get_ident() not in threads


async def test_while_nothing_waits_there_is_no_timer(pool: VadPool, model: Model) -> None:
    listeners = [Listener(pool) for _ in range(3)]
    listeners[0].stream.push(levels(0.5)[:511])
    assert pool._timer is None
    listeners[0].stream.push(levels(0.5)[:1])
    assert pool._timer is not None
    await until(lambda: bool(listeners[0].verdicts))
    assert pool._timer is None
    assert pool._running is None


@pytest.mark.parametrize("part", ["fails", "fails_to_hear"])
async def test_a_failing_model_lets_words_through_and_recovers(pool: VadPool, model: Model, part: str) -> None:
    listener = Listener(pool)
    setattr(model, part, True)
    listener.stream.push(levels(0.1, 0.1))
    await until(lambda: bool(listener.verdicts))
    setattr(model, part, False)
    listener.stream.push(levels(0.1))
    np.testing.assert_allclose(await listener.finished(), [1.0, 1.0, 0.1])


@pytest.mark.parametrize("bad_sample", [np.nan, np.inf, 1e30])
async def test_a_bad_sample_harms_neither_the_stream_nor_its_neighbour(
    pool: VadPool, vad_model_path: Path, utterances: list[Samples], bad_sample: float
) -> None:
    listener, neighbour = Listener(pool), Listener(pool)
    listener.stream.push(np.concatenate((np.full(512, bad_sample, np.float32), utterances[0])))
    neighbour.stream.push(utterances[1])
    bad, good = await listener.finished(), await neighbour.finished()
    expected = await alone(vad_model_path, utterances[0])
    assert np.mean((bad[1:] >= 0.5) == (expected >= 0.5)) > 0.95
    np.testing.assert_allclose(good, await alone(vad_model_path, utterances[1]), atol=TOLERANCE)


async def test_a_verdict_that_cannot_be_taken_harms_no_other_stream(pool: VadPool, model: Model) -> None:
    def refuse(verdict: Verdict) -> None:
        raise RuntimeError("no")

    bad, good = pool.open(refuse), Listener(pool)
    bad.push(levels(0.5))
    good.stream.push(levels(0.5))
    await until(lambda: bool(good.verdicts))
    assert bad.backlog_frames == 0


@pytest.mark.parametrize("delay_samples", [0, 1, 288, 512, 1024, 1300])
@pytest.mark.parametrize("count", [1, 3, 20])
async def test_a_denoisers_delay_is_taken_out(pool: VadPool, model: Model, delay_samples: int, count: int) -> None:
    listener = Listener(pool, denoiser=Late(delay_samples))
    samples = np.random.default_rng(2).uniform(0.2, 0.9, count * FRAME_SAMPLES - 100).astype(np.float32)
    listener.stream.push(samples)
    probabilities = await listener.finished()
    padded = np.pad(samples, (0, 100))
    np.testing.assert_array_equal(listener.denoised, padded)
    np.testing.assert_array_equal(probabilities, padded.reshape(-1, FRAME_SAMPLES).max(axis=1))


async def test_a_denoiser_can_be_changed_while_the_clock_goes_on(pool: VadPool, model: Model) -> None:
    listener = Listener(pool)
    listener.stream.push(levels(0.2, 0.3))
    listener.stream.reset(Late(700, gain=0.5))
    listener.stream.push(levels(0.4, 0.5, 0.6))
    listener.stream.reset(None)
    listener.stream.push(levels(0.7))
    np.testing.assert_allclose(await listener.finished(), [0.2, 0.3, 0.2, 0.25, 0.3, 0.7])
    listener.stream.push(levels(0.8))
    assert listener.stream.backlog_frames == 0, "after finish nothing is taken"


async def test_reset_forgets_what_the_model_heard(
    pool: VadPool, vad_model_path: Path, utterances: list[Samples]
) -> None:
    listener = Listener(pool)
    whole = utterances[0][: 40 * FRAME_SAMPLES]
    listener.stream.push(whole)
    listener.stream.reset(None)
    listener.stream.push(utterances[1])
    probabilities = await listener.finished()
    np.testing.assert_allclose(probabilities[:40], await alone(vad_model_path, whole), atol=TOLERANCE)
    np.testing.assert_allclose(probabilities[40:], await alone(vad_model_path, utterances[1]), atol=TOLERANCE)


async def test_a_broken_denoiser_is_left_out_and_loses_no_frame(pool: VadPool, model: Model) -> None:
    listener = Listener(pool, denoiser=Broken())
    listener.stream.push(levels(0.2, 0.3, 0.4, 0.5))
    np.testing.assert_allclose(await listener.finished(), [0.2, 0.3, 0.4, 0.5])


async def test_a_muted_stream_costs_no_model_calls_after_a_second(pool: VadPool, model: Model) -> None:
    listener = Listener(pool)
    listener.stream.push(levels(0.5, *[0.0] * 200, 0.6))
    probabilities = await listener.finished()
    assert len(model.batches) == 2 + SILENT_FRAMES
    assert model.heard_frames <= 2 + SILENT_FRAMES + RUN_FRAMES, "no more than one run was heard in vain"
    np.testing.assert_allclose(probabilities, [0.5, *[0.0] * 200, 0.6], rtol=1e-6)


async def test_speech_after_a_mute_is_noticed_as_soon_as_ever(pool: VadPool, utterances: list[Samples]) -> None:
    for spoken in utterances[:3]:
        muted, never = Listener(pool), Listener(pool)
        muted.stream.push(np.concatenate((np.zeros(150 * FRAME_SAMPLES, np.float32), spoken)))
        never.stream.push(spoken)
        after_mute = np.argmax((await muted.finished())[150:] >= 0.5)
        assert after_mute <= np.argmax(await never.finished() >= 0.5) + 1


async def test_a_stream_that_closes_with_a_call_in_flight_hears_no_more(pool: VadPool, model: Model) -> None:
    model.gate.clear()
    leaving, staying = Listener(pool, denoiser=Late(0)), Listener(pool)
    leaving.stream.push(levels(0.5))
    staying.stream.push(levels(0.5))
    await until(lambda: len(model.batches) == 1)
    leaving.stream.close()
    model.gate.set()
    await until(lambda: bool(staying.verdicts))
    assert leaving.verdicts == []


async def test_close_waits_for_the_call_in_flight_joins_the_thread_and_delivers_no_more(
    vad_model_path: Path, no_leaked_threads: None, no_leaked_tasks: None
) -> None:
    pool = VadPool(vad_model_path)
    pool.network = model = Model()
    model.gate.clear()
    listener = Listener(pool, denoiser=Late(0))
    listener.stream.push(levels(*[0.5] * 400))
    await until(lambda: bool(model.batches))
    closing = asyncio.ensure_future(pool.close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    model.gate.set()
    await closing
    await pool.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vad")]
    listener.stream.push(levels(0.5))
    await asyncio.sleep(0.05)
    assert listener.verdicts == []
    assert len(model.batches) == RUN_FRAMES


async def test_calls_are_counted(vad_model_path: Path) -> None:
    metrics = Metrics()
    pool = VadPool(vad_model_path, metrics=metrics)
    listeners = [Listener(pool), Listener(pool)]
    for listener in listeners:
        listener.stream.push(levels(0.5, 0.4))
    for listener in listeners:
        await listener.finished()
    await pool.close()
    assert value(metrics.registry, "voiceforge_vad_batch_streams_sum") == 2
    assert value(metrics.registry, "voiceforge_vad_seconds_count") == 1


def value(registry: CollectorRegistry, name: str) -> float | None:
    return registry.get_sample_value(name)


@pytest.mark.parametrize("content", [None, b"not a model"])
def test_a_model_that_cannot_be_used_is_told_in_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "silero.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot be used as the voice activity model"):
        VadPool(path)
