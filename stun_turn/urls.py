"""Addresses of STUN and TURN servers (RFC 7064, RFC 7065)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mediaserver.errors import ConfigError

URL = (
    r"(stuns?|turns?):(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9.])?)(?::([0-9]{1,5}))?"
    r"(?:\?transport=(udp|tcp))?"
)
"""Strict, for browsers are: one URL that they do not like, and there is no peer connection at all."""

PORTS = {"stun": 3478, "turn": 3478, "stuns": 5349, "turns": 5349}

TURN_SCHEMES = ("turn", "turns")


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """Where a STUN or TURN server is, and how it is spoken to.

    Args:
        scheme: `stun`, `stuns`, `turn` or `turns`; with `s` over TLS.
        host: a name, or an address without brackets.
        port: UDP or TCP port.
        transport: `udp` or `tcp`, towards the server; what it relays is UDP in any case.
    """

    scheme: str
    host: str
    port: int
    transport: str

    @property
    def relays(self) -> bool:
        """Whether it is a TURN server."""
        return self.scheme in TURN_SCHEMES

    @property
    def secure(self) -> bool:
        """Whether it is spoken to over TLS."""
        return self.scheme.endswith("s")

    @classmethod
    def parse(cls, text: str) -> ServerUrl:
        """From text.

        Raises:
            ConfigError: INVALID_ICE_URL.
        """
        found = re.fullmatch(URL, text)
        port = int(found[3]) if found is not None and found[3] else 0
        if found is None or port > 65535 or (found[4] and found[1] not in TURN_SCHEMES):
            raise ConfigError(
                "INVALID_ICE_URL",
                f"`{text}` is not the URL of a STUN or TURN server.",
                "Write stun:host, turn:host:3478, turn:host?transport=tcp or turns:host:5349?transport=tcp.",
            )
        # TLS without more words is over TCP: no browser speaks DTLS to a TURN server.
        transport = found[4] or ("tcp" if found[1].endswith("s") else "udp")
        return cls(found[1], found[2].strip("[]"), port or PORTS[found[1]], transport)
