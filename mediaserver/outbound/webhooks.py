"""Signed webhooks, tried again until they arrive or there is no hope.

A receiver checks `X-VoiceForge-Signature`: `sha256=` and the HMAC-SHA256, in hex, of the timestamp's text, a dot and
the body, with the secret as key. A timestamp of long ago tells of a copy that somebody sends again; a delivery keeps
its id over all attempts, so one that arrives twice can be told.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import aiohttp
import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from mediaserver.errors import ConfigError
from mediaserver.metrics import Metrics
from mediaserver.outbound.client import AddressRefusedError, parse_url, shown

log = structlog.get_logger(__name__)

ATTEMPTS_MAX = 8
BACK_OFF_FIRST_S = 2.0
BACK_OFF_FACTOR = 3.0
BACK_OFF_MAX_S = 900.0
"""2, 6, 18, 54, 162, 486 and 900 s, less a jitter of up to half: a receiver may be away for a quarter of an hour."""

RETRY_AFTER_MAX_S = 900.0
"""A receiver that asks for longer is asked again after this."""

ATTEMPT_TIMEOUT_S = 15.0
"""A receiver should take the event and do its work later."""

OUTSTANDING_MAX = 256
OUTSTANDING_MAX_BYTES = 64 << 20
"""Of `post_soon`. What has failed most often is dropped first; where nothing has failed, what is new."""

IN_FLIGHT_MAX = 16
"""Attempts at once; the others wait."""

BODY_MAX_BYTES = 32 << 20
"""The words of about 50 hours."""

_HASH_IN_THREAD_BYTES = 1 << 20
"""A hash over more than this would hold the event loop up for milliseconds."""

_RETRIED = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a webhook ended: `status` of the last answer, if there was one, and why it did not arrive, if it did not."""

    id: str
    event: str
    attempts: int
    status: int | None = None
    error: str | None = None

    @property
    def delivered(self) -> bool:
        """Whether the receiver took it."""
        return self.error is None


OnDone = Callable[[Delivery], None]


def new_delivery_id() -> str:
    """An id that a receiver can tell deliveries apart by."""
    return f"whd_{secrets.token_hex(12)}"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What `X-VoiceForge-Signature` says."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class Webhooks:
    """Sends webhooks.

    Args:
        session: of `outbound_session`; the caller closes it after this.
        metrics: deliveries by outcome.
        sleep: between attempts.
        wall_s: the time of day in seconds since 1970, for the timestamps.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        metrics: Metrics,
        sleep: Sleep = asyncio.sleep,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._metrics = metrics
        self._sleep = sleep
        self._wall_s = wall_s
        self._in_flight = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._outstanding: dict[asyncio.Task[None], _Outgoing] = {}
        self._cut: set[asyncio.Task[None]] = set()  # dropped, and about to end
        self._closed = False

    async def deliver(
        self,
        url: str,
        body: bytes,
        *,
        secret: str | None,
        event: str,
        delivery_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> Delivery:
        """Send one event until it is taken, refused for good, or tried `ATTEMPTS_MAX` times. Raises nothing.

        Args:
            url: of the receiver; `parse_url` has judged it. Redirects are not followed: they count as refusals.
            body: JSON, at most `BODY_MAX_BYTES`.
            secret: signs it; None sends it without a signature.
            event: such as `transcription.completed`.
            delivery_id: a new one if None.
            headers: further ones, of a protocol that has its own.
            method: POST, or PUT where a protocol has that.
        """
        return await self._deliver(
            _Outgoing(url, body, secret, event, delivery_id or new_delivery_id(), method, headers or {})
        )

    def post_soon(
        self,
        url: str,
        body: bytes,
        *,
        secret: str | None,
        event: str,
        delivery_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
        on_done: OnDone | None = None,
    ) -> bool:
        """`deliver` in a task of its own. False: there is no room, or it is being closed, and it is dropped.

        Args:
            on_done: told how it ended, not called for what is dropped or cut by `close`.
        """
        if self._closed or not self._make_room(len(body)):
            self._metrics.webhooks_total.labels("dropped").inc()
            log.warning("webhook dropped", event_name=event, receiver=shown(url), outstanding=len(self._outstanding))
            return False
        outgoing = _Outgoing(url, body, secret, event, delivery_id or new_delivery_id(), method, headers or {})

        async def work() -> None:
            done = await self._deliver(outgoing)
            if on_done is not None:
                on_done(done)

        task = asyncio.create_task(work(), name=f"webhook-{event}")
        self._outstanding[task] = outgoing
        task.add_done_callback(self._forget)
        return True

    def drop(self, delivery_id: str) -> bool:
        """Give up one that `post_soon` took; False: it has arrived, or was given up before."""
        task = next((task for task, outgoing in self._outstanding.items() if outgoing.id == delivery_id), None)
        if task is not None:
            self._cut_off(task)
            log.info("webhook dropped", delivery=delivery_id, reason="it is no longer to be told")
        return task is not None

    async def close(self, *, deadline_s: float = 0.0) -> None:
        """Wait for what is outstanding, at most `deadline_s`, then cut the rest."""
        self._closed = True
        if self._outstanding and deadline_s > 0:
            await asyncio.wait(list(self._outstanding), timeout=deadline_s)
        tasks = [*self._outstanding, *self._cut]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _make_room(self, size_bytes: int) -> bool:
        while (
            len(self._outstanding) >= OUTSTANDING_MAX
            or sum(len(item.body) for item in self._outstanding.values()) + size_bytes > OUTSTANDING_MAX_BYTES
        ):
            worst = max(self._outstanding, key=lambda task: self._outstanding[task].failures, default=None)
            if worst is None or not self._outstanding[worst].failures:
                return False
            self._cut_off(worst)
            log.warning("webhook dropped", reason="it failed most often, and there is no room")
        return True

    def _cut_off(self, task: asyncio.Task[None]) -> None:
        del self._outstanding[task]
        self._cut.add(task)
        task.cancel()
        self._metrics.webhooks_total.labels("dropped").inc()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._outstanding.pop(task, None)
        self._cut.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.error("webhook failed", exc_info=failure)

    async def _deliver(self, outgoing: _Outgoing) -> Delivery:
        async def attempt() -> int:
            try:
                return await self._attempt(outgoing)
            except _Failed:
                outgoing.failures += 1
                raise

        retrying = AsyncRetrying(
            sleep=self._sleep,
            stop=stop_after_attempt(ATTEMPTS_MAX),
            wait=_wait_s,
            retry=retry_if_exception_type(_Again),
            reraise=True,
        )
        status: int | None = None
        error: str | None = None
        try:
            status = await retrying(attempt)
        except _Failed as exc:
            status, error = exc.status, exc.reason
        attempts = outgoing.failures + (error is None)
        done = Delivery(outgoing.id, outgoing.event, attempts, status, error)
        self._metrics.webhooks_total.labels("delivered" if done.delivered else "failed").inc()
        level = log.info if done.delivered else log.warning
        level(
            "webhook delivered" if done.delivered else "webhook given up",
            event_name=done.event,
            delivery=done.id,
            receiver=shown(outgoing.url),
            attempts=done.attempts,
            status=done.status,
            reason=done.error,
        )
        return done

    async def _attempt(self, outgoing: _Outgoing) -> int:
        """One request; the status of an answer that takes it."""
        if len(outgoing.body) > BODY_MAX_BYTES:
            raise _Failed(f"it is larger than {BODY_MAX_BYTES >> 20} MiB")
        timestamp = str(int(self._wall_s()))
        headers = outgoing.sent_headers(timestamp)
        if outgoing.secret is not None:
            headers["X-VoiceForge-Signature"] = await _signature(outgoing.secret, timestamp, outgoing.body)
        try:
            async with (
                self._in_flight,
                asyncio.timeout(ATTEMPT_TIMEOUT_S),
                self._session.request(
                    outgoing.method,
                    parse_url(outgoing.url),
                    data=outgoing.body,
                    headers=headers,
                    allow_redirects=False,
                ) as response,
            ):
                status, retry_after = response.status, response.headers.get("Retry-After")
        except ConfigError as exc:
            raise _Failed(exc.message) from exc
        except aiohttp.InvalidURL as exc:
            raise _Failed("the receiver's URL cannot be called") from exc
        except aiohttp.ClientConnectorError as exc:
            if isinstance(exc.os_error, AddressRefusedError):
                raise _Failed("the receiver's address is not public") from exc
            raise _Again("the receiver cannot be reached") from exc
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as exc:
            raise _Again("the receiver did not answer") from exc
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return status
        reason = f"the receiver answered {status}"
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _RETRIED:
            raise _Again(reason, status=status, retry_after_s=_retry_after_s(retry_after, self._wall_s()))
        raise _Failed(reason, status=status)


@dataclass(slots=True)
class _Outgoing:
    """A webhook under way."""

    url: str
    body: bytes
    secret: str | None
    event: str
    id: str
    method: str
    headers: Mapping[str, str]
    failures: int = 0

    def sent_headers(self, timestamp: str) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            **self.headers,
            "X-VoiceForge-Event": self.event,
            "X-VoiceForge-Delivery": self.id,
            "X-VoiceForge-Timestamp": timestamp,
        }


class _Failed(Exception):  # noqa: N818 - not an error of this program
    """An attempt that did not arrive, and that is not worth another."""

    def __init__(self, reason: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.retry_after_s = retry_after_s


class _Again(_Failed):
    """An attempt that did not arrive this time."""


def _wait_s(state: RetryCallState) -> float:
    """Seconds before the next attempt: what the receiver asked for, or ever longer."""
    failure = state.outcome.exception() if state.outcome is not None else None
    if isinstance(failure, _Failed) and failure.retry_after_s is not None:
        return failure.retry_after_s
    longest_s = min(BACK_OFF_MAX_S, BACK_OFF_FIRST_S * BACK_OFF_FACTOR ** (state.attempt_number - 1))
    return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - so that those that failed together do not come together


def _retry_after_s(text: str | None, now_s: float) -> float | None:
    """`Retry-After` (RFC 9110 §10.2.3) in seconds from now, bounded; None where there is none that can be read."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        wanted_s = float(text[:9])
    else:
        try:
            wanted_s = parsedate_to_datetime(text).timestamp() - now_s
        except (ValueError, OverflowError, OSError):
            return None
    return min(max(wanted_s, 0.0), RETRY_AFTER_MAX_S)


async def _signature(secret: str, timestamp: str, body: bytes) -> str:
    if len(body) > _HASH_IN_THREAD_BYTES:
        return await asyncio.to_thread(signature, secret, timestamp, body)
    return signature(secret, timestamp, body)
