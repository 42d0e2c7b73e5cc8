"""Peers: addresses, ports, ICE servers, deadlines, the jitter buffer."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any, Self

from pydantic import SecretStr, field_validator, model_validator

from mediaserver.settings.room import Group, Milliseconds, Room

knob = Group.WEBRTC.knob

STRONG_LETTERS = r"[A-Za-z0-9_.~+/=-]{16,256}"
"""Whoever gets credentials can try secrets out against them, off line: a short one is found. These letters stand in
coturn's configuration as they are."""


class WebrtcSettings(Room):
    """The settings of the group `webrtc`."""

    announced_address: str | None = knob(
        None, "Public IP address put into candidates in place of the host's own, where a NAT maps it 1:1."
    )
    udp_port_min: int = knob(0, "First UDP port for media; 0 lets the system choose.", ge=0, le=65535)
    udp_port_max: int = knob(0, "Last UDP port for media; 0 lets the system choose.", ge=0, le=65535)
    ice_servers: list[dict[str, Any]] = knob(
        [],
        'STUN and TURN servers handed to clients, as JSON: [{"urls": ["turn:…"], "username": "…", "credential": "…"}].',
    )
    turn_urls: list[str] = knob(
        [],
        "TURN servers (`turn:host:3478`, `turns:host:5349?transport=tcp`) that share `turn_secret`: clients get them "
        "with credentials of their own session.",
    )
    turn_secret: SecretStr | None = knob(
        None,
        "What this server and its TURN servers make and check credentials with (coturn's `static-auth-secret`); "
        "`voiceforge turn secret` makes one.",
    )
    turn_ttl_s: int = knob(
        600,
        "Seconds within which a client must use its TURN credentials; the relaying that it then has outlives them. "
        "Long enough for a page that was opened before its user speaks, short enough that a leaked one is soon worth "
        "nothing.",
        ge=60,
        le=86_400,
    )
    connect_timeout_s: float = knob(15.0, "Seconds within which a peer must connect.", gt=0)
    first_media_timeout_s: float = knob(30.0, "Seconds within which a connected peer must send audio.", gt=0)
    media_pause_warning_s: float = knob(
        15.0,
        "Seconds without packets after which a client is warned (a muted microphone, a call on hold).",
        gt=0,
    )
    media_pause_timeout_s: float = knob(600.0, "Seconds without packets after which a session is closed.", gt=0)
    ping_timeout_s: float = knob(
        15.0,
        "Seconds after which a peer that answers no connectivity check or ping counts as gone.",
        gt=0,
    )
    jitter_target_ms: Milliseconds = knob(40, "Delay in ms that the jitter buffer starts with.", ge=0, le=200)
    jitter_max_ms: Milliseconds = knob(200, "Largest delay in ms that the jitter buffer adapts to.", ge=0, le=1000)

    @field_validator("announced_address")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            ip_address(value)
        return value

    @field_validator("turn_secret")
    @classmethod
    def _secret_is_strong(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and re.fullmatch(STRONG_LETTERS, value.get_secret_value()) is None:
            raise ValueError("16 to 256 letters of A–Z, a–z, 0–9 and _.~+/=- are wanted; `voiceforge turn secret`")
        return value

    @model_validator(mode="after")
    def _turn_servers_have_a_secret(self) -> Self:
        if self.turn_urls and self.turn_secret is None:
            raise ValueError("`turn_urls` needs `turn_secret`: without it clients get no credentials")
        return self

    @model_validator(mode="after")
    def _ports_are_a_range(self) -> Self:
        if bool(self.udp_port_min) != bool(self.udp_port_max) or self.udp_port_min > self.udp_port_max:
            raise ValueError("`udp_port_min` and `udp_port_max` are a range: both 0, or in order")
        return self
