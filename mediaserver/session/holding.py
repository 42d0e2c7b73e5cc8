"""Whether a session's client is there; and where it is not, for how long it is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mediaserver.metrics import Metrics


class Holding:
    """One session's. It lives on one event loop.

    Args:
        window_s: how long a client may be away; 0: not at all.
        door: its protocol, for the metrics.
        metrics: drops, what became of them, and for how long clients were away.
        on_expired: called once where a client has not come back in time.
    """

    def __init__(self, *, window_s: float, door: str, metrics: Metrics, on_expired: Callable[[], None]) -> None:
        self.window_s = window_s
        self._door = door
        self._metrics = metrics
        self._on_expired = on_expired
        self._since_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    @property
    def is_held(self) -> bool:
        """Whether the client is waited for."""
        return self._since_s is not None

    def lost(self) -> bool:
        """The client is gone without a word.

        Returns:
            Whether it is waited for; else the session is to end.
        """
        if self._is_over or not self.window_s:
            return False
        if self._since_s is None:
            loop = asyncio.get_running_loop()
            self._since_s = loop.time()
            self._timer = loop.call_later(self.window_s, self._expire)
            self._metrics.sessions_held.labels(self._door).inc()
            self._metrics.connections_lost_total.labels(self._door).inc()
        return True

    def back(self) -> float:
        """The client is there again; for how many seconds it was away, 0 where nobody had noticed."""
        away_s = 0.0 if self._since_s is None else asyncio.get_running_loop().time() - self._since_s
        self._stop()
        self._metrics.resumes_total.labels(self._door, "here").inc()
        self._metrics.away_seconds.labels(self._door).observe(away_s)
        return away_s

    def close(self) -> None:
        """The session ends: nobody is waited for any more."""
        self._is_over = True
        self._stop()
        self._on_expired = _nobody

    def _stop(self) -> None:
        if self._since_s is not None:
            self._metrics.sessions_held.labels(self._door).dec()
        self._since_s = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._metrics.resumes_total.labels(self._door, "expired").inc()
        on_expired = self._on_expired
        self.close()
        on_expired()


def _nobody() -> None:
    """Told after the end."""
