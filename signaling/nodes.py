"""Names of servers."""

from __future__ import annotations

import secrets
import socket

NAME_BYTES = 3
"""What tells two servers of one machine apart."""


def new_node() -> str:
    """A name for this server, for its workers to have in common: its machine's, and a few letters."""
    return f"{socket.gethostname()}-{secrets.token_hex(NAME_BYTES)}"
