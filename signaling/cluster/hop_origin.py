"""Where a request comes from that another place passed on: the client's address, signed by who passed it on.

The signature is good for one request: its method, its target, the time and a number that is never taken twice. The
key is made of `token_secret`, which all places share.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from http import HTTPStatus

import structlog

from signaling.problems import HttpError

log = structlog.get_logger(__name__)

GOOD_FOR_S = 30.0
"""How far the clocks of two nodes may be apart."""

NUMBER_BYTES = 12

SEEN_MAX = 200_000
"""Numbers that are remembered, 150 bytes each: 3000 requests a second for twice `GOOD_FOR_S`. One more is refused."""

PURPOSE = b"voiceforge hop 1"
"""So that no signature of another kind (join tokens have the same secret) is one of these."""


class HopOrigin:
    """Signs and checks.

    Args:
        secret: `token_secret`.
        wall_s: seconds since 1970.
    """

    def __init__(self, secret: str, *, wall_s: Callable[[], float] = time.time) -> None:
        self._key = hmac.digest(secret.encode(), PURPOSE, hashlib.sha256)
        self._wall_s = wall_s
        self._seen: dict[str, float] = {}  # number -> when it may be forgotten, in that order; bound: SEEN_MAX

    def sign(self, method: str, target: str, address: str) -> str:
        """The header's value.

        Args:
            method: of the request.
            target: its path and query, as they are sent.
            address: of the client.
        """
        signed = f"{self._wall_s():.3f} {secrets.token_urlsafe(NUMBER_BYTES)} {address}"
        return f"{self._signature(method, target, signed)} {signed}"

    def check(self, method: str, target: str, value: str) -> str:
        """The client's address.

        Args:
            method, target: of the request.
            value: of the header; empty where there is none.

        Raises:
            HttpError: HOP_REFUSED (403).
        """
        given, _, signed = value.partition(" ")
        if not hmac.compare_digest(_bytes(given), _bytes(self._signature(method, target, signed))):
            raise _refused("its signature is not by this server's `token_secret`")
        told_s, number, address = signed.split(" ", 2)
        now_s = self._wall_s()
        if abs(now_s - float(told_s)) > GOOD_FOR_S:
            raise _refused(f"the clocks of the two nodes are more than {GOOD_FOR_S:g} s apart, or it is an old one")
        self._forget(now_s)
        if number in self._seen or len(self._seen) >= SEEN_MAX:
            raise _refused("it came twice")
        self._seen[number] = now_s + 2 * GOOD_FOR_S
        return address

    def _signature(self, method: str, target: str, signed: str) -> str:
        return hmac.new(self._key, _bytes(f"{method}\n{target}\n{signed}"), hashlib.sha256).hexdigest()

    def _forget(self, now_s: float) -> None:
        while self._seen:
            number = next(iter(self._seen))
            if self._seen[number] > now_s:
                return
            del self._seen[number]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # as aiohttp reads headers that are no UTF-8


def _refused(why: str) -> HttpError:
    log.warning("hop refused", reason=why)
    return HttpError(
        HTTPStatus.FORBIDDEN,
        "HOP_REFUSED",
        "Only servers of this deployment may call this address.",
        "Call the public address.",
    )
