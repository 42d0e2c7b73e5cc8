"""What the audit log hears of requests, sessions and the node itself.

A route says in its description (`Operation.audited`) which action it is; a test fails for one of administrators that
does not. The record is made here, around the handler, so that no handler can forget it; what it is done to the handler
says by `concerning`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import SecretStr

from mediaserver.errors import VoiceForgeError
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from signaling.auth.principal import principal_of
from signaling.openapi.operation import Access, Operation, description_of
from signaling.problems import Handler
from signaling.seeing.audit import Audit, Outcome
from signaling.seeing.requests import REQUEST, RequestInfo
from signaling.seeing.session_watch import Watched, Watcher

SECRET_PART = "secret"  # noqa: S105 - the name of a part of paths
"""The part of a path that is as good as a password: never in a record."""

UNTOLD = frozenset({"prompt", "hotwords", "metadata", "channel_labels"})
"""What of a session's configuration may be about people: only how much there is of it is told."""

_ACTION = web.RequestKey("audit_action", str)
_CODE = web.RequestKey("audit_code", str)
_CONCERNING = web.RequestKey("audit_object", dict[str, object])


def concerning(request: web.Request, **names: object) -> None:
    """Say what a request was about, beside what its path says: `concerning(request, key=row.id)`."""
    request.setdefault(_CONCERNING, {}).update(names)


def submitted_jobs(request: web.Request) -> list[str]:
    """Ids of the jobs that a request has submitted."""
    said = request.get(_CONCERNING, {})
    one, several = said.get("job"), said.get("jobs")
    return [one] if isinstance(one, str) else list(several) if isinstance(several, list) else []


class AuditDoor:
    """Watches requests for the audit log.

    Args:
        audit: of the process.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    @web.middleware
    async def refusals(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around the guard: who was not let in."""
        try:
            return await handler(request)
        except VoiceForgeError as exc:
            status = getattr(exc, "status", None)
            if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                self._audit.refused(exc.code, now_s=asyncio.get_running_loop().time())
            raise

    def hop_refused(self, info: RequestInfo, code: str) -> None:
        """Somebody came by the inner door who is no place of this deployment, or with what was for another.

        Args:
            info: the request; its address is the other end of the connection.
            code: of the refusal.
        """
        self._audit.refused(code, now_s=asyncio.get_running_loop().time(), request=info)

    @web.middleware
    async def actions(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Within the guard: what is done by who was let in."""
        operation = description_of(request.match_info.handler)
        if not self._audit.is_on or not isinstance(operation, Operation) or operation.audited is None:
            return await handler(request)
        request[_ACTION] = operation.audited
        if operation.access is Access.ADMIN:
            return await self._surely(operation.audited, request, handler)
        try:
            return await handler(request)
        except VoiceForgeError as exc:
            request[_CODE] = exc.code
            raise
        except web.HTTPException:
            raise
        except BaseException:  # a fault, or the client is gone: there may be no response
            self._record(request, Outcome.FAILED)
            raise

    async def on_response(self, request: web.Request, response: web.StreamResponse) -> None:
        """Before the first byte of an answer leaves, and so also where it goes on for hours."""
        if _ACTION in request:
            self._record(request, _outcome_of(response.status))

    async def _surely(self, action: str, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What an administrator does: on disk before it is done, and before the answer leaves."""
        del request[_ACTION]
        await self._audit.surely(action, object=_object_of(request), outcome=Outcome.ASKED)
        try:
            response = await handler(request)
        except BaseException as exc:
            code = exc.code if isinstance(exc, VoiceForgeError) else None
            outcome = Outcome.REFUSED if code is not None else Outcome.FAILED
            self._audit.record(action, object=_object_of(request), outcome=outcome, code=code)
            raise
        await self._audit.surely(action, object=_object_of(request), outcome=_outcome_of(response.status))
        return response

    def _record(self, request: web.Request, outcome: Outcome) -> None:
        action = request.pop(_ACTION, None)
        if action is not None:
            self._audit.record(
                action,
                object=_object_of(request),
                outcome=outcome,
                code=request.get(_CODE),
                principal=principal_of(request),
                request=request.get(REQUEST),  # a response leaves when the request is no longer the one in hand
            )


def _outcome_of(status: int) -> Outcome:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Outcome.FAILED
    return Outcome.DONE if status < HTTPStatus.BAD_REQUEST else Outcome.REFUSED


def _object_of(request: web.Request) -> dict[str, object]:
    parts: dict[str, object] = {name: part for name, part in request.match_info.items() if name != SECRET_PART}
    return {**parts, **request.get(_CONCERNING, {})}


def told_config(config: SessionConfig) -> dict[str, object]:
    """A session's configuration as it may be told: what the client chose, texts only by their length."""
    chosen: Mapping[str, Any] = config.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    return {name: len(value) if name in UNTOLD else value for name, value in chosen.items() if value != []}


def told_settings(settings: Settings) -> dict[str, object]:
    """The settings that differ from their defaults, without secrets: of URLs the scheme and the host, of objects and
    texts how many there are.
    """
    told: dict[str, object] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if value != field.get_default(call_default_factory=True):
            told[name] = _told(name, value)
    return told


def _told(name: str, value: object) -> object:
    if isinstance(value, SecretStr):
        return "set"
    if name in UNTOLD:
        return len(value) if isinstance(value, str | list) else "set"
    if isinstance(value, list):
        return len(value) if any(isinstance(item, dict) for item in value) else [_told("", item) for item in value]
    if isinstance(value, str) and "://" in value:
        return _without_secrets(value)
    return value if isinstance(value, bool | int | float | dict) else str(value)


def _without_secrets(url: str) -> str:
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname or ''}"
    except ValueError:
        return "set"


class SessionRecords(Watcher):
    """Writes down who opened which session, came back to it, and how it ended.

    Args:
        audit: of the process.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def opened(self, session: Watched) -> None:
        """As `Watcher.opened`."""
        channels = session.channels
        config = {} if channels is None else told_config(channels.config)
        count = 0 if channels is None else channels.count
        self._write("session.open", session, {"config": config, "channels": count})

    def resumed(self, session: Watched, details: Mapping[str, object]) -> None:
        """As `Watcher.resumed`. Whose session it is is known; that it is they who come back, their token says."""
        self._write("session.resume", session, details)

    def ended(self, session: Watched, reason: str) -> None:
        """As `Watcher.ended`."""
        details: dict[str, object] = {"reason": reason}
        if session.channels is not None:
            details["audio_s"] = round(session.channels.stream_time_s * session.channels.count, 3)
            details["speech_s"] = round(session.channels.speech_s, 3)
        self._write("session.end", session, details)

    def _write(self, action: str, session: Watched, details: Mapping[str, object]) -> None:
        about = {"session": session.session_id, "door": session.door, "model": session.model}
        self._audit.record(action, object=about, details=details, principal=session.principal)
