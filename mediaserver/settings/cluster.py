"""Several processes that serve as one: workers, nodes, and the state that they share."""

from __future__ import annotations

import re
from enum import StrEnum
from urllib.parse import urlsplit

from pydantic import SecretStr, field_validator

from mediaserver.settings.room import Group, Room

knob = Group.CLUSTER.knob


class StateAway(StrEnum):
    """What becomes of new sessions while the state that several processes share cannot be reached."""

    REFUSE = "refuse"
    SERVE = "serve"


BASE_OF_URLS = r"http://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[1-9][0-9]{0,4}"


class ClusterSettings(Room):
    """The settings of the group `cluster`."""

    workers: int = knob(
        1,
        "Processes that sessions are spread over, with one decoder for all; 0 is one a core. 1 is a single process.",
        ge=0,
        le=64,
    )
    node_address: str | None = knob(
        None,
        "Where other servers with the same `redis_url` pass requests on to this one, on a port of its own: "
        "http://10.0.0.5:8081, within a private network. With several workers each has the next port.",
    )
    redis_url: SecretStr | None = knob(
        None,
        "Redis through which several nodes know of each other, count sessions together and take up each other's: "
        "`redis://host:6379/0`, `rediss://…` with TLS, `unix:///path.sock`, "
        "`redis+sentinel://host:26379,host2:26379/mymaster/0` or `redis+cluster://host:7000,host2:7000`, with a "
        "password as `redis://:password@host`. Needs `token_secret`. Unset: this node is alone.",
    )
    redis_prefix: str = knob(
        "voiceforge:",
        "What all names in Redis begin with, the same for all nodes that serve together.",
        pattern=r"^[A-Za-z0-9._:-]{0,64}$",
    )
    state_away: StateAway = knob(
        StateAway.REFUSE,
        "What becomes of new sessions while Redis cannot be reached: `refuse` (503 STATE_AWAY), or `serve`, with each "
        "process's own count of what a key may. Running sessions go on either way.",
    )

    @field_validator("node_address")
    @classmethod
    def _is_base_of_urls(cls, value: str | None) -> str | None:
        if value is not None and re.fullmatch(BASE_OF_URLS, value) is None:
            raise ValueError("http://, an address and a port are wanted, and nothing behind them: http://10.0.0.5:8081")
        if value is not None and (urlsplit(value).hostname or "").strip("0.:") == "":
            raise ValueError("one address is wanted, by which others reach this server: all of them are no way to it")
        return value
