"""What a client says to show who it is, in the form of any protocol. It goes into no log."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp import hdrs, web

from signaling.socket import offered_protocols

SCHEMES = ("token", "bearer")
"""Deepgram's browsers offer one of them as a subprotocol, and the key as the next."""

OPENAI_PROTOCOL = "openai-insecure-api-key."
"""What OpenAI's browsers write before a key that they offer as a subprotocol."""

QUERY_NAMES = ("token", "api_key")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What came with a request.

    Args:
        scheme: `token`, `bearer` or another, in lower case; empty where nothing came.
        value: the key or token.
        subprotocol: what the handshake answers, as the client wrote it.
    """

    scheme: str = ""
    value: str = field(default="", repr=False)
    subprotocol: str | None = None


def credentials_of(request: web.BaseRequest, *, in_query: bool = False) -> Credentials:
    """The subprotocol's, the header's or the query's, whichever there is first.

    Args:
        request: any request.
        in_query: whether this address takes them in its query, for clients that have no other way.
    """
    offered = offered_protocols(request)
    for at, item in enumerate(offered):
        if item.lower() in SCHEMES:
            return Credentials(item.lower(), offered[at + 1] if len(offered) > at + 1 else "", item)
    scheme, _, value = request.headers.get(hdrs.AUTHORIZATION, "").strip().partition(" ")
    if scheme:
        return Credentials(scheme.lower(), value.strip())
    for item in offered:
        if item.startswith(OPENAI_PROTOCOL):
            return Credentials("bearer", item.removeprefix(OPENAI_PROTOCOL))
    if in_query:
        for name in QUERY_NAMES:
            if request.query.get(name):
                return Credentials("bearer", request.query[name])
    return Credentials()
