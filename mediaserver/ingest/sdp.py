"""Offers in, without I/O: what a client offers is checked.

Nothing of an offer is passed through. It is read into an `Offer`, from which `answer.py` writes anew both what the
WebRTC engine gets and what the client gets (RFC 8866, RFC 9429). So a line that nobody here knows can neither reach the
engine's parser nor come back to the client.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from mediaserver.errors import MediaError

OFFER_MAX_BYTES = 64 * 1024
"""A browser's offer with audio, video and data is 6 to 10 KiB."""

FRAGMENT_MAX_BYTES = 16 * 1024
"""A trickle fragment holds a handful of candidates of about 100 bytes each."""

SECTIONS_MAX = 4
"""Audio, video, screen and data: more is no client of ours."""

CANDIDATES_MAX = 32
"""Every pair costs a connectivity check; a laptop with VPN and containers has about a dozen. Later ones are dropped."""

SSRCS_MAX = 8
"""One audio source needs one; a gateway that re-uses its section may list a few."""

CLOCK_RATES_HZ = {"opus": 48_000, "pcmu": 8_000, "pcma": 8_000, "g722": 8_000}
"""Codecs that are decoded here, with their RTP clock (G.722 says 8 kHz for historical reasons, RFC 3551 §4.5.2)."""

STATIC_PAYLOADS = {0: "PCMU", 8: "PCMA", 9: "G722"}
"""Payload types that need no `rtpmap` (RFC 3551 §6)."""

DYNAMIC_PAYLOADS = range(96, 128)
"""The only payload types that the engine takes over from an offer; for others it would answer its own number."""

MID_EXTENSION = "urn:ietf:params:rtp-hdrext:sdes:mid"

METADATA_ADDRESSES = frozenset(map(ip_address, ("100.100.100.200", "fd00:ec2::254")))
"""Instance metadata services that are not link-local; the well-known 169.254.169.254 is."""

_LINE_END = re.compile(r"\r\n|\n|\r")
_MEDIA = re.compile(r"m=([a-z]{1,16}) ([0-9]{1,5})(?:/[0-9]{1,5})? ([A-Za-z0-9/]{1,32}) ([!-~]+(?: [!-~]+)*) *")
_RTPMAP = re.compile(r"([0-9]{1,3}) ([A-Za-z0-9_.-]{1,32})/([0-9]{1,6})(?:/([0-9]))?")
_CANDIDATE = re.compile(
    r"([!-~]{1,32}) ([0-9]{1,3}) ([A-Za-z-]{3,8}) ([0-9]{1,10}) ([!-~]{2,255}) ([0-9]{1,5}) typ (host|srflx|relay)\b"
)
_FINGERPRINT = re.compile(r"(sha-256|sha-384|sha-512) ([0-9A-F]{2}(?::[0-9A-F]{2}){31,63})", re.IGNORECASE)
EXTENSION_LINE = re.compile(r"([0-9]{1,2})(?:/[a-z]+)? (\S+)")
_SSRC = re.compile(r"([0-9]{1,10})(?: .*)?")
_MID = re.compile(r"[!-~]{1,32}")
_ICE_TEXT = re.compile(r"[A-Za-z0-9+/=_-]{4,256}")
PRINTABLE = re.compile(r"[ -~]{1,512}")
_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
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


@dataclass(frozen=True, slots=True)
class Codec:
    """An audio codec that both sides know."""

    payload_type: int
    name: str
    clock_rate_hz: int


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer that was understood and can be served. `audio` and `application` are indices of `sections`."""

    sections: tuple[Section, ...]
    bundle: tuple[str, ...]
    audio: int
    application: int | None
    codecs: tuple[Codec, ...]
    ssrcs: tuple[int, ...]
    transport: Transport
    application_transport: Transport | None

    @property
    def audio_mid(self) -> str:
        """The tag by which the engine knows the audio; made up where the offer has none."""
        return self.sections[self.audio].mid or "audio"

    @property
    def application_mid(self) -> str:
        """The tag by which the engine knows the data channels."""
        return "data" if self.application is None else self.sections[self.application].mid or "data"

    @property
    def shares_transport(self) -> bool:
        """Whether data channels run over the audio's transport."""
        return self.application is not None and self.application_transport is self.transport

    def is_restart(self, fragment: Fragment) -> bool:
        """Whether a fragment brings other ICE credentials than the offer (RFC 9725 §4.3.3)."""
        known = [self.transport, *([self.application_transport] if self.application_transport else [])]
        return (fragment.ufrag is not None and fragment.ufrag not in {item.ufrag for item in known}) or (
            fragment.password is not None and fragment.password not in {item.password for item in known}
        )


@dataclass(frozen=True, slots=True)
class Fragment:
    """A trickle fragment (RFC 8840 §9): candidates, each with the tag of its section where that is given."""

    ufrag: str | None
    password: str | None
    candidates: tuple[tuple[str | None, Candidate], ...]


def parse_offer(text: str, *, allow_loopback: bool) -> Offer:
    """Read an offer and decide whether it can be served.

    Args:
        text: the SDP as the client sent it.
        allow_loopback: whether candidates on loopback addresses are meant for this host.

    Raises:
        MediaError: `INVALID_SDP`, `NO_USABLE_AUDIO`, `UNSUPPORTED_CODEC`, `TOO_MANY_AUDIO_TRACKS`,
            `TOO_MANY_MEDIA_SECTIONS`, `TOO_MANY_SSRCS` or `RTCP_MUX_REQUIRED`.
    """
    session, sections = _read(text)
    sending = [
        i for i, s in enumerate(sections) if s.kind == "audio" and s.alive and s.direction in ("sendrecv", "sendonly")
    ]
    if not sending:
        raise MediaError(
            "NO_USABLE_AUDIO",
            "The offer has no audio that the client would send.",
            "Add a microphone track, or set the audio transceiver's direction to sendonly.",
        )
    if len(sending) > 1:
        raise MediaError(
            "TOO_MANY_AUDIO_TRACKS",
            f"The offer sends {len(sending)} audio tracks; one peer connection carries one.",
            "Open one peer connection per track: each is a session of its own.",
        )
    index = sending[0]
    audio = sections[index]
    codecs = _codecs(audio)
    if not codecs:
        raise MediaError(
            "UNSUPPORTED_CODEC",
            "The offer's audio has no codec that is known here.",
            "Offer Opus (payload type 96 to 127), PCMU, PCMA or G722.",
        )
    if audio.first("rtcp-mux") is None and audio.first("rtcp-mux-only") is None:
        raise MediaError(
            "RTCP_MUX_REQUIRED", "The offer wants RTCP on a port of its own.", "Offer a=rtcp-mux (RFC 8834 §4.5)."
        )
    ssrcs = tuple(dict.fromkeys(int(m[1]) for m in matches(_SSRC, audio.values("ssrc")) if int(m[1]) < 2**32))
    if len(ssrcs) > SSRCS_MAX:
        raise MediaError(
            "TOO_MANY_SSRCS",
            f"The offer's audio lists {len(ssrcs)} sources; at most {SSRCS_MAX} are served.",
            "List only the source of the track that is sent.",
        )
    bundle = _bundle(session, sections, audio)
    tagged = next((s for s in sections if bundle and s.mid == bundle[0]), audio)
    transport = _transport(session, tagged, allow_loopback=allow_loopback)
    application, application_transport = _application(session, sections, bundle, transport, allow_loopback)
    return Offer(sections, bundle, index, application, codecs, ssrcs, transport, application_transport)


def parse_fragment(text: str, *, allow_loopback: bool) -> Fragment:
    """Read an `application/trickle-ice-sdpfrag` body (RFC 8840 §9).

    Candidates that cannot be used here are left out, as in an offer; end-of-candidates changes nothing.

    Raises:
        MediaError: `INVALID_SDP` for a body that is too long or has no attribute line.
    """
    if len(text.encode("utf-8", "replace")) > FRAGMENT_MAX_BYTES:
        raise _invalid(f"The fragment is longer than {FRAGMENT_MAX_BYTES} bytes.")
    ufrag: str | None = None
    password: str | None = None
    mid: str | None = None
    found: list[tuple[str | None, Candidate]] = []
    lines = [line for line in _LINE_END.split(text) if line]
    if not any(line.startswith("a=") for line in lines):
        raise _invalid("The fragment has no attribute line.")
    for line in lines:
        name, value = _attribute(line)
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


def _read(text: str) -> tuple[list[tuple[str, str]], tuple[Section, ...]]:
    if len(text.encode("utf-8", "replace")) > OFFER_MAX_BYTES:
        raise _invalid(f"The offer is longer than {OFFER_MAX_BYTES} bytes.")
    groups = split_sections(text)
    if not groups[0] or groups[0][0].rstrip() != "v=0":
        raise _invalid("The body is not an SDP offer: its first line is not `v=0`.")
    if len(groups) - 1 > SECTIONS_MAX:
        raise MediaError(
            "TOO_MANY_MEDIA_SECTIONS",
            f"The offer has {len(groups) - 1} media sections; at most {SECTIONS_MAX} are served.",
            "Offer one audio track and one data channel section.",
        )
    session = [_attribute(line) for line in groups[0]]
    default = next((name for name, _ in session if name in _DIRECTIONS), "sendrecv")
    sections = tuple(_section(lines, default) for lines in groups[1:])
    mids = [section.mid for section in sections if section.mid is not None]
    if len(set(mids)) != len(mids) or not all(_MID.fullmatch(mid) for mid in mids):
        raise _invalid("Media sections have the same or malformed `mid`s.")
    return session, sections


def _section(lines: list[str], default_direction: str) -> Section:
    match = _MEDIA.fullmatch(lines[0])
    if match is None or int(match[2]) > 65_535:
        raise _invalid("A media line is malformed.")
    attributes = tuple(item for item in map(_attribute, lines[1:]) if item[0])
    direction = next((name for name, _ in reversed(attributes) if name in _DIRECTIONS), default_direction)
    return Section(match[1], int(match[2]), match[3], tuple(match[4].split()), attributes, direction)


def _codecs(section: Section) -> tuple[Codec, ...]:
    """The codecs of an audio section that are known here, in the client's order of preference."""
    names = {str(pt): (name, 8_000) for pt, name in STATIC_PAYLOADS.items()}
    names |= {m[1]: (m[2], int(m[3])) for m in matches(_RTPMAP, section.values("rtpmap"))}
    found: dict[int, Codec] = {}
    for payload in section.formats:
        name, clock_rate_hz = names.get(payload, ("", 0))
        if CLOCK_RATES_HZ.get(name.lower()) != clock_rate_hz:
            continue
        number = int(payload)
        if number in DYNAMIC_PAYLOADS or STATIC_PAYLOADS.get(number, "").lower() == name.lower():
            found.setdefault(number, Codec(number, name, clock_rate_hz))
    return tuple(found.values())


def _bundle(session: list[tuple[str, str]], sections: tuple[Section, ...], audio: Section) -> tuple[str, ...]:
    """The tags of the living sections that share the audio's transport; the first one's is used (RFC 9143)."""
    alive = {section.mid for section in sections if section.alive}
    for name, value in session:
        semantics, *mids = value.split() or [""]
        if name == "group" and semantics == "BUNDLE" and audio.mid in mids:
            return tuple(dict.fromkeys(mid for mid in mids if mid in alive))
    return ()


def _application(
    session: list[tuple[str, str]],
    sections: tuple[Section, ...],
    bundle: tuple[str, ...],
    shared: Transport,
    allow_loopback: bool,
) -> tuple[int | None, Transport | None]:
    for index, section in enumerate(sections):
        if section.kind != "application" or not section.alive or not _is_data_channel(section):
            continue
        if section.mid is not None and section.mid in bundle:
            return index, shared
        return index, _transport(session, section, allow_loopback=allow_loopback)
    return None, None


def _is_data_channel(section: Section) -> bool:
    if section.profile == "DTLS/SCTP":  # older browsers name the port in the media line
        return section.formats[0].isascii() and section.formats[0].isdigit() and 0 < int(section.formats[0]) < 65_536
    return section.profile == "UDP/DTLS/SCTP" and section.formats == ("webrtc-datachannel",)


def sctp_port(section: Section) -> int:
    """The port of a data channel's association (RFC 8841 §5), 5000 where none that can be is given."""
    value = section.first("sctp-port") or ""
    valid = value.isascii() and value.isdigit() and len(value) <= 5 and 0 < int(value) < 65_536
    return int(value) if valid else 5000  # the port that every implementation uses


def _transport(session: list[tuple[str, str]], section: Section, *, allow_loopback: bool) -> Transport:
    def either(name: str) -> str:
        return section.first(name) or next((value for key, value in session if key == name), "")

    ufrag, password, setup = either("ice-ufrag"), either("ice-pwd"), either("setup") or "active"
    if not _ICE_TEXT.fullmatch(ufrag) or not _ICE_TEXT.fullmatch(password):
        raise _invalid("The offer has no valid `ice-ufrag` and `ice-pwd`.")
    stated = [value for key, value in (*section.attributes, *session) if key == "fingerprint"]
    fingerprints = tuple(f"{m[1].lower()} {m[2].upper()}" for m in matches(_FINGERPRINT, stated))
    if not fingerprints:
        raise _invalid("The offer has no SHA-2 `fingerprint`: media is taken over DTLS-SRTP only.")
    if setup not in _DTLS_SETUPS:
        raise _invalid("The offer's `setup` is none of actpass, active and passive.")
    candidates = usable_candidates(section.values("candidate"), allow_loopback=allow_loopback)[:CANDIDATES_MAX]
    lite = any(key == "ice-lite" for key, _ in session)
    return Transport(ufrag, password, setup, fingerprints, tuple(candidates), lite)


def split_sections(text: str) -> list[list[str]]:
    """The session's lines, then those of each media section."""
    groups: list[list[str]] = [[]]
    for line in _LINE_END.split(text):
        if line.startswith("m="):
            groups.append([line])
        elif line:
            groups[-1].append(line)
    return groups


def _attribute(line: str) -> tuple[str, str]:
    if not line.startswith("a="):
        return "", ""
    name, _, value = line[2:].partition(":")
    return name.strip(), value.strip()


def matches(pattern: re.Pattern[str], values: Iterable[str]) -> list[re.Match[str]]:
    """The matches of those values that have the pattern from end to end."""
    return [match for value in values if (match := pattern.fullmatch(value))]


def _invalid(message: str) -> MediaError:
    return MediaError("INVALID_SDP", message, "Send a WebRTC offer as application/sdp, unchanged.")
