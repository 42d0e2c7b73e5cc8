"""ICE servers as clients are told of them: `Link` headers (RFC 9725 §4.6) and JSON for `RTCPeerConnection`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mediaserver.errors import ConfigError

NO_CONTROLS = r"^[^\x00-\x1f\x7f]*$"
"""These strings go into response headers, where a line break would start another header."""

URL = r"^(stun|stuns|turn|turns):[^\x00-\x20\x7f<>]+$"


class IceServer(BaseModel):
    """One STUN or TURN server, in the words of `RTCIceServer`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    urls: tuple[Annotated[str, Field(pattern=URL)], ...] = Field(min_length=1)
    username: str | None = Field(None, pattern=NO_CONTROLS)
    credential: str | None = Field(None, pattern=NO_CONTROLS)

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
            ) from exc
    return servers


def _quoted(text: str) -> str:
    """A quoted-string (RFC 9110 §5.6.4), non-ASCII as it is."""
    return json.dumps(text, ensure_ascii=False)
