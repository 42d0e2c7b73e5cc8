"""The event logs of this node by the secrets of their sessions, for a while also after these have ended."""

from __future__ import annotations

import asyncio

from mediaserver.session.eventlog import EventLog
from signaling.registry import LiveSession

LETTERS_PER_KIB = 1024

ENDED_LETTERS_MAX = 32 * 1024 * 1024
"""Of all logs whose sessions have ended, together. Those of the sessions that ended first are dropped first."""


class EventLogs:
    """Event logs, from a session's beginning until some time after its end.

    Args:
        kept_kib: of text, in each.
        linger_s: how long one can be read after its session's end.
    """

    def __init__(self, *, kept_kib: int, linger_s: float) -> None:
        self._kept_letters = kept_kib * LETTERS_PER_KIB
        self._linger_s = linger_s
        self._logs: dict[str, EventLog] = {}  # bound: the registry's sessions, and ENDED_LETTERS_MAX
        self._ended: dict[str, asyncio.TimerHandle] = {}  # in the order in which they ended
        self._tenants: dict[str, str] = {}  # whose they are, of the same

    def open(self, session_id: str) -> EventLog:
        """A log for a connection that is about to be made; nobody finds it before `publish`."""
        return EventLog(session_id, kept_letters=self._kept_letters)

    def publish(self, live: LiveSession, log: EventLog) -> None:
        """From now on the log is found by the secret of its session, until a while after that has ended."""
        self._logs[live.secret] = log
        self._tenants[live.secret] = live.principal.tenant
        live.on_gone.append(lambda: self._end(live.secret))

    def find(self, secret: str) -> EventLog | None:
        """The log of a session's URL."""
        return self._logs.get(secret)

    def forget_tenant(self, tenant: str) -> int:
        """Forget what a tenant's ended sessions told; how many. Those that run keep theirs."""
        theirs = [secret for secret in self._ended if self._tenants[secret] == tenant]
        for secret in theirs:
            self._forget(secret)
        return len(theirs)

    def close(self) -> None:
        """Forget all logs; who still listens has come to the end."""
        for timer in self._ended.values():
            timer.cancel()
        for log in self._logs.values():
            log.end()
        self._ended.clear()
        self._logs.clear()
        self._tenants.clear()

    def _end(self, secret: str) -> None:
        log = self._logs.get(secret)
        if log is None:
            return
        log.end()
        self._ended[secret] = asyncio.get_running_loop().call_later(self._linger_s, self._forget, secret)
        kept_letters = sum(self._logs[ended].letters for ended in self._ended)
        while kept_letters > ENDED_LETTERS_MAX:
            first = next(iter(self._ended))
            kept_letters -= self._logs[first].letters
            self._forget(first)

    def _forget(self, secret: str) -> None:
        self._ended.pop(secret).cancel()
        del self._logs[secret], self._tenants[secret]
