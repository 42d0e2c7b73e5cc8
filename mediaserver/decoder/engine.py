"""One engine for all sessions: windows wait in one queue, and whatever is ready when a slot is free goes as one batch.

A slot is one batch in the making; Whisper's own threads do the work, outside the event loop and outside the GIL.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

import numpy as np
import structlog

from mediaserver.audio.clock import SAMPLE_RATE
from mediaserver.audio.features import FRAMES_PER_SECOND
from mediaserver.decoder.calibrate import WhisperRounds, key_of, sharing_for
from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.decoder.device import Placement, place
from mediaserver.decoder.load import Load
from mediaserver.decoder.scheduler import Scheduler, Ticket
from mediaserver.decoder.status import EngineStatus
from mediaserver.decoder.whisper import WhisperModel, context_frames
from mediaserver.decoder.window import Hypothesis, Kind, Replaced, Window
from mediaserver.errors import VoiceForgeError
from mediaserver.metrics import Metrics
from mediaserver.process import process_use
from mediaserver.settings import Settings

log = structlog.get_logger(__name__)

MAX_WAITING = 1024
"""Far beyond what a node can be admitted to; a bound, so that a fault upstream cannot fill the memory."""

WARM_UP_S = 1.0
"""Length of the decode at start that makes the first real one as fast as the second."""


class BatchDecoder(Protocol):
    """What runs on the device. Blocking; called from one thread for each slot."""

    def decode(self, windows: list[Window]) -> list[Hypothesis]:
        """A hypothesis for each window, in order."""
        ...


class Engine:
    """Decodes windows of all sessions on one device. Use it from one event loop.

    Args:
        name: the model's name, as clients see it.
        languages: codes that it knows.
        load: loads the model, in a thread.
        slots: batches decoded at once.
        max_batch: most windows in a batch.
        interim_period_s: least time between two interims of a session.
        metrics: where waits and durations are counted.
        device: `cpu` or `cuda`.
        compute_type: CTranslate2's name of the arithmetic.
    """

    def __init__(
        self,
        *,
        name: str,
        languages: tuple[str, ...],
        load: Callable[[], BatchDecoder],
        slots: int,
        max_batch: int,
        interim_period_s: float,
        metrics: Metrics,
        device: str = "cpu",
        compute_type: str = "",
    ) -> None:
        self._name = name
        self._device, self._compute_type = device, compute_type
        self._languages = languages
        self._load = load
        self._metrics = metrics
        self._futures: dict[int, asyncio.Future[Hypothesis]] = {}  # one a ticket in the scheduler or being decoded
        self._scheduler = Scheduler(
            slots=slots,
            max_batch=max_batch,
            max_kept=MAX_WAITING,
            interim_period_s=interim_period_s,
            on_replaced=self._replaced,
        )
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="decode")
        self._slot_count = slots
        self._free_slots = slots
        self._slots: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._finals = Load(slots)
        self._closed = False

    @property
    def model_name(self) -> str:
        """The model as it was asked for."""
        return self._name

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that the model knows."""
        return self._languages

    @property
    def ready(self) -> bool:
        """Whether the model is loaded and warm."""
        return bool(self._slots) and not self._closed

    async def start(self) -> None:
        """Load the model, warm it up and open the slots.

        Raises:
            ModelError: the model cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        model = await loop.run_in_executor(self._threads, self._warm)
        self._slots = [
            asyncio.create_task(self._serve_slot(model), name=f"decode-slot-{n}") for n in range(self._slot_count)
        ]

    async def close(self) -> None:
        """Stop the slots; windows that still wait fail with ENGINE_CLOSED."""
        self._closed = True
        for slot in self._slots:
            slot.cancel()
        await asyncio.gather(*self._slots, return_exceptions=True)
        for future in self._futures.values():
            if not future.done():
                future.set_exception(_closed())
        self._futures.clear()
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    async def decode(self, window: Window) -> Hypothesis:
        """Decode one window.

        Raises:
            Replaced: an interim gave way to a newer one of its session.
            VoiceForgeError: ENGINE_CLOSED, ENGINE_OVERLOADED or DECODE_FAILED.
        """
        if self._closed:
            raise _closed()
        ticket = Ticket(window, context_frames(window), asyncio.get_running_loop().time())
        future: asyncio.Future[Hypothesis] = asyncio.get_running_loop().create_future()
        self._futures[id(ticket)] = future
        try:
            if not self._scheduler.add(ticket):
                raise VoiceForgeError(
                    "ENGINE_OVERLOADED",
                    "Too much audio waits for its decode.",
                    "Try again later, or use a smaller model.",
                    retryable=True,
                )
            if window.kind is Kind.FINAL:
                self._finals.queued(id(ticket), context_s=_context_s(ticket), now_s=ticket.queued_at_s)
            self._wake.set()
            return await future
        finally:
            self._finals.given_up(id(ticket))
            self._scheduler.discard(ticket)
            self._futures.pop(id(ticket), None)
            del future  # an exception in it refers to this frame, and by it to the window's audio

    def withdraw(self, session_id: str) -> None:
        """Give up the session's replaceable window if it still waits; one that is being decoded goes on."""
        self._scheduler.withdraw(session_id)

    def overload_retry_after_s(self) -> int | None:
        """Seconds after which a new session may be let in, or None while finals are on time."""
        return self._finals.retry_after_s(asyncio.get_running_loop().time())

    def status(self) -> EngineStatus:
        """How it is now."""
        use = process_use()
        return EngineStatus(
            device=self._device,
            compute_type=self._compute_type,
            slots=self._slot_count,
            busy_slots=self._slot_count - self._free_slots,
            queued={kind.name.lower(): count for kind, count in self._scheduler.queued().items()},
            process_id=os.getpid(),
            cpu_s=round(use.cpu_s, 3),
            resident_bytes=use.resident_bytes,
            open_files=use.open_files,
        )

    def _warm(self) -> BatchDecoder:
        model = self._load()
        silence = np.zeros(int(WARM_UP_S * SAMPLE_RATE), dtype=np.float32)
        model.decode([Window("warm-up", Kind.FINAL, silence, 0, self._languages[0])])
        return model

    async def _serve_slot(self, model: BatchDecoder) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = self._scheduler.take(loop.time(), free_slots=self._free_slots)
            if not batch:
                await self._rest()
                continue
            started_s = loop.time()
            self._free_slots -= 1
            for ticket in batch:
                self._finals.taken(id(ticket), now_s=started_s)
            try:
                hypotheses = await loop.run_in_executor(self._threads, _decode, model, [t.window for t in batch])
            finally:
                self._free_slots += 1
                now_s = loop.time()
                self._scheduler.done(batch, now_s=now_s, took_s=now_s - started_s)
                self._wake.set()  # interims of these sessions may be taken again
            self._deliver(batch, hypotheses, started_s)

    async def _rest(self) -> None:
        """Wait until a window comes, a batch is done or an interim falls due."""
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._scheduler.next_due_s()):
                await self._wake.wait()

    def _deliver(self, batch: list[Ticket], hypotheses: list[Hypothesis | Exception], started_s: float) -> None:
        compute_s = asyncio.get_running_loop().time() - started_s
        kind = batch[0].window.kind.name.lower()
        self._metrics.decode_seconds.labels(kind).observe(compute_s)
        self._metrics.decoding_seconds_total.labels(kind).inc(compute_s)
        self._metrics.decode_batch_windows.observe(len(batch))
        if batch[0].window.kind is not Kind.RECORDING:  # searched wider than what is live: it says nothing of finals
            self._finals.decoded(
                context_s=sum(_context_s(ticket) for ticket in batch),
                compute_s=compute_s,
                are_finals=batch[0].window.kind is Kind.FINAL,
                now_s=started_s + compute_s,
            )
        for ticket, hypothesis in zip(batch, hypotheses, strict=True):
            queued_s = started_s - ticket.queued_at_s
            self._metrics.queue_seconds.labels(ticket.window.kind.name.lower()).observe(queued_s)
            future = self._futures.get(id(ticket))
            if future is None or future.done():
                continue
            if isinstance(hypothesis, Exception):
                self._count(ticket, "failed")
                future.set_exception(
                    VoiceForgeError(
                        "DECODE_FAILED",
                        "A piece of audio could not be decoded.",
                        "The session goes on.",
                        retryable=True,
                    )
                )
                continue
            self._metrics.decoded_audio_seconds_total.labels(ticket.window.kind.name.lower()).inc(
                ticket.window.duration_s
            )
            self._count(ticket, "rejected" if hypothesis.rejected else "decoded")
            future.set_result(replace(hypothesis, queued_s=queued_s, compute_s=compute_s, batch_windows=len(batch)))

    def _replaced(self, ticket: Ticket) -> None:
        self._count(ticket, "replaced")
        future = self._futures.get(id(ticket))
        if future is not None and not future.done():
            future.set_exception(Replaced())

    def _count(self, ticket: Ticket, outcome: str) -> None:
        self._metrics.windows_total.labels(ticket.window.kind.name.lower(), outcome).inc()


def require_languages(settings: Settings, model: str, known: Sequence[str]) -> None:
    """Refuse node languages that a model does not know.

    Args:
        settings: of the node, with `language` and `languages`.
        model: its name, for the message.
        known: codes of its languages.

    Raises:
        VoiceForgeError: UNKNOWN_LANGUAGE, with the field and every code that is unknown.
    """
    for field, asked in (
        ("language", [settings.language] if settings.language else []),
        ("languages", settings.languages),
    ):
        unknown = [code for code in asked if code not in known]
        if unknown:
            raise VoiceForgeError(
                "UNKNOWN_LANGUAGE",
                f"`{field}`: {model!r} does not know {', '.join(map(repr, unknown))}.",
                f"It knows {', '.join(known)}. Unset `{field}`, or choose another `model`.",
            )


def open_engine(settings: Settings, model: ModelFiles, metrics: Metrics) -> Engine:
    """The engine that the settings ask for; `start` loads the model. Blocks where calibration is still to be done.

    Raises:
        VoiceForgeError: the device or its arithmetic is not there, or the model does not know the node's language.
    """
    require_languages(settings, model.name, model.languages)
    placement = _placement(settings, model)
    log.info("engine placed", model=model.name, **placement.as_dict())
    return Engine(
        name=model.name,
        languages=model.languages,
        load=lambda: WhisperModel(model.directory, placement),
        slots=placement.slots,
        max_batch=settings.max_batch,
        interim_period_s=settings.interim_period_ms / 1000,
        metrics=metrics,
        device=placement.device,
        compute_type=placement.compute_type,
    )


def _placement(settings: Settings, model: ModelFiles) -> Placement:
    """Where the model runs; how it shares the cores is tried out where that is left open."""
    placement = place(
        device=settings.device,
        compute_type=settings.compute_type,
        cpu_threads=settings.cpu_threads,
        slots=settings.slots,
    )
    if placement.device != "cpu" or settings.slots or not settings.calibrate:
        return placement
    cores = placement.slots * placement.threads
    sharing = sharing_for(
        cores,
        key=key_of(model.directory, compute_type=placement.compute_type, cores=cores),
        kept_in=settings.model_dir,
        measure=WhisperRounds(model.directory, compute_type=placement.compute_type, cores=cores),
    )
    return replace(placement, slots=sharing.slots, threads=sharing.threads)


def _decode(model: BatchDecoder, windows: list[Window]) -> list[Hypothesis | Exception]:
    """Decode a batch; if it fails, each of its windows alone, so that a bad one takes no neighbour with it."""
    try:
        return list(model.decode(windows))
    except Exception as exc:
        if len(windows) == 1:
            log.exception("decode failed", session=windows[0].session_id, duration_s=windows[0].duration_s)
            return [exc]
        return [outcome for window in windows for outcome in _decode(model, [window])]


def _context_s(ticket: Ticket) -> float:
    return ticket.context_frames / FRAMES_PER_SECOND


def _closed() -> VoiceForgeError:
    return VoiceForgeError("ENGINE_CLOSED", "The decoder is stopping.", "Connect again later.", retryable=True)
