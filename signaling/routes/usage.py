"""`GET /api/v1/usage`: how much was used, and what it costs by the node's price table."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select

from mediaserver.storage.database import Database
from mediaserver.storage.usage import Usage
from signaling.auth.principal import principal_of
from signaling.openapi.operation import JSON, Access, Answer, Operation, Refusal, Tag, described
from signaling.query import read_query

PATH = "/api/v1/usage"
ROWS_MAX = 10_000
"""Lines of an answer: 27 years by day, or a year of 27 keys."""

Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="A day by UTC: `2026-11-21`.")]
By = Literal["day", "key", "model", "door", "tenant"]


class UsageQuery(BaseModel):
    """What of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    first: Day | None = Field(default=None, description="The first day; unset is all that is known.")
    last: Day | None = Field(default=None, description="The last day.")
    by: By = Field(default="day", description="What is added up in a line.")


class UsageLine(BaseModel):
    """What was used of one thing."""

    day: str | None = None
    key: str | None = None
    door: str | None = None
    tenant: str | None = None
    model: str = Field(description="What it was transcribed with; prices go by it.")
    sessions: int = Field(description="Live sessions and recordings.")
    audio_s: float = Field(description="Seconds of audio, each transcribed channel by itself.")
    speech_s: float = Field(description="Seconds of it that were speech, in live sessions.")
    cost: float | None = Field(description="By `price_per_minute`; null where the model has no price.")


class UsageBody(BaseModel):
    """What was used."""

    lines: list[UsageLine]
    audio_s: float = Field(description="Of all lines.")
    cost: float | None = Field(description="Of all lines; null where one of them has no price.")


USAGE = Operation(
    summary="How much was used",
    tag=Tag.SERVER,
    access=Access.ANY,
    description="Of the key's tenant; of all tenants for a key of scope `admin`. Live sessions are in it to within 5 s "
    "of audio.",
    query=UsageQuery,
    answers={HTTPStatus.OK: Answer("Lines by what was asked for and by model.", {JSON: UsageBody})},
    refusals=[Refusal(HTTPStatus.BAD_REQUEST, ("INVALID_CONFIG",))],
)


class UsageReport:
    """The endpoint.

    Args:
        database: where usage is written down.
        prices: of a minute of audio, by model; `*` is any other.
    """

    def __init__(self, *, database: Database, prices: Mapping[str, float]) -> None:
        self._database = database
        self._prices = prices

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        return [web.get(PATH, self.report, allow_head=False)]

    @described(USAGE)
    async def report(self, request: web.Request) -> web.Response:
        """GET: the lines."""
        asked = read_query(UsageQuery, request.query)
        lines = await self._lines(asked, principal_of(request).own_tenant) if self._database.exists else []
        costs = [line.cost for line in lines]
        body = UsageBody(
            lines=lines,
            audio_s=round(sum(line.audio_s for line in lines), 3),
            cost=None if any(cost is None for cost in costs) else round(sum(cost or 0.0 for cost in costs), 6),
        )
        return web.json_response(text=body.model_dump_json(), headers={"Cache-Control": "no-store"})

    async def _lines(self, asked: UsageQuery, tenant: str | None) -> list[UsageLine]:
        column = {
            "day": Usage.day,
            "key": Usage.key_id,
            "model": Usage.model,
            "door": Usage.door,
            "tenant": Usage.tenant,
        }[asked.by]
        query = (
            select(column, Usage.model, func.count(), func.sum(Usage.audio_s), func.sum(Usage.speech_s))
            .group_by(column, Usage.model)
            .order_by(column, Usage.model)
            .limit(ROWS_MAX)
        )
        if tenant is not None:
            query = query.where(Usage.tenant == tenant)
        if asked.first is not None:
            query = query.where(Usage.day >= asked.first)
        if asked.last is not None:
            query = query.where(Usage.day <= asked.last)
        async with self._database.reading() as session:
            rows = (await session.execute(query)).all()
        return [
            UsageLine.model_validate(
                {
                    asked.by: name,
                    "model": model,
                    "sessions": count,
                    "audio_s": round(audio_s, 3),
                    "speech_s": round(speech_s, 3),
                    "cost": self._cost(model, audio_s),
                }
            )
            for name, model, count, audio_s, speech_s in rows
        ]

    def _cost(self, model: str, audio_s: float) -> float | None:
        price = self._prices.get(model, self._prices.get("*"))
        return None if price is None else round(audio_s / 60 * price, 6)
