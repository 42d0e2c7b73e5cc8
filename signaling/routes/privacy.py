"""`/api/v1/admin/tenants`: for how long things are kept. `DELETE …/data`: all of a tenant's, with a certificate."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from mediaserver.storage.tenants import Erasure
from signaling.auth.keys import TENANT_LETTERS
from signaling.auth.principal import Principal, Scope, principal_of
from signaling.body import read_json
from signaling.openapi.operation import JSON, Access, Answer, Body, Operation, Refusal, RetryAfter, Tag, described
from signaling.privacy.service import Privacy
from signaling.privacy.tenants import Retention
from signaling.problems import HttpError
from signaling.query import read_query
from signaling.seeing.audit_door import concerning

TENANTS_PATH = "/api/v1/admin/tenants"
DATA_PATH = "/api/v1/data"
ERASURES_PATH = "/api/v1/erasures"

AT_THE_MACHINE = "local"
"""Who asks without a key."""

LISTED = 100

TenantName = Annotated[str, Field(description="Its name, as keys have it.")]
ErasureId = Annotated[str, Field(description="Of the request.")]
Location = Annotated[str, Field(description="Where the request can be looked at.")]


class TenantBody(BaseModel):
    """A tenant."""

    tenant: str
    retention: Retention


class TenantsBody(BaseModel):
    """All that have keys, or a retention of their own."""

    tenants: list[TenantBody]


class EraseQuery(BaseModel):
    """What of usage is to stay."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    usage_totals: Literal["keep", "delete"] = Field(
        default="keep", description="Whether totals of days stay, for billing; they name no session."
    )


class NoQuery(BaseModel):
    """Nothing can be chosen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ErasureBody(BaseModel):
    """A request to delete all of a tenant's data."""

    id: str
    tenant: str
    state: Literal["queued", "running", "completed"]
    requested_at: datetime
    finished_at: datetime | None
    deleted: dict[str, int] = Field(description="What is gone so far, counted by kind.")
    certificate: dict[str, Any] | None = Field(
        description="Once it is completed: `statement`, its `sha256`, and an Ed25519 `signature` over the statement as "
        "JSON with sorted names, without spaces, in UTF-8. `voiceforge privacy verify` checks it."
    )

    @classmethod
    def of(cls, row: Erasure) -> ErasureBody:
        """A row as it is told."""
        return cls.model_validate(
            {
                "id": row.id,
                "tenant": row.tenant,
                "state": row.state,
                "requested_at": datetime.fromtimestamp(row.requested_at, UTC),
                "finished_at": None if row.finished_at is None else datetime.fromtimestamp(row.finished_at, UTC),
                "deleted": row.deleted,
                "certificate": row.certificate,
            }
        )


class ErasuresBody(BaseModel):
    """Requests, the newest first."""

    erasures: list[ErasureBody]


INVALID = Refusal(HTTPStatus.BAD_REQUEST, ("INVALID_CONFIG", "INVALID_JSON", "INVALID_TENANT"))
INVALID_QUERY = Refusal(HTTPStatus.BAD_REQUEST, ("INVALID_CONFIG", "INVALID_TENANT"))
READ = (
    Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, ("UNSUPPORTED_MEDIA_TYPE",)),
    Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ("BODY_TOO_LARGE",)),
    Refusal(HTTPStatus.REQUEST_TIMEOUT, ("BODY_TIMEOUT",)),
)
BUSY = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    ("TOO_MANY_ERASURES", "DATABASE_BUSY", "DATABASE_DOWN"),
    headers={"Retry-After": RetryAfter},
)
TOO_OFTEN = Refusal(HTTPStatus.TOO_MANY_REQUESTS, ("ERASED_TOO_OFTEN",), headers={"Retry-After": RetryAfter})
ONE = {"tenant": TenantName}
TAKEN = {
    HTTPStatus.ACCEPTED: Answer("It is taken, and survives a restart.", {JSON: ErasureBody}, {"Location": Location})
}
DELETES = (
    "Sessions that run are ended, in every process, with the reason `data_deleted`; what webhooks and callbacks were "
    "still to tell of them is dropped. All recordings with their files, transcripts and webhooks that are still owed, "
    "uploads, and which session used what, as it is now; recordings under way are stopped. It takes seconds, then a "
    "signed certificate says what was deleted, what was found afterwards, and which processes could not be heard."
)

LIST = Operation(
    summary="List tenants",
    tag=Tag.SERVER,
    access=Access.ADMIN,
    audited="tenant.list",
    answers={HTTPStatus.OK: Answer("All of them.", {JSON: TenantsBody})},
)
SHOW = Operation(
    summary="For how long things of a tenant are kept",
    tag=Tag.SERVER,
    access=Access.ADMIN,
    audited="tenant.read",
    path=ONE,
    answers={HTTPStatus.OK: Answer("The tenant.", {JSON: TenantBody})},
    refusals=[Refusal(HTTPStatus.BAD_REQUEST, ("INVALID_TENANT",))],
)
SET = Operation(
    summary="Say for how long things of a tenant are kept",
    tag=Tag.SERVER,
    access=Access.ADMIN,
    audited="tenant.set",
    description="What is there already is kept for no longer from now on either.",
    path=ONE,
    body=Body("For how long.", {JSON: Retention}),
    answers={HTTPStatus.OK: Answer("The tenant.", {JSON: TenantBody})},
    refusals=[INVALID, *READ],
)
ERASE = Operation(
    summary="Delete all data of a tenant",
    tag=Tag.SERVER,
    access=Access.ADMIN,
    audited="data.delete",
    description=DELETES,
    path=ONE,
    query=EraseQuery,
    answers=TAKEN,
    refusals=[INVALID_QUERY, BUSY],
)
ERASE_OWN = Operation(
    summary="Delete all data of the key's own tenant",
    tag=Tag.RECORDINGS,
    access=Access.JOBS,
    audited="data.delete",
    description=DELETES + " Totals of usage by day stay.",
    query=NoQuery,
    answers=TAKEN,
    refusals=[Refusal(HTTPStatus.BAD_REQUEST, ("INVALID_CONFIG",)), TOO_OFTEN, BUSY],
)
ERASURES = Operation(
    summary="Requests to delete",
    tag=Tag.RECORDINGS,
    access=Access.ANY,
    audited="erasure.list",
    description="Of the key's tenant; of all tenants for a key of scope `admin`. The hundred newest.",
    answers={HTTPStatus.OK: Answer("The newest first.", {JSON: ErasuresBody})},
)
ERASURE = Operation(
    summary="A request to delete, and its certificate",
    tag=Tag.RECORDINGS,
    access=Access.ANY,
    audited="erasure.read",
    path={"id": ErasureId},
    answers={HTTPStatus.OK: Answer("The request.", {JSON: ErasureBody})},
    refusals=[Refusal(HTTPStatus.NOT_FOUND, ("ERASURE_NOT_FOUND",))],
)


class PrivacyDoor:
    """The endpoints.

    Args:
        privacy: of this process.
    """

    def __init__(self, *, privacy: Privacy) -> None:
        self._privacy = privacy

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        one = f"{TENANTS_PATH}/{{tenant}}"
        return [
            web.get(TENANTS_PATH, self.list, allow_head=False),
            web.get(one, self.show, allow_head=False),
            web.put(one, self.set),
            web.delete(f"{one}/data", self.erase),
            web.delete(DATA_PATH, self.erase_own),
            web.get(ERASURES_PATH, self.erasures, allow_head=False),
            web.get(f"{ERASURES_PATH}/{{id}}", self.erasure, allow_head=False),
        ]

    @described(LIST)
    async def list(self, _request: web.Request) -> web.Response:
        """GET all tenants."""
        found = await self._privacy.tenants.all()
        return _told(
            TenantsBody(tenants=[TenantBody(tenant=name, retention=retention) for name, retention in found.items()])
        )

    @described(SHOW)
    async def show(self, request: web.Request) -> web.Response:
        """GET a tenant."""
        tenant = _tenant_of(request)
        return _told(TenantBody(tenant=tenant, retention=await self._privacy.tenants.get(tenant)))

    @described(SET)
    async def set(self, request: web.Request) -> web.Response:
        """PUT how long things of a tenant are kept."""
        tenant = _tenant_of(request)
        retention = await self._privacy.tenants.set(tenant, await read_json(request, Retention))
        return _told(TenantBody(tenant=tenant, retention=retention))

    @described(ERASE)
    async def erase(self, request: web.Request) -> web.Response:
        """DELETE all data of a tenant: 202 with the request."""
        asked = read_query(EraseQuery, request.query)
        return await self._erase(request, _tenant_of(request), keeps_totals=asked.usage_totals == "keep")

    @described(ERASE_OWN)
    async def erase_own(self, request: web.Request) -> web.Response:
        """DELETE all data of one's own tenant: 202 with the request."""
        read_query(NoQuery, request.query)
        _require_key(principal_of(request))
        tenant = principal_of(request).tenant
        return await self._erase(request, tenant, keeps_totals=True, is_own=True)

    @described(ERASURES)
    async def erasures(self, request: web.Request) -> web.Response:
        """GET the requests."""
        principal = principal_of(request)
        _require_key(principal)
        rows = await self._privacy.erasures.all(tenant=principal.own_tenant, limit=LISTED)
        return _told(ErasuresBody(erasures=[ErasureBody.of(row) for row in rows]))

    @described(ERASURE)
    async def erasure(self, request: web.Request) -> web.Response:
        """GET a request."""
        principal = principal_of(request)
        _require_key(principal)
        row = await self._privacy.erasures.get(request.match_info["id"])
        if row is None or not principal.may_see(row.tenant):
            raise HttpError(
                HTTPStatus.NOT_FOUND,
                "ERASURE_NOT_FOUND",
                "There is no such request to delete.",
                f"GET {ERASURES_PATH} lists them.",
            )
        return _told(ErasureBody.of(row))

    async def _erase(
        self, request: web.Request, tenant: str, *, keeps_totals: bool, is_own: bool = False
    ) -> web.Response:
        by = principal_of(request).key_id or AT_THE_MACHINE
        row = await self._privacy.erasures.request(tenant, requested_by=by, keeps_totals=keeps_totals, is_own=is_own)
        concerning(request, tenant=tenant, erasure=row.id)
        self._privacy.wake()
        return _told(ErasureBody.of(row), status=HTTPStatus.ACCEPTED, location=f"{ERASURES_PATH}/{row.id}")


def _tenant_of(request: web.Request) -> str:
    tenant = request.match_info["tenant"]
    if not TENANT_LETTERS.fullmatch(tenant):
        raise HttpError(
            HTTPStatus.BAD_REQUEST,
            "INVALID_TENANT",
            "That is no name of a tenant.",
            "Names have 1 to 64 letters of A–Z, a–z, 0–9 and ._-",
        )
    return tenant


def _require_key(principal: Principal) -> None:
    """A token that was handed to a browser deletes nothing, and sees nothing of it."""
    if principal.token is not None or not principal.scopes & {Scope.JOBS, Scope.ADMIN}:
        raise HttpError(
            HTTPStatus.FORBIDDEN,
            "INSUFFICIENT_PERMISSIONS",
            "This needs a key with the scope `jobs` or `admin`.",
            "Ask with such a key; tokens are for sessions.",
        )


def _told(body: BaseModel, *, status: HTTPStatus = HTTPStatus.OK, location: str | None = None) -> web.Response:
    headers = {"Cache-Control": "no-store", **({} if location is None else {"Location": location})}
    return web.json_response(text=body.model_dump_json(), status=status, headers=headers)
