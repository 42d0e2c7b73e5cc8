"""The engine's process, if it is this media process that runs it."""

from __future__ import annotations

from collections.abc import Sequence

from mediaserver.child import Child
from mediaserver.decoder.remote import failures
from mediaserver.metrics import Metrics

START_LIMIT_S = 120.0
"""How long a start may take: the largest model from a slow disk, and a calibration."""

STOP_LIMIT_S = 3.0
"""How long the child may take to end by itself. It has nothing to save: whoever still waits keeps the audio."""


class EngineProcess(Child):
    """A child that serves an engine on a socket. Its owner awaits `close`.

    Args:
        command: program and arguments.
        order: what the child reads as its first line: JSON, without a line break.
        metrics: where restarts are counted.
        start_limit_s, stop_limit_s: bounds on a start and on an end.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        order: str,
        metrics: Metrics,
        start_limit_s: float = START_LIMIT_S,
        stop_limit_s: float = STOP_LIMIT_S,
    ) -> None:
        super().__init__(
            "engine",
            command,
            order=order,
            cannot_start=failures.start_failed,
            on_died=metrics.engine_restarts_total.inc,
            start_limit_s=start_limit_s,
            stop_limit_s=stop_limit_s,
        )
