"""Where a request comes from that another place passed on: the client's address, signed by who passed it on.

The signature is good for one request at one place: whose it is, the method, the target, the time and a number that is
never taken twice. Headers and the body are not signed: who can change these on the way can read the keys in them too.
The signing key is made of `token_secret`, which all places share.
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
"""Numbers that are remembered, 150 bytes each: 3000 requests a second for twice `GOOD_FOR_S`. None is forgotten before
what it came with is too old: one more request is refused instead. Only who has the secret can add one."""

PURPOSE = b"voiceforge hop 2"
"""So that no signature of another kind (join tokens have the same secret) is one of these."""


class HopOrigin:
    """Signs and checks.

    Args:
        secret: `token_secret`.
        place_id: which place this is: what is signed for another is not believed.
        wall_s: seconds since 1970.
    """

    def __init__(self, secret: str, place_id: str, *, wall_s: Callable[[], float] = time.time) -> None:
        self._key = hmac.digest(secret.encode(), PURPOSE, hashlib.sha256)
        self._place_id = place_id
        self._wall_s = wall_s
        self._seen: dict[str, float] = {}  # number -> when it may be forgotten, in that order; bound: SEEN_MAX

    def sign(self, method: str, target: str, address: str, *, to: str) -> str:
        """The header's value.

        Args:
            method: of the request.
            target: its path and query, as they are sent.
            address: of the client.
            to: id of the place that it goes to.
        """
        signed = f"{self._wall_s():.3f} {secrets.token_urlsafe(NUMBER_BYTES)} {to} {address}"
        return f"{self._signature(method, target, signed)} {signed}"

    def check(self, method: str, target: str, value: str) -> str:
        """The client's address.

        Args:
            method, target: of the request.
            value: of the header; empty where there is none.

        Raises:
            HttpError: HOP_REFUSED (403); HOP_MISDIRECTED (421): it is for another place, perhaps one that was here.
        """
        given, _, signed = value.partition(" ")
        if not hmac.compare_digest(_bytes(given), _bytes(self._signature(method, target, signed))):
            raise _refused("its signature is not by this server's `token_secret`")
        told_s, number, to, address = signed.split(" ", 3)
        now_s = self._wall_s()
        if abs(now_s - float(told_s)) > GOOD_FOR_S:
            raise _refused(f"the clocks of the two nodes are more than {GOOD_FOR_S:g} s apart, or it is an old one")
        if to != self._place_id:
            raise _misdirected(to)
        self._forget(now_s)
        if number in self._seen:
            raise _refused("it came twice")
        if len(self._seen) >= SEEN_MAX:
            raise _refused("more came in a minute than can be told from repetitions")
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


def _misdirected(to: str) -> HttpError:
    log.warning("hop misdirected", for_place=to)
    return HttpError(
        HTTPStatus.MISDIRECTED_REQUEST,
        "HOP_MISDIRECTED",
        "The request is for another server of this deployment.",
        "Call the public address.",
    )
