"""Voice activity of all streams, in one model call for as many of them as have a frame ready.

The model (`mediaserver.audio.silero`) takes 64 samples of context and 512 new ones and gives one probability, with a
recurrent state that belongs to the stream. Rows of a batch do not touch each other, so a stream gets what it would get
alone, whoever comes and goes beside it. The frames of some hundred streams are judged on the event loop, where they
cost less than a thread that fights for the interpreter; streams that catch up, and all denoising, run on one worker
thread. While no frame waits there is no timer and no wake-up.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from mediaserver.audio.clock import FRAME_SAMPLES, Samples
from mediaserver.audio.denoise import Denoiser
from mediaserver.audio.lane import CONTEXT_SAMPLES, STATE_SHAPE, End, Item, Lane, Lost, Restart, Step
from mediaserver.audio.silero import INPUT_SAMPLES, Network, Silero
from mediaserver.errors import ModelError
from mediaserver.metrics import Metrics

log = structlog.get_logger(__name__)

BATCH_WAIT_S = 0.020
"""How long the first waiting frame waits for those of other streams: packets come every 20 ms, so that by then every
live stream has had its turn. Not waited for where every open stream has a frame ready, as a lone stream always has."""

BEHIND_FRAMES = 4
"""With more frames waiting than the longest Opus packet brings (120 ms), a stream is behind and nobody waits."""

RUN_FRAMES = 16
"""Most frames of one stream in one run: half a second of a stream that catches up, 4 ms of work for one of them, so
that the others are not kept waiting."""

INLINE_FRAMES = 128
"""Up to so many frames are judged on the event loop, in 3 ms: what 200 live streams have ready at a time. A thread
would have to win the interpreter back after each of the model's thirty steps."""

TURN_STREAMS = 64
"""Most streams whose frames are judged on the event loop without giving way to what else waits there. With a hundred
silent streams the longest turn was some 5 ms of work, and 11 with all at once, for as much work altogether."""

MAX_BACKLOG_FRAMES = 938
"""30 s and 2 MB for one stream. The oldest frames are dropped first and told as `DROPPED_PROBABILITY`. A live stream
never comes near; a source that is faster than real time holds back by `backlog_frames`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the VAD says of the next k frames of a stream.

    Args:
        probabilities: [k] float32, the speech probability of each frame.
        denoised: [k * 512], the same frames after the denoiser; None where the stream has none. A denoiser's delay is
            already taken out: sample i of `denoised` belongs to sample i of those frames.
    """

    probabilities: NDArray[np.float32]
    denoised: Samples | None = None


@dataclass(slots=True)
class _Job:
    """A stream's part in a run."""

    stream: VadStream
    lane: Lane
    items: list[Item]
    steps: list[Step] = field(default_factory=list)
    is_denoised: bool = False

    @property
    def may_denoise(self) -> bool:
        """Whether a denoiser works in it, from its start or later: some take far longer than the model."""
        return self.lane.denoiser is not None or any(isinstance(item, Restart) for item in self.items)


class VadStream:
    """One stream's place in the pool; made by `VadPool.open`. Belongs to the event loop."""

    def __init__(self, pool: VadPool, deliver: Callable[[Verdict], None], denoiser: Denoiser | None) -> None:
        self._pool = pool
        self._deliver = deliver
        self._lane = Lane(denoiser)
        self._frame: Samples = np.empty(FRAME_SAMPLES, dtype=np.float32)  # the next one, of which
        self._filled = 0  # samples are there
        self._pending: deque[Item] = deque()  # bound: MAX_BACKLOG_FRAMES; the oldest frames go first
        self._pending_frames = 0
        self._in_flight = 0
        self._dropped_frames = 0
        self._is_over = False

    @property
    def backlog_frames(self) -> int:
        """Frames (and requests) whose verdict is still to come; what a denoiser holds back is not counted."""
        return len(self._pending) + self._in_flight

    @property
    def dropped_frames(self) -> int:
        """Frames that were dropped unheard from a full backlog, ever."""
        return self._dropped_frames

    def push(self, samples: Samples) -> None:
        """Take [n] samples, in stream order; full frames get verdicts. Ignored after `finish` or `close`."""
        if self._is_over:
            return
        filled, count = self._filled, len(samples)
        end = filled + count
        if end < FRAME_SAMPLES:
            self._frame[filled:end] = samples
            self._filled = end
            return
        taken = 0
        while end >= FRAME_SAMPLES:
            part = FRAME_SAMPLES - filled
            self._frame[filled:] = samples[taken : taken + part]
            self._pending.append(self._frame)
            self._pending_frames += 1
            self._frame = np.empty(FRAME_SAMPLES, dtype=np.float32)
            taken, filled, end = taken + part, 0, end - FRAME_SAMPLES
        self._frame[:end] = samples[taken:]
        self._filled = end
        if self._pending_frames > MAX_BACKLOG_FRAMES:
            self._drop_oldest()
        self._pool._wake(self)

    def reset(self, denoiser: Denoiser | None) -> None:
        """From the next frame on: this denoiser, and a model that remembers nothing. The clock goes on."""
        self._request(Restart(denoiser))

    def finish(self) -> None:
        """The stream is over: what is left of a frame is filled with silence, and a denoiser gives out what it holds.

        After it every sample pushed gets its verdict, and once `backlog_frames` is 0 it has had it.
        """
        if self._is_over:
            return
        if self._filled:
            self.push(np.zeros(FRAME_SAMPLES - self._filled, dtype=np.float32))
        self._request(End())
        self._is_over = True

    def close(self) -> None:
        """Leave the pool; nothing is delivered any more."""
        self._is_over = True
        self._pending.clear()
        self._pending_frames = 0
        self._pool._forget(self)
        self._deliver = _nobody

    def _request(self, item: Item) -> None:
        if not self._is_over:
            self._pending.append(item)
            self._pool._wake(self)

    def _drop_oldest(self) -> None:
        lost = 0
        requests: list[Item] = []
        while self._pending_frames > MAX_BACKLOG_FRAMES:
            match self._pending.popleft():
                case Lost(frames):
                    lost += frames
                case Restart() | End() as request:
                    requests.append(request)
                case _:
                    lost += 1
                    self._pending_frames -= 1
                    self._dropped_frames += 1
        if self._dropped_frames == lost:
            log.warning("VAD is behind; the oldest frames of a stream count as silence", frames=lost)
        self._pending.extendleft(reversed([Lost(lost), *requests]))

    def _take(self) -> _Job:
        items: list[Item] = []
        while self._pending and len(items) < RUN_FRAMES:
            item = self._pending.popleft()
            self._pending_frames -= isinstance(item, np.ndarray)
            items.append(item)
        self._in_flight = len(items)
        return _Job(self, self._lane, items)

    def _finish_job(self, job: _Job) -> None:
        self._in_flight = 0
        if not job.steps:
            return
        probabilities = np.array([step.probability for step in job.steps], dtype=np.float32)
        denoised = np.concatenate([step.frame for step in job.steps]) if job.is_denoised else None
        try:
            self._deliver(Verdict(probabilities, denoised))
        except Exception:  # of one session; the others go on
            log.exception("a VAD verdict could not be taken")


def _nobody(_verdict: Verdict) -> None:
    """Told after the end."""


class VadPool:
    """The VAD of all streams of a process.

    Args:
        model_path: `silero_vad_16k_op15.onnx`.
        metrics: where batch sizes and durations go.

    Raises:
        ModelError: the file is missing or is not that model.
    """

    def __init__(self, model_path: Path, *, metrics: Metrics | None = None) -> None:
        try:
            self.network: Network = Silero(model_path)
            """The model, for those who have a whole recording; from any thread."""
        except (OSError, ValueError) as exc:
            raise ModelError(
                "VAD_MODEL_UNUSABLE",
                f"{model_path} cannot be used as the voice activity model.",
                "Fetch it again with `voiceforge models fetch`.",
            ) from exc
        self._metrics = metrics
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vad")
        self._streams: set[VadStream] = set()
        self._ready: dict[VadStream, None] = {}  # those with something pending, in order of arrival
        self._timer: asyncio.TimerHandle | None = None
        self._running: asyncio.Future[None] | None = None
        self._failed_calls = 0  # in a row
        self._is_closed = False

    def open(self, deliver: Callable[[Verdict], None], *, denoiser: Denoiser | None = None) -> VadStream:
        """A place for a stream. `deliver` is called on the event loop, in stream order."""
        stream = VadStream(self, deliver, denoiser)
        self._streams.add(stream)
        return stream

    async def close(self) -> None:
        """Wait for the run in flight and join the thread; nothing is delivered any more. May be called twice."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for stream in list(self._streams):
            stream.close()
        if self._running is not None:
            await asyncio.wait([self._running])
        self._executor.shutdown(wait=True)  # returns at once: the thread is idle

    # -- on the event loop ------------------------------------------------------------------------

    def _wake(self, stream: VadStream) -> None:
        if not self._is_closed:
            self._ready[stream] = None
            self._arm(is_urgent=stream.backlog_frames > BEHIND_FRAMES)

    def _forget(self, stream: VadStream) -> None:
        self._streams.discard(stream)
        self._ready.pop(stream, None)

    def _arm(self, *, is_urgent: bool) -> None:
        if self._running is not None or not self._ready:
            return
        is_urgent = is_urgent or len(self._ready) == len(self._streams)
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if not is_urgent or self._timer.when() <= loop.time():
                return
            self._timer.cancel()
        self._timer = loop.call_later(0.0 if is_urgent else BATCH_WAIT_S, self._run)

    def _run(self) -> None:
        self._timer = None
        turn = self._turn()
        jobs = [stream._take() for stream in turn]
        others_wait = len(turn) < len(self._ready)
        self._ready = {stream: None for stream in self._ready if stream._pending}
        if not jobs:
            return  # they have closed meanwhile
        if self._is_little(jobs):
            self._work(jobs)
            self._finish_jobs(jobs, others_wait=others_wait)
            return
        self._running = asyncio.get_running_loop().run_in_executor(self._executor, self._work, jobs)
        self._running.add_done_callback(lambda run: self._finish_run(run, jobs, others_wait=others_wait))

    def _turn(self) -> list[VadStream]:
        """Whose frames are judged next. Where the event loop does it, crowds are halved until they are small enough."""
        ready = list(self._ready)
        turns = -(-len(ready) // TURN_STREAMS)
        if turns < 2 or sum(min(len(stream._pending), RUN_FRAMES) for stream in ready) > INLINE_FRAMES:
            return ready
        return ready[: -(-len(ready) // turns)]

    def _is_little(self, jobs: list[_Job]) -> bool:
        return sum(len(job.items) for job in jobs) <= INLINE_FRAMES and not any(job.may_denoise for job in jobs)

    def _finish_run(self, run: asyncio.Future[None], jobs: list[_Job], *, others_wait: bool) -> None:
        self._running = None
        run.result()  # `_work` lets nothing through; were it to, the loop's handler must hear of it
        self._finish_jobs(jobs, others_wait=others_wait)

    def _finish_jobs(self, jobs: list[_Job], *, others_wait: bool) -> None:
        for job in jobs:
            if job.stream in self._streams:
                job.stream._finish_job(job)
        self._arm(is_urgent=others_wait or any(stream.backlog_frames > BEHIND_FRAMES for stream in self._ready))

    # -- on the worker thread, or on the event loop for a few frames ---------------------------------

    def _work(self, jobs: list[_Job]) -> None:
        for job in jobs:
            job.is_denoised = job.lane.denoiser is not None
            job.steps = job.lane.steps(job.items)
            job.is_denoised |= job.lane.denoiser is not None
        if any(job.steps for job in jobs):
            started_s = time.perf_counter()
            self._judge(jobs)
            if self._metrics is not None:
                self._metrics.vad_batch_streams.observe(len(jobs))
                self._metrics.vad_seconds.observe(time.perf_counter() - started_s)

    def _judge(self, jobs: list[_Job]) -> None:
        """One call for what is heard in all frames, then one for the first frame of each stream, the second, …"""
        steps = [step for job in jobs for step in job.steps]
        frames = np.empty((len(steps), INPUT_SAMPLES), dtype=np.float32)
        contexts = chain.from_iterable(job.lane.contexts(job.steps) for job in jobs)
        for row, (context, step) in enumerate(zip(contexts, steps, strict=True)):
            frames[row, :CONTEXT_SAMPLES] = context
            frames[row, CONTEXT_SAMPLES:] = step.frame
        for step, peak in zip(steps, np.abs(frames[:, CONTEXT_SAMPLES:]).max(axis=1).tolist(), strict=True):
            step.peak = peak
        for job in jobs:
            for step in job.lane.sleeps_through(job.steps):
                step.is_asleep = True
        awake = [row for row, step in enumerate(steps) if not step.is_asleep]
        for place, row in enumerate(awake):
            steps[row].place = place
        try:
            encoded = self.network.encode(frames if len(awake) == len(steps) else frames[awake])
        except Exception:
            self._failed([(job.lane, step) for job in jobs for step in job.steps if job.lane.begins(step)])
            return
        for index in range(max(len(job.steps) for job in jobs)):
            turn = [(job.lane, job.steps[index]) for job in jobs if index < len(job.steps)]
            asking = [(lane, step) for lane, step in turn if lane.begins(step) and lane.needs_model(step)]
            if asking:
                self._step(asking, encoded[[step.place for _, step in asking]])

    def _step(self, batch: list[tuple[Lane, Step]], encoded: NDArray[np.float32]) -> None:
        """One frame of each stream of the batch."""
        states = np.empty((STATE_SHAPE[0], len(batch), STATE_SHAPE[1]), dtype=np.float32)
        for row, (lane, _) in enumerate(batch):
            states[:, row] = lane.state
        try:
            probabilities, new_states = self.network.step(encoded, states)
        except Exception:
            self._failed(batch)
            return
        if self._failed_calls:
            log.warning("VAD works again", failed_calls=self._failed_calls)
            self._failed_calls = 0
        for row, ((lane, step), probability) in enumerate(zip(batch, probabilities[:, 0].tolist(), strict=True)):
            lane.judged(step, probability, new_states[:, row])

    def _failed(self, batch: list[tuple[Lane, Step]]) -> None:
        """Called where an exception is handled."""
        self._failed_calls += 1
        if self._failed_calls == 1:  # 30 lines a second would hide everything else
            log.exception("VAD call failed; its frames count as speech", streams=len(batch))
        for lane, step in batch:
            lane.failed(step)
