"""Where a request comes from: its connection's other end, or what a trusted proxy says of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web
from multidict import CIMultiDictProxy

from signaling.auth.keys import is_within

FORWARDED_FOR, FORWARDED_PROTO = "X-Forwarded-For", "X-Forwarded-Proto"
FORWARDED = "Forwarded"

FORWARDED_MAX_LETTERS = 1024
"""A dozen hops. Quotes that are never closed are looked for again and again."""

HIDDEN = "unknown"
"""What RFC 7239 calls a client that a proxy does not name: nobody's address, so nobody is let in for it."""

_QUOTED = r'"(?:\\.|[^"\\])*"'
_ELEMENT = re.compile(rf'(?:[^,"]|{_QUOTED})+')
_PAIR = re.compile(rf"([!#$%&'*+.^_`|~0-9A-Za-z-]+)=({_QUOTED}|[^;\s\",]+)")

HOPS_MAX = 32
"""Proxies in a row that are believed; a longer list is somebody's joke."""

THIS_MACHINE = ("127.0.0.0/8", "::1/128")

HOP_ADDRESS = web.RequestKey("hop_address", str)
"""The client's address, of a request that another place of this deployment passed on; only `cluster.hop` sets it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from.

    Args:
        address: of the client.
        is_secure: whether it came by HTTPS, to us or to the proxy that it came to first of those that are trusted.
    """

    address: str
    is_secure: bool


def client_address(request: web.BaseRequest, trusted: Sequence[str]) -> str:
    """The address of the client: `origin_of` without the rest."""
    return origin_of(request, trusted).address


def origin_of(request: web.BaseRequest, trusted: Sequence[str]) -> Origin:
    """Where a request comes from.

    Proxies say so by `X-Forwarded-For` and `X-Forwarded-Proto`, or else by `Forwarded` (RFC 7239). Where both are
    there, `Forwarded` is left out: a proxy that knows of the first alone hands on what its client wrote into the other.

    Args:
        request: any request.
        trusted: networks of proxies that are believed; what anybody else says is anybody's invention.

    Returns:
        The nearest address that no trusted proxy has; where all are, the farthest. What a proxy of this machine sends
        that is not trusted comes from anywhere, and not from this machine: nobody's address.
    """
    passed_on: str | None = request.get(HOP_ADDRESS)
    if passed_on is not None:
        return Origin(passed_on, False)  # who passed it on has said what is to be said of HTTPS
    origin = Origin(request.remote or HIDDEN, request.secure)
    if not is_within(origin.address, trusted):
        is_passed_on = any(name in request.headers for name in (FORWARDED_FOR, FORWARDED_PROTO, FORWARDED))
        if is_passed_on and is_within(origin.address, THIS_MACHINE):
            return Origin(HIDDEN, origin.is_secure)
        return origin
    for hop in reversed(_hops(request.headers, origin)):
        origin = hop
        if not is_within(origin.address, trusted):
            break
    return origin


def _hops(headers: CIMultiDictProxy[str], ours: Origin) -> list[Origin]:
    """What proxies said, the farthest first."""
    schemes = [one.lower() for one in _listed(headers, FORWARDED_PROTO)]
    if FORWARDED_FOR in headers or FORWARDED not in headers:
        addresses = [_bare(one) for one in _listed(headers, FORWARDED_FOR)]
        if not schemes:
            return [Origin(address, ours.is_secure) for address in addresses]
        # One for each hop, or one for all: then the nearest proxy's own.
        aligned = schemes if len(schemes) == len(addresses) else [schemes[-1]] * len(addresses)
        told = [Origin(address, scheme == "https") for address, scheme in zip(addresses, aligned, strict=True)]
        return told or [Origin(ours.address, schemes[-1] == "https")]
    text = ",".join(headers.getall(FORWARDED))
    if len(text) > FORWARDED_MAX_LETTERS:
        return [Origin(HIDDEN, False)]
    elements = _ELEMENT.findall(text)[-HOPS_MAX:]
    return [_forwarded(element) for element in elements if element.strip()]


def _listed(headers: CIMultiDictProxy[str], name: str) -> list[str]:
    parts = ",".join(headers.getall(name, [])).split(",")[-HOPS_MAX:]
    return [part.strip() for part in parts if part.strip()]


def _forwarded(element: str) -> Origin:
    """One hop: `for="[2001:db8::1]:4711";proto=https`. One that is hidden (`for=_proxy`) has no address."""
    pairs: dict[str, str] = {}
    for name, value in _PAIR.findall(element):
        text = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        pairs.setdefault(name.lower(), text)
    return Origin(_bare(pairs.get("for", HIDDEN)), pairs.get("proto", "").lower() == "https")


def _bare(hop: str) -> str:
    """Without a port, which some proxies add: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
