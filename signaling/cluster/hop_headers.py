"""What of a message's headers goes on where it is passed on: all but those of the one connection (RFC 9110 §7.6.1)."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import hdrs
from multidict import CIMultiDict, CIMultiDictProxy

ORIGIN = "X-VoiceForge-Hop"
"""Where a request that was passed on comes from, signed. Only hops set it; from anybody else it is left out."""

OF_ONE_CONNECTION = frozenset(
    name.lower()
    for name in (
        hdrs.CONNECTION,
        hdrs.KEEP_ALIVE,
        "Proxy-Connection",
        hdrs.PROXY_AUTHENTICATE,
        hdrs.PROXY_AUTHORIZATION,
        hdrs.TE,
        hdrs.TRAILER,
        hdrs.TRANSFER_ENCODING,
        hdrs.UPGRADE,
        hdrs.EXPECT,  # answered here before the handler ran
        ORIGIN,
    )
)


def passed_on(
    headers: CIMultiDict[str] | CIMultiDictProxy[str], *, add: Mapping[str, str] | None = None
) -> CIMultiDict[str]:
    """The headers of a message as the next hop gets them.

    Args:
        headers: as they came.
        add: set on top, in place of what there is.
    """
    named = {
        name.strip().lower()
        for value in headers.getall(hdrs.CONNECTION, [])
        for name in value.split(",")
        if name.strip()
    }
    left_out = named | OF_ONE_CONNECTION
    on: CIMultiDict[str] = CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in left_out)
    for name, value in (add or {}).items():
        on[name] = value
    return on
