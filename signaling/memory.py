"""How a server's process keeps memory, and when it looks through it for garbage.

What is gone is freed at once where nothing refers to it; a search is for circles of objects that refer to each other.
It stops the event loop, a microsecond for each object that it looks at. Python's own rule searches through all of them
whenever they have become a quarter more: six times while a thousand peers came, for up to 0.56 s.

So what was loaded is left out of every search; sessions that end leave no circles (`mediaserver.ingest.ice`,
`mediaserver.session`); young objects are searched, a few thousand at once; and all of them when nobody is there.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mediaserver.metrics import Metrics

M_MMAP_THRESHOLD = -3
"""glibc's name for the size from which an allocation is a mapping of its own (mallopt(3))."""

MAPPED_FROM_BYTES = 256 * 1024
"""Sockets' and decodes' buffers are larger: unused they take no memory, and freed they go back to the system.
glibc raises this by itself to what was freed last, up to 32 MiB; then what a thousand sessions held stays for ever:
1200 that never connected left 830 MiB, with this 140 MiB."""

YOUNGEST = 700
"""So many objects more than were freed, and the new ones are searched: Python's own figure, 0.3 ms."""

YOUNG = 4
"""Every so many of these searches what has survived since is searched as well: 3500 objects, 3 ms. Python's own figure
is 10, and takes up to 8 ms."""

NEVER = 1_000_000_000
"""Python's own searches through all objects: none."""

PERIOD_S = 1.0
"""How often it is looked whether nobody is there."""

WORTHWHILE = 3
"""After so many searches of the young (10 000 objects more) there may be something to be found among all."""

OVERDUE = 300
"""After so many (a million objects) all are searched though somebody is there: some 1500 sessions have begun by then,
one after another, without a second in which there was none. It takes 50 ms with eighty peers connected and half a
second with a thousand, so it is rare: a session that ends leaves six small objects to it, asyncio's of its connection.
"""

PAUSES_MAX = 1000
"""Kept until they are told, the oldest dropped first; in a second there are 20."""


def settle() -> None:
    """Leave what was loaded out of every later search for garbage, and give large buffers back when they are freed.

    Call it once the models are loaded. A search stops the event loop, for longer the more there is to look through.
    """
    leave_out()
    try:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
    except (AttributeError, OSError):  # another libc
        return


def leave_out() -> None:
    """Leave all that is there out of every later search for garbage."""
    gc.collect()
    gc.freeze()


class Searches:
    """Says when this process is searched for garbage, and tells how long that stopped it.

    Args:
        metrics: told of pauses, but those of the youngest objects.
        is_at_rest: whether nobody would notice a pause.
    """

    def __init__(self, metrics: Metrics, *, is_at_rest: Callable[[], bool]) -> None:
        self._metrics = metrics
        self._is_at_rest = is_at_rest
        self._began_s = 0.0
        self._pauses: deque[tuple[int, float]] = deque(maxlen=PAUSES_MAX)

    async def run(self) -> None:
        """Search until cancelled."""
        with self._in_charge():
            while True:
                await asyncio.sleep(PERIOD_S)
                if is_due(gc.get_count()[2], is_at_rest=self._is_at_rest()):
                    gc.collect()
                self._tell()

    @contextmanager
    def _in_charge(self) -> Iterator[None]:
        before = gc.get_threshold()
        gc.set_threshold(YOUNGEST, YOUNG, NEVER)
        gc.callbacks.append(self._noticed)
        try:
            yield
        finally:
            gc.callbacks.remove(self._noticed)
            gc.set_threshold(*before)

    def _noticed(self, phase: str, info: dict[str, int]) -> None:
        """Called at the start and the stop of each search, wherever an object is made: here no lock may be taken."""
        if info["generation"] == 0:
            return
        now_s = time.perf_counter()
        if phase == "start":
            self._began_s = now_s
        else:
            self._pauses.append((info["generation"], now_s - self._began_s))

    def _tell(self) -> None:
        while self._pauses:
            generation, pause_s = self._pauses.popleft()
            self._metrics.gc_pause_seconds.labels(str(generation)).observe(pause_s)


def is_due(searches: int, *, is_at_rest: bool) -> bool:
    """Whether all objects are to be searched.

    Args:
        searches: of the young since all were searched last.
        is_at_rest: whether nobody would notice.
    """
    return searches >= (WORTHWHILE if is_at_rest else OVERDUE)
