"""Answers out, without I/O: what the WebRTC engine is offered and what the client is answered says what we want."""

from __future__ import annotations

from aiortc import RTCIceCandidate

from mediaserver.ingest.sdp import MID_EXTENSION, Codec, Offer, Track
from mediaserver.ingest.sdp_parts import PRINTABLE, Candidate, Section, Transport, sctp_port, split_sections

OPUS_PARAMETERS = "minptime=10;useinbandfec=1;usedtx=0;stereo=0;maxplaybackrate=16000;maxaveragebitrate=32000"
"""What we ask of an Opus sender (RFC 7587 §6.1). We hear 16 kHz mono, so more bandwidth is wasted, and it keeps the
encoder in the mode that has in-band FEC at all. 32 kbit/s is wideband speech (16 to 20) with room for its FEC copy.
No DTX: senders that pause make receivers late."""

STEREO_PARAMETERS = "minptime=10;useinbandfec=1;usedtx=0;stereo=1;maxplaybackrate=16000;maxaveragebitrate=64000"
"""The same of a sender whose two channels are two people."""

AUDIO_PTIME_MS = 20
"""Packets of 20 ms: half the overhead of 10 ms, and one lost packet is still concealed well."""

MESSAGE_MAX_BYTES = 64 * 1024
"""Largest data channel message that we announce to accept (RFC 8841 §6)."""

DISCARD_PORT = 9
"""The port of a section whose address is only known from its candidates (RFC 8840 §4.1.1)."""


def engine_offer(offer: Offer) -> str:
    """The offer as aiortc is to see it: the audio tracks that we take and the data channels, nothing else.

    `a=setup:actpass` becomes `active`, so that we are the DTLS server: aiortc's DTLS client offers ECDSA suites only
    and fails against peers with RSA certificates (GStreamer). End-of-candidates is never said: aioice gives up when
    it knows no candidate and expects none, yet a client that sent none (FFmpeg's WHIP muxer, hidden addresses) still
    reaches us and is found peer-reflexive. The peer's own connect timeout ends the wait.
    """
    mids = [track.mid for track in offer.tracks] + ([offer.application_mid] if offer.shares_transport else [])
    lines = ["v=0", "o=- 0 0 IN IP4 0.0.0.0", "s=-", "t=0 0"]
    if offer.transport.ice_lite:
        lines.append("a=ice-lite")
    lines += [f"a=group:BUNDLE {' '.join(mids)}"]
    for track in offer.tracks:
        lines += _track_lines(track, offer.transport)
    if offer.application is not None and offer.application_transport is not None:
        section = offer.sections[offer.application]
        legacy = section.profile == "DTLS/SCTP"
        lines += [
            f"m=application {DISCARD_PORT} {section.profile} {section.formats[0] if legacy else 'webrtc-datachannel'}",
            "c=IN IP4 0.0.0.0",
            f"a=mid:{offer.application_mid}",
            f"a=sctpmap:{section.formats[0]} webrtc-datachannel 1024"
            if legacy
            else f"a=sctp-port:{sctp_port(section)}",
        ]
        size = section.first("max-message-size")
        if size is not None and size.isascii() and size.isdigit() and len(size) <= 10:
            lines.append(f"a=max-message-size:{size}")
        lines += _transport_lines(offer.application_transport)
    return "\r\n".join(lines) + "\r\n"


def client_answer(offer: Offer, engine_answer: str) -> str:
    """The answer for the client, made of what aiortc answered to `engine_offer`.

    Every offered section gets its counterpart in its place (RFC 3264 §6): each track `recvonly` with all candidates
    in it, the data channels accepted, other sections that share the audio's transport (video, tracks beyond the bound)
    `inactive`, all others refused.
    """
    groups = split_sections(engine_answer)
    origin = next((line for line in groups[0] if line.startswith("o=")), "o=- 0 0 IN IP4 0.0.0.0")
    engine = dict(zip((track.index for track in offer.tracks), groups[1:], strict=False))
    engine_audio = groups[1]
    bodies: list[list[str]] = []
    bundled: list[str] = []
    for index, section in enumerate(offer.sections):
        in_bundle = section.mid is not None and section.mid in offer.bundle
        if index in engine:
            bodies.append(
                _audio_lines(section, engine[index], STEREO_PARAMETERS if offer.is_stereo else OPUS_PARAMETERS)
            )
        elif index == offer.application:
            bodies.append(_data_lines(section, groups[1 + len(offer.tracks)]))
        elif in_bundle and section.alive:
            bodies.append(_inactive_lines(section, engine_audio))
        else:
            bodies.append(_refused_lines(section))
            continue
        if in_bundle and section.mid is not None:
            bundled.append(section.mid)
    # The group names its first section first: that one's transport is used (RFC 9143 §7.3.1).
    bundled.sort(key=offer.bundle.index)
    lines = ["v=0", origin, "s=-", "t=0 0", *([f"a=group:BUNDLE {' '.join(bundled)}"] if bundled else [])]
    return "\r\n".join(lines + [line for body in bodies for line in body]) + "\r\n"


def ice_candidate(candidate: Candidate, mid: str) -> RTCIceCandidate:
    """A candidate as the engine takes it, for the transport of a section."""
    return RTCIceCandidate(
        component=1,
        foundation=candidate.foundation,
        ip=candidate.address,
        port=candidate.port,
        priority=candidate.priority,
        protocol="udp",
        type=candidate.type,
        sdpMid=mid,
    )


def _track_lines(track: Track, transport: Transport) -> list[str]:
    return [
        f"m=audio {DISCARD_PORT} UDP/TLS/RTP/SAVPF {' '.join(str(codec.payload_type) for codec in track.codecs)}",
        "c=IN IP4 0.0.0.0",
        f"a=mid:{track.mid}",
        "a=sendonly",
        "a=rtcp-mux",
        *([] if track.mid_extension is None else [f"a=extmap:{track.mid_extension} {MID_EXTENSION}"]),
        *(_rtpmap(codec) for codec in track.codecs),
        *(f"a=ssrc:{ssrc} cname:peer" for ssrc in track.ssrcs),
        *_transport_lines(transport),
    ]


def _transport_lines(transport: Transport) -> list[str]:
    return [
        *(f"a=candidate:{candidate}" for candidate in transport.candidates),
        f"a=ice-ufrag:{transport.ufrag}",
        f"a=ice-pwd:{transport.password}",
        *(f"a=fingerprint:{fingerprint}" for fingerprint in transport.fingerprints),
        f"a=setup:{'passive' if transport.setup == 'passive' else 'active'}",
    ]


def _audio_lines(section: Section, engine: list[str], parameters: str) -> list[str]:
    port, payloads = engine[0].split()[1], engine[0].split()[3:]
    opus = [line.split()[0].removeprefix("a=rtpmap:") for line in engine if "opus/48000" in line.lower()]
    return [
        f"m=audio {port} {section.profile} {' '.join(payloads)}",
        *_answered_transport(engine),
        *_mid_line(section),
        "a=recvonly",
        "a=rtcp-mux",
        *(["a=rtcp-mux-only"] if section.first("rtcp-mux-only") is not None else []),
        *(line for line in engine if line.startswith(("a=extmap:", "a=rtpmap:"))),
        *(f"a=fmtp:{payload} {parameters}" for payload in opus),
        f"a=ptime:{AUDIO_PTIME_MS}",
    ]


def _data_lines(section: Section, engine: list[str]) -> list[str]:
    return [
        engine[0],
        *_answered_transport(engine),
        *_mid_line(section),
        *(line for line in engine if line.startswith(("a=sctp-port:", "a=sctpmap:"))),
        f"a=max-message-size:{MESSAGE_MAX_BYTES}",
    ]


def _inactive_lines(section: Section, engine: list[str]) -> list[str]:
    """A section that we do not use but whose transport may be the bundle's: kept, silent, with its own codecs."""
    return [
        f"m={section.kind} {DISCARD_PORT} {section.profile} {' '.join(section.formats)}",
        *_answered_transport(engine),
        *_mid_line(section),
        "a=inactive",
        *(["a=rtcp-mux"] if section.kind in ("audio", "video") else []),
        *(
            f"a={name}:{value}"
            for name, value in section.attributes
            if name in ("rtpmap", "fmtp", "sctp-port") and PRINTABLE.fullmatch(value)
        ),
    ]


def _refused_lines(section: Section) -> list[str]:
    media = f"m={section.kind} 0 {section.profile} {' '.join(section.formats)}"
    return [media, "c=IN IP4 0.0.0.0", *_mid_line(section), "a=inactive"]


def _answered_transport(engine: list[str]) -> list[str]:
    wanted = ("c=", "a=candidate:", "a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:sha-256 ", "a=setup:")
    lines = [line for line in engine if line.startswith(wanted)]
    return [*lines, "a=end-of-candidates", "a=ice-options:trickle"]


def _mid_line(section: Section) -> list[str]:
    return [] if section.mid is None else [f"a=mid:{section.mid}"]


def _rtpmap(codec: Codec) -> str:
    return f"a=rtpmap:{codec.payload_type} {codec.name}/{codec.clock_rate_hz}" + (
        "/2" if codec.name.lower() == "opus" else ""
    )
