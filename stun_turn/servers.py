"""ICE servers as clients are told of them: `Link` headers (RFC 9725 §4.6) and JSON for `RTCPeerConnection`."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from mediaserver.errors import ConfigError
from mediaserver.settings import Settings
from stun_turn.credentials import TurnCredentials, issue
from stun_turn.urls import ServerUrl

NO_CONTROLS = r"^[^\x00-\x1f\x7f]*$"
"""These strings go into response headers, where a line break would start another header."""

NEWCOMER_BYTES = 8
"""Random ones in the name of a client that has no session yet: no two share one, so that quotas count each alone."""


def _is_url(text: str) -> str:
    try:
        ServerUrl.parse(text)
    except ConfigError as exc:
        raise ValueError(exc.message) from exc
    return text


class IceServer(BaseModel):
    """One STUN or TURN server, in the words of `RTCIceServer`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    urls: tuple[Annotated[str, AfterValidator(_is_url)], ...] = Field(
        min_length=1, description="Where it is: `stun:…`, `turn:…` or `turns:…`; several are ways to the same server."
    )
    username: str | None = Field(None, pattern=NO_CONTROLS, description="TURN only.")
    credential: str | None = Field(None, pattern=NO_CONTROLS, repr=False, description="TURN only: the password.")

    @field_validator("urls", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    def as_dict(self) -> dict[str, object]:
        """For `new RTCPeerConnection({iceServers: [...]})`."""
        return {**self.model_dump(exclude_none=True), "urls": list(self.urls)}

    def links(self) -> list[str]:
        """One `Link` header value for each URL."""
        return [self._link(url) for url in self.urls]

    def _link(self, url: str) -> str:
        parts = [f"<{url}>", 'rel="ice-server"']
        if self.username is not None and self.credential is not None:
            parts += [
                f"username={_quoted(self.username)}",
                f"credential={_quoted(self.credential)}",
                'credential-type="password"',
            ]
        return "; ".join(parts)


class IceServers:
    """What clients are told to use: fixed servers, and TURN servers with credentials of each session's own.

    Args:
        fixed: the same for everybody.
        turn_urls: of the TURN servers that share `turn_secret`.
        turn_secret: None where there are none.
        turn_ttl_s: for how long credentials can be used to make an allocation, in seconds.
        clock: Unix time in seconds: the TURN server compares with its own.
    """

    def __init__(
        self,
        fixed: Sequence[IceServer],
        *,
        turn_urls: Sequence[str] = (),
        turn_secret: str | None = None,
        turn_ttl_s: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fixed = list(fixed)
        self._turn_urls = tuple(turn_urls) if turn_secret else ()
        self._turn_secret = turn_secret or ""
        self._turn_ttl_s = turn_ttl_s
        self._clock = clock

    @classmethod
    def from_settings(cls, settings: Settings) -> IceServers:
        """Those of a node.

        Raises:
            ConfigError: INVALID_ICE_SERVERS, INVALID_ICE_URL, NOT_A_TURN_URL.
        """
        secret = settings.turn_secret
        for url in settings.turn_urls:
            if not ServerUrl.parse(url).relays:
                raise ConfigError(
                    "NOT_A_TURN_URL",
                    f"`{url}` in `turn_urls` is not a TURN server.",
                    "STUN servers go into `ice_servers`; a TURN server answers STUN as well.",
                )
        return cls(
            parse_ice_servers(settings.ice_servers),
            turn_urls=settings.turn_urls,
            turn_secret=None if secret is None else secret.get_secret_value(),
            turn_ttl_s=settings.turn_ttl_s,
        )

    def for_session(self, name: str) -> list[IceServer]:
        """The servers for a session.

        Args:
            name: its log id, or `newcomer()` for a client that has none yet; the TURN server's log shows it.
        """
        if not self._turn_urls:
            return list(self._fixed)
        made = self.credentials(name)
        turn = IceServer(urls=self._turn_urls, username=made.username, credential=made.credential)
        return [*self._fixed, turn]

    def links(self, name: str) -> list[str]:
        """The same for a session, as values of `Link` headers."""
        return [link for server in self.for_session(name) for link in server.links()]

    def credentials(self, name: str, *, ttl_s: int | None = None) -> TurnCredentials:
        """TURN credentials of that name; `ttl_s` is the setting if None."""
        chosen_s = self._turn_ttl_s if ttl_s is None else ttl_s
        return issue(self._turn_secret, name, ttl_s=chosen_s, now_s=self._clock())


def newcomer() -> str:
    """A name for a client that asks before it has a session."""
    return f"new-{secrets.token_hex(NEWCOMER_BYTES)}"


def parse_ice_servers(entries: Sequence[dict[str, Any]]) -> list[IceServer]:
    """The `ice_servers` setting, checked at start rather than at the first session.

    Raises:
        ConfigError: INVALID_ICE_SERVERS, naming the entry and what is wrong with it.
    """
    servers = []
    for number, entry in enumerate(entries, start=1):
        try:
            servers.append(IceServer.model_validate(entry))
        except ValidationError as exc:
            problem = exc.errors()[0]
            field = ".".join(str(part) for part in problem["loc"])
            raise ConfigError(
                "INVALID_ICE_SERVERS",
                f"Entry {number} of `ice_servers` is wrong at `{field}`: {problem['msg']}.",
                'Write {"urls": ["turn:host:3478"], "username": "…", "credential": "…"}.',
            ) from None  # the cause would show the entry, its credential included
    return servers


def _quoted(text: str) -> str:
    """A quoted-string (RFC 9110 §5.6.4), non-ASCII as it is."""
    return json.dumps(text, ensure_ascii=False)
