"""What a live session tells, posted to whoever cannot hold a connection open: a CRM, a call center's backend.

Each session's webhooks arrive in the order of its events: the next one is sent when the one before it was taken or
given up (`mediaserver.outbound.webhooks` signs and tries again). What waits is bounded. Dropped first is what tells of
no words (`utterance_end`, `speech_started` …), oldest first, then the oldest finals; a receiver that was never reached
in all attempts loses what waits with it. How many were dropped is in the next one that arrives.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Literal

import structlog
from multidict import CIMultiDictProxy

from mediaserver.errors import ConfigError
from mediaserver.events import Closed, Event, Final, Metadata, Revision
from mediaserver.metrics import Metrics
from mediaserver.outbound.client import OutboundPolicy, parse_url, shown
from mediaserver.outbound.webhooks import ATTEMPTS_MAX, Webhooks
from mediaserver.session.channels import Channels
from mediaserver.session.dialect import NativeDialect
from mediaserver.settings import Settings, WebhookBatch
from signaling.outbound import Outbound, Source

log = structlog.get_logger(__name__)

URL_HEADER: Literal["X-VoiceForge-Webhook"] = "X-VoiceForge-Webhook"
SECRET_HEADER: Literal["X-VoiceForge-Webhook-Secret"] = "X-VoiceForge-Webhook-Secret"  # noqa: S105 - its name
"""In headers, for a URL stands in logs, and a webhook's address is often a secret itself."""

SECRET_MIN_LETTERS, SECRET_MAX_LETTERS = 16, 256

WAITING_EVENTS_MAX = 1024
WAITING_LETTERS_MAX = 1024 * 1024
"""Of one session: an hour of finals."""

BUSY_SESSIONS_MAX = 256
"""Sessions with something to deliver, those that have ended included; what a further one tells is dropped."""

CLOSE_S = 1.0
"""How long deliveries under way may still take when the application ends."""

_PRECIOUS = (Final, Revision, Metadata, Closed)


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who is told.

    Args:
        url: as `parse_url` has judged it.
        secret: signs; None sends without a signature.
        is_own: the operator named it; it may lie in the operator's own network.
    """

    url: str
    secret: str | None
    is_own: bool = False


def receiver_of(headers: CIMultiDictProxy[str], policy: OutboundPolicy) -> Receiver | None:
    """The receiver that a request names in its headers, if it names one.

    A client's receiver is never sent the operator's signature: it could pass what it gets on as the operator's.

    Raises:
        ConfigError: INVALID_WEBHOOK, INVALID_URL or ADDRESS_NOT_ALLOWED.
    """
    for name in (URL_HEADER, SECRET_HEADER):
        if len(headers.getall(name, ())) > 1:
            raise _invalid(f"The header {name} is given more than once")
    url, secret = headers.get(URL_HEADER), headers.get(SECRET_HEADER)
    if url is None:
        if secret is not None:
            raise _invalid(f"There is a {SECRET_HEADER} and no {URL_HEADER}")
        return None
    if secret is not None:
        size_is_right = SECRET_MIN_LETTERS <= len(secret) <= SECRET_MAX_LETTERS
        if not (size_is_right and secret.isascii() and secret.isprintable()):
            raise _invalid(
                f"{SECRET_HEADER} does not consist of {SECRET_MIN_LETTERS} to {SECRET_MAX_LETTERS} ASCII letters"
            )
    if not url.isascii():
        raise _invalid(f"{URL_HEADER} has letters beyond ASCII, which a URL writes as %XX")
    parse_url(url, policy)
    return Receiver(url, secret)


class SessionWebhooks:
    """The webhooks of this node's live sessions.

    Args:
        settings: of the node: its own receiver, what is told and how it is batched.
        outbound: the way to receivers that clients name.
        metrics: webhooks by outcome.

    Raises:
        ConfigError: INVALID_URL; the node's own receiver cannot be called.
    """

    def __init__(self, *, settings: Settings, outbound: Outbound, metrics: Metrics) -> None:
        self._outbound = outbound
        # The operator's own receiver is usually in the operator's own network.
        self._own_outbound = Outbound(
            settings=settings.model_copy(update={"outbound_allow_private": True}), metrics=metrics
        )
        self._metrics = metrics
        self._batch = settings.webhook_batch
        self._events = frozenset(settings.webhook_events)
        self._tasks: set[asyncio.Task[None]] = set()
        self._own: Receiver | None = None
        if settings.webhook_url is not None:
            parse_url(settings.webhook_url, self._own_outbound.policy)
            secret = None if settings.webhook_secret is None else settings.webhook_secret.get_secret_value()
            self._own = Receiver(settings.webhook_url, secret, is_own=True)

    @property
    def policy(self) -> OutboundPolicy:
        """Where receivers that clients name may be."""
        return self._outbound.policy

    def tap(self, session_id: str, receiver: Receiver | None = None, *, sequence: int = 0) -> SessionWebhook | None:
        """Who tells of a session: to the receiver that its client named, else to the node's; None without either.

        Args:
            session_id: its name.
            receiver: that its client named.
            sequence: of the first webhook; of a session that another process had, the number of its next event: there
                have been no more webhooks than events, so receivers take none for one that they know.
        """
        receiver = receiver or self._own
        if receiver is None:
            return None
        tap = SessionWebhook(
            Source.now(session_id),
            receiver,
            self,
            batch=self._batch,
            events=self._events,
            metrics=self._metrics,
            sequence=sequence,
        )
        self._outbound.owes(tap)
        return tap

    def sender(self, receiver: Receiver) -> Webhooks:
        """What delivers to a receiver."""
        return (self._own_outbound if receiver.is_own else self._outbound).webhooks()

    def start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None] | None:
        """Run a session's deliveries; None where too many are under way. It is awaited here, and may be cancelled."""
        if len(self._tasks) >= BUSY_SESSIONS_MAX:
            work.close()
            return None
        task = asyncio.create_task(work, name="session-webhooks")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """Wait a moment for what is under way, then give it up."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._own_outbound.close()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.error("session webhooks failed", exc_info=failure)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An event to be told."""

    kind: str
    text: str
    is_precious: bool


class SessionWebhook:
    """Tells a receiver of one session (a `Tap`). Made by `SessionWebhooks.tap`."""

    def __init__(
        self,
        source: Source,
        receiver: Receiver,
        owner: SessionWebhooks,
        *,
        batch: WebhookBatch,
        events: frozenset[str],
        metrics: Metrics,
        sequence: int,
    ) -> None:
        self.source = source
        self._session_id = session_id = source.session_id
        self._receiver = receiver
        self._owner = owner
        self._batch = batch
        self._events = events
        self._metrics = metrics
        self._dialect = NativeDialect(session_id)
        # Bound: WAITING_EVENTS_MAX and WAITING_LETTERS_MAX, see there for what is dropped first.
        self._waiting: deque[_Waiting] = deque()
        self._letters = 0
        self._sequence = sequence
        self._missed = 0
        self._under_way = 0  # events of the webhook that is being sent
        self._sending: asyncio.Task[None] | None = None
        self._is_over = False

    def begin(self, channels: Channels) -> None:
        """Events carry the metadata and labels of its configuration."""
        self._dialect.begin(channels)

    def send(self, event: Event, seq: int, channel: int) -> None:
        """An event: to be told, if it is of those that are."""
        if self._is_over:
            return
        if event.type in self._events:
            (telling,) = self._dialect.tell(event, seq, channel)
            self._wait(_Waiting(event.type, telling.text, isinstance(event, _PRECIOUS)))
        if isinstance(event, Closed):
            self.end()
        elif self._batch is WebhookBatch.EVENT:
            self._go_on()

    def end(self) -> None:
        """No more events come; what waits is told."""
        self._is_over = True
        self._dialect = NativeDialect(self._session_id)  # deliveries may outlive the audio that sessions remember
        self._go_on()

    def drop(self) -> int:
        """Its tenant's data is deleted: nothing more is told, nor tried again; how many events were not."""
        count = len(self._waiting) + self._under_way
        self._is_over, self._under_way = True, 0
        self._clear()
        if self._sending is not None:
            self._sending.cancel()
        if count:
            log.info("session webhooks dropped", session=self._session_id, count=count, why="its data is deleted")
            self._drop(count)
        return count

    def _wait(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._letters += len(waiting.text)
        while len(self._waiting) > WAITING_EVENTS_MAX or self._letters > WAITING_LETTERS_MAX:
            victim = next((item for item in self._waiting if not item.is_precious), self._waiting[0])
            self._waiting.remove(victim)
            self._letters -= len(victim.text)
            self._drop(1)

    def _drop(self, count: int) -> None:
        self._missed += count
        self._metrics.webhooks_total.labels("dropped").inc(count)

    def _go_on(self) -> None:
        if self._sending is not None or not self._waiting:
            return
        self._sending = self._owner.start(self._deliver())
        if self._sending is None:
            log.warning("session webhooks dropped", session=self._session_id, why="too many sessions have some waiting")
            self._drop(len(self._waiting))
            self._clear()

    def _clear(self) -> None:
        self._waiting.clear()
        self._letters = 0

    async def _deliver(self) -> None:
        try:
            while self._waiting:
                kind, texts = self._take()
                missed, self._missed = self._missed, 0
                self._under_way = len(texts)
                body = self._body(kind, texts, missed)
                done = await self._owner.sender(self._receiver).deliver(
                    self._receiver.url, body, secret=self._receiver.secret, event=kind
                )
                self._under_way = 0
                if not done.delivered:
                    self._missed += missed + len(texts)
                if not done.delivered and done.attempts >= ATTEMPTS_MAX and self._waiting:
                    receiver = shown(self._receiver.url)
                    log.warning(
                        "session webhooks dropped",
                        session=self._session_id,
                        receiver=receiver,
                        count=len(self._waiting),
                        why="the receiver was never reached",
                    )
                    self._drop(len(self._waiting))
                    self._clear()
        finally:
            self._sending = None

    def _take(self) -> tuple[str, list[str]]:
        """The next body's kind and events."""
        if self._batch is WebhookBatch.SESSION:
            texts = [item.text for item in self._waiting]
            self._clear()
            return "session.ended", texts
        item = self._waiting.popleft()
        self._letters -= len(item.text)
        return f"session.{item.kind}", [item.text]

    def _body(self, kind: str, texts: list[str], missed: int) -> bytes:
        head = {"type": kind, "session_id": self._session_id, "sequence": self._sequence, "missed": missed}
        self._sequence += 1
        # The events are JSON already.
        return f'{json.dumps(head, separators=(",", ":"))[:-1]},"events":[{",".join(texts)}]}}'.encode()


def _invalid(problem: str) -> ConfigError:
    return ConfigError(
        "INVALID_WEBHOOK",
        f"{problem}.",
        f"Send one {URL_HEADER} such as https://crm.example/hook, and one {SECRET_HEADER} of "
        f"{SECRET_MIN_LETTERS} to {SECRET_MAX_LETTERS} letters for its signature.",
    )
