"""Who is served, what their keys allow, and what they used."""

from __future__ import annotations

from enum import StrEnum

from pydantic import SecretStr

from mediaserver.settings.room import Group, Room

knob = Group.ACCESS.knob


class KeylessAccess(StrEnum):
    """Who is served without a key."""

    AUTO = "auto"
    LOOPBACK = "loopback"
    EVERYONE = "everyone"


class AccessSettings(Room):
    """The settings of the group `access`."""

    keyless_access: KeylessAccess = knob(
        KeylessAccess.AUTO,
        "Who is served without a key: `auto` this machine until the first key is made, then nobody; `loopback` this "
        "machine always; `everyone` whoever reaches the port.",
    )
    metrics_need_key: bool = knob(False, "Show /metrics only to who has a key.")
    token_secret: SecretStr | None = knob(
        None,
        "What join tokens and grants are signed with, the same for all servers that take each other's; unset, each "
        "makes up its own when it starts.",
        min_length=32,
    )
    plans: dict[str, dict[str, float]] = knob(
        {},
        "Limits of keys by the name of a plan, as JSON or as tables `[plans.pro]`: `sessions`, `sessions_per_minute`, "
        "`minutes_per_month`, `session_s`. What a key says of itself counts before its plan.",
    )
    price_per_minute: dict[str, float] = knob(
        {},
        "What a minute of audio costs, by model, as JSON; `*` is any other. `MODEL/FEATURE` is the price of a feature: "
        "in place of the model's for `streaming`, `recording` or `translation`, beside it for `denoise` or "
        "`turn_detection`. /api/v1/usage reckons with it.",
    )
    usage_keyless: bool = knob(
        False,
        "Count what is used without a key too, for the tenant `local`; otherwise it is not written down at all.",
    )
    usage_keep_days: int = knob(
        90,
        "Days for which it is known which session used what; after that only totals of days are kept.",
        ge=1,
        le=3650,
    )
