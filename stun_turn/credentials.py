"""Time-limited TURN credentials, as coturn's `use-auth-secret` checks them.

The server and the TURN server share a secret and no database: the user name says until when it is good and for whom,
the password is its HMAC-SHA1 under the secret (draft-uberti-behave-turn-rest-00 §2.2). SHA-1 is what the scheme is
defined with; an HMAC of it is not touched by collisions.

coturn looks at the time when an allocation is made. One that lives is refreshed with the same credentials for as long
as its call lasts: the time to live need cover only the way from here to the first allocation.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""No colon, which separates the time from the name; nothing that a log or a header would have to quote."""


@dataclass(frozen=True, slots=True)
class TurnCredentials:
    """What one session shows to a TURN server.

    Args:
        username: `<expiry>:<name>`.
        credential: the password that goes with it; left out of the representation, for that ends up in logs.
        expires_s: Unix time in seconds from which no allocation can be made with them.
    """

    username: str
    credential: str = field(repr=False)
    expires_s: int


def issue(secret: str, name: str, *, ttl_s: int, now_s: float) -> TurnCredentials:
    """Credentials for one session.

    Args:
        secret: shared with the TURN server (`static-auth-secret`).
        name: of the session. The TURN server counts allocations by it, and its log shows it: not a secret.
        ttl_s: how long they may be used to make an allocation, in seconds; negative for some that have expired.
        now_s: Unix time in seconds.

    Raises:
        ValueError: the name has other characters than letters, digits, `_`, `.` and `-`, or more than 64 of them.
    """
    if NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} cannot stand in a TURN user name")
    expires_s = int(now_s) + ttl_s
    username = f"{expires_s}:{name}"
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return TurnCredentials(username, base64.b64encode(digest).decode(), expires_s)
