"""`GET /api/v1/usage`: how much was used, and what it costs by the node's price table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Select, func, select

from mediaserver.storage.database import Database
from mediaserver.storage.usage import Usage, UsageDay
from signaling.auth.principal import Principal, principal_of
from signaling.openapi.operation import JSON, Access, Answer, Operation, Refusal, Tag, described
from signaling.problems import HttpError
from signaling.query import read_query
from signaling.usage.features import HEARD, Prices, split

PATH = "/api/v1/usage"
ROWS_MAX = 10_000
"""Lines of an answer: 27 years by day, or a year of 27 keys."""

Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="A day by UTC: `2026-11-21`.")]
By = Literal["day", "month", "key", "model", "feature", "door", "tenant"]


class UsageQuery(BaseModel):
    """What of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    first: Day | None = Field(default=None, description="The first day; unset is all that is known.")
    last: Day | None = Field(default=None, description="The last day.")
    by: By = Field(default="day", description="What is added up in a line.")


class UsageLine(BaseModel):
    """What was used of one thing."""

    day: str | None = None
    month: str | None = Field(default=None, description="By UTC: `2026-11`.")
    key: str | None = None
    door: str | None = None
    tenant: str | None = None
    feature: str | None = Field(
        default=None,
        description="`streaming`, `recording` or `translation`: how audio was heard. `denoise` and `turn_detection` "
        "were used beside it, so their audio is in those lines too.",
    )
    model: str = Field(description="What it was transcribed with; prices go by it.")
    sessions: int = Field(description="Live sessions and recordings.")
    audio_s: float = Field(description="Seconds of audio, each transcribed channel by itself.")
    speech_s: float = Field(description="Seconds of it that were speech.")
    cost: float | None = Field(description="By `price_per_minute`; null where the model has no price.")


class UsageBody(BaseModel):
    """What was used."""

    lines: list[UsageLine]
    audio_s: float = Field(description="Of all lines; by feature, of those that say how it was heard.")
    cost: float | None = Field(description="Of all lines; null where one of them has no price.")


USAGE = Operation(
    summary="How much was used",
    tag=Tag.SERVER,
    access=Access.ANY,
    audited="usage.read",
    description="Of the key's tenant; of all tenants for a key of scope `admin`. Live sessions are in it to within 5 s "
    "of audio.",
    query=UsageQuery,
    answers={HTTPStatus.OK: Answer("Lines by what was asked for and by model.", {JSON: UsageBody})},
    refusals=[Refusal(HTTPStatus.BAD_REQUEST, ("INVALID_CONFIG",))],
)


@dataclass(slots=True)
class _Sum:
    """A line in the making."""

    sessions: int = 0
    audio_s: float = 0.0
    speech_s: float = 0.0
    cost: float | None = 0.0

    def add(self, sessions: int, audio_s: float, speech_s: float, cost: float | None) -> None:
        self.sessions += sessions
        self.audio_s += audio_s
        self.speech_s += speech_s
        self.cost = None if self.cost is None or cost is None else self.cost + cost


class UsageReport:
    """The endpoint.

    Args:
        database: where usage is written down.
        prices: what a minute of audio costs.
    """

    def __init__(self, *, database: Database, prices: Prices) -> None:
        self._database = database
        self._prices = prices

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        return [web.get(PATH, self.report, allow_head=False)]

    @described(USAGE)
    async def report(self, request: web.Request) -> web.Response:
        """GET: the lines."""
        asked = read_query(UsageQuery, request.query)
        _require_key(principal_of(request))
        lines = await self._lines(asked, principal_of(request).own_tenant) if self._database.exists else []
        costs = [line.cost for line in lines]
        body = UsageBody(
            lines=lines,
            audio_s=round(sum(line.audio_s for line in lines if line.feature is None or line.feature in HEARD), 3),
            cost=None if any(cost is None for cost in costs) else round(sum(cost or 0.0 for cost in costs), 6),
        )
        return web.json_response(text=body.model_dump_json(), headers={"Cache-Control": "no-store"})

    async def _lines(self, asked: UsageQuery, tenant: str | None) -> list[UsageLine]:
        """Sessions, and totals of days whose sessions are forgotten, together."""
        queries = [
            _query(Usage, asked, tenant, func.count()),
            _query(UsageDay, asked, tenant, func.sum(UsageDay.sessions)),
        ]
        sums: dict[tuple[str, str], _Sum] = {}
        async with self._database.reading() as session:
            for query in queries:
                for name, model, features, count, audio_s, speech_s in (await session.execute(query)).all():
                    for named, cost in self._costs(asked.by, name or "", model, features, audio_s):
                        sums.setdefault((named, model), _Sum()).add(count, audio_s, speech_s, cost)
        return [
            UsageLine.model_validate(
                {
                    asked.by: name or None,
                    "model": model,
                    "sessions": line.sessions,
                    "audio_s": round(line.audio_s, 3),
                    "speech_s": round(line.speech_s, 3),
                    "cost": None if line.cost is None else round(line.cost, 6),
                }
            )
            for (name, model), line in sorted(sums.items())[:ROWS_MAX]
        ]

    def _costs(
        self, by: By, name: str, model: str, features: str, audio_s: float
    ) -> Iterable[tuple[str, float | None]]:
        """The lines that a row adds to, and what it costs in each: by feature there are as many as it used."""
        if by != "feature":
            return [(name, self._prices.of(model, features, audio_s))]
        return [(one, self._prices.of_feature(model, one, audio_s)) for one in split(features)]


def _require_key(principal: Principal) -> None:
    """A token that was handed to a browser does not tell it what others of its tenant used, and for how much."""
    if principal.token is not None:
        raise HttpError(
            HTTPStatus.FORBIDDEN, "INSUFFICIENT_PERMISSIONS", "A token does not tell of usage.", "Ask with your key."
        )


def _query(
    table: type[Usage] | type[UsageDay], asked: UsageQuery, tenant: str | None, sessions: ColumnElement[int]
) -> Select[Any]:
    column: Any = {
        "day": table.day,
        "month": func.substr(table.day, 1, 7),
        "key": table.key_id,
        "model": table.model,
        "feature": table.features,
        "door": table.door,
        "tenant": table.tenant,
    }[asked.by]
    query = (
        select(column, table.model, table.features, sessions, func.sum(table.audio_s), func.sum(table.speech_s))
        .group_by(column, table.model, table.features)
        .order_by(column, table.model)
        .limit(ROWS_MAX)
    )
    if tenant is not None:
        query = query.where(table.tenant == tenant)
    if asked.first is not None:
        query = query.where(table.day >= asked.first)
    if asked.last is not None:
        query = query.where(table.day <= asked.last)
    return query
