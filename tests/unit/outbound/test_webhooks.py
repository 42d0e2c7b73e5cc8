"""Webhooks against a real receiver on this machine; waits pass in no time."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from mediaserver.metrics import Metrics
from mediaserver.outbound import webhooks as module
from mediaserver.outbound.client import OutboundPolicy, outbound_session
from mediaserver.outbound.webhooks import ATTEMPTS_MAX, BACK_OFF_MAX_S, RETRY_AFTER_MAX_S, Delivery, Webhooks

NOW_S = 1_800_000_000.0
BODY = b'{"type":"transcription.completed"}'
Answer = Callable[[web.Request], web.Response]


class Receiver:
    """Answers as told, the last answer for ever, and keeps what it got."""

    def __init__(self) -> None:
        self.answers: list[int | dict[str, str]] = [204]
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        await self.hold.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, int):
            return web.Response(status=answer, headers={"Location": "/elsewhere"} if answer < 400 else None)
        return web.Response(status=int(answer["status"]), headers={"Retry-After": answer["after"]})


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    it = Receiver()
    app = web.Application()
    app.router.add_route("*", "/hook", it.take)
    server = TestServer(app, shutdown_timeout=0.1)
    await server.start_server()
    it.url = str(server.make_url("/hook"))
    yield it
    it.hold.set()
    await server.close()


class Sender:
    def __init__(self, hooks: Webhooks, waits_s: list[float], metrics: Metrics) -> None:
        self.hooks = hooks
        self.waits_s = waits_s
        self._metrics = metrics

    def count(self, outcome: str) -> float:
        return self._metrics.registry.get_sample_value("voiceforge_webhooks_total", {"outcome": outcome}) or 0.0

    async def deliver(self, url: str, secret: str | None = "key") -> Delivery:
        return await self.hooks.deliver(url, BODY, secret=secret, event="transcription.completed")


@pytest_asyncio.fixture
async def sender(no_leaked_tasks: None) -> AsyncIterator[Sender]:
    waits_s: list[float] = []

    async def sleep(seconds: float) -> None:
        waits_s.append(seconds)
        await asyncio.sleep(0)

    metrics = Metrics()
    async with outbound_session(OutboundPolicy(allow_private=True)) as session:
        hooks = Webhooks(session, metrics=metrics, sleep=sleep, wall_s=lambda: NOW_S)
        yield Sender(hooks, waits_s, metrics)
        await hooks.close()


async def test_a_receiver_can_tell_that_it_is_us(receiver: Receiver, sender: Sender) -> None:
    done = await sender.deliver(receiver.url)
    assert done.delivered
    assert (done.attempts, done.status) == (1, 204)
    ((headers, body),) = receiver.got
    assert body == BODY
    assert headers["X-VoiceForge-Event"] == "transcription.completed"
    assert headers["X-VoiceForge-Delivery"] == done.id
    assert headers["X-VoiceForge-Timestamp"] == "1800000000"
    expected = hmac.new(b"key", b"1800000000." + BODY, hashlib.sha256).hexdigest()
    assert headers["X-VoiceForge-Signature"] == f"sha256={expected}"
    assert headers["Content-Type"] == "application/json"


async def test_without_a_secret_there_is_no_signature(receiver: Receiver, sender: Sender) -> None:
    await sender.deliver(receiver.url, None)
    assert "X-VoiceForge-Signature" not in receiver.got[0][0]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_receiver_in_trouble_is_asked_again(receiver: Receiver, sender: Sender, status: int) -> None:
    receiver.answers = [status, status, 200]
    done = await sender.deliver(receiver.url)
    assert done.delivered
    assert done.attempts == 3
    assert len({headers["X-VoiceForge-Delivery"] for headers, _ in receiver.got}) == 1
    assert 1.0 <= sender.waits_s[0] <= 2.0
    assert 3.0 <= sender.waits_s[1] <= 6.0


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410, 422])
async def test_a_refusal_is_final(receiver: Receiver, sender: Sender, status: int) -> None:
    receiver.answers = [status]
    done = await sender.deliver(receiver.url)
    assert not done.delivered
    assert (done.attempts, done.status, done.error) == (1, status, f"the receiver answered {status}")
    assert sender.count("failed") == 1


async def test_it_is_given_up_after_so_many_attempts(receiver: Receiver, sender: Sender) -> None:
    receiver.answers = [500]
    done = await sender.deliver(receiver.url)
    assert (done.delivered, done.attempts, done.status) == (False, ATTEMPTS_MAX, 500)
    assert len(sender.waits_s) == ATTEMPTS_MAX - 1
    assert max(sender.waits_s) <= BACK_OFF_MAX_S


async def test_nobody_at_the_address_is_tried_again(sender: Sender) -> None:
    done = await sender.deliver(f"http://127.0.0.1:{unused_port()}/hook")
    assert (done.attempts, done.status, done.error) == (ATTEMPTS_MAX, None, "the receiver cannot be reached")


@pytest.mark.parametrize(
    ("after", "waited_s"),
    [
        ("7", 7.0),
        ("0", 0.0),
        (format_datetime(datetime.fromtimestamp(NOW_S + 42, UTC), usegmt=True), 42.0),
        (format_datetime(datetime.fromtimestamp(NOW_S - 42, UTC), usegmt=True), 0.0),
        ("99999999999999", RETRY_AFTER_MAX_S),
    ],
)
async def test_retry_after_is_heeded_within_bounds(
    receiver: Receiver, sender: Sender, after: str, waited_s: float
) -> None:
    receiver.answers = [{"status": "429", "after": after}, 200]
    assert (await sender.deliver(receiver.url)).delivered
    assert sender.waits_s == [pytest.approx(waited_s)]


@pytest.mark.parametrize("after", ["soon", "-5", "", "१२", "Tue, 99 Foo 2026"])
async def test_a_retry_after_that_cannot_be_read_is_left_out(receiver: Receiver, sender: Sender, after: str) -> None:
    receiver.answers = [{"status": "503", "after": after}, 200]
    assert (await sender.deliver(receiver.url)).delivered
    assert 1.0 <= sender.waits_s[0] <= 2.0


async def test_a_private_receiver_is_refused_and_not_tried_again(receiver: Receiver) -> None:
    async with outbound_session(OutboundPolicy()) as session:
        hooks = Webhooks(session, metrics=Metrics())
        done = await hooks.deliver(receiver.url, BODY, secret=None, event="e")
    assert (done.attempts, done.error) == (1, "the receiver's address is not public")
    assert not receiver.got


@pytest.mark.parametrize(
    "url", ["ftp://example.org/", "http://user:pass@example.org/", "nonsense", "http://2130706434/"]
)
async def test_what_is_no_url_is_not_tried(sender: Sender, url: str) -> None:
    done = await sender.deliver(url)
    assert (done.delivered, done.attempts) == (False, 1)


async def test_a_body_that_is_too_large_is_not_sent(
    receiver: Receiver, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BODY_MAX_BYTES", 10)
    assert not (await sender.deliver(receiver.url)).delivered
    assert not receiver.got


async def test_posts_run_by_themselves_and_tell_how_they_ended(receiver: Receiver, sender: Sender) -> None:
    ended: asyncio.Queue[Delivery] = asyncio.Queue()
    assert sender.hooks.post_soon(receiver.url, BODY, secret=None, event="e", on_done=ended.put_nowait)
    assert (await ended.get()).delivered


async def test_without_room_the_new_one_is_dropped_unless_another_has_failed(
    receiver: Receiver, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OUTSTANDING_MAX", 2)
    receiver.hold.clear()
    ended: list[str] = []

    def post(event: str) -> bool:
        return sender.hooks.post_soon(
            receiver.url, BODY, secret=None, event=event, on_done=lambda d: ended.append(d.event)
        )

    assert post("first")
    assert post("second")
    assert not post("third")
    assert sender.count("dropped") == 1
    receiver.answers = [500]
    asleep = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(sender.hooks, "_sleep", sleep)
    receiver.hold.set()
    await asleep.wait()
    receiver.answers = [204]
    assert post("fourth")  # takes the place of one that has failed
    assert sender.count("dropped") == 2
    while "fourth" not in ended:
        await asyncio.sleep(0.01)


async def test_bytes_are_bounded_too(receiver: Receiver, sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTSTANDING_MAX_BYTES", len(BODY))
    receiver.hold.clear()
    assert sender.hooks.post_soon(receiver.url, BODY, secret=None, event="e")
    assert not sender.hooks.post_soon(receiver.url, BODY, secret=None, event="e")


async def test_a_close_waits_for_what_is_under_way_and_cuts_the_rest(receiver: Receiver, sender: Sender) -> None:
    ended: list[Delivery] = []
    sender.hooks.post_soon(receiver.url, BODY, secret=None, event="e", on_done=ended.append)
    await sender.hooks.close(deadline_s=5.0)
    assert [done.delivered for done in ended] == [True]
    assert not sender.hooks.post_soon(receiver.url, BODY, secret=None, event="e")


async def test_a_close_without_a_deadline_cuts(receiver: Receiver, sender: Sender) -> None:
    receiver.hold.clear()
    ended: list[Delivery] = []
    sender.hooks.post_soon(receiver.url, BODY, secret=None, event="e", on_done=ended.append)
    await asyncio.sleep(0)
    await sender.hooks.close()
    assert not ended
