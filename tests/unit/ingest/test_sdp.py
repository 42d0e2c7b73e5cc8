"""Offers of the clients that connect here, what we refuse, and what we answer."""

from __future__ import annotations

import re

import pytest
from aiortc.sdp import SessionDescription
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaserver.errors import MediaError
from mediaserver.ingest.answer import OPUS_PARAMETERS, client_answer, engine_offer
from mediaserver.ingest.sdp import OFFER_MAX_BYTES, SECTIONS_MAX, parse_offer
from mediaserver.ingest.sdp_fragment import parse_fragment
from mediaserver.ingest.sdp_parts import CANDIDATES_MAX, usable_candidates

FINGERPRINT = ":".join(f"{n:02X}" for n in range(32))

CHROMIUM = f"""v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1 2
a=extmap-allow-mixed
a=msid-semantic: WMS stream
m=audio 51001 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 192.168.1.20
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1467250027 1 udp 2122260223 192.168.1.20 51001 typ host generation 0 network-id 1
a=candidate:435653019 1 tcp 1518280447 192.168.1.20 9 typ host tcptype active generation 0 network-id 1
a=candidate:1853887674 1 udp 2122194687 5f2f7f0e-9c1f-4ea9-93c6-2d5b3ed9a6ef.local 51002 typ host generation 0
a=candidate:842163049 1 udp 1677729535 203.0.113.7 40000 typ srflx raddr 0.0.0.0 rport 0 generation 0
a=ice-ufrag:Wq3/
a=ice-pwd:l3hQ+1x8W7nZ0lOq0v2dG6pN
a=ice-options:trickle
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:actpass
a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendrecv
a=msid:stream track
a=rtcp-mux
a=rtcp-mux-only
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:3735928559 cname:abc
a=ssrc:3735928559 msid:stream track
m=video 9 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:Wq3/
a=ice-pwd:l3hQ+1x8W7nZ0lOq0v2dG6pN
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:actpass
a=mid:1
a=sendrecv
a=rtcp-mux
a=rtpmap:96 AV1/90000
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=ice-ufrag:Wq3/
a=ice-pwd:l3hQ+1x8W7nZ0lOq0v2dG6pN
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:actpass
a=mid:2
a=sctp-port:5000
a=max-message-size:262144
""".replace("\n", "\r\n")

FIREFOX = f"""v=0
o=mozilla...THIS_IS_SDPARTA-99.0 8253642453459113460 0 IN IP4 0.0.0.0
s=-
t=0 0
a=sendrecv
a=fingerprint:sha-256 {FINGERPRINT}
a=group:BUNDLE 0 1
a=ice-options:trickle
a=msid-semantic:WMS *
m=audio 9 UDP/TLS/RTP/SAVPF 109 9 0 8 101
c=IN IP4 0.0.0.0
a=candidate:0 1 UDP 2122252543 1b0e2c66-8b4d-4d1a-9f4f-6d1f0cdd2b6a.local 41001 typ host
a=sendonly
a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid
a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1
a=fmtp:101 0-15
a=ice-pwd:73c7ea8a3b1b0f6b1f5d0b1c2d3e4f50
a=ice-ufrag:a1b2c3d4
a=mid:0
a=msid:- {{9d3f}}
a=rtcp-mux
a=rtpmap:109 opus/48000/2
a=rtpmap:9 G722/8000/1
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000/1
a=setup:actpass
a=ssrc:1234567890 cname:{{c}}
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=sendrecv
a=ice-pwd:73c7ea8a3b1b0f6b1f5d0b1c2d3e4f50
a=ice-ufrag:a1b2c3d4
a=mid:1
a=setup:actpass
a=sctp-port:5000
a=max-message-size:1073741823
""".replace("\n", "\r\n")

GSTREAMER = f"""v=0
o=- 6013829474839201923 0 IN IP4 0.0.0.0
s=-
t=0 0
a=ice-options:trickle
a=group:BUNDLE audio0
m=audio 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
a=setup:actpass
a=ice-ufrag:pXk1rZ0nU5mC4yT8vB2w
a=ice-pwd:Zk3nQ9rX5tV7yB1mC4pL6sD8fG0hJ2kW
a=rtcp-mux
a=rtcp-rsize
a=sendonly
a=rtpmap:96 OPUS/48000/2
a=rtcp-fb:96 nack pli
a=fmtp:96 sprop-maxcapturerate=48000;sprop-stereo=0
a=ssrc:2147483650 msid:user webrtctransceiver0
a=ssrc:2147483650 cname:user
a=mid:audio0
a=fingerprint:sha-256 {FINGERPRINT}
a=rtcp-mux-only
""".replace("\n", "\r\n")

FFMPEG_WHIP = f"""v=0
o=FFmpeg 4489045141692799359 2 IN IP4 127.0.0.1
s=FFmpegPublishSession
t=0 0
a=group:BUNDLE 0
a=extmap-allow-mixed
a=msid-semantic: WMS
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=ice-ufrag:7d3f2a1b
a=ice-pwd:0123456789abcdef0123456789abcdef
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:passive
a=mid:0
a=sendonly
a=msid:FFmpeg audio
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=ssrc:4267647086 cname:FFmpeg
a=ssrc:4267647086 msid:FFmpeg audio
""".replace("\n", "\r\n")


def tracks_of_a_call(count: int, *, ssrc: bool = True, extension: bool = True, msid: str = "call leg{}") -> str:
    """An offer of several tracks and a data channel, all in one bundle, as a browser or a gateway makes it."""
    head, audio, _, data = re.split(r"(?m)^(?=m=)", CHROMIUM)
    audio = re.sub(r"a=ssrc:.*\r\n", "", audio)
    if not extension:
        audio = re.sub(r"a=extmap:4 .*\r\n", "", audio)
    sections = []
    for number in range(count):
        section = audio.replace("a=mid:0", f"a=mid:{number}").replace("stream track", msid.format(number))
        sections.append(section + (f"a=ssrc:{100 + number} cname:abc\r\n" if ssrc else ""))
    mids = " ".join(map(str, range(count + 1)))
    head = head.replace("BUNDLE 0 1 2", f"BUNDLE {mids}")
    return head + "".join(sections) + data.replace("a=mid:2", f"a=mid:{count}")


CLIENTS = {
    "chromium": CHROMIUM,
    "firefox": FIREFOX,
    "gstreamer": GSTREAMER,
    "ffmpeg": FFMPEG_WHIP,
    "call": tracks_of_a_call(2),
}


def refusal(text: str) -> str:
    with pytest.raises(MediaError) as caught:
        parse_offer(text, allow_loopback=False)
    assert caught.value.hint
    return caught.value.code


def engine_answer(offer_text: str, *, is_stereo: bool = False) -> str:
    """What aiortc answers, as far as it matters here."""
    offer = parse_offer(offer_text, allow_loopback=True, is_stereo=is_stereo)
    transport = (
        "c=IN IP4 127.0.0.1\na=candidate:f 1 udp 2130706431 127.0.0.1 5000 typ host\na=end-of-candidates\n"
        f"a=ice-ufrag:ours\na=ice-pwd:{'p' * 22}\na=fingerprint:sha-256 {FINGERPRINT}\n"
        f"a=fingerprint:sha-384 {FINGERPRINT}\na=setup:passive\n"
    )
    text = "v=0\no=- 1 1 IN IP4 0.0.0.0\ns=-\nt=0 0\na=group:BUNDLE x\n"
    for number, track in enumerate(offer.tracks):
        text += (
            f"m=audio {5000 + number} UDP/TLS/RTP/SAVPF {' '.join(str(c.payload_type) for c in track.codecs)}\n"
            + "".join(f"a=rtpmap:{c.payload_type} {c.name}/{c.clock_rate_hz}/2\n" for c in track.codecs)
            + "a=ssrc:7 cname:us\na=msid:a b\na=recvonly\n"
            + transport
        )
    if offer.application is not None:
        text += f"m=application 5000 UDP/DTLS/SCTP webrtc-datachannel\na=sctp-port:5000\n{transport}"
    return text.replace("\n", "\r\n")


def answered(offer_text: str) -> tuple[list[str], list[list[str]]]:
    answer = client_answer(parse_offer(offer_text, allow_loopback=True), engine_answer(offer_text))
    head, *sections = re.split(r"(?m)^(?=m=)", answer)
    return head.splitlines(), [section.splitlines() for section in sections]


@pytest.mark.parametrize("client", CLIENTS)
def test_what_clients_offer_is_taken_and_aiortc_understands_what_it_gets(client: str) -> None:
    offer = parse_offer(CLIENTS[client], allow_loopback=False)
    assert offer.tracks[0].codecs[0].name.lower() == "opus"
    assert len(offer.tracks[0].ssrcs) == 1
    parsed = SessionDescription.parse(engine_offer(offer))
    assert parsed.media[0].kind == "audio"
    assert all(media.ice.usernameFragment and media.dtls.fingerprints for media in parsed.media)
    assert parsed.media[0].rtcp_mux


def test_only_candidates_that_can_be_checked_from_here_are_left() -> None:
    offer = parse_offer(CHROMIUM, allow_loopback=False)
    assert [candidate.address for candidate in offer.transport.candidates] == ["192.168.1.20", "203.0.113.7"]
    assert parse_offer(FFMPEG_WHIP, allow_loopback=False).transport.candidates == ()


@pytest.mark.parametrize(
    ("address", "loopback_taken", "taken"),
    [
        ("192.168.1.2", False, True),
        ("2001:db8::1", False, True),
        ("127.0.0.1", False, False),
        ("127.0.0.1", True, True),
        ("::1", False, False),
        ("::1", True, True),
        ("::ffff:127.0.0.1", False, False),
        ("::ffff:169.254.169.254", True, False),
        ("169.254.169.254", True, False),
        ("fd00:ec2::254", True, False),
        ("100.100.100.200", True, False),
        ("0.0.0.0", True, False),
        ("::", True, False),
        ("224.0.0.1", True, False),
        ("fe80::1", True, False),
        ("fe80::1%eth0", True, False),
        ("printer.local", True, False),
        ("metadata.google.internal", True, False),
    ],
)
def test_addresses_that_mean_this_host_or_its_cloud_are_not_checked(
    address: str, loopback_taken: bool, taken: bool
) -> None:
    line = f"1 1 udp 2122260223 {address} 40000 typ host"
    assert len(usable_candidates([line], allow_loopback=loopback_taken)) == taken


@pytest.mark.parametrize(
    "line", ["1 1 tcp 1 10.0.0.1 9 typ host", "1 2 udp 1 10.0.0.1 9 typ host", "1 1 udp 1 10.0.0.1 0 typ host", "junk"]
)
def test_candidates_of_another_kind_are_left_out(line: str) -> None:
    assert usable_candidates([line], allow_loopback=True) == []


def test_more_candidates_than_the_limit_are_dropped() -> None:
    many = "".join(f"a=candidate:1 1 udp 1 10.0.{n}.1 4000 typ host\r\n" for n in range(100))
    offer = parse_offer(FFMPEG_WHIP + many, allow_loopback=False)
    assert len(offer.transport.candidates) == CANDIDATES_MAX


def test_we_are_the_dtls_server_unless_the_client_insists() -> None:
    assert "a=setup:active\r\n" in engine_offer(parse_offer(CHROMIUM, allow_loopback=False))
    assert "a=setup:passive\r\n" in engine_offer(parse_offer(FFMPEG_WHIP, allow_loopback=False))


def test_the_engine_never_hears_that_candidates_have_ended() -> None:
    """Symptom if it did: a client without usable candidates fails at once instead of being found peer-reflexive."""
    offer = parse_offer(FFMPEG_WHIP + "a=end-of-candidates\r\n", allow_loopback=False)
    assert "end-of-candidates" not in engine_offer(offer)


def test_the_engine_sees_no_video() -> None:
    parsed = SessionDescription.parse(engine_offer(parse_offer(CHROMIUM, allow_loopback=False)))
    assert [(media.kind, media.rtp.muxId) for media in parsed.media] == [("audio", "0"), ("application", "2")]
    assert [(group.semantic, group.items) for group in parsed.group] == [("BUNDLE", ["0", "2"])]


def test_audio_in_the_bundle_of_a_video_takes_the_transport_of_that_video() -> None:
    """A bundle-only section has port 0 and no transport of its own (RFC 9143 §6)."""
    head, audio, video, _ = re.split(r"(?m)^(?=m=)", CHROMIUM)
    head = head.replace("BUNDLE 0 1 2", "BUNDLE 1 0")
    video = video.replace("Wq3/", "tagged").replace("96 97", "96")
    bare = "".join(
        line
        for line in audio.replace("m=audio 51001", "m=audio 0").splitlines(keepends=True)
        if not line.startswith(("a=ice-", "a=candidate", "a=fingerprint", "a=setup"))
    )
    text = head + video + bare + "a=bundle-only\r\n"
    offer = parse_offer(text, allow_loopback=False)
    assert offer.transport.ufrag == "tagged"
    head_lines, (video_lines, audio_lines) = answered(text)
    assert "a=group:BUNDLE 1 0" in head_lines
    assert video_lines[0].startswith("m=video 9 ")
    assert "a=inactive" in video_lines
    assert "a=ice-ufrag:ours" in video_lines
    assert "a=recvonly" in audio_lines


def test_the_answer_asks_for_what_we_hear_best() -> None:
    head, (audio, video, data) = answered(CHROMIUM)
    assert head[0] == "v=0"
    assert "a=group:BUNDLE 0 1 2" in head
    assert audio[0] == "m=audio 5000 UDP/TLS/RTP/SAVPF 111 9 0 8"
    for line in (
        "a=recvonly",
        "a=setup:passive",
        "a=rtcp-mux",
        "a=rtcp-mux-only",
        "a=ptime:20",
        "a=mid:0",
        f"a=fmtp:111 {OPUS_PARAMETERS}",
        "a=candidate:f 1 udp 2130706431 127.0.0.1 5000 typ host",
        "a=end-of-candidates",
    ):
        assert line in audio
    assert {"useinbandfec=1", "usedtx=0", "stereo=0"} <= set(OPUS_PARAMETERS.split(";"))
    assert not any(line.startswith(("a=ssrc", "a=msid")) for line in audio)
    assert "a=inactive" in video
    assert "a=rtpmap:96 AV1/90000" in video
    assert "a=sctp-port:5000" in data
    assert "a=max-message-size:65536" in data


def test_sections_outside_the_bundle_are_refused_in_their_place() -> None:
    _, (audio, video, data) = answered(CHROMIUM.replace("BUNDLE 0 1 2", "BUNDLE 0 2"))
    assert video[0] == "m=video 0 UDP/TLS/RTP/SAVPF 96 97"
    assert audio[0].startswith("m=audio 5000")
    assert data[0].startswith("m=application 5000")


def test_rtcp_mux_only_is_answered_only_where_offered() -> None:
    _, (audio, _) = answered(FIREFOX)
    assert "a=rtcp-mux-only" not in audio


def test_an_offer_without_tags_is_answered_without_tags() -> None:
    text = FFMPEG_WHIP.replace("a=mid:0\r\n", "").replace("a=group:BUNDLE 0\r\n", "")
    head, (audio,) = answered(text)
    assert not any(line.startswith("a=mid") for line in audio)
    assert not any(line.startswith("a=group") for line in head)


def test_a_gateway_without_opus_is_served_in_its_own_order() -> None:
    text = FFMPEG_WHIP.replace("SAVPF 111", "SAVPF 8 0").replace("a=rtpmap:111 opus/48000/2\r\n", "")
    assert [codec.name for codec in parse_offer(text, allow_loopback=False).tracks[0].codecs] == ["PCMA", "PCMU"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "INVALID_SDP"),
        ("hello", "INVALID_SDP"),
        ('{"sdp":"v=0"}', "INVALID_SDP"),
        ("v=0\r\n" + "a=x\r\n" * OFFER_MAX_BYTES, "INVALID_SDP"),
        (FFMPEG_WHIP.replace("m=audio 9 ", "m=audio nine "), "INVALID_SDP"),
        (FFMPEG_WHIP.replace("a=ice-pwd", "a=x"), "INVALID_SDP"),
        (FFMPEG_WHIP.replace("a=fingerprint:sha-256", "a=fingerprint:md5"), "INVALID_SDP"),
        (FFMPEG_WHIP.replace("setup:passive", "setup:holdconn"), "INVALID_SDP"),
        (CHROMIUM.replace("a=mid:1", "a=mid:0"), "INVALID_SDP"),
        ("v=0\r\ns=-\r\n", "NO_USABLE_AUDIO"),
        (FFMPEG_WHIP.replace("sendonly", "recvonly"), "NO_USABLE_AUDIO"),
        (FFMPEG_WHIP.replace("sendonly", "inactive"), "NO_USABLE_AUDIO"),
        (FFMPEG_WHIP.replace("m=audio 9", "m=audio 0"), "NO_USABLE_AUDIO"),
        (FFMPEG_WHIP.replace("opus/48000/2", "speex/16000"), "UNSUPPORTED_CODEC"),
        (FFMPEG_WHIP.replace("111", "50"), "UNSUPPORTED_CODEC"),
        (FFMPEG_WHIP.replace("a=rtcp-mux\r\n", ""), "RTCP_MUX_REQUIRED"),
        (
            FFMPEG_WHIP + FFMPEG_WHIP[FFMPEG_WHIP.index("m=audio") :].replace("a=mid:0", "a=mid:1"),
            "TOO_MANY_AUDIO_TRACKS",
        ),
        (FFMPEG_WHIP + "m=video 0 RTP/AVP 96\r\n" * SECTIONS_MAX, "TOO_MANY_MEDIA_SECTIONS"),
        (FFMPEG_WHIP + "".join(f"a=ssrc:{n} cname:x\r\n" for n in range(1, 10)), "TOO_MANY_SSRCS"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_reason(text: str, code: str) -> None:
    assert refusal(text) == code


def test_a_fragment_brings_candidates_of_its_sections() -> None:
    fragment = parse_fragment(
        "a=ice-ufrag:Wq3/\r\na=ice-pwd:l3hQ+1x8W7nZ0lOq0v2dG6pN\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
        "a=candidate:1 1 udp 2122260223 192.168.1.9 50000 typ host\r\n"
        "a=candidate:2 1 tcp 2122260223 192.168.1.9 9 typ host tcptype active\r\na=end-of-candidates\r\n",
        allow_loopback=False,
    )
    assert [(mid, candidate.address) for mid, candidate in fragment.candidates] == [("0", "192.168.1.9")]
    assert not parse_offer(CHROMIUM, allow_loopback=False).is_restart(fragment)


def test_other_credentials_are_an_ice_restart() -> None:
    offer = parse_offer(CHROMIUM, allow_loopback=False)
    assert offer.is_restart(parse_fragment("a=ice-ufrag:othr\r\n", allow_loopback=False))
    assert offer.is_restart(parse_fragment(f"a=ice-pwd:{'x' * 24}\r\n", allow_loopback=False))
    assert not offer.is_restart(parse_fragment("a=end-of-candidates\r\n", allow_loopback=False))


@pytest.mark.parametrize("text", ["", "hello", "a=x\r\n" * 10_000])
def test_a_malformed_fragment_is_refused(text: str) -> None:
    with pytest.raises(MediaError):
        parse_fragment(text, allow_loopback=False)


LINES = [line for text in CLIENTS.values() for line in text.splitlines()]


@st.composite
def mutated_offers(draw: st.DrawFn) -> str:
    """A client's offer with lines dropped, doubled, swapped with others', or characters changed in them."""
    lines = draw(st.sampled_from(list(CLIENTS.values()))).splitlines()
    for _ in range(draw(st.integers(1, 8))):
        index = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 4)):
            case 0:
                del lines[index]
            case 1:
                lines.insert(index, lines[draw(st.integers(0, len(lines) - 1))])
            case 2:
                lines[index] = draw(st.sampled_from(LINES))
            case 3:
                cut = draw(st.integers(0, len(lines[index])))
                lines[index] = lines[index][:cut] + draw(st.text(max_size=6)) + lines[index][cut + 1 :]
            case _:
                number = str(draw(st.integers(-1, 2**33)))
                lines[index] = re.sub(r"[0-9]+", lambda _: number, lines[index], count=1)  # noqa: B023
        if not lines:
            break
    return draw(st.sampled_from(["\r\n", "\n"])).join(lines)


@given(mutated_offers())
@settings(max_examples=1500, deadline=None)
def test_a_mutated_offer_is_refused_or_leaves_something_that_aiortc_can_read(text: str) -> None:
    try:
        offer = parse_offer(text, allow_loopback=True)
    except MediaError:
        return
    media = SessionDescription.parse(engine_offer(offer)).media
    assert [section.rtp.muxId for section in media if section.kind == "audio"] == [track.mid for track in offer.tracks]
    assert all(section.dtls is not None and section.dtls.fingerprints for section in media)
    answer = client_answer(offer, engine_answer(text))
    assert answer.count("\r\nm=") == len(offer.sections)
    assert answer.isascii()


@given(st.text(max_size=400))
def test_any_text_is_refused_by_name(text: str) -> None:
    with pytest.raises(MediaError):
        parse_offer("v=0\n" + text, allow_loopback=False)


@given(st.text(max_size=400))
def test_any_fragment_is_read_or_refused_by_name(text: str) -> None:
    try:
        parse_fragment("a=mid:0\n" + text, allow_loopback=False)
    except MediaError:
        return
