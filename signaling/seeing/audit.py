"""The audit log: who did what to which data, one JSON object a line, appended and never changed.

What an administrator does is on disk (fsync) before it is done, as `asked`, and once more with its outcome before the
answer leaves; while that cannot be written such requests are refused, unless `audit_required` is off. Everything else
waits in a queue and is written within a second: what a crash loses of it is no more than that.

A line is appended by one write to a file opened with O_APPEND, so workers and `voiceforge keys` share one file. A file
that was moved away (logrotate) is opened anew. Texts, secrets and URLs are never in a record.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum

import structlog

from mediaserver.errors import CapacityError, ConfigError
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.auth.principal import NOBODY, Principal, TokenKind, current_principal
from signaling.seeing.audit_file import AuditWriter, FileTarget, StreamTarget
from signaling.seeing.requests import RequestInfo, current_request

log = structlog.get_logger(__name__)

AWAY_RETRY_AFTER_S = 5

WRITE_LIMIT_S = 5.0
"""How long an administrator waits for the disk. An fsync takes milliseconds; a disk that hangs is away."""

REFUSALS_PER_MINUTE = 60
"""Records of refused credentials; a stranger who tries keys does not fill the disk. The next one says how many more
there were."""

STDOUT, STDERR = "stdout", "stderr"


class Outcome(StrEnum):
    """What became of it."""

    ASKED = "asked"
    """It is about to be done; another record with the same `request_id` says what became of it."""
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


class AuditAwayError(CapacityError):
    """The audit log cannot be written, so what must be in it is not done: 503."""

    def __init__(self) -> None:
        super().__init__(
            "AUDIT_AWAY",
            "The audit log cannot be written, and this may not happen without it.",
            f"Try again in {AWAY_RETRY_AFTER_S} s; the server's log says what is wrong.",
            retry_after_s=AWAY_RETRY_AFTER_S,
        )


class Audit:
    """The audit log of one process. `record` costs microseconds and never fails; `surely` waits for the disk.

    Args:
        settings: `audit_log` says where, `audit_required` what happens where that fails.
        metrics: records by what became of them.
        actor: who acts where no request does: the server, or a person at its command line.
    """

    def __init__(self, settings: Settings, *, metrics: Metrics | None = None, actor: str = "server") -> None:
        self._actor = actor
        self._is_required = settings.audit_required
        self._refusals = _Rate(REFUSALS_PER_MINUTE)
        where = settings.audit_log
        self._writer: AuditWriter | None = None
        if where is not None:
            is_stream = where in (STDOUT, STDERR)
            target = StreamTarget(where) if is_stream else FileTarget(where)
            self._writer = AuditWriter(target, on_outcome=_counting(metrics))

    @property
    def is_on(self) -> bool:
        """Whether there is an audit log."""
        return self._writer is not None

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to write it failed."""
        return self._writer is not None and self._writer.is_failing

    @property
    def why(self) -> str:
        """What keeps it from being written, in a few words."""
        return (self._writer.why if self._writer is not None else "").lower() or "it does not answer"

    def record(
        self,
        action: str,
        *,
        object: Mapping[str, object] | None = None,  # noqa: A002 - the name that readers of such logs expect
        outcome: str = Outcome.DONE,
        code: str | None = None,
        details: Mapping[str, object] | None = None,
        principal: Principal | None = None,
        request: RequestInfo | None = None,
    ) -> None:
        """Write something down soon. Never blocks, never raises.

        Args:
            action: what was done, `<kind>.<verb>` in small letters: `key.create`, `session.end`, `data.delete`.
            object: to what, by names without secrets: `{"job": "job_…"}`.
            outcome: an `Outcome`.
            code: of the error, where there was one.
            details: what else is to be known: numbers and names; no texts, no secrets, no URLs.
            principal: who; None: whoever's request is being handled.
            request: by which request; None: the one that is being handled.
        """
        if self._writer is not None:
            self._writer.put(
                self._line(
                    action, object, outcome=outcome, code=code, details=details, principal=principal, request=request
                )
            )

    async def surely(
        self,
        action: str,
        *,
        object: Mapping[str, object] | None = None,  # noqa: A002
        outcome: str = Outcome.DONE,
        code: str | None = None,
        details: Mapping[str, object] | None = None,
        principal: Principal | None = None,
    ) -> None:
        """Write something down and wait until it is on disk. Arguments as of `record`.

        Raises:
            AuditAwayError: it could not be written, and `audit_required` is on.
        """
        if self._writer is None:
            return
        written = self._writer.put_surely(
            self._line(action, object, outcome=outcome, code=code, details=details, principal=principal)
        )
        is_written = False
        try:
            async with asyncio.timeout(WRITE_LIMIT_S):
                is_written = await asyncio.wrap_future(written)
        except TimeoutError:
            log.error("audit log hangs", limit_s=WRITE_LIMIT_S)
        if not is_written and self._is_required:
            raise AuditAwayError

    def refused(self, code: str, *, now_s: float, request: RequestInfo | None = None) -> None:
        """Somebody was not let in: written down at most `REFUSALS_PER_MINUTE` times a minute.

        Args:
            code: of the refusal.
            now_s: of a clock that only goes forward.
            request: by which request; None: the one that is being handled.
        """
        if self._writer is None:
            return
        missed = self._refusals.take(now_s)
        if missed is not None:
            self.record(
                "access.refuse",
                outcome=Outcome.REFUSED,
                code=code,
                object=_route_of(current_request() if request is None else request),
                details={"not_recorded": missed} if missed else None,
                principal=None if request is None else NOBODY,
                request=request,
            )

    async def close(self) -> None:
        """Write what waits, and let go of the file."""
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close)

    def _line(
        self,
        action: str,
        object_: Mapping[str, object] | None,
        *,
        outcome: str,
        code: str | None,
        details: Mapping[str, object] | None,
        principal: Principal | None,
        request: RequestInfo | None = None,
    ) -> bytes:
        request = current_request() if request is None else request
        who = current_principal() if principal is None else principal
        entry: dict[str, object] = {
            "stream": "audit",
            "time": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "action": action,
            "outcome": str(outcome),
            "actor": self._who(who, request, is_given=principal is not None),
        }
        if object_:
            entry["object"] = dict(object_)
        if code is not None:
            entry["code"] = code
        if request is not None:
            entry["request_id"] = request.request_id
        if details:
            entry["details"] = dict(details)
        return json.dumps(entry, ensure_ascii=True, separators=(",", ":"), default=str).encode()

    def _who(self, who: Principal, request: RequestInfo | None, *, is_given: bool) -> dict[str, object]:
        if request is None and not is_given:
            return {"kind": self._actor}
        kind = "key" if who.key_id is not None else "local" if who.is_local else "anybody"
        if who.token is not None:
            kind = {TokenKind.JOIN: "join_token", TokenKind.GRANT: "grant", TokenKind.SECRET: "client_secret"}[
                who.token
            ]
        actor: dict[str, object] = {"kind": kind, "tenant": who.tenant}
        if not who.tenant:  # the guard has found nobody
            actor = {"kind": "nobody"}
        if who.key_id is not None:
            actor["key"] = who.key_id
        if request is not None:
            actor["address"] = request.address
        return actor


async def require_audit_log(settings: Settings) -> None:
    """Refuse to start where what administrators do would be refused: the start is written down, as `asked`.

    Call it before anything listens, once for all processes of a server: one that is started again while a disk is full
    still serves.

    Raises:
        ConfigError: AUDIT_LOG_UNUSABLE.
    """
    audit = Audit(settings)
    try:
        await audit.surely("server.start", outcome=Outcome.ASKED)
    except AuditAwayError as exc:
        raise ConfigError(
            "AUDIT_LOG_UNUSABLE",
            f"`audit_log` {settings.audit_log} cannot be written: {audit.why}.",
            "Name a file that this user may write, on a disk with room; or turn `audit_required` off.",
        ) from exc
    finally:
        await audit.close()


def _route_of(request: RequestInfo | None) -> dict[str, object] | None:
    return None if request is None else {"route": f"{request.method} {request.route}"}


def _counting(metrics: Metrics | None) -> Callable[[str, int], None]:
    def count(outcome: str, records: int) -> None:
        """Called in the writer's thread too, which the counters allow."""
        if metrics is not None:
            metrics.audit_records_total.labels(outcome).inc(records)

    return count


class _Rate:
    """A bucket that fills evenly.

    Args:
        per_minute: what it gives in a minute, and holds at most.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._left = float(per_minute)
        self._filled_s = -math.inf
        self._missed = 0

    def take(self, now_s: float) -> int | None:
        """Take one; how many were not given since the last one, or None: there is none now."""
        self._left = min(float(self._per_minute), self._left + max(0.0, now_s - self._filled_s) * self._per_minute / 60)
        self._filled_s = now_s
        if self._left < 1:
            self._missed += 1
            return None
        self._left -= 1
        missed, self._missed = self._missed, 0
        return missed
