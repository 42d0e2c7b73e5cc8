"""The key that the command line shows to a server: from the environment, for flags stand in every process list."""

from __future__ import annotations

import os

VARIABLE = "VOICEFORGE_API_KEY"


def key_headers() -> dict[str, str]:
    """What goes with each request; nothing where there is no key."""
    key = os.environ.get(VARIABLE, "").strip()
    return {"Authorization": f"Bearer {key}"} if key else {}
