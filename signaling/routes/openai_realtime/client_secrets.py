"""Client secrets: `ek_…`, each opens sessions with parameters that were chosen when it was made. Kept as hashes."""

from __future__ import annotations

import hashlib
import heapq
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from mediaserver.errors import CapacityError
from signaling.auth.principal import LOCAL, Principal
from signaling.problems import HttpError
from signaling.routes.openai_realtime.session_state import SessionState

PREFIX = "ek_"

SECRET_BYTES = 24
"""192 bits: not guessable."""

SECRETS_MAX = 2000
"""Secrets at once, some 10 KB each at most. One more is refused until the first has expired; none is dropped early."""

Now = Callable[[], float]


@dataclass(frozen=True, slots=True)
class IssuedSecret:
    """A secret that has just been made, and is nowhere kept as it is.

    Args:
        value: the secret.
        expires_at: seconds since 1970.
    """

    value: str
    expires_at: int


class ClientSecrets:
    """The secrets of this node.

    Args:
        now: seconds since 1970.
    """

    def __init__(self, *, now: Now = time.time) -> None:
        self._now = now
        self._by_hash: dict[bytes, tuple[int, SessionState, Principal]] = {}  # bound: SECRETS_MAX
        self._expiries: list[tuple[int, bytes]] = []  # a heap, of the same

    def __len__(self) -> int:
        return len(self._by_hash)

    def issue(self, state: SessionState, *, seconds: int, issuer: Principal = LOCAL) -> IssuedSecret:
        """Make a secret.

        Args:
            state: what its sessions begin with.
            seconds: how long it opens sessions.
            issuer: whom it stands for.

        Raises:
            CapacityError: TOO_MANY_SECRETS.
        """
        now_s = self._now()
        self._forget_expired(now_s)
        if len(self._by_hash) >= SECRETS_MAX:
            wait_s = max(1, self._expiries[0][0] - int(now_s))
            raise CapacityError(
                "TOO_MANY_SECRETS",
                f"There are {SECRETS_MAX} client secrets already.",
                f"Try again in {wait_s} s, and ask for secrets that expire sooner.",
                retry_after_s=wait_s,
            )
        value = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        expires_at = int(now_s) + seconds
        digest = _digest(value)
        self._by_hash[digest] = (expires_at, state, issuer)
        heapq.heappush(self._expiries, (expires_at, digest))
        return IssuedSecret(value, expires_at)

    def state_of(self, key: str | None) -> SessionState | None:
        """What sessions of a key begin with; None where the key is no client secret.

        Raises:
            HttpError: INVALID_API_KEY (401): a client secret that is unknown or has expired.
        """
        if key is None or not key.startswith(PREFIX):
            return None  # the guard has seen to it
        self._forget_expired(self._now())
        found = self._by_hash.get(_digest(key))
        if found is None:
            raise HttpError(
                HTTPStatus.UNAUTHORIZED,
                "INVALID_API_KEY",
                "The client secret is unknown or has expired.",
                "Make a new one at /v1/realtime/client_secrets.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return found[1]

    def issuer_of(self, value: str) -> Principal | None:
        """For whom a secret was made; None: it is unknown or has expired."""
        self._forget_expired(self._now())
        found = self._by_hash.get(_digest(value))
        return None if found is None else found[2]

    def _forget_expired(self, now_s: float) -> None:
        while self._expiries and self._expiries[0][0] <= now_s:
            del self._by_hash[heapq.heappop(self._expiries)[1]]


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode(errors="replace")).digest()
