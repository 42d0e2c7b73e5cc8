"""Usage that is older than anybody needs to know in detail: rows of sessions become totals of days, once each."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from mediaserver.storage.database import Database
from mediaserver.storage.usage import Usage, UsageDay

AT_ONCE = 1000
"""Rows in a transaction: 50 ms of SQLite's only writer."""

_Day = tuple[str, str, str, str, str, str]


async def roll_up(database: Database, *which: ColumnElement[bool], keeps_totals: bool = True) -> int:
    """Forget which sessions used what.

    Args:
        database: where it is written down.
        which: rows; their days are told by their totals alone from then on.
        keeps_totals: without, nothing is left of them at all.

    Returns:
        How many rows there were.

    Raises:
        VoiceForgeError: what `Database.writing` raises; what was rolled up until then is.
    """
    rolled = 0
    while True:
        async with database.writing() as session:
            count = await roll_up_some(session, *which, keeps_totals=keeps_totals)
        rolled += count
        if count < AT_ONCE:
            return rolled


async def roll_up_some(session: AsyncSession, *which: ColumnElement[bool], keeps_totals: bool) -> int:
    """As `roll_up`, of `AT_ONCE` rows at most and in a transaction of the caller's."""
    some = select(Usage.id).where(*which).limit(AT_ONCE)
    gone = (
        await session.execute(
            delete(Usage)
            .where(Usage.id.in_(some))
            .returning(
                Usage.day,
                Usage.tenant,
                Usage.key_id,
                Usage.door,
                Usage.model,
                Usage.features,
                Usage.audio_s,
                Usage.speech_s,
            )
        )
    ).all()
    if keeps_totals:
        totals: dict[_Day, list[Any]] = {}
        for day, tenant, key_id, door, model, features, audio_s, speech_s in gone:
            total = totals.setdefault((day, tenant, key_id or "", door, model, features), [0, 0.0, 0.0])
            total[0] += 1
            total[1] += audio_s
            total[2] += speech_s
        for name, (count, audio_s, speech_s) in sorted(totals.items()):  # in one order: two of us do not block another
            await _add(session, name, count, audio_s, speech_s)
    return len(gone)


async def _add(session: AsyncSession, name: _Day, count: int, audio_s: float, speech_s: float) -> None:
    known = await session.get(UsageDay, name, with_for_update=True)
    if known is None:
        day, tenant, key_id, door, model, features = name
        session.add(
            UsageDay(
                day=day,
                tenant=tenant,
                key_id=key_id,
                door=door,
                model=model,
                features=features,
                sessions=count,
                audio_s=audio_s,
                speech_s=speech_s,
            )
        )
        return
    known.sessions += count
    known.audio_s += audio_s
    known.speech_s += speech_s
