"""How long things are kept, by tenant: new ones, and those that are there."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import select

from mediaserver.errors import ConfigError
from mediaserver.jobs.ledger import Ledger
from mediaserver.jobs.models import Upload
from mediaserver.jobs.store import NewJob, Store
from mediaserver.storage.database import Database
from mediaserver.storage.usage import Usage, UsageDay
from signaling.auth.keys import Keys, NewKey
from signaling.privacy.tenants import DAY_S, Retention, Tenants

NOW_S = 1_800_000_000.0


@pytest.fixture
def tenants(database: Database) -> Tenants:
    return Tenants(database, usage_keep_days=30, wall_s=lambda: NOW_S)


def job(name: str, tenant: str, **given: Any) -> NewJob:
    return NewJob(name, {}, 1000.0, url="https://x.invalid", tenant=tenant, **given)


def upload(name: str, tenant: str) -> Upload:
    return Upload(id=name, tenant=tenant, size_bytes=1, file_name=None, created_at=NOW_S, expires_at=NOW_S + 5000)


async def test_who_says_nothing_is_kept_as_the_node_says(tenants: Tenants, database: Database) -> None:
    assert await tenants.get("acme") == Retention()
    await Keys(database).create(NewKey("x", "shop"))
    await tenants.set("acme", Retention(usage_keep_days=3))
    assert await tenants.all() == {"acme": Retention(usage_keep_days=3), "shop": Retention()}
    await tenants.set("acme", Retention())
    assert await tenants.get("acme") == Retention()


async def test_new_jobs_and_uploads_are_kept_no_longer_than_their_tenant_says(
    tenants: Tenants, database: Database
) -> None:
    await tenants.set("acme", Retention(transcript_keep_s=500, upload_keep_s=100))
    store = Store(database)
    rows = await store.add(
        [
            job("job_1", "acme"),
            NewJob("job_2", {}, 90.0, is_keep_asked=True, tenant="acme"),
            NewJob("job_3", {}, 9000.0, is_keep_asked=True, tenant="acme"),
            job("job_4", "other"),
        ],
        now_s=NOW_S,
    )
    assert [row.keep_s for row in rows] == [500, 90, 500, 1000]
    for name, tenant, expires_at in (("upl_1", "acme", NOW_S + 100), ("upl_2", "other", NOW_S + 5000)):
        await store.add_upload(upload(name, tenant))
        found = await store.get_upload(name, now_s=NOW_S)
        assert found is not None
        assert found.expires_at == expires_at


async def test_what_is_there_is_kept_no_longer_from_now_on(tenants: Tenants, database: Database) -> None:
    store, ledger = Store(database), Ledger(database)
    await store.add([job("ended", "acme"), job("waits", "acme"), job("other", "other")], now_s=NOW_S)
    claimed = await ledger.claim("w", now_s=NOW_S)
    assert claimed is not None
    await ledger.fail(claimed, "w", {}, now_s=NOW_S)
    await store.add_upload(upload("upl_1", "acme"))
    await tenants.set("acme", Retention(transcript_keep_s=60, upload_keep_s=60))
    found = await store.get_all(["ended", "waits", "other"])
    assert (found["ended"].keep_s, found["ended"].expires_at) == (60, NOW_S + 60)
    assert (found["waits"].keep_s, found["waits"].expires_at) == (60, None)
    assert found["other"].keep_s == 1000
    assert await store.delete_expired(now_s=NOW_S + 61) == ["ended"]
    assert await store.delete_expired_uploads(now_s=NOW_S + 61) == ["upl_1"]


async def test_old_usage_becomes_totals_when_its_tenant_says(tenants: Tenants, database: Database) -> None:
    async with database.writing() as session:
        for tenant in ("short", "usual"):
            for age in (0, 5, 40):
                at_s = NOW_S - age * DAY_S
                session.add(
                    Usage(
                        id=f"{tenant}-{age}",
                        tenant=tenant,
                        key_id="k",
                        door="whip",
                        model="tiny.en",
                        day="2027-01-15" if age == 0 else "2027-01-10" if age == 5 else "2026-12-06",
                        began_at=at_s,
                        updated_at=at_s,
                        audio_s=60.0,
                        speech_s=6.0,
                    )
                )
    await tenants.set("short", Retention(usage_keep_days=2))
    assert await tenants.roll_up() == 3
    assert await tenants.roll_up() == 0
    async with database.reading() as session:
        assert set(await session.scalars(select(Usage.id))) == {"short-0", "usual-0", "usual-5"}
        assert await session.scalar(select(UsageDay.audio_s).where(UsageDay.tenant == "usual")) == 60.0


@pytest.mark.parametrize("wrong", [{"transcript_keep_s": 1}, {"upload_keep_s": 1e6}, {"usage_keep_days": 0}, {"x": 1}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Retention(**wrong)


async def test_a_tenant_has_a_name(tenants: Tenants) -> None:
    with pytest.raises(ConfigError) as refused:
        await tenants.set("a b", Retention())
    assert refused.value.code == "INVALID_TENANT"
