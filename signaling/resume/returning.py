"""Who may come back to a session: whoever knows its URL, while it waits, and while the key it came with is good."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Annotated, TypeVar

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mediaserver.errors import ConfigError
from mediaserver.session_config import SessionConfig
from signaling.auth.addresses import client_address
from signaling.auth.keys import Keys
from signaling.auth.principal import Principal, set_principal
from signaling.cluster.places import place_id_of
from signaling.cluster.state import StateAwayError
from signaling.limits import Admission
from signaling.problems import HttpError
from signaling.registry import LiveSession, Registry
from signaling.resume.elsewhere import SETUP_FAILED, SOON_S, Elsewhere, Found, moving

log = structlog.get_logger(__name__)

Config = TypeVar("Config", bound=SessionConfig)


class ResumeQuery(BaseModel):
    """What a client knows that comes back."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    after: Annotated[
        int,
        Field(ge=-1, le=2**53, description="The `seq` of the last event that is known; -1 tells all that is kept."),
    ] = -1


class Returning:
    """Finds the sessions of clients that come back.

    Args:
        registry: where sessions live.
        keys: of the node; asked again, for a key may have been revoked while its client was away.
        admission: whether there is room for one that another process had.
        trusted_proxies: networks whose word is taken for where a request comes from.
        elsewhere: those that other processes had; None where there is no other.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        keys: Keys,
        admission: Admission,
        trusted_proxies: list[str],
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._registry = registry
        self._admission = admission
        self._elsewhere = elsewhere
        self._keys = keys
        self._trusted_proxies = trusted_proxies

    def locate(self, secret: str) -> LiveSession | None:
        """The session that lives here, by its URL or by one that it had elsewhere: who knows that could take it up."""
        live = self._registry.find(secret)
        return live if live is not None or self._elsewhere is None else self._elsewhere.here(secret)

    def has(self, secret: str) -> bool:
        """Whether the session of a URL lives here."""
        return self.locate(secret) is not None

    async def end(self, secret: str, *, door: str, deadline_s: float) -> str:
        """End a session for its client, also one that nobody holds: it waits for nobody then. Gives its id.

        Args:
            secret: of the URL.
            door: which protocol is asked for.
            deadline_s: how long its finals may take.

        Raises:
            StateAwayError: what processes share is not reached, and it might be there.
            CapacityError: SESSION_MOVING.
            HttpError: SESSION_NOT_FOUND.
        """
        live = self.locate(secret)
        if live is not None and live.door == door:
            await self._registry.close(live, "client", deadline_s=deadline_s)
            return live.session_id
        found = None if live is not None else await self._unheld(secret, door)
        if found is None or self._elsewhere is None:
            raise self.gone()
        if not await self._elsewhere.claim(found):
            raise moving(SOON_S)
        self._elsewhere.ended(found)
        return found.record.session_id

    async def find(self, request: web.Request, secret: str, *, door: str) -> LiveSession | Found:
        """The session of a URL: one that waits here, or one that another process had and nobody has.

        Args:
            request: of the client; from here on it is from the session's principal.
            secret: of the URL.
            door: which protocol is asked for.

        Raises:
            StateAwayError: what processes share is not reached, and it might be there.
            CapacityError: one that another process had does not fit; or SESSION_MOVING: who has it cannot be told yet.
            HttpError: SESSION_NOT_FOUND (404), or INVALID_API_KEY (401) where its key no longer works, or not from
                where the client is now.
            VoiceForgeError: what `Database.reading` raises.
        """
        live = self.locate(secret)
        if live is None:
            return await self._found(request, secret, door)
        if live.door != door:
            raise self.gone()
        await self.require_key(request, live.principal)
        if live.closing is not None:
            raise self.gone()
        return live

    async def _found(self, request: web.Request, secret: str, door: str) -> Found:
        found = await self._unheld(secret, door)
        if found is None:
            raise self.gone()
        principal = found.record.owner.principal()
        await self.require_key(request, principal)
        self._admission.check_returning()
        set_principal(request, principal)
        return found

    async def _unheld(self, secret: str, door: str) -> Found | None:
        if self._elsewhere is None or not place_id_of(secret):  # others were given out by nobody
            return None
        if self._registry.is_ending(secret) or self._elsewhere.is_ending(secret):
            raise moving(SOON_S)  # its record still stands; in a moment it has ended, or is another process's
        found = await self._elsewhere.look(secret)
        return found if found is not None and found.record.door == door else None

    @asynccontextmanager
    async def claimed(self, found: Found) -> AsyncIterator[Callable[[LiveSession], None]]:
        """Go on with a session; where the block fails before it has got its place, another one may try.

        Gives what is to be called with the session once it has got its place.

        Raises:
            CapacityError: SESSION_MOVING: somebody else was quicker, and has it now.
            StateAwayError: what processes share is not reached.
        """
        assert self._elsewhere is not None
        elsewhere, lives = self._elsewhere, list[LiveSession]()
        if not await elsewhere.claim(found):
            raise moving(SOON_S)

        def taken(live: LiveSession) -> None:
            lives.append(live)
            elsewhere.taken(found, live)

        try:
            yield taken
        except BaseException:
            if not lives or lives[0].reason == SETUP_FAILED:
                with suppress(StateAwayError):
                    await elsewhere.give_back(found)
            raise

    async def require_key(self, request: web.Request, principal: Principal) -> None:
        """Refuse who came with a key that no longer works.

        Raises:
            HttpError: INVALID_API_KEY (401).
        """
        address = client_address(request, self._trusted_proxies)
        if principal.key_id is None or await self._keys.principal_of_id(principal.key_id, address=address) is not None:
            return
        raise HttpError(
            HTTPStatus.UNAUTHORIZED,
            "INVALID_API_KEY",
            "The key that the session was opened with no longer works.",
            "Open a new session with a key that does.",
            headers={"WWW-Authenticate": 'Bearer realm="voiceforge"', "Cache-Control": "no-store"},
        )

    def config_of(self, found: Found, kind: type[Config]) -> Config:
        """What the client chose when it opened a session that another process had.

        Args:
            found: the session.
            kind: what its door reads it as.

        Raises:
            HttpError: SESSION_NOT_FOUND: a version wrote it that knows other fields.
        """
        try:
            return kind.model_validate(found.record.asked.config, strict=False)
        except ValidationError as exc:
            log.warning("a record that cannot be read was left", failures=exc.error_count())
        raise self.gone()  # not from it: it quotes what the client chose

    def require_known(self, after: int, *, newest: int) -> None:
        """Refuse who knows of events that have not been told.

        Raises:
            ConfigError: INVALID_CURSOR.
        """
        if after > newest:
            raise ConfigError(
                "INVALID_CURSOR",
                f"Event {after} has not been told; the newest one is {newest}.",
                "Send the `seq` of the last event that you know, or nothing.",
            )

    def gone(self) -> HttpError:
        """The refusal where there is nothing to come back to."""
        return HttpError(
            HTTPStatus.NOT_FOUND,
            "SESSION_NOT_FOUND",
            "There is no such session, or it has ended.",
            "Open a new one. A session waits for `resume_window_s` after its connection dropped.",
        )

    def cannot(self) -> HttpError:
        """The refusal of a session that ends with its connection."""
        return HttpError(
            HTTPStatus.CONFLICT,
            "CANNOT_RESUME",
            "This session cannot be taken up again.",
            "Open a new one: its protocol has no way to come back, or the server has `resume_window_s` set to 0.",
        )
