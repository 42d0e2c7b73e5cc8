"""What was counted before features were is counted as what it was."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from mediaserver.storage.database import Database, migrate

ROW = "INSERT INTO usage VALUES (:id, 't', 'k', 'deepgram', 'tiny.en', '2026-11-20', 1, 2, 60, 0)"


async def test_old_rows_know_whether_they_were_heard_live(database: Database) -> None:
    async def run(work: Any) -> None:
        async with database.writing() as session:
            await (await session.connection()).run_sync(work)

    await run(lambda connection: migrate(connection, "0003"))
    async with database.writing() as session:
        for name in ("s_abc", "rec_abc", "job_abc"):
            await session.execute(text(ROW), {"id": name})
    await run(migrate)
    async with database.reading() as session:
        found = (await session.execute(text("SELECT id, features FROM usage"))).all()
    assert {row.id: row.features for row in found} == {
        "s_abc": "streaming",
        "rec_abc": "recording",
        "job_abc": "recording",
    }
