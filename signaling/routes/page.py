"""The playground: the page that `serve` shows, and what it needs to know of this server."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Literal

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from mediaserver.session.effective import Effective, EffectiveConfig
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings, TurnDetection
from mediaserver.version import VERSION
from signaling.auth.principal import Scope, principal_of
from signaling.limits import ServedEngine
from signaling.openapi.operation import JSON, Access, Answer, Operation, Tag, Undescribed, described
from signaling.preflight import allowed
from signaling.problems import Handler, HttpError
from stun_turn.servers import IceServer, IceServers, newcomer

log = structlog.get_logger(__name__)

CONFIG_PATH = "/api/v1/config"

STATIC_DIR = Path(__file__).parent.parent / "static"
INDEX = "index.html"

STAMP = "v"
"""The page asks for its files as `name?v=<digest>`: a changed file has another address, so caches may keep it."""

STAMPED_MAX_AGE_S = 365 * 24 * 3600

MAX_FILES = 500
"""Far more than a built page has; a bound, should the folder be a wrong one."""

PAGE_HEADERS = {
    # Everything from here: no script, style, font or connection of elsewhere, even if text were to be injected.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Limits(BaseModel):
    """What a session may not exceed on this node, and how often interims come."""

    max_sessions: int
    session_max_s: float = Field(description="In seconds.")
    max_utterance_s: float = Field(description="In seconds.")
    interim_period_ms: int


class NoSession(BaseModel):
    """In the place of a session's defaults while the model loads."""

    model_config = ConfigDict(extra="forbid")


class ServerConfig(BaseModel):
    """What a page needs to know of this server."""

    name: Literal["VoiceForge"] = "VoiceForge"
    version: str
    ready: bool = Field(description="Whether a model is loaded and its decoder is up.")
    model: str
    languages: list[str] = Field(description="Codes that the model knows; none while it loads.")
    turn_detection: list[TurnDetection] = Field(description="What a session may choose to end its utterances.")
    ice_servers: list[IceServer] = Field(
        description="For `RTCPeerConnection`, with credentials of its own; none for a key without the scope `stream`."
    )
    whip: Literal["/whip"] = "/whip"
    session: EffectiveConfig | NoSession = Field(description="What holds for a session that asks for nothing.")
    limits: Limits
    session_schema: dict[str, object] = Field(description="JSON Schema of what a session may ask for.")


CONFIG = Operation(
    summary="What a page needs to know of this server",
    tag=Tag.SERVER,
    access=Access.ANY,
    answers={HTTPStatus.OK: Answer("Model, languages, ICE servers, limits and defaults.", {JSON: ServerConfig})},
)

CONFIG_PREFLIGHT = Operation(
    summary="Whether a page of another origin may ask what it needs to know",
    tag=Tag.SERVER,
    access=Access.OPEN,
    description="The preflight of a browser (CORS), for pages that the setting `cors_origins` lets in.",
    answers={HTTPStatus.NO_CONTENT: Answer("In the headers.")},
)

PAGE = Undescribed("a page or a file of one")


class Page:
    """`/` with its files below `/static`, and `/api/v1/config`.

    Args:
        settings: shown in part; nothing secret is among what is shown.
        engine: gives the engine, None until one is loaded.
        ice_servers: what the page gives to its `RTCPeerConnection`, with new credentials each time that it asks.
        static_dir: where the built page lies.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        engine: Callable[[], ServedEngine | None],
        ice_servers: IceServers,
        static_dir: Path = STATIC_DIR,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._ice_servers = ice_servers
        self._static_dir = static_dir

    def routes(self) -> list[web.RouteDef]:
        """One route for each file that is there at start: what is not listed cannot be asked for, by no path trick."""
        files = _files(self._static_dir)
        routes = [web.get(CONFIG_PATH, self.config), web.options(CONFIG_PATH, self.config_preflight)]
        index = files.pop(INDEX, None)
        routes += [web.get(f"/static/{name}", _serve(path)) for name, path in files.items()]
        routes.append(web.get("/", _not_built if index is None else _serve(index)))
        return routes

    @described(CONFIG)
    async def config(self, request: web.Request) -> web.Response:
        """What the page shows and offers: model, languages, ICE servers, and a session's fields with their defaults."""
        settings, engine = self._settings, self._engine()
        # TURN credentials are worth bandwidth: they are for who may open a session to use them in.
        may_stream = Scope.STREAM in principal_of(request).scopes
        ice_servers = self._ice_servers.for_session(newcomer()) if may_stream else []
        body = ServerConfig(
            version=VERSION,
            ready=engine is not None and engine.ready,
            model=settings.model if engine is None else engine.model_name,
            languages=[] if engine is None else list(engine.languages),
            turn_detection=[way for way in TurnDetection if way is TurnDetection.SILENCE or settings.wants_turn_model],
            ice_servers=ice_servers,
            session=NoSession()
            if engine is None
            else Effective.of(SessionConfig.model_validate({}), settings, engine).told(),
            limits=Limits(
                max_sessions=settings.max_sessions,
                session_max_s=settings.session_max_s,
                max_utterance_s=settings.max_utterance_s,
                interim_period_ms=settings.interim_period_ms,
            ),
            session_schema=SessionConfig.model_json_schema(),
        )
        told = body.model_dump(mode="json")
        told["ice_servers"] = [server.as_dict() for server in ice_servers]  # a null would be a name in browsers
        return web.json_response(told, headers={"Cache-Control": "no-store"})

    @described(CONFIG_PREFLIGHT)
    async def config_preflight(self, _request: web.Request) -> web.Response:
        """OPTIONS: a page of another origin shows its token when it asks for ICE servers."""
        return allowed("GET, OPTIONS", ("Authorization",))


def _files(static_dir: Path) -> dict[str, Path]:
    """The files of the built page by URL path; hidden ones and what a link leads out to are left out."""
    root = static_dir.resolve()
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if hidden or "{" in name or not path.is_file() or not path.resolve().is_relative_to(root):
            continue
        if len(found) == MAX_FILES:
            log.warning("page has too many files", folder=str(static_dir), served=MAX_FILES)
            break
        found[name] = path
    return found


def _serve(path: Path) -> Handler:
    @described(PAGE)
    async def handler(request: web.Request) -> web.StreamResponse:
        kept = f"public, max-age={STAMPED_MAX_AGE_S}, immutable" if STAMP in request.query else "no-cache"
        return web.FileResponse(path, headers={**PAGE_HEADERS, "Cache-Control": kept})

    return handler


@described(PAGE)
async def _not_built(_request: web.Request) -> web.StreamResponse:
    raise HttpError(
        HTTPStatus.NOT_FOUND,
        "PAGE_NOT_BUILT",
        "The playground is not built in this installation.",
        "Run `npm ci && npm run build` in web/, then start the server again.",
    )
