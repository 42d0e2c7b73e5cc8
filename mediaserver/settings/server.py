"""Where the node listens and by what certificate, how many it serves, how long it takes to stop."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Self

from pydantic import field_validator, model_validator

from mediaserver.settings.room import Group, Room

knob = Group.SERVER.knob


class ServerSettings(Room):
    """The settings of the group `server`."""

    host: str = knob("127.0.0.1", "Address to listen on. Anything but loopback is open to the network.")
    port: int = knob(8080, "TCP port to listen on; 0 takes a free one.", ge=0, le=65535)
    cors_origins: list[str] = knob(
        [],
        "Origins (scheme://host:port) whose pages may call this server; the page it serves itself always may.",
    )
    trusted_proxies: list[str] = knob(
        [],
        "Networks of proxies, as JSON, whose X-Forwarded-For and X-Forwarded-Proto, or Forwarded (RFC 7239), say where "
        "a request comes from and whether by HTTPS.",
    )
    hsts_max_age_s: int = knob(
        0,
        "Seconds for which browsers are told to come by HTTPS only (`Strict-Transport-Security`), where they came by "
        "it; 0 says nothing.",
        ge=0,
        le=63_072_000,
    )
    tls_certificate: Path | None = knob(
        None, "PEM file of the certificate and those between it and its root: HTTPS, TLS 1.2 or later."
    )
    tls_key: Path | None = knob(None, "PEM file of its private key.")
    outbound_allow_private: bool = knob(
        False,
        "Fetch recordings from and send webhooks to private networks and this machine too, not only public addresses.",
    )
    max_sessions: int = knob(64, "Most sessions at once; further ones get 503 with Retry-After.", ge=1)
    drain_s: float = knob(
        0.0,
        "Seconds for which running sessions go on once a stop was asked for, and no new ones are taken; "
        "`shutdown_deadline_s` begins after them.",
        ge=0,
        le=86_400,
    )
    shutdown_deadline_s: float = knob(
        10.0, "Seconds that a stop may take: finals are flushed until then, what is left is cut.", gt=0
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        for network in value:
            ip_network(network, strict=False)
        return value

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("`tls_certificate` and `tls_key` belong together: give both, or none")
        return self
