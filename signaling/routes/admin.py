"""`/api/v1/admin/keys` for who has a key of scope `admin`, and `/api/v1/tokens` for who gives sessions to others."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mediaserver.errors import ConfigError, VoiceForgeError
from mediaserver.session_config import SessionConfig
from signaling.auth.accounts import Accounts
from signaling.auth.keys import PREFIX, NewKey
from signaling.auth.principal import KeyLimits, Principal, Scope, TokenKind, principal_of
from signaling.auth.tables import ApiKey
from signaling.body import read_json
from signaling.openapi.operation import JSON, Access, Answer, Body, Operation, Refusal, Tag, described
from signaling.preflight import allowed
from signaling.problems import HttpError
from signaling.seeing.audit_door import concerning

KEYS_PATH = "/api/v1/admin/keys"
TOKENS_PATH = "/api/v1/tokens"

TTL_MIN_S, TTL_MAX_S, TTL_DEFAULT_S = 60, 600, 300
"""Long enough to load a page and ask for the microphone, short enough that a leaked one is soon worth nothing."""

OVERLAP_DEFAULT_S, OVERLAP_MAX_S = 86_400, 2_592_000

Id = Annotated[str, Field(description="As it stands in the key between `vf_` and the secret.")]

Plan = Annotated[str, Field(min_length=1, max_length=64)]


class KeyWanted(BaseModel):
    """What a key is to be."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200, description="For people.")
    tenant: str = Field(
        min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$", description="Whose recordings and usage it sees."
    )
    scopes: list[Scope] = Field(default=[Scope.STREAM, Scope.JOBS], min_length=1, max_length=3)
    plan: Plan | None = Field(default=None, description="Of the setting `plans`.")
    limits: KeyLimits = Field(default_factory=KeyLimits, description="How much it may use, before what its plan says.")
    networks: list[Annotated[str, Field(max_length=50)]] = Field(
        default=[], max_length=100, description="Networks that it may come from; none is any."
    )
    expires_at: float | None = Field(default=None, gt=0, description="Seconds since 1970; unset is never.")


class Rotation(BaseModel):
    """How a key is followed by another."""

    model_config = ConfigDict(extra="forbid")

    overlap_s: float = Field(
        default=OVERLAP_DEFAULT_S, ge=0, le=OVERLAP_MAX_S, description="Seconds for which the old key goes on."
    )


class PlanWanted(BaseModel):
    """Which plan a key is to have."""

    model_config = ConfigDict(extra="forbid")

    plan: Plan | None = Field(description="Of the setting `plans`; null is none.")


class KeyBody(BaseModel):
    """A key, without its secret."""

    id: str
    name: str
    tenant: str
    scopes: list[Scope]
    plan: str | None
    limits: KeyLimits = Field(description="Its own, without its plan's.")
    networks: list[str]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None = Field(description="To within a minute.")

    @classmethod
    def of(cls, row: ApiKey) -> KeyBody:
        """A row as it is told."""
        return cls.model_validate({name: getattr(row, name) for name in cls.model_fields})


class NewKeyBody(BaseModel):
    """A key that has just been made."""

    key: KeyBody
    value: str = Field(description=f"The key, `{PREFIX}…`. It is kept nowhere: this is the only time that it is told.")


class KeysBody(BaseModel):
    """All keys, the newest first."""

    keys: list[KeyBody]


def _whole(config: object) -> object:
    """To JSON Schema 300.0 is an integer; to a strict model it is none."""
    if not isinstance(config, dict):
        return config
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in config.items()
    }


class TokenWanted(BaseModel):
    """What a join token is to be."""

    model_config = ConfigDict(extra="forbid")

    ttl_s: int = Field(
        default=TTL_DEFAULT_S, ge=TTL_MIN_S, le=TTL_MAX_S, description="Seconds within which it opens its session."
    )
    config: Annotated[SessionConfig | None, BeforeValidator(_whole)] = Field(
        default=None, description="Of its session; what it says, the client cannot change."
    )


class TokenBody(BaseModel):
    """A join token: good for one session over the native WebSocket or WHIP."""

    token: str = Field(description="To be sent as `Authorization: Bearer …`, or as `token` in a WebSocket's URL.")
    expires_in_s: int


INVALID = Refusal(HTTPStatus.BAD_REQUEST, ("INVALID_CONFIG", "INVALID_JSON", "INVALID_KEY"))
TYPE = Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, ("UNSUPPORTED_MEDIA_TYPE",))
LARGE = Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ("BODY_TOO_LARGE",))
SLOW = Refusal(HTTPStatus.REQUEST_TIMEOUT, ("BODY_TIMEOUT",))
MISSING = Refusal(HTTPStatus.NOT_FOUND, ("KEY_NOT_FOUND",))
READ: Sequence[Refusal] = (TYPE, LARGE, SLOW)
ONE = {"id": Id}

LIST = Operation(
    summary="List keys",
    tag=Tag.SERVER,
    access=Access.ADMIN,
    audited="key.list",
    answers={HTTPStatus.OK: Answer("All of them.", {JSON: KeysBody})},
)
CREATE = Operation(
    summary="Make a key",
    tag=Tag.SERVER,
    access=Access.ADMIN,
    audited="key.create",
    body=Body("What it is to be.", {JSON: KeyWanted}),
    answers={HTTPStatus.CREATED: Answer("The key.", {JSON: NewKeyBody})},
    refusals=[INVALID, *READ],
)
ROTATE = Operation(
    summary="Make a key that follows another",
    tag=Tag.SERVER,
    access=Access.ADMIN,
    audited="key.rotate",
    path=ONE,
    body=Body("How long both are good.", {JSON: Rotation}, is_required=False),
    answers={HTTPStatus.CREATED: Answer("The new key; the old one goes on for a while.", {JSON: NewKeyBody})},
    refusals=[INVALID, MISSING, Refusal(HTTPStatus.CONFLICT, ("KEY_ENDED",)), *READ],
)
CHANGE_PLAN = Operation(
    summary="Give a key another plan",
    tag=Tag.SERVER,
    access=Access.ADMIN,
    audited="key.change",
    description="Within seconds, on all nodes; it holds for new sessions.",
    path=ONE,
    body=Body("Which one.", {JSON: PlanWanted}),
    answers={HTTPStatus.OK: Answer("The key.", {JSON: KeyBody})},
    refusals=[INVALID, MISSING, *READ],
)
REVOKE = Operation(
    summary="End a key",
    tag=Tag.SERVER,
    access=Access.ADMIN,
    audited="key.revoke",
    description="Within seconds, on all nodes. Sessions that were opened with it are ended, those by its tokens too.",
    path=ONE,
    answers={HTTPStatus.OK: Answer("It is revoked.", {JSON: KeyBody})},
    refusals=[MISSING],
)
TOKEN = Operation(
    summary="Get a join token for somebody else",
    tag=Tag.NATIVE,
    access=Access.STREAM,
    audited="token.issue",
    description="For a browser or a phone, which should not have the key.",
    body=Body("What it is to be.", {JSON: TokenWanted}, is_required=False),
    answers={HTTPStatus.CREATED: Answer("The token.", {JSON: TokenBody})},
    refusals=[INVALID, *READ],
)

TOKEN_PREFLIGHT = Operation(
    summary="Whether a page of another origin may exchange a key for a join token",
    tag=Tag.NATIVE,
    access=Access.OPEN,
    description="The preflight of a browser (CORS), for pages that the setting `cors_origins` lets in.",
    answers={HTTPStatus.NO_CONTENT: Answer("In the headers.")},
)


class Admin:
    """The endpoints.

    Args:
        accounts: of the node.
    """

    def __init__(self, *, accounts: Accounts) -> None:
        self._accounts = accounts

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        return [
            web.get(KEYS_PATH, self.list, allow_head=False),
            web.post(KEYS_PATH, self.create),
            web.post(f"{KEYS_PATH}/{{id}}/rotate", self.rotate),
            web.patch(f"{KEYS_PATH}/{{id}}", self.change_plan),
            web.delete(f"{KEYS_PATH}/{{id}}", self.revoke),
            web.post(TOKENS_PATH, self.token),
            web.options(TOKENS_PATH, self.token_preflight),
        ]

    @described(LIST)
    async def list(self, _request: web.Request) -> web.Response:
        """GET all keys."""
        rows = await self._accounts.keys.all()
        return _told(KeysBody(keys=[KeyBody.of(row) for row in rows]))

    @described(CREATE)
    async def create(self, request: web.Request) -> web.Response:
        """POST: 201 with a new key."""
        wanted = await read_json(request, KeyWanted)
        row, value = await self._accounts.keys.create(NewKey(**dict(wanted)))
        concerning(request, key=row.id, tenant=row.tenant)
        return _told(NewKeyBody(key=KeyBody.of(row), value=value), status=HTTPStatus.CREATED)

    @described(ROTATE)
    async def rotate(self, request: web.Request) -> web.Response:
        """POST: 201 with the key that follows."""
        wanted = await read_json(request, Rotation) if request.body_exists else Rotation()
        try:
            row, value = await self._accounts.keys.rotate(request.match_info["id"], overlap_s=wanted.overlap_s)
        except VoiceForgeError as exc:
            raise _with_status(exc) from exc
        concerning(request, key=row.id, tenant=row.tenant)
        return _told(NewKeyBody(key=KeyBody.of(row), value=value), status=HTTPStatus.CREATED)

    @described(CHANGE_PLAN)
    async def change_plan(self, request: web.Request) -> web.Response:
        """PATCH: the key has another plan."""
        wanted = await read_json(request, PlanWanted)
        try:
            return _told(KeyBody.of(await self._accounts.keys.change_plan(request.match_info["id"], wanted.plan)))
        except VoiceForgeError as exc:
            raise _with_status(exc) from exc

    @described(REVOKE)
    async def revoke(self, request: web.Request) -> web.Response:
        """DELETE: the key is revoked."""
        try:
            return _told(KeyBody.of(await self._accounts.keys.revoke(request.match_info["id"])))
        except VoiceForgeError as exc:
            raise _with_status(exc) from exc

    @described(TOKEN)
    async def token(self, request: web.Request) -> web.Response:
        """POST: 201 with a join token."""
        principal = principal_of(request)
        _require_key(principal)
        wanted = await read_json(request, TokenWanted) if request.body_exists else TokenWanted()
        config = None if wanted.config is None else wanted.config.model_dump(mode="json", exclude_unset=True)
        token = self._accounts.tokens.issue(principal, kind=TokenKind.JOIN, ttl_s=wanted.ttl_s, config=config)
        return _told(TokenBody(token=token, expires_in_s=wanted.ttl_s), status=HTTPStatus.CREATED)

    @described(TOKEN_PREFLIGHT)
    async def token_preflight(self, _request: web.Request) -> web.Response:
        """OPTIONS: a page that was given a key shows it here, so that it stands in no WebSocket's address."""
        return allowed("POST, OPTIONS", ("Content-Type", "Authorization"))


def _require_key(principal: Principal) -> None:
    """A token that was handed to a browser makes no further tokens."""
    if principal.token is not None:
        raise HttpError(
            HTTPStatus.FORBIDDEN, "INSUFFICIENT_PERMISSIONS", "A token cannot get another.", "Ask with your key."
        )


def _with_status(error: VoiceForgeError) -> VoiceForgeError:
    statuses = {"KEY_NOT_FOUND": HTTPStatus.NOT_FOUND, "KEY_ENDED": HTTPStatus.CONFLICT}
    if error.code not in statuses or isinstance(error, ConfigError):
        return error
    return HttpError(statuses[error.code], error.code, error.message, error.hint)


def _told(body: BaseModel, *, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    return web.json_response(text=body.model_dump_json(), status=status, headers=headers)
