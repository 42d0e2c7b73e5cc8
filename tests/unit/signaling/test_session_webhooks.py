"""What live sessions post: in order, signed, bounded, and to whom it may go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDict, CIMultiDictProxy

from mediaserver.errors import ConfigError
from mediaserver.events import Closed, Event, Final, Interim, Metadata, SpeechStarted, UtteranceEnd
from mediaserver.metrics import Metrics
from mediaserver.outbound.client import OutboundPolicy
from mediaserver.outbound.webhooks import ATTEMPTS_MAX, Delivery, signature
from mediaserver.session.channels import Channels
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from signaling import session_webhooks as module
from signaling.outbound import Outbound
from signaling.session_webhooks import (
    SECRET_HEADER,
    URL_HEADER,
    WAITING_EVENTS_MAX,
    Receiver,
    SessionWebhook,
    SessionWebhooks,
    receiver_of,
)
from signaling.sessions import Models, SessionFactory

SECRET = "a secret of the client"


class Post:
    """One webhook as a receiver gets it."""

    def __init__(self, headers: Any, body: bytes) -> None:
        self.headers = headers
        self.raw = body
        self.body: dict[str, Any] = json.loads(body)

    def is_signed_with(self, secret: str) -> bool:
        expected = signature(secret, self.headers["X-VoiceForge-Timestamp"], self.raw)
        return bool(self.headers.get("X-VoiceForge-Signature") == expected)


class Site:
    """A receiver on this machine."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.statuses: list[int] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def take(self, request: web.Request) -> web.Response:
        await self.may_answer.wait()
        self.posts.append(Post(request.headers, await request.read()))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204)

    async def count(self, number: int) -> None:
        async with asyncio.timeout(5):
            while len(self.posts) < number:
                await asyncio.sleep(0.005)


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    app = web.Application()
    app.router.add_post("/hook", made.take)
    server = TestServer(app)
    await server.start_server()
    made.url = str(server.make_url("/hook"))  # type: ignore[attr-defined]
    yield made
    await server.close()


class Rig:
    def __init__(self, site: Site, **settings: Any) -> None:
        self.site = site
        self.url: str = site.url  # type: ignore[attr-defined]
        self.metrics = Metrics()
        self.settings = Settings(**{"outbound_allow_private": True, **settings})
        self.outbound = Outbound(settings=self.settings, metrics=self.metrics)
        self.webhooks = SessionWebhooks(settings=self.settings, outbound=self.outbound, metrics=self.metrics)
        self.seq = 0

    def tap(self, receiver: Receiver | None = None, *, sequence: int = 0) -> SessionWebhook:
        tap = self.webhooks.tap("s1", receiver or Receiver(self.url, SECRET), sequence=sequence)
        assert tap is not None
        session = Conversation()
        tap.begin(Channels(lambda sink: session, outlet=session, count=2))  # type: ignore[arg-type, return-value]
        return tap

    def tell(self, tap: SessionWebhook, *events: Event, channel: int = 0) -> None:
        for event in events:
            tap.send(event, self.seq, channel)
            self.seq += 1

    def outcome(self, name: str) -> float:
        return self.metrics.registry.get_sample_value("voiceforge_webhooks_total", {"outcome": name}) or 0.0


class Conversation:
    """A session with a configuration, and nobody to tell."""

    config = SessionConfig(metadata={"call_id": "a7"}, channel_labels=["agent", "customer"])

    def send(self, event: Event, seq: int, channel: int) -> None: ...


@pytest_asyncio.fixture
async def start(site: Site) -> AsyncIterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(**settings: Any) -> Rig:
        rigs.append(Rig(site, **settings))
        return rigs[-1]

    yield make
    for rig in rigs:
        await rig.webhooks.close()
        await rig.outbound.close()


def final(utterance: int, text: str = "a") -> Final:
    return Final(utterance, text, 1.0, 0.0, 1.0, 1.0, None, None, [])


ENDING = (Metadata(1.0, 1.0, 1, 0.0, "m"), Closed("client"))


class TestDelivery:
    async def test_events_arrive_in_order_signed_and_whole(self, start: Callable[..., Rig], site: Site) -> None:
        rig = start()
        tap = rig.tap()
        rig.tell(tap, SpeechStarted(0.1), Interim(1, "a", "", 1.0, 0.0, 1.0, 1.0, []))
        rig.tell(tap, final(1, "naïve"), UtteranceEnd(1, 1.0), channel=1)
        rig.tell(tap, final(2), *ENDING)
        await site.count(5)
        assert [post.body["type"] for post in site.posts] == [
            "session.final",
            "session.utterance_end",
            "session.final",
            "session.metadata",
            "session.closed",
        ]
        assert [post.body["sequence"] for post in site.posts] == [0, 1, 2, 3, 4]
        assert {post.body["missed"] for post in site.posts} == {0}
        assert {post.body["session_id"] for post in site.posts} == {"s1"}
        (told,) = site.posts[0].body["events"]
        assert (told["type"], told["transcript"], told["seq"]) == ("final", "naïve", 2)
        assert (told["channel"], told["channel_label"], told["metadata"]) == (1, "customer", {"call_id": "a7"})
        for post in site.posts:
            assert post.is_signed_with(SECRET)
            assert post.headers["X-VoiceForge-Event"] == post.body["type"]
            assert post.headers["Content-Type"] == "application/json"
        assert len({post.headers["X-VoiceForge-Delivery"] for post in site.posts}) == 5
        assert rig.outcome("delivered") == 5

    async def test_a_session_can_be_one_webhook(self, start: Callable[..., Rig], site: Site) -> None:
        rig = start(webhook_batch="session", webhook_events=["final", "closed"])
        tap = rig.tap()
        rig.tell(tap, final(1), UtteranceEnd(1, 1.0), final(2))
        await asyncio.sleep(0.02)
        assert site.posts == []
        rig.tell(tap, *ENDING)
        await site.count(1)
        body = site.posts[0].body
        assert body["type"] == "session.ended"
        assert [event["type"] for event in body["events"]] == ["final", "final", "closed"]

    async def test_one_that_another_process_had_repeats_no_number(self, start: Callable[..., Rig], site: Site) -> None:
        rig = start()
        tap = rig.tap(sequence=41)
        rig.tell(tap, final(1), final(2))
        await site.count(2)
        assert [post.body["sequence"] for post in site.posts] == [41, 42]

    async def test_a_session_that_is_cut_is_told_too(self, start: Callable[..., Rig], site: Site) -> None:
        rig = start(webhook_batch="session")
        tap = rig.tap()
        rig.tell(tap, final(1))
        tap.end()
        tap.end()
        rig.tell(tap, final(2))
        await site.count(1)
        assert len(site.posts[0].body["events"]) == 1

    async def test_what_is_refused_for_good_does_not_stop_what_follows(
        self, start: Callable[..., Rig], site: Site
    ) -> None:
        site.statuses = [400, 204]
        rig = start()
        rig.tell(rig.tap(), final(1), final(2))
        await site.count(2)
        assert [post.body["missed"] for post in site.posts] == [0, 1]

    async def test_the_next_waits_for_the_one_before(self, start: Callable[..., Rig], site: Site) -> None:
        site.may_answer.clear()
        rig = start()
        rig.tell(rig.tap(), final(1), final(2), final(3))
        await asyncio.sleep(0.05)
        assert site.posts == []
        site.may_answer.set()
        await site.count(3)
        assert [post.body["events"][0]["utterance_id"] for post in site.posts] == [1, 2, 3]

    async def test_a_receiver_that_was_never_reached_loses_what_waits(
        self, start: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rig = start()

        async def fail(*_: Any, **__: Any) -> Delivery:
            await asyncio.sleep(0)
            return Delivery("whd_1", "session.final", ATTEMPTS_MAX, None, "the receiver cannot be reached")

        monkeypatch.setattr(rig.outbound.webhooks(), "deliver", fail)
        tap = rig.tap()
        rig.tell(tap, *(final(n) for n in range(10)))
        async with asyncio.timeout(5):
            while rig.outcome("dropped") < 9:
                await asyncio.sleep(0.005)
        monkeypatch.undo()
        rig.tell(tap, final(11))
        await rig.site.count(1)
        assert rig.site.posts[0].body["missed"] == 10

    async def test_what_does_not_fit_is_dropped_words_last(self, start: Callable[..., Rig], site: Site) -> None:
        site.may_answer.clear()
        rig = start()
        tap = rig.tap()
        rig.tell(tap, final(0))
        await asyncio.sleep(0.05)  # on its way
        rig.tell(tap, UtteranceEnd(0, 1.0), *(final(n) for n in range(1, WAITING_EVENTS_MAX + 2)))
        assert rig.outcome("dropped") == 2  # the end of the utterance, then the oldest final
        assert [item.kind for item in tap._waiting] == ["final"] * WAITING_EVENTS_MAX
        site.may_answer.set()
        await site.count(2)
        assert site.posts[1].body["missed"] == 2
        assert site.posts[1].body["events"][0]["utterance_id"] == 2

    async def test_too_many_sessions_with_something_to_tell(
        self, start: Callable[..., Rig], site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "BUSY_SESSIONS_MAX", 1)
        site.may_answer.clear()
        rig = start()
        first, second = rig.tap(), rig.tap()
        rig.tell(first, final(1))
        rig.tell(second, final(1), final(2))
        assert rig.outcome("dropped") == 2
        site.may_answer.set()
        await site.count(1)
        await asyncio.sleep(0.05)
        rig.tell(second, final(3))
        await site.count(2)
        assert site.posts[1].body["missed"] == 2

    async def test_closing_gives_up_what_does_not_arrive_soon(
        self, start: Callable[..., Rig], site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "CLOSE_S", 0.05)
        site.may_answer.clear()
        rig = start()
        rig.tell(rig.tap(), final(1))
        await asyncio.sleep(0.02)
        await rig.webhooks.close()
        assert not rig.webhooks._tasks
        site.may_answer.set()


class TestOtherDoors:
    async def test_the_nodes_receiver_is_told_of_sessions_of_every_protocol(
        self, start: Callable[..., Rig], site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rig = start(webhook_url=site.url)  # type: ignore[attr-defined]
        factory = SessionFactory(settings=rig.settings, models=Models(), metrics=rig.metrics, webhooks=rig.webhooks)
        session = Conversation()
        sinks: list[Any] = []
        monkeypatch.setattr(factory, "_maker", lambda *_: lambda sink: sinks.append(sink) or session)
        for others in ("_counting", "_watching"):
            monkeypatch.setattr(factory, others, lambda _: [])
        told: list[Event] = []
        session.send = lambda event, seq, channel: told.append(event)  # type: ignore[method-assign]
        factory.channels("s1", SessionConfig(), session)
        sinks[0].send(final(1), 0)
        await site.count(1)
        assert site.posts[0].body["events"][0]["transcript"] == "a"
        assert [event.type for event in told] == ["final"]


class TestReceivers:
    async def test_the_nodes_own_may_be_private_though_clients_may_not(
        self, start: Callable[..., Rig], site: Site
    ) -> None:
        secret = "the secret of the node"
        rig = start(
            outbound_allow_private=False,
            webhook_url=site.url,  # type: ignore[attr-defined]
            webhook_secret=secret,
        )
        own = rig.webhooks.tap("s1")
        assert own is not None
        rig.tell(own, final(1))
        await site.count(1)
        assert site.posts[0].is_signed_with(secret)
        theirs = rig.tap(Receiver(rig.url, None))
        rig.tell(theirs, final(1))
        async with asyncio.timeout(5):
            while rig.outcome("failed") < 1:
                await asyncio.sleep(0.005)
        assert len(site.posts) == 1

    async def test_a_clients_receiver_takes_the_place_of_the_nodes_and_not_its_secret(
        self, start: Callable[..., Rig], site: Site
    ) -> None:
        rig = start(webhook_url="http://10.255.255.1/", webhook_secret="the secret of the node")
        rig.tell(rig.tap(Receiver(rig.url, None)), final(1))
        await site.count(1)
        assert "X-VoiceForge-Signature" not in site.posts[0].headers

    async def test_without_a_receiver_nobody_is_told(self, start: Callable[..., Rig]) -> None:
        assert start().webhooks.tap("s1") is None

    def test_a_node_does_not_start_with_a_receiver_that_is_none(self) -> None:
        settings = Settings(webhook_url="ftp://x")
        with pytest.raises(ConfigError) as caught:
            SessionWebhooks(
                settings=settings, outbound=Outbound(settings=settings, metrics=Metrics()), metrics=Metrics()
            )
        assert caught.value.code == "INVALID_URL"

    @pytest.mark.parametrize(
        ("headers", "code"),
        [
            ([(URL_HEADER, "ftp://x")], "INVALID_URL"),
            ([(URL_HEADER, "https://user:pass@example.org/")], "INVALID_URL"),
            ([(URL_HEADER, "")], "INVALID_URL"),
            ([(URL_HEADER, "https://a.example/é")], "INVALID_WEBHOOK"),
            ([(URL_HEADER, "https://a.example/\udcff")], "INVALID_WEBHOOK"),
            ([(URL_HEADER, "http://127.0.0.1/")], "ADDRESS_NOT_ALLOWED"),
            ([(URL_HEADER, "http://169.254.169.254/")], "ADDRESS_NOT_ALLOWED"),
            ([(URL_HEADER, "https://a.example"), (URL_HEADER, "https://b.example")], "INVALID_WEBHOOK"),
            ([(SECRET_HEADER, SECRET)], "INVALID_WEBHOOK"),
            ([(URL_HEADER, "https://a.example"), (SECRET_HEADER, "short")], "INVALID_WEBHOOK"),
            ([(URL_HEADER, "https://a.example"), (SECRET_HEADER, "x" * 257)], "INVALID_WEBHOOK"),
            ([(URL_HEADER, "https://a.example"), (SECRET_HEADER, "é" * 20)], "INVALID_WEBHOOK"),
        ],
    )
    def test_what_cannot_be_told_is_refused_by_name(self, headers: list[tuple[str, str]], code: str) -> None:
        with pytest.raises(ConfigError) as caught:
            receiver_of(CIMultiDictProxy(CIMultiDict(headers)), OutboundPolicy())
        assert caught.value.code == code

    def test_a_request_names_one_in_its_headers_or_none(self) -> None:
        headers = CIMultiDict({URL_HEADER: "https://a.example/h", SECRET_HEADER: SECRET})
        assert receiver_of(CIMultiDictProxy(headers), OutboundPolicy()) == Receiver("https://a.example/h", SECRET)
        assert receiver_of(CIMultiDictProxy(CIMultiDict()), OutboundPolicy()) is None
