"""The process that runs this one: it is told of what is going on, and its end is noticed, however it ended."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

STANDARD_INPUT = 0

EXIT_FAILED = 1


class Parent:
    """Watches standard input, whose other end only the parent holds, in a thread that nothing can hold up. A line there
    asks this process to end, once more for each; the input's end says that the parent is gone.

    Args:
        limit_s: how long this process may take to end once its parent is gone; then it is ended, whatever it does.
    """

    def __init__(self, *, limit_s: float) -> None:
        self._limit_s = limit_s
        self._on_gone: Callable[[], object] = lambda: None
        self._on_line: Callable[[], object] = lambda: None
        self._gone = threading.Event()
        threading.Thread(target=self._watch, name="parent", daemon=True).start()

    @property
    def is_gone(self) -> bool:
        """Whether the parent is gone."""
        return self._gone.is_set()

    def when_gone(self, callback: Callable[[], object]) -> None:
        """Have this called on the running event loop once the parent is gone."""
        self._on_gone = _on_loop(callback)
        if self.is_gone:
            self._on_gone()

    def when_asked(self, callback: Callable[[], object]) -> None:
        """Have this called on the running event loop for each line."""
        self._on_line = _on_loop(callback)

    def _watch(self) -> None:
        while said := os.read(STANDARD_INPUT, 4096):
            for _ in range(said.count(b"\n")):
                self._on_line()
        self._gone.set()
        self._on_gone()
        threading.Event().wait(self._limit_s)
        os._exit(EXIT_FAILED)


def _on_loop(callback: Callable[[], object]) -> Callable[[], None]:
    loop = asyncio.get_running_loop()

    def call() -> None:
        with suppress(RuntimeError):  # the loop is closed: there is nothing left to end
            loop.call_soon_threadsafe(callback)

    return call


def tell_parent(said: dict[str, object]) -> None:
    """A line for the parent; none where it is gone."""
    with suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
