"""Trickle fragments in, without I/O: candidates that a client found after its offer."""

from __future__ import annotations

from dataclasses import dataclass

from mediaserver.ingest.sdp_parts import (
    CANDIDATES_MAX,
    LINE_END,
    Candidate,
    attribute_of,
    invalid_sdp,
    usable_candidates,
)

FRAGMENT_MAX_BYTES = 16 * 1024
"""A trickle fragment holds a handful of candidates of about 100 bytes each."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """A trickle fragment (RFC 8840 §9): candidates, each with the tag of its section where that is given."""

    ufrag: str | None
    password: str | None
    candidates: tuple[tuple[str | None, Candidate], ...]


def parse_fragment(text: str, *, allow_loopback: bool) -> Fragment:
    """Read an `application/trickle-ice-sdpfrag` body (RFC 8840 §9).

    Candidates that cannot be used here are left out, as in an offer; end-of-candidates changes nothing.

    Raises:
        MediaError: `INVALID_SDP` for a body that is too long or has no attribute line.
    """
    if len(text.encode("utf-8", "replace")) > FRAGMENT_MAX_BYTES:
        raise invalid_sdp(f"The fragment is longer than {FRAGMENT_MAX_BYTES} bytes.")
    ufrag: str | None = None
    password: str | None = None
    mid: str | None = None
    found: list[tuple[str | None, Candidate]] = []
    lines = [line for line in LINE_END.split(text) if line]
    if not any(line.startswith("a=") for line in lines):
        raise invalid_sdp("The fragment has no attribute line.")
    for line in lines:
        name, value = attribute_of(line)
        if line.startswith("m="):
            mid = None
        elif name == "mid":
            mid = value
        elif name == "ice-ufrag":
            ufrag = value
        elif name == "ice-pwd":
            password = value
        elif name == "candidate":
            found += [(mid, item) for item in usable_candidates([value], allow_loopback=allow_loopback)]
    return Fragment(ufrag, password, tuple(found[:CANDIDATES_MAX]))
