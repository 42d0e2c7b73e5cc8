"""All of a tenant's data is deleted, that of others is not, and this is seen in rows, files and bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from mediaserver.errors import CapacityError, ConfigError
from mediaserver.jobs.files import Files
from mediaserver.jobs.ledger import Ledger
from mediaserver.jobs.models import Delivery, Job, Result, Upload
from mediaserver.jobs.store import NewJob, Store
from mediaserver.storage.database import Database
from mediaserver.storage.usage import Usage, UsageDay
from signaling.privacy import eraser as module
from signaling.privacy.certificate import Signer, problem_of
from signaling.privacy.eraser import Eraser
from signaling.privacy.erasures import LEASE_S, OF_TENANT_MAX, ONE_TAKES_S, UNFINISHED_MAX, Erasures

NOW_S = 1_800_000_000.0
SIGNER = Signer(b"s" * 32)
SECRET = b"what nobody but acme may know "


class Stage:
    """A database with recordings, uploads and usage of two tenants, and files."""

    def __init__(self, database: Database, root: Path) -> None:
        self.database = database
        self.files = Files(root)
        self.store, self.ledger = Store(database), Ledger(database)
        self.now_s = NOW_S
        self.erasures = Erasures(database, wall_s=lambda: self.now_s)
        self.stopped: list[str] = []
        self.eraser = Eraser(
            database,
            self.files,
            self.erasures,
            signer=lambda: SIGNER,
            stop_jobs=self.stopped.extend,
            forget=lambda tenant: 2 if tenant == "acme" else 0,
            wall_s=lambda: self.now_s,
        )

    async def fill(self, tenant: str, *, jobs: int = 3) -> None:
        new = [
            NewJob(
                f"job_{tenant}_{number}",
                {},
                60.0,
                tenant=tenant,
                key_id="k",
                file_name=SECRET.decode() * 20,
                webhook_url="https://x.invalid/",
            )
            for number in range(jobs)
        ]
        await self.store.add(new, now_s=NOW_S - 100)
        for job in new:
            await self._write(self.files.save, job.id)
        done = await self.ledger.claim("w", now_s=NOW_S - 90, job_id=new[0].id)
        assert done is not None
        summary = {"duration_s": 10.0, "model": "tiny.en", "channels": 1}
        assert await self.ledger.complete(done, "w", body=SECRET * 99, summary=summary, size_bytes=1, now_s=NOW_S - 80)
        assert await self.ledger.claim("w", now_s=NOW_S - 80, job_id=new[1].id)
        upload = Upload(
            id=f"upl_{tenant}",
            tenant=tenant,
            size_bytes=9,
            file_name=SECRET.decode(),
            created_at=NOW_S - 5,
            expires_at=NOW_S + 9,
        )
        await self.store.add_upload(upload)
        await self.files.make_upload(upload.id)

    async def _write(self, save: Any, name: str) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield SECRET

        await save(name, pieces(), max_bytes=999)

    async def rows(self, tenant: str) -> dict[str, int]:
        async with self.database.reading() as session:
            return {
                table.__tablename__: await session.scalar(
                    select(func.count()).select_from(table).where(table.tenant == tenant)
                )
                or 0
                for table in (Job, Upload, Usage, UsageDay)
            }

    async def total(self, table: Any) -> int:
        async with self.database.reading() as session:
            return await session.scalar(select(func.count()).select_from(table)) or 0

    async def ask(self, tenant: str = "acme", **given: Any) -> Any:
        await self.erasures.request(tenant, requested_by="k", **given)
        claimed = await self.erasures.claim()
        assert claimed is not None
        return claimed


@pytest.fixture
async def stage(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(module, "STOPPED_S", 0.01)
    stage = Stage(database, tmp_path / "data")
    await stage.fill("acme")
    await stage.fill("other")
    return stage


async def test_all_of_a_tenant_and_nothing_of_another(stage: Stage, tmp_path: Path) -> None:
    path = stage.database.path
    if path is not None:
        assert any(SECRET in file.read_bytes() for file in tmp_path.glob("jobs.db*"))
    before = await stage.rows("other")
    certificate = await stage.eraser.erase(await stage.ask())
    assert await stage.rows("acme") == {"jobs": 0, "uploads": 0, "usage": 0, "usage_days": 1}
    assert await stage.rows("other") == before
    assert (await stage.total(Result), await stage.total(Delivery)) == (1, 1)
    left = {
        file.parent.name if file.name == "audio" else file.name
        for file in (tmp_path / "data").rglob("*")
        if file.is_file()
    }
    assert left == {"job_other_0", "job_other_1", "job_other_2", "upl_other"}
    assert sorted(stage.stopped) == ["job_acme_0", "job_acme_1", "job_acme_2"]
    said = certificate["statement"]
    assert said["deleted"] == {
        "event_logs": 2,
        "files": 4,
        "recordings": 3,
        "recordings_stopped": 2,
        "transcripts": 1,
        "uploads": 1,
        "usage_rows": 1,
        "webhooks": 1,
    }
    assert said["found_afterwards"]["rows"] == {"recordings": 0, "transcripts": 0, "uploads": 0, "usage_rows": 0}
    assert said["is_complete"]
    assert problem_of(certificate, SIGNER.public_key) is None
    row = await stage.erasures.get(said["request_id"])
    assert row is not None
    assert (row.state, row.certificate) == ("completed", certificate)
    if path is not None:
        assert said["found_afterwards"]["names_looked_for"] == 4
        assert said["found_afterwards"]["bytes_searched"] > 0
        await stage.eraser.erase(await stage.ask("other"))
        assert not any(SECRET in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


async def test_without_totals_nothing_is_left_of_usage(stage: Stage) -> None:
    certificate = await stage.eraser.erase(await stage.ask(keeps_totals=False))
    assert (await stage.rows("acme"))["usage_days"] == 0
    assert certificate["statement"]["kept"] == {"usage_totals": 0}


async def test_what_comes_after_the_request_stays(stage: Stage) -> None:
    claimed = await stage.ask()
    await stage.store.add([NewJob("job_later", {}, 60.0, tenant="acme")], now_s=NOW_S + 1)
    await stage.eraser.erase(claimed)
    assert (await stage.rows("acme"))["jobs"] == 1


async def test_who_goes_on_after_a_crash_loses_and_doubles_no_count(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = await stage.ask()
    with monkeypatch.context() as patch:

        async def killed(*_given: Any) -> None:
            raise asyncio.CancelledError

        patch.setattr(stage.eraser, "_erase_usage", killed)
        with pytest.raises(asyncio.CancelledError):
            await stage.eraser.erase(claimed)
    assert await stage.erasures.claim() is None, "somebody is at it, for all that is known"
    stage.now_s += LEASE_S + 1
    again = await stage.erasures.claim()
    assert again is not None
    assert again.deleted["recordings"] == 3
    said = (await stage.eraser.erase(again))["statement"]
    assert (said["deleted"]["recordings"], said["deleted"]["usage_rows"]) == (3, 1)
    assert said["is_complete"]
    assert await stage.erasures.claim() is None


async def test_one_that_finds_something_says_so(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_given: Any) -> list[str]:
        return []

    monkeypatch.setattr(stage.eraser, "_erase_uploads", nothing)
    said = (await stage.eraser.erase(await stage.ask()))["statement"]
    assert not said["is_complete"]
    assert said["found_afterwards"]["rows"]["uploads"] == 1


async def test_requests_are_bounded_and_of_tenants(database: Database) -> None:
    assert UNFINISHED_MAX <= 20, "each writes SQLite's file anew, while everybody waits"
    erasures = Erasures(database)
    with pytest.raises(ConfigError):
        await erasures.request("a b", requested_by="k")
    for number in range(UNFINISHED_MAX):
        await erasures.request(f"tenant-{number // OF_TENANT_MAX}", requested_by="k")
        if number == OF_TENANT_MAX - 1:  # it keeps nobody else from asking
            with pytest.raises(CapacityError, match="of this tenant"):
                await erasures.request("tenant-0", requested_by="k")
        if number == 2 * OF_TENANT_MAX - 1:
            with pytest.raises(CapacityError, match="of this tenant") as refused:
                await erasures.request("tenant-1", requested_by="k")
            assert refused.value.retry_after_s == (OF_TENANT_MAX + 1) * ONE_TAKES_S, "it has its turn after the others"
    with pytest.raises(CapacityError) as refused:
        await erasures.request("acme", requested_by="k")
    assert (refused.value.code, refused.value.retry_after_s) == ("TOO_MANY_ERASURES", ONE_TAKES_S)
    assert len(await erasures.all(tenant="tenant-0", limit=3)) == 3
    claimed = await erasures.claim()
    assert claimed is not None
    await erasures.give_back(claimed.id)
    again = await erasures.claim()
    assert again is not None
