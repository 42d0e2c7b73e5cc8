"""Where a request comes from: its connection's other end, or what a trusted proxy says of it."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from signaling.auth.keys import is_within

FORWARDED_FOR = "X-Forwarded-For"

HOPS_MAX = 32
"""Proxies in a row that are believed; a longer list is somebody's joke."""

UNIX_SOCKET = "127.0.0.1"
"""A socket in a folder is this machine's."""

HOP_ADDRESS = web.RequestKey("hop_address", str)
"""The client's address, of a request that another place of this deployment passed on; only `cluster.hop` sets it."""


def client_address(request: web.BaseRequest, trusted: Sequence[str]) -> str:
    """The address of the client.

    Args:
        request: any request.
        trusted: networks of proxies whose `X-Forwarded-For` is believed; anybody else's is anybody's invention.

    Returns:
        The nearest address that no trusted proxy has; where all are, the farthest.
    """
    passed_on: str | None = request.get(HOP_ADDRESS)
    if passed_on is not None:
        return passed_on
    address = request.remote or UNIX_SOCKET
    if not is_within(address, trusted):
        return address
    told = ",".join(request.headers.getall(FORWARDED_FOR, [])).split(",")[-HOPS_MAX:]
    for hop in reversed([hop.strip() for hop in told if hop.strip()]):
        address = _bare(hop)
        if not is_within(address, trusted):
            break
    return address


def _bare(hop: str) -> str:
    """Without a port, which some proxies add: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
