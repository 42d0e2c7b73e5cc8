"""What offers and fragments are made of: lines, sections, candidates, transports. Read here, without I/O, and checked.

Nothing of an offer is passed through: what nobody here knows can neither reach the engine's parser nor come back to the
client (RFC 8866, RFC 9429).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from mediaserver.errors import MediaError

CANDIDATES_MAX = 32
"""Every pair costs a connectivity check; a laptop with VPN and containers has about a dozen. Later ones are dropped."""

METADATA_ADDRESSES = frozenset(map(ip_address, ("100.100.100.200", "fd00:ec2::254")))
"""Instance metadata services that are not link-local; the well-known 169.254.169.254 is."""

DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")

LINE_END = re.compile(r"\r\n|\n|\r")
EXTENSION_LINE = re.compile(r"([0-9]{1,2})(?:/[a-z]+)? (\S+)")
PRINTABLE = re.compile(r"[ -~]{1,512}")
_CANDIDATE = re.compile(
    r"([!-~]{1,32}) ([0-9]{1,3}) ([A-Za-z-]{3,8}) ([0-9]{1,10}) ([!-~]{2,255}) ([0-9]{1,5}) typ (host|srflx|relay)\b"
)
_FINGERPRINT = re.compile(r"(sha-256|sha-384|sha-512) ([0-9A-F]{2}(?::[0-9A-F]{2}){31,63})", re.IGNORECASE)
_ICE_TEXT = re.compile(r"[A-Za-z0-9+/=_-]{4,256}")
_DTLS_SETUPS = ("actpass", "active", "passive")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A UDP address at which a peer may be reached (RFC 8839 §5.1)."""

    foundation: str
    priority: int
    address: str
    port: int
    type: str

    def __str__(self) -> str:
        return f"{self.foundation} 1 udp {self.priority} {self.address} {self.port} typ {self.type}"


@dataclass(frozen=True, slots=True)
class Transport:
    """What ICE and DTLS need to know of the other side."""

    ufrag: str
    password: str
    setup: str
    fingerprints: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    ice_lite: bool


@dataclass(frozen=True, slots=True)
class Section:
    """One media section as it was offered; `attributes` are its `a=` lines as (name, value)."""

    kind: str
    port: int
    profile: str
    formats: tuple[str, ...]
    attributes: tuple[tuple[str, str], ...]
    direction: str

    def values(self, name: str) -> list[str]:
        """The values of all its attributes of that name, in order."""
        return [value for key, value in self.attributes if key == name]

    def first(self, name: str) -> str | None:
        """The value of its first attribute of that name."""
        return next((value for key, value in self.attributes if key == name), None)

    @property
    def mid(self) -> str | None:
        """Its identification tag, where it has one (RFC 5888)."""
        return self.first("mid")

    @property
    def alive(self) -> bool:
        """Whether it is offered at all: port 0 says no, unless it lives in a bundle only (RFC 9143 §6)."""
        return self.port != 0 or self.first("bundle-only") is not None


def usable_candidates(values: Iterable[str], *, allow_loopback: bool) -> list[Candidate]:
    """The candidates among `values` that may be checked from here; the rest is left out without a word.

    Left out are TCP, names (`.local` costs a second each to resolve and is found peer-reflexive anyway), addresses
    that mean this host (unless it serves loopback), link-local ones (cloud metadata services answer there) and
    multicast. An IPv4 address dressed as IPv6 is judged as what it is.
    """
    found: list[Candidate] = []
    for match in (match for value in values if (match := _CANDIDATE.match(value))):
        foundation, component, protocol, priority, host, port, kind = match.groups()
        try:
            address = ip_address(host)
        except ValueError:
            continue
        if isinstance(address, IPv6Address):
            if address.scope_id is not None:
                continue
            address = address.ipv4_mapped or address
        if (
            protocol.lower() != "udp"
            or component != "1"
            or not 0 < int(port) < 65_536
            or int(priority) >= 2**32
            or address.is_unspecified
            or address.is_multicast
            or address.is_link_local
            or address in METADATA_ADDRESSES
            or (address.is_loopback and not allow_loopback)
        ):
            continue
        found.append(Candidate(foundation, int(priority), str(address), int(port), kind))
    return found


def read_transport(session: list[tuple[str, str]], section: Section, *, allow_loopback: bool) -> Transport:
    """What a section says of its transport, or the whole session does.

    Raises:
        MediaError: `INVALID_SDP` without credentials, without a fingerprint, or with an unknown `setup`.
    """

    def either(name: str) -> str:
        return section.first(name) or next((value for key, value in session if key == name), "")

    ufrag, password, setup = either("ice-ufrag"), either("ice-pwd"), either("setup") or "active"
    if not _ICE_TEXT.fullmatch(ufrag) or not _ICE_TEXT.fullmatch(password):
        raise invalid_sdp("The offer has no valid `ice-ufrag` and `ice-pwd`.")
    stated = [value for key, value in (*section.attributes, *session) if key == "fingerprint"]
    fingerprints = tuple(f"{m[1].lower()} {m[2].upper()}" for m in matches(_FINGERPRINT, stated))
    if not fingerprints:
        raise invalid_sdp("The offer has no SHA-2 `fingerprint`: media is taken over DTLS-SRTP only.")
    if setup not in _DTLS_SETUPS:
        raise invalid_sdp("The offer's `setup` is none of actpass, active and passive.")
    candidates = usable_candidates(section.values("candidate"), allow_loopback=allow_loopback)[:CANDIDATES_MAX]
    lite = any(key == "ice-lite" for key, _ in session)
    return Transport(ufrag, password, setup, fingerprints, tuple(candidates), lite)


def sctp_port(section: Section) -> int:
    """The port of a data channel's association (RFC 8841 §5), 5000 where none that can be is given."""
    value = section.first("sctp-port") or ""
    valid = value.isascii() and value.isdigit() and len(value) <= 5 and 0 < int(value) < 65_536
    return int(value) if valid else 5000  # the port that every implementation uses


def split_sections(text: str) -> list[list[str]]:
    """The session's lines, then those of each media section."""
    groups: list[list[str]] = [[]]
    for line in LINE_END.split(text):
        if line.startswith("m="):
            groups.append([line])
        elif line:
            groups[-1].append(line)
    return groups


def attribute_of(line: str) -> tuple[str, str]:
    """A line as an attribute's name and value; two empty texts where it is none."""
    if not line.startswith("a="):
        return "", ""
    name, _, value = line[2:].partition(":")
    return name.strip(), value.strip()


def matches(pattern: re.Pattern[str], values: Iterable[str]) -> list[re.Match[str]]:
    """The matches of those values that have the pattern from end to end."""
    return [match for value in values if (match := pattern.fullmatch(value))]


def invalid_sdp(message: str) -> MediaError:
    """The refusal of what is no offer."""
    return MediaError("INVALID_SDP", message, "Send a WebRTC offer as application/sdp, unchanged.")
