"""A file as pieces to decode, in bounded memory: read, swept for speech and cut, all off the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mediaserver.audio.clock import FRAME_SAMPLES, Samples, seconds
from mediaserver.audio.endpoint import EndpointerConfig
from mediaserver.audio.silero import Network
from mediaserver.audio.sweep import BLOCK_FRAMES, Sweep
from mediaserver.ingest.container import CHUNK_SAMPLES, probe, read_channels, read_samples
from mediaserver.jobs.pieces import Cutter, Piece

MAX_WARNINGS = 8
"""Of one file; further ones say the same."""

CALLED = "The recording"
"""What refusals call a file, whose name here is the server's own."""


@dataclass(frozen=True, slots=True)
class Hearing:
    """How speech is found.

    Args:
        network: the voice activity model.
        endpoints: what begins and ends an utterance.
    """

    network: Network
    endpoints: EndpointerConfig


class Reading:
    """One file. Use it as a context manager from one task: its thread is joined at the end, the file closed.

    Args:
        path: of the file.
        hearing: how speech is found.
        multichannel: each channel by itself; else they are mixed to one.

    Raises:
        MediaError: on entering and while reading, as `read_channels`.
    """

    def __init__(self, path: Path, hearing: Hearing, *, multichannel: bool) -> None:
        self._path = path
        self._hearing = hearing
        self._multichannel = multichannel
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recording")
        self._pieces: Iterator[Piece] | None = None
        self._cutters: list[Cutter] = []
        self._told_s: float | None = None
        self.channels = 1
        """How many there are, known once the first piece or the end has come."""
        self.samples = 0
        """Read so far, of each channel."""
        self.warnings: list[str] = []
        """What could not be read, a sentence each."""

    @property
    def duration_s(self) -> float:
        """Of the file as far as is known: what it says of itself, or what has been read, if that is more."""
        return max(self._told_s or 0.0, seconds(self.samples))

    @property
    def speech_samples(self) -> int:
        """Of the utterances that were found until now, in all channels; without what fills the last frame up."""
        return sum(min(cutter.speech_samples, self.samples) for cutter in self._cutters)

    async def __aenter__(self) -> Reading:
        loop = asyncio.get_running_loop()
        try:
            info = await loop.run_in_executor(self._thread, partial(probe, self._path, called=CALLED))
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        self._told_s = info.duration_s
        self._pieces = self._read()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """What the thread does is given up within a block's time; then the file is closed."""
        self._stop.set()
        self._thread.submit(self._close)
        await asyncio.to_thread(self._thread.shutdown, wait=True)

    async def next(self) -> Piece | None:
        """The next piece; None at the end."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._next)

    # -- on the thread --------------------------------------------------------------------------------

    def _next(self) -> Piece | None:
        assert self._pieces is not None
        return next(self._pieces, None)

    def _close(self) -> None:
        if self._pieces is not None:
            self._pieces.close()  # type: ignore[attr-defined] # a generator

    def _read(self) -> Iterator[Piece]:
        lanes: list[tuple[Sweep, Cutter]] = []
        for block in self._blocks():
            if not lanes:
                self.channels = len(block)
                lanes = [self._lane(channel) for channel in range(self.channels)]
                self._cutters = [cutter for _, cutter in lanes]
            for samples, (sweep, cutter) in zip(block, lanes, strict=True):
                if self._stop.is_set():
                    return
                yield from cutter.feed(samples, sweep.probabilities(samples))
        for _, cutter in lanes:
            yield from cutter.finish()

    def _lane(self, channel: int) -> tuple[Sweep, Cutter]:
        return Sweep(self._hearing.network), Cutter(channel, endpoints=self._hearing.endpoints)

    def _blocks(self) -> Iterator[Samples]:
        """Blocks [channels, n] of whole frames; the last one is filled up with silence."""
        pending: list[Samples] = []
        held = 0
        block_chunks = BLOCK_FRAMES * FRAME_SAMPLES // CHUNK_SAMPLES
        for chunk in self._chunks():
            if self._stop.is_set():
                return
            pending.append(chunk)
            held += chunk.shape[1]
            self.samples += chunk.shape[1]
            if len(pending) >= block_chunks:
                joined: Samples = np.concatenate(pending, axis=1)
                whole = held - held % FRAME_SAMPLES
                yield joined[:, :whole]
                pending, held = [joined[:, whole:]], held - whole
        if held:
            joined = np.concatenate(pending, axis=1)
            yield np.pad(joined, ((0, 0), (0, -held % FRAME_SAMPLES)))

    def _chunks(self) -> Iterator[Samples]:
        """A second at a time, [channels, n]."""
        if self._multichannel:
            yield from read_channels(self._path, on_warning=self._warn, called=CALLED)
        else:
            yield from (samples[None] for samples in read_samples(self._path, on_warning=self._warn, called=CALLED))

    def _warn(self, text: str) -> None:
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(text)
