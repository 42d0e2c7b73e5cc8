"""Whether somebody who pauses has finished: a model that listens to intonation, for all streams of a process.

The model is smart-turn 3.2 (ONNX): the log-mel spectrogram of the last 8 s in, the probability of "finished" out. It is
asked once a pause, costs about 0.1 s of one core, and the answer only moves the moment at which an utterance ends: one
that is late, given up or failed leaves the plain silence in charge.

Questions are answered one at a time, on a thread of their own. Batches would be wrong here: measured, eight rows in one
call take as long as eight calls, so that everybody would wait for the last.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import structlog
from numpy.typing import NDArray

from mediaserver.audio.clock import Samples, samples_in
from mediaserver.audio.features import FFT_SAMPLES, HOP_SAMPLES, LogMel
from mediaserver.errors import ModelError
from mediaserver.metrics import Metrics

log = structlog.get_logger(__name__)

HEARD_SAMPLES = samples_in(s=8)
"""What the model hears; earlier audio is left out, shorter audio is preceded by zeros, as in its training."""

FEATURE_FRAMES = HEARD_SAMPLES // HOP_SAMPLES
N_MELS = 80

VARIANCE_FLOOR = 1e-7
"""Keeps digital silence finite; the value that the model was trained with."""

COMPLETE_FROM = 0.5
"""From this probability on somebody has finished: the model's own threshold."""

MAX_WAITING = 4
"""Questions that wait, of all streams: with 0.1 s for each, later ones would be answered when their pause is over. The
oldest is given up first, for it is the nearest to its end."""


class TurnModel:
    """The model itself. Blocks: call it on a worker thread.

    Args:
        path: `smart-turn-v3.2-cpu.onnx`.

    Raises:
        ModelError: the file is missing or is not that model.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        # Two threads would halve the answer's time and take both cores from the decoder for it.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._log_mel = LogMel(N_MELS)
        try:
            self._model = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            # A first call: a wrong file is noticed, and no pause pays for the model's start.
            is_usable = math.isfinite(self.probability(np.zeros(0, dtype=np.float32)))
        except Exception as exc:  # ONNX Runtime's own exceptions have no common base
            raise _unusable(path) from exc
        if not is_usable:
            raise _unusable(path)

    def probability(self, samples: Samples) -> float:
        """How likely it is that whoever speaks in `samples` ([n], n ≥ 0, up to the pause) has finished."""
        outputs = self._model.run(None, {"input_features": self._features(samples)[np.newaxis]})
        return float(outputs[0][0, 0])

    def _features(self, samples: Samples) -> NDArray[np.float32]:
        """[80, 800], as the model was trained: zeros in front count in mean and variance, the end is mirrored."""
        heard = np.zeros(HEARD_SAMPLES, dtype=np.float32)
        tail = samples[-HEARD_SAMPLES:]
        heard[HEARD_SAMPLES - len(tail) :] = tail
        heard = (heard - heard.mean()) / np.sqrt(heard.var() + VARIANCE_FLOOR)
        # Without the mirror the last frame differs, and with it the verdict: 0.40 in place of 0.76 in one try.
        mirrored = np.concatenate((heard, heard[-2 : -2 - FFT_SAMPLES // 2 : -1]))
        return self._log_mel(mirrored, FEATURE_FRAMES + 2)[:, :FEATURE_FRAMES]


@dataclass(slots=True)
class _Question:
    samples: Samples
    answer: asyncio.Future[float | None]


class TurnPool:
    """Asks the model for all streams of a process. Belongs to the event loop.

    Args:
        model: answers, on this pool's thread.
        metrics: where durations and outcomes go.
    """

    def __init__(self, model: TurnModel, *, metrics: Metrics | None = None) -> None:
        self._model = model
        self._metrics = metrics
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="turn")
        self._waiting: deque[_Question] = deque()  # bound: MAX_WAITING; the oldest is given up first
        self._running: asyncio.Future[float | None] | None = None
        self._failed_calls = 0  # in a row
        self._is_closed = False

    async def ask(self, samples: Samples) -> float | None:
        """How likely it is that the speaker has finished: 0 to 1, or None where the model did not say.

        Args:
            samples: [n], the utterance up to and with the pause; not changed after this call. The last 8 s count.
        """
        if self._is_closed:
            return None
        if len(self._waiting) >= MAX_WAITING:
            self._give_up(self._waiting.popleft())
        question = _Question(samples[-HEARD_SAMPLES:], asyncio.get_running_loop().create_future())
        self._waiting.append(question)
        self._next()
        return await question.answer

    async def close(self) -> None:
        """Give up what waits, wait for the call in flight and join the thread. May be called twice."""
        self._is_closed = True
        while self._waiting:
            self._give_up(self._waiting.popleft())
        if self._running is not None:
            await asyncio.wait([self._running])
        self._executor.shutdown(wait=True)  # returns at once: the thread is idle

    def _next(self) -> None:
        while self._waiting and self._running is None:
            question = self._waiting.popleft()
            if not question.answer.done():  # else whoever asked was cancelled: there is speech again, or no session
                self._start(question)

    def _start(self, question: _Question) -> None:
        loop = asyncio.get_running_loop()
        self._running = loop.run_in_executor(self._executor, self._answer, question.samples)
        self._running.add_done_callback(lambda run: self._answered(run, question))

    def _answered(self, run: asyncio.Future[float | None], question: _Question) -> None:
        self._running = None
        probability = run.result()  # `_answer` lets nothing through; were it to, the loop's handler must hear of it
        if not question.answer.done():
            question.answer.set_result(probability)
        self._count("failed" if probability is None else "complete" if is_complete(probability) else "incomplete")
        self._next()

    def _give_up(self, question: _Question) -> None:
        if not question.answer.done():
            question.answer.set_result(None)
            self._count("given_up")

    def _count(self, outcome: str) -> None:
        if self._metrics is not None:
            self._metrics.turns_total.labels(outcome).inc()

    def _answer(self, samples: Samples) -> float | None:
        """On the worker thread."""
        started_s = time.perf_counter()
        try:
            probability = self._model.probability(samples)
            if not math.isfinite(probability):
                raise ArithmeticError(f"the end-of-turn model said {probability}")
        except Exception:  # whatever ails the model, a session goes on without it
            self._failed_calls += 1
            if self._failed_calls == 1:  # a line a pause would hide everything else
                log.exception("end-of-turn call failed; silence alone ends utterances meanwhile")
            return None
        if self._failed_calls:
            log.warning("end-of-turn model works again", failed_calls=self._failed_calls)
            self._failed_calls = 0
        if self._metrics is not None:
            self._metrics.turn_seconds.observe(time.perf_counter() - started_s)
        return probability


def is_complete(probability: float) -> bool:
    """Whether a probability of `TurnPool.ask` means that somebody has finished."""
    return probability >= COMPLETE_FROM


def _unusable(path: Path) -> ModelError:
    return ModelError(
        "TURN_MODEL_UNUSABLE",
        f"{path} cannot be used as the end-of-turn model.",
        "Fetch it again with `voiceforge models fetch smart-turn`.",
    )
