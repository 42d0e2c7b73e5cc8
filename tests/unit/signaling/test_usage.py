"""What was used: counted by session and key, written down every few seconds, told by tenant with its price."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from front_door import OFFER, SDP, FakePeer, Node, StartNode
from sqlalchemy import select

from mediaserver.jobs.ledger import Ledger
from mediaserver.jobs.store import NewJob, Store
from mediaserver.metrics import Metrics
from mediaserver.session.channels import Channels
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Denoise, Settings
from mediaserver.storage.database import Database
from mediaserver.storage.usage import Usage, UsageDay
from signaling.app import ACCOUNTS
from signaling.auth.keys import NewKey
from signaling.auth.principal import _CURRENT, LOCAL, KeyLimits, Principal, Scope
from signaling.problems import LimitError
from signaling.registry import Registry
from signaling.usage import quota
from signaling.usage.features import Prices, live_features
from signaling.usage.meter import Meter, day_of
from signaling.usage.quota import Quota
from signaling.usage.rollup import roll_up

SETTINGS = Settings()
NOVEMBER_S = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()


class Clock:
    now_s = NOVEMBER_S

    def __call__(self) -> float:
        return self.now_s


class FakeChannels:
    count = 2
    stream_time_s = 0.0
    speech_s = 0.0
    config = SessionConfig()


def principal(key: str = "aa", tenant: str = "acme", **limits: Any) -> Principal:
    return Principal(tenant, key, frozenset({Scope.STREAM}), KeyLimits(**limits))


async def rows(database: Database) -> list[Usage]:
    async with database.reading() as session:
        return list(await session.scalars(select(Usage).order_by(Usage.id)))


async def test_a_session_is_written_down_while_it_runs_and_at_its_end(database: Database) -> None:
    meter, registry = Meter(database, SETTINGS, wall_s=Clock()), Registry(max_sessions=9, metrics=Metrics())
    registry.on_added.append(meter.opened)
    channels = FakeChannels()
    tap = meter.tap("s_1", principal(), model="tiny.en")
    assert tap is not None
    tap.begin(cast(Channels, channels))
    live = registry.add("s_1", FakePeer("s_1", SessionConfig()), door="whip")
    channels.stream_time_s = 2.0
    await meter.flush()
    (row,) = await rows(database)
    assert (row.tenant, row.key_id, row.door, row.model) == ("acme", "aa", "whip", "tiny.en")
    assert (row.audio_s, row.day) == (4.0, "2026-11-21")
    channels.stream_time_s, channels.speech_s = 3.5, 1.25
    await registry.close(live, "client", deadline_s=1)
    await meter.flush()
    (row,) = await rows(database)
    assert (row.audio_s, row.speech_s) == (7.0, 1.25)
    assert meter._counted == {}


async def test_who_had_a_session_before_and_is_late_takes_nothing_from_its_count(database: Database) -> None:
    meters, each = [Meter(database, SETTINGS, wall_s=Clock()) for _ in range(2)], []
    for meter in meters:
        registry = Registry(max_sessions=9, metrics=Metrics())
        registry.on_added.append(meter.opened)
        tap = meter.tap("s_1", principal(), model="tiny.en")
        assert tap is not None
        each.append(FakeChannels())
        tap.begin(cast(Channels, each[-1]))
        registry.add("s_1", FakePeer("s_1", SessionConfig()), door="whip")
    each[0].stream_time_s, each[0].speech_s = 5.0, 2.0
    each[1].stream_time_s, each[1].speech_s = 9.0, 4.0  # it went on from 5 s
    each[0].config = SessionConfig(turn_detection="semantic")
    each[1].config = SessionConfig(denoise="speex")
    await meters[1].flush()
    await meters[0].flush()
    (row,) = await rows(database)
    assert (row.audio_s, row.speech_s) == (18.0, 4.0)
    assert row.features == "streaming+denoise+turn_detection"  # what one of them used was used
    each[1].stream_time_s = 10.0
    await meters[1].flush()
    assert [row.features for row in await rows(database)] == ["streaming+denoise+turn_detection"]


async def test_what_came_without_a_key_is_not_counted(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'none.db'}")
    meter = Meter(database, SETTINGS)
    assert meter.tap("s_1", LOCAL, model="tiny.en") is None
    meter.recorded(LOCAL, door="openai", model="tiny.en", audio_s=1)
    await meter.flush()
    assert not database.exists


async def test_what_the_database_did_not_take_is_written_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Meter(database, SETTINGS)
    meter.recorded(principal(), door="openai", model="tiny.en", audio_s=9)

    def locked() -> Any:
        raise LimitError("DATABASE_BUSY", "It is busy.", "Later.", retry_after_s=1)

    with monkeypatch.context() as patch:
        patch.setattr(database, "writing", locked)
        with pytest.raises(LimitError):
            await meter.flush()
    assert await rows(database) == []
    await meter.flush()
    assert [row.audio_s for row in await rows(database)] == [9]


async def test_a_key_has_so_many_minutes_in_a_month(database: Database) -> None:
    clock = Clock()
    meter, who = Meter(database, SETTINGS, wall_s=clock), principal(minutes_per_month=2)
    for audio_s in (60, 59):
        meter.recorded(who, door="openai", model="tiny.en", audio_s=audio_s)
    await meter.flush()
    await meter.require_minutes(who)
    meter.recorded(who, door="openai", model="tiny.en", audio_s=1)
    await meter.flush()
    with pytest.raises(LimitError) as refused:
        await meter.require_minutes(who)
    assert refused.value.code == "MINUTES_USED_UP"
    assert clock.now_s + refused.value.retry_after_s == datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    await meter.require_minutes(principal("bb", minutes_per_month=2))
    clock.now_s += refused.value.retry_after_s
    await meter.require_minutes(who)


@pytest.fixture
async def node(start_node: StartNode, tmp_path: Path) -> Node:
    prices = {"tiny.en": 0.5, "small": 6.0}
    return await start_node(data_dir=tmp_path / "data", price_per_minute=prices)


async def used(node: Node, *made: tuple[str, str, float]) -> dict[str, dict[str, str]]:
    """A key for each tenant, each with a recording of some minutes; their headers."""
    accounts, headers = node.app[ACCOUNTS], {}
    meter = Meter(accounts.database, SETTINGS, wall_s=Clock())
    for tenant, model, minutes in made:
        row, value = await accounts.keys.create(NewKey(tenant, tenant, scopes=[Scope.STREAM]))
        meter.recorded(principal(row.id, tenant), door="openai", model=model, audio_s=minutes * 60)
        headers[tenant] = {"Authorization": f"Bearer {value}"}
    _, value = await accounts.keys.create(NewKey("admin", "house", scopes=[Scope.ADMIN]))
    headers["admin"] = {"Authorization": f"Bearer {value}"}
    await meter.flush()
    return headers


async def test_a_tenant_is_told_of_its_own_and_an_admin_of_all(node: Node) -> None:
    headers = await used(node, ("one", "tiny.en", 4), ("other", "small", 1))
    told = {}
    for name, sent in headers.items():
        async with node.client.get("/api/v1/usage?by=tenant", headers=sent) as response:
            assert response.status == 200
            told[name] = await response.json()
    assert [line["tenant"] for line in told["one"]["lines"]] == ["one"]
    assert (told["one"]["audio_s"], told["one"]["cost"]) == (240.0, 2.0)
    assert [line["tenant"] for line in told["admin"]["lines"]] == ["one", "other"]
    assert told["admin"]["cost"] == 8.0
    assert (await node.client.get("/api/v1/usage")).status == 401


@pytest.mark.parametrize(
    ("query", "lines"),
    [("", 1), ("?first=2026-11-21&last=2026-11-21", 1), ("?first=2026-11-22", 0), ("?last=2026-11-20", 0)]
    + [(f"?by={by}", 1) for by in ("day", "month", "key", "model", "feature", "door")],
)
async def test_by_day_and_by_what_one_asks_for(node: Node, query: str, lines: int) -> None:
    headers = await used(node, ("one", "unpriced", 4))
    async with node.client.get(f"/api/v1/usage{query}", headers=headers["one"]) as response:
        body = await response.json()
    assert len(body["lines"]) == lines
    assert all(line["cost"] is None for line in body["lines"]), "a model without a price costs nobody knows what"


@pytest.mark.parametrize("query", ["by=week", "first=yesterday", "more=1"])
async def test_a_query_that_makes_no_sense_is_refused(node: Node, query: str) -> None:
    assert (await node.client.get(f"/api/v1/usage?{query}")).status == 400


async def test_without_a_database_nothing_was_used(node: Node) -> None:
    async with node.client.get("/api/v1/usage") as response:
        assert await response.json() == {"lines": [], "audio_s": 0, "cost": 0.0}


async def test_a_key_that_has_used_its_month_up_opens_nothing(node: Node) -> None:
    accounts = node.app[ACCOUNTS]
    _, value = await accounts.keys.create(NewKey("x", "x", limits=KeyLimits(minutes_per_month=0)))
    headers = {"Authorization": f"Bearer {value}"}
    for path in ("/whip", "/v1/listen", "/v1/audio/transcriptions", "/api/v1/transcriptions", "/v1/realtime/calls"):
        async with node.client.post(path, headers=headers) as response:
            assert response.status == 429, path
            assert int(response.headers["Retry-After"]) > 0
            assert "minutes_used_up" in (await response.text()).lower()
    assert node.refused("MINUTES_USED_UP") == 5


async def test_a_key_that_uses_its_month_up_is_cut_off(
    database: Database,
) -> None:
    clock = Clock()
    meter, registry = Meter(database, SETTINGS, wall_s=clock), Registry(max_sessions=9, metrics=Metrics())
    registry.on_added.append(meter.opened)
    peers = {}
    for name, who in {
        "spent": principal("aa", minutes_per_month=1),
        "left": principal("bb", minutes_per_month=10),
        "free": principal("cc"),
    }.items():
        peers[name] = FakePeer(name, SessionConfig())
        tap, channels = meter.tap(name, who, model="base"), FakeChannels()
        assert tap is not None
        tap.begin(cast(Channels, channels))
        channels.stream_time_s = 31.0  # of two channels
        reset = _CURRENT.set(who)
        registry.add(name, peers[name], door="whip")
        _CURRENT.reset(reset)
    watch = Quota(meter=meter, registry=registry)
    await watch.look()
    assert len(registry.sessions()) == 3, "nothing is written down yet"
    await meter.flush()
    await watch.look()
    await peers["spent"].ended.wait()
    assert {name: peer.closed for name, peer in peers.items()} == {
        "spent": ["minutes_used_up"],
        "left": [],
        "free": [],
    }


async def test_a_server_looks_for_keys_without_minutes(
    start_node: StartNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "LOOK_PERIOD_S", 0.05)
    node = await start_node(data_dir=tmp_path / "data")
    accounts = node.app[ACCOUNTS]
    row, value = await accounts.keys.create(NewKey("x", "x", limits=KeyLimits(minutes_per_month=1)))
    headers = {**SDP, "Authorization": f"Bearer {value}"}
    assert (await node.client.post("/whip", data=OFFER, headers=headers)).status == 201
    async with accounts.database.writing() as session:
        session.add(used_elsewhere(row.id, audio_s=60.0))
    await node.peers[0].ended.wait()
    assert node.peers[0].closed == ["minutes_used_up"]


def used_elsewhere(key_id: str, *, audio_s: float) -> Usage:
    now_s = time.time()
    return Usage(
        id="s_elsewhere",
        tenant="x",
        key_id=key_id,
        door="whip",
        model="base",
        features="streaming",
        day=day_of(now_s),
        began_at=now_s,
        updated_at=now_s,
        audio_s=audio_s,
        speech_s=0.0,
    )


async def test_a_completed_job_is_counted_once_for_the_key_it_came_by(database: Database) -> None:
    store, ledger = Store(database), Ledger(database)
    summary = {"duration_s": 30.0, "model": "tiny.en", "channels": 2}
    for name, key in (("job_1", "aa"), ("job_2", None)):
        await store.add([NewJob(name, {}, 60.0, url="https://x.invalid", tenant="acme", key_id=key)], now_s=NOVEMBER_S)
        job = await ledger.claim("a", now_s=NOVEMBER_S)
        assert job is not None
        ended = [
            await ledger.complete(job, "a", body=b"packed", summary=summary, size_bytes=5, now_s=NOVEMBER_S)
            for _ in range(2)
        ]
        assert ended == [True, False]
    (row,) = await rows(database)
    assert (row.id, row.tenant, row.key_id, row.door, row.model) == ("job_1", "acme", "aa", "jobs", "tiny.en")
    assert (row.audio_s, row.day) == (60.0, "2026-11-21")


async def test_a_job_says_how_much_was_spoken_and_that_it_was_translated(database: Database) -> None:
    store, ledger = Store(database), Ledger(database, counts_keyless=True)
    summary = {"duration_s": 30.0, "speech_s": 12.5, "model": "base", "channels": 1}
    await store.add([NewJob("job_1", {"task": "translate"}, 60.0, url="https://x.invalid")], now_s=NOVEMBER_S)
    job = await ledger.claim("a", now_s=NOVEMBER_S)
    assert job is not None
    await ledger.complete(job, "a", body=b"packed", summary=summary, size_bytes=5, now_s=NOVEMBER_S)
    (row,) = await rows(database)
    assert (row.tenant, row.key_id, row.features, row.speech_s) == ("local", None, "translation", 12.5)


async def test_no_recording_has_more_speech_than_audio(database: Database) -> None:
    store, ledger = Store(database), Ledger(database, counts_keyless=True)
    summary = {"duration_s": 1.001, "speech_s": 3.004, "model": "base", "channels": 3}  # each rounded from 1.00125 s
    await store.add([NewJob("job_1", {}, 60.0, url="https://x.invalid")], now_s=NOVEMBER_S)
    job = await ledger.claim("a", now_s=NOVEMBER_S)
    assert job is not None
    await ledger.complete(job, "a", body=b"packed", summary=summary, size_bytes=5, now_s=NOVEMBER_S)
    meter = Meter(database, Settings(usage_keyless=True))
    audio_s = 0.1 * 3 - 1e-9
    meter.recorded(LOCAL, door="openai", model="base", audio_s=audio_s, speech_s=0.1 + 0.1 + 0.1)
    await meter.flush()
    both = await rows(database)
    assert [row.speech_s for row in both] == [row.audio_s for row in both] == [3 * 1.001, audio_s]


async def test_without_a_key_it_is_counted_where_the_setting_says_so(database: Database) -> None:
    meter, registry = Meter(database, Settings(usage_keyless=True)), Registry(max_sessions=9, metrics=Metrics())
    registry.on_added.append(meter.opened)
    tap = meter.tap("s_1", LOCAL, model="tiny.en")
    assert tap is not None
    channels = FakeChannels()
    tap.begin(cast(Channels, channels))
    registry.add("s_1", FakePeer("s_1", SessionConfig()), door="whip")
    channels.stream_time_s = 2.0
    meter.recorded(LOCAL, door="openai", model="tiny.en", audio_s=1)
    await meter.flush()
    assert {(row.tenant, row.key_id, row.audio_s) for row in await rows(database)} == {
        ("local", None, 4.0),
        ("local", None, 1.0),
    }


async def test_a_feature_that_was_switched_on_for_a_while_was_used(database: Database) -> None:
    meter, registry = Meter(database, SETTINGS), Registry(max_sessions=9, metrics=Metrics())
    registry.on_added.append(meter.opened)
    tap, channels = meter.tap("s_1", principal(), model="tiny.en"), FakeChannels()
    assert tap is not None
    tap.begin(cast(Channels, channels))
    registry.add("s_1", FakePeer("s_1", SessionConfig()), door="whip")
    for config in (SessionConfig(), SessionConfig(denoise="speex", turn_detection="semantic"), SessionConfig()):
        channels.config = config
        channels.stream_time_s += 1.0
        await meter.flush()
    assert [row.features for row in await rows(database)] == ["streaming+denoise+turn_detection"]
    on_by_setting = Settings(denoise=Denoise.SPEEX)
    assert live_features(SessionConfig(), on_by_setting) == {"denoise"}
    assert live_features(SessionConfig(denoise="off"), on_by_setting) == set()


async def test_totals_of_days_take_the_place_of_old_rows_and_nothing_is_counted_twice(database: Database) -> None:
    meter, who = Meter(database, SETTINGS, wall_s=Clock()), principal(minutes_per_month=10)
    for _ in range(3):
        meter.recorded(who, door="openai", model="tiny.en", audio_s=60, speech_s=30)
    registry = Registry(max_sessions=9, metrics=Metrics())
    registry.on_added.append(meter.opened)
    tap, channels = meter.tap("s_1", who, model="tiny.en"), FakeChannels()
    assert tap is not None
    tap.begin(cast(Channels, channels))
    registry.add("s_1", FakePeer("s_1", SessionConfig()), door="whip")
    channels.stream_time_s = 10.0
    await meter.flush()
    assert await roll_up(database, Usage.tenant == "acme") == 4
    assert await rows(database) == []
    assert await meter.used_s("aa") == 200.0
    for channels.stream_time_s, used_s in ((15.0, 210.0), (25.0, 230.0)):  # it still runs
        await meter.flush()
        assert await meter.used_s("aa") == used_s
    assert await roll_up(database) == 1
    assert await meter.used_s("aa") == 230.0
    async with database.reading() as session:
        days = list(await session.scalars(select(UsageDay).order_by(UsageDay.features)))
    assert [(day.features, day.sessions, day.audio_s, day.speech_s) for day in days] == [
        ("recording", 3, 180.0, 90.0),
        ("streaming", 2, 50.0, 0.0),
    ]


async def test_without_totals_nothing_is_left(database: Database) -> None:
    meter = Meter(database, SETTINGS)
    meter.recorded(principal(), door="openai", model="tiny.en", audio_s=60)
    await meter.flush()
    assert await roll_up(database, Usage.tenant == "acme", keeps_totals=False) == 1
    assert await meter.used_s("aa") == 0.0


def test_prices_by_model_and_feature() -> None:
    prices = Prices({"tiny.en": 1.0, "*": 3.0, "*/translation": 5.0, "tiny.en/denoise": 0.5, "small/recording": 2.0})
    for model, features, cost in (
        ("tiny.en", "streaming", 1.0),
        ("tiny.en", "streaming+denoise+turn_detection", 1.5),
        ("base", "streaming+denoise", 3.0),
        ("tiny.en", "translation", 5.0),
        ("small", "recording", 2.0),
    ):
        assert prices.of(model, features, 60.0) == cost, (model, features)
    assert Prices({"tiny.en/denoise": 1.0}).of("tiny.en", "streaming+denoise", 60.0) is None


async def test_by_feature_and_by_month_before_and_after_details_are_forgotten(
    start_node: StartNode, tmp_path: Path
) -> None:
    node = await start_node(data_dir=tmp_path / "data", price_per_minute={"*": 1.0, "*/denoise": 0.25})
    accounts = node.app[ACCOUNTS]
    row, value = await accounts.keys.create(NewKey("x", "acme", scopes=[Scope.STREAM]))
    headers = {"Authorization": f"Bearer {value}"}
    async with accounts.database.writing() as session:
        for name, features in (("s_1", "streaming+denoise"), ("s_2", "streaming"), ("rec_1", "recording")):
            session.add(
                Usage(
                    id=name,
                    tenant="acme",
                    key_id=row.id,
                    door="whip",
                    model="tiny.en",
                    features=features,
                    day="2026-11-21",
                    began_at=1.0,
                    updated_at=2.0,
                    audio_s=60.0,
                    speech_s=6.0,
                )
            )
    for is_rolled_up in (False, True):
        if is_rolled_up:
            await roll_up(accounts.database)
        async with node.client.get("/api/v1/usage?by=feature", headers=headers) as response:
            body = await response.json()
        assert [(line["feature"], line["audio_s"], line["cost"]) for line in body["lines"]] == [
            ("denoise", 60.0, 0.25),
            ("recording", 60.0, 1.0),
            ("streaming", 120.0, 2.0),
        ]
        assert (body["audio_s"], body["cost"]) == (180.0, 3.25)
        async with node.client.get("/api/v1/usage?by=month", headers=headers) as response:
            (line,) = (await response.json())["lines"]
        assert (line["month"], line["sessions"], line["speech_s"], line["cost"]) == ("2026-11", 3, 18.0, 3.25)
