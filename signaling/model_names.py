"""Which names a client may give for the model: its own, and those of vendors whose clients cannot leave it out."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from mediaserver.errors import ConfigError


def require_served(name: str | None, *, loaded: str, aliases: Sequence[str]) -> None:
    """Accept the loaded model's name, or one that an operator lets stand for it.

    Args:
        name: as the client gave it; None is whatever is loaded.
        loaded: the model that the node has loaded.
        aliases: patterns (`nova-*`) of names that stand for it.

    Raises:
        ConfigError: MODEL_NOT_LOADED.
    """
    if name is None or name == loaded or any(fnmatchcase(name.lower(), pattern.lower()) for pattern in aliases):
        return
    raise ConfigError(
        "MODEL_NOT_LOADED",
        f"`model`: this node has {loaded!r} loaded, not {name[:80]!r}.",
        f"Ask for {loaded!r}, for one of {', '.join(aliases) or 'no other name'}, or start a node with the model that "
        "you want.",
    )
