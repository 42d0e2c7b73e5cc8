"""Asking whether somebody has finished: the real model, and a pool whose model fails, hangs or is asked too much."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor
from structlog.testing import capture_logs

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.audio.turn import HEARD_SAMPLES, MAX_WAITING, TurnModel, TurnPool, is_complete
from mediaserver.errors import ModelError
from mediaserver.metrics import Metrics
from tests.conftest import SpeechData


class Scripted:
    """Stands where the model does; runs on the pool's thread."""

    def __init__(self, answer: Callable[[Samples], float]) -> None:
        self.answer = answer
        self.heard: list[Samples] = []

    def probability(self, samples: Samples) -> float:
        self.heard.append(samples)
        return self.answer(samples)


def pool_of(answer: Callable[[Samples], float]) -> tuple[TurnPool, Scripted, Metrics]:
    model, metrics = Scripted(answer), Metrics()
    return TurnPool(cast(TurnModel, model), metrics=metrics), model, metrics


def marked(number: int) -> Samples:
    return np.full(4, number, dtype=np.float32)


def counted(metrics: Metrics, outcome: str) -> float:
    return metrics.registry.get_sample_value("voiceforge_turns_total", {"outcome": outcome}) or 0.0


# The pool


async def test_an_answer_is_the_models_and_it_hears_the_last_eight_seconds(no_leaked_threads: None) -> None:
    pool, model, metrics = pool_of(lambda samples: 0.75)
    assert await pool.ask(np.arange(HEARD_SAMPLES + 10, dtype=np.float32)) == 0.75
    assert len(model.heard[0]) == HEARD_SAMPLES
    assert model.heard[0][0] == 10
    assert counted(metrics, "complete") == 1
    await pool.close()


async def test_questions_are_answered_each_with_its_own_in_the_order_they_came() -> None:
    pool, model, _ = pool_of(lambda samples: float(samples[0]) / 10)
    answers = await asyncio.gather(*(pool.ask(marked(number)) for number in range(MAX_WAITING)))
    assert answers == [0.0, 0.1, 0.2, 0.3]
    assert [int(samples[0]) for samples in model.heard] == [0, 1, 2, 3]
    await pool.close()


async def test_a_model_that_fails_says_nothing_once_and_is_asked_again() -> None:
    def fail(_samples: Samples) -> float:
        raise RuntimeError("out of order")

    pool, model, metrics = pool_of(fail)
    with capture_logs() as said:
        assert [await pool.ask(marked(1)) for _ in range(3)] == [None, None, None]
        model.answer = lambda samples: 0.2
        assert await pool.ask(marked(1)) == 0.2
    events = [str(line["event"]) for line in said]
    assert sum("end-of-turn call failed" in event for event in events) == 1
    assert sum("works again" in event for event in events) == 1
    assert (counted(metrics, "failed"), counted(metrics, "incomplete")) == (3, 1)
    await pool.close()


async def test_what_is_not_a_number_is_no_answer() -> None:
    pool, _, _ = pool_of(lambda samples: float("nan"))
    assert await pool.ask(marked(1)) is None
    await pool.close()


async def test_the_oldest_question_is_given_up_when_too_many_wait(no_leaked_tasks: None) -> None:
    free = threading.Event()

    def wait(samples: Samples) -> float:
        free.wait(10)
        return float(samples[0]) / 10

    pool, _, metrics = pool_of(wait)
    asked = [asyncio.create_task(pool.ask(marked(number))) for number in range(MAX_WAITING + 3)]
    await asyncio.sleep(0)
    free.set()
    answers = await asyncio.gather(*asked)
    assert answers[:3] == [0.0, None, None], "the first is with the model; the next two were the oldest that waited"
    assert None not in answers[3:]
    assert counted(metrics, "given_up") == 2
    await pool.close()


async def test_a_question_that_nobody_waits_for_any_more_is_not_asked() -> None:
    free = threading.Event()
    pool, model, _ = pool_of(lambda samples: float(free.wait(10)))
    first, second, third = (asyncio.create_task(pool.ask(marked(number))) for number in range(3))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    free.set()
    assert await first == 1.0
    assert await third == 1.0
    assert [int(samples[0]) for samples in model.heard] == [0, 2]
    await pool.close()


async def test_closing_answers_everybody_and_joins_the_thread(no_leaked_threads: None, no_leaked_tasks: None) -> None:
    free = threading.Event()
    pool, model, _ = pool_of(lambda samples: float(free.wait(10)))
    asked = [asyncio.create_task(pool.ask(marked(number))) for number in range(3)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    free.set()
    await closing
    assert await asyncio.gather(*asked) == [1.0, None, None]
    assert await pool.ask(marked(1)) is None
    await pool.close()
    assert len(model.heard) == 1


async def test_the_event_loop_goes_on_while_the_model_thinks() -> None:
    free = threading.Event()
    pool, _, _ = pool_of(lambda samples: float(free.wait(10)))
    asking = asyncio.create_task(pool.ask(marked(1)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not asking.done()
    free.set()
    assert await asking == 1.0
    await pool.close()


# The real model


@pytest.fixture(scope="module")
def model(turn_model_path: Path) -> TurnModel:
    return TurnModel(turn_model_path)


def test_the_features_are_those_that_the_model_was_trained_on(model: TurnModel) -> None:
    samples = np.random.default_rng(3).normal(0, 0.1, 3 * SAMPLE_RATE).astype(np.float32)
    heard = np.concatenate((np.zeros(5 * SAMPLE_RATE, dtype=np.float32), samples))
    heard = (heard - heard.mean()) / np.sqrt(heard.var() + 1e-7)
    reference = FeatureExtractor(feature_size=80)(np.pad(heard, (0, 200), mode="reflect"), padding=0)[:, :800]
    assert np.abs(model._features(samples) - reference).max() < 1e-4


def test_sentences_are_complete_and_broken_off_ones_are_not(model: TurnModel, speech_data: SpeechData) -> None:
    """Most of them: on no single one does the test depend."""
    whole = broken = 0
    chosen = [item for item in speech_data.select(category="english-read") if 4 < item.duration_s < 9][:12]
    for item in chosen:
        samples = item.samples()
        pause = np.zeros(SAMPLE_RATE // 5, dtype=np.float32)
        whole += is_complete(model.probability(np.concatenate((samples, pause))))
        broken += is_complete(model.probability(np.concatenate((samples[: len(samples) // 2], pause))))
    assert whole - broken >= len(chosen) // 3, f"{whole} of {len(chosen)} whole ones complete, {broken} broken-off ones"


@pytest.mark.parametrize("length", [0, 1, 100, 5 * SAMPLE_RATE, 20 * SAMPLE_RATE])
def test_any_length_of_silence_has_an_answer(model: TurnModel, length: int) -> None:
    assert 0.0 <= model.probability(np.zeros(length, dtype=np.float32)) <= 1.0


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_file_that_is_not_the_model_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "smart-turn.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        TurnModel(path)
    assert caught.value.code == "TURN_MODEL_UNUSABLE"
    assert "models fetch smart-turn" in caught.value.hint


def test_another_model_is_refused(vad_model_path: Path) -> None:
    with pytest.raises(ModelError, match="end-of-turn"):
        TurnModel(vad_model_path)


async def test_the_real_model_answers_through_the_pool(model: TurnModel, no_leaked_threads: None) -> None:
    pool = TurnPool(model)
    samples = np.random.default_rng(5).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    assert await pool.ask(samples) == pytest.approx(model.probability(samples))
    await pool.close()
