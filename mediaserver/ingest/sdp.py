"""Offers in, without I/O: what a client offers is checked.

Nothing of an offer is passed through. It is read into an `Offer`, from which `answer.py` writes anew both what the
WebRTC engine gets and what the client gets (RFC 8866, RFC 9429). So a line that nobody here knows can neither reach the
engine's parser nor come back to the client.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mediaserver.errors import MediaError
from mediaserver.ingest.sdp_fragment import Fragment
from mediaserver.ingest.sdp_parts import (
    DIRECTIONS,
    EXTENSION_LINE,
    PRINTABLE,
    Section,
    Transport,
    attribute_of,
    invalid_sdp,
    matches,
    read_transport,
    split_sections,
)
from mediaserver.session_config import MAX_CHANNELS, MAX_LABEL_LETTERS

OFFER_MAX_BYTES = 64 * 1024
"""A browser's offer with audio, video and data is 6 to 10 KiB."""

SECTIONS_MAX = MAX_CHANNELS + 4
"""The tracks of a call, its data channels, and some video: more is no client of ours."""

SSRCS_MAX = 8
"""One audio source needs one; a gateway that re-uses its section may list a few."""

CLOCK_RATES_HZ = {"opus": 48_000, "pcmu": 8_000, "pcma": 8_000, "g722": 8_000}
"""Codecs that are decoded here, with their RTP clock (G.722 says 8 kHz for historical reasons, RFC 3551 §4.5.2)."""

STATIC_PAYLOADS = {0: "PCMU", 8: "PCMA", 9: "G722"}
"""Payload types that need no `rtpmap` (RFC 3551 §6)."""

DYNAMIC_PAYLOADS = range(96, 128)
"""The only payload types that the engine takes over from an offer; for others it would answer its own number."""

MID_EXTENSION = "urn:ietf:params:rtp-hdrext:sdes:mid"

_MEDIA = re.compile(r"m=([a-z]{1,16}) ([0-9]{1,5})(?:/[0-9]{1,5})? ([A-Za-z0-9/]{1,32}) ([!-~]+(?: [!-~]+)*) *")
_RTPMAP = re.compile(r"([0-9]{1,3}) ([A-Za-z0-9_.-]{1,32})/([0-9]{1,6})(?:/([0-9]))?")
_SSRC = re.compile(r"([0-9]{1,10})(?: .*)?")
_MID = re.compile(r"[!-~]{1,32}")


@dataclass(frozen=True, slots=True)
class Codec:
    """An audio codec that both sides know."""

    payload_type: int
    name: str
    clock_rate_hz: int


@dataclass(frozen=True, slots=True)
class Track:
    """An audio section that is heard: a channel of the call, or two.

    Args:
        index: of the offer's sections.
        mid: the tag by which the engine knows it; made up where the offer has none.
        name: what the client calls it: its track's id, else its stream's, else the tag.
        codecs: in the client's order of preference.
        ssrcs: that are announced for it.
        mid_extension: the number of the header extension that says which track a packet is of, where there is one.
    """

    index: int
    mid: str
    name: str
    codecs: tuple[Codec, ...]
    ssrcs: tuple[int, ...]
    mid_extension: int | None


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer that was understood and can be served.

    Args:
        sections: all of them, in their order.
        bundle: tags of the living sections that share the tracks' transport.
        tracks: that are heard, at least one.
        is_stereo: each is two channels, left and right.
        unheard: indices of audio sections beyond `MAX_CHANNELS`: the answer takes nothing of them.
        application: index of the section of the data channels.
        transport: of the tracks.
        application_transport: of the data channels; the same object where they share it.
    """

    sections: tuple[Section, ...]
    bundle: tuple[str, ...]
    tracks: tuple[Track, ...]
    is_stereo: bool
    unheard: tuple[int, ...]
    application: int | None
    transport: Transport
    application_transport: Transport | None

    @property
    def channels_each(self) -> int:
        """Of how many channels each track is the audio."""
        return 2 if self.is_stereo else 1

    def channels_of(self, track: int) -> range:
        """The channels that a track is the audio of."""
        return range(track * self.channels_each, (track + 1) * self.channels_each)

    @property
    def channel_names(self) -> list[str]:
        """What the channels are called where the client has not said so."""
        if not self.is_stereo:
            return [track.name for track in self.tracks]
        sides = ("left", "right")
        if len(self.tracks) == 1:
            return list(sides)
        return [f"{track.name[: MAX_LABEL_LETTERS - 6]} {side}" for track in self.tracks for side in sides]

    @property
    def application_mid(self) -> str:
        """The tag by which the engine knows the data channels."""
        return "data" if self.application is None else self.sections[self.application].mid or "data"

    @property
    def shares_transport(self) -> bool:
        """Whether data channels run over the audio's transport."""
        return self.application is not None and self.application_transport is self.transport

    def transport_mid(self, mid: str | None) -> str:
        """The tag of the engine's section whose transport a candidate of that section is for."""
        apart = self.application is not None and not self.shares_transport
        return self.application_mid if apart and mid == self.application_mid else self.tracks[0].mid

    def is_restart(self, fragment: Fragment) -> bool:
        """Whether a fragment brings other ICE credentials than the offer (RFC 9725 §4.3.3)."""
        known = [self.transport, *([self.application_transport] if self.application_transport else [])]
        return (fragment.ufrag is not None and fragment.ufrag not in {item.ufrag for item in known}) or (
            fragment.password is not None and fragment.password not in {item.password for item in known}
        )


def parse_offer(text: str, *, allow_loopback: bool, is_stereo: bool = False) -> Offer:
    """Read an offer and decide whether it can be served.

    Args:
        text: the SDP as the client sent it.
        allow_loopback: whether candidates on loopback addresses are meant for this host.
        is_stereo: whether each track is two channels, which only Opus has.

    Raises:
        MediaError: `INVALID_SDP`, `NO_USABLE_AUDIO`, `UNSUPPORTED_CODEC`, `TOO_MANY_AUDIO_TRACKS`,
            `TRACKS_INDISTINGUISHABLE`, `TOO_MANY_MEDIA_SECTIONS`, `TOO_MANY_SSRCS` or `RTCP_MUX_REQUIRED`.
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
    audio = sections[sending[0]]
    bundle = _bundle(session, sections, audio)
    if len(sending) > 1 and any(sections[index].mid not in bundle for index in sending):
        raise MediaError(
            "TOO_MANY_AUDIO_TRACKS",
            f"The offer sends {len(sending)} audio tracks that do not share a transport.",
            "Bundle the tracks of a call (a=group:BUNDLE, RFC 9143), or open one peer connection per track.",
        )
    heard = sending[: MAX_CHANNELS // (2 if is_stereo else 1)]
    tracks = _named([_track(sections[index], index, is_stereo) for index in heard], sections)
    _require_distinct(tracks)
    tagged = next((s for s in sections if bundle and s.mid == bundle[0]), audio)
    transport = read_transport(session, tagged, allow_loopback=allow_loopback)
    application, application_transport = _application(session, sections, bundle, transport, allow_loopback)
    unheard = tuple(sending[len(heard) :])
    return Offer(sections, bundle, tracks, is_stereo, unheard, application, transport, application_transport)


def _read(text: str) -> tuple[list[tuple[str, str]], tuple[Section, ...]]:
    if len(text.encode("utf-8", "replace")) > OFFER_MAX_BYTES:
        raise invalid_sdp(f"The offer is longer than {OFFER_MAX_BYTES} bytes.")
    groups = split_sections(text)
    if not groups[0] or groups[0][0].rstrip() != "v=0":
        raise invalid_sdp("The body is not an SDP offer: its first line is not `v=0`.")
    if len(groups) - 1 > SECTIONS_MAX:
        raise MediaError(
            "TOO_MANY_MEDIA_SECTIONS",
            f"The offer has {len(groups) - 1} media sections; at most {SECTIONS_MAX} are served.",
            "Offer the audio tracks of one call and one data channel section.",
        )
    session = [attribute_of(line) for line in groups[0]]
    default = next((name for name, _ in session if name in DIRECTIONS), "sendrecv")
    sections = tuple(_section(lines, default) for lines in groups[1:])
    mids = [section.mid for section in sections if section.mid is not None]
    if len(set(mids)) != len(mids) or not all(_MID.fullmatch(mid) for mid in mids):
        raise invalid_sdp("Media sections have the same or malformed `mid`s.")
    return session, sections


def _section(lines: list[str], default_direction: str) -> Section:
    match = _MEDIA.fullmatch(lines[0])
    if match is None or int(match[2]) > 65_535:
        raise invalid_sdp("A media line is malformed.")
    attributes = tuple(item for item in map(attribute_of, lines[1:]) if item[0])
    direction = next((name for name, _ in reversed(attributes) if name in DIRECTIONS), default_direction)
    return Section(match[1], int(match[2]), match[3], tuple(match[4].split()), attributes, direction)


def _track(section: Section, index: int, is_stereo: bool) -> Track:
    """An audio section that is heard; `name` is its tag for now."""
    codecs = tuple(codec for codec in _codecs(section) if not is_stereo or codec.name.lower() == "opus")
    if not codecs:
        raise MediaError(
            "UNSUPPORTED_CODEC",
            f"The offer's audio has no codec that is known here{' and has two channels' if is_stereo else ''}.",
            f"Offer Opus (payload type 96 to 127){'' if is_stereo else ', PCMU, PCMA or G722'}.",
        )
    if section.first("rtcp-mux") is None and section.first("rtcp-mux-only") is None:
        raise MediaError(
            "RTCP_MUX_REQUIRED", "The offer wants RTCP on a port of its own.", "Offer a=rtcp-mux (RFC 8834 §4.5)."
        )
    ssrcs = tuple(dict.fromkeys(int(m[1]) for m in matches(_SSRC, section.values("ssrc")) if int(m[1]) < 2**32))
    if len(ssrcs) > SSRCS_MAX:
        raise MediaError(
            "TOO_MANY_SSRCS",
            f"The offer's audio lists {len(ssrcs)} sources; at most {SSRCS_MAX} are served.",
            "List only the source of the track that is sent.",
        )
    extensions = matches(EXTENSION_LINE, section.values("extmap"))
    numbers = [int(match[1]) for match in extensions if match[2] == MID_EXTENSION and 1 <= int(match[1]) <= 14]
    mid = section.mid or "audio"
    return Track(index, mid, mid, codecs, ssrcs, numbers[0] if numbers else None)


def _named(tracks: Sequence[Track], sections: Sequence[Section]) -> tuple[Track, ...]:
    """The tracks with their names; tags where two of them would have the same one."""
    names = [_name(sections[track.index]) or track.mid for track in tracks]
    if len(set(names)) < len(names):
        return tuple(tracks)
    return tuple(replace(track, name=name) for track, name in zip(tracks, names, strict=True))


def _name(section: Section) -> str:
    """What `msid` calls a section's track, else its stream (RFC 8830); empty where it says nothing."""
    value = section.first("msid") or ""
    if not PRINTABLE.fullmatch(value):
        return ""
    said = [part for part in value.split()[:2] if part != "-"]
    return said[-1][:MAX_LABEL_LETTERS] if said else ""


def _require_distinct(tracks: Sequence[Track]) -> None:
    """Refuse tracks whose packets could not be told apart: by source, by header extension, or by payload type."""
    sources = [ssrc for track in tracks for ssrc in track.ssrcs]
    if len(set(sources)) < len(sources):
        raise invalid_sdp("Two audio tracks list the same source.")
    for track in tracks:
        own = {codec.payload_type for codec in track.codecs}
        others = {codec.payload_type for other in tracks if other is not track for codec in other.codecs}
        if not track.ssrcs and track.mid_extension is None and own & others:
            raise MediaError(
                "TRACKS_INDISTINGUISHABLE",
                f"Nothing tells the packets of the audio track {track.mid!r} from those of another.",
                f"Offer a=ssrc lines, the header extension {MID_EXTENSION}, or other payload types.",
            )


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
        return index, read_transport(session, section, allow_loopback=allow_loopback)
    return None, None


def _is_data_channel(section: Section) -> bool:
    if section.profile == "DTLS/SCTP":  # older browsers name the port in the media line
        return section.formats[0].isascii() and section.formats[0].isdigit() and 0 < int(section.formats[0]) < 65_536
    return section.profile == "UDP/DTLS/SCTP" and section.formats == ("webrtc-datachannel",)
