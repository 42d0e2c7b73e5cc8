"""WHIP under mutated offers and fragments, with real peers behind it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import ODD_TEXT, cut_bytes, lines_astray, queries, utf8
from tests.fuzz.requests import ask, header_text
from tests.fuzz.server import IS_DEEP, MESSAGES, Fuzzed
from tests.fuzz.sockets import Query
from tests.fuzz.test_fuzz_native import QUERY
from tests.unit.ingest.test_sdp import CHROMIUM, FFMPEG_WHIP, FIREFOX, GSTREAMER

pytestmark = pytest.mark.timeout(3600)

CONFIG = {name: values for name, values in QUERY.items() if name not in ("channels", "multichannel", "api_key")}
OFFERS = [text.replace("\r\n", "\n").replace("\n", "\r\n") for text in (CHROMIUM, FIREFOX, GSTREAMER, FFMPEG_WHIP)]
LINE = st.sampled_from(
    [
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "m=video 9 UDP/TLS/RTP/SAVPF 96",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "a=group:BUNDLE 0 1 2 3",
        "a=mid:0",
        "a=rtpmap:111 opus/48000/2",
        "a=rtpmap:0 PCMU/8000",
        "a=fmtp:111 usedtx=1;x=" + "y" * 300,
        "a=setup:active",
        "a=fingerprint:sha-256 00:11",
        "a=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host",
        "a=candidate:1 1 udp 1 ::1 99999 typ relay raddr x rport y",
        "a=ssrc:1 cname:x",
        "a=ice-ufrag:a",
        "a=ice-pwd:" + "p" * 300,
        "a=sctp-port:99999999999",
        "a=extmap:0 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=recvonly",
        "a=inactive",
        "a=rtcp-mux",
        "c=IN IP6 ::",
        "",
        "a",
        "=",
    ]
)
OFFER = st.one_of(
    lines_astray(st.sampled_from(OFFERS), LINE).map(utf8),
    lines_astray(st.sampled_from(OFFERS), LINE).map(utf8),
    cut_bytes(st.sampled_from(OFFERS).map(str.encode)),
)
FRAGMENTS = [
    "a=ice-ufrag:4ZcD\r\na=ice-pwd:2/1muCWoOi3uLifh0NuRHlsT\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
    "a=candidate:1 1 udp 2130706431 127.0.0.1 50000 typ host\r\na=end-of-candidates\r\n"
]
FRAGMENT = st.one_of(
    lines_astray(st.sampled_from(FRAGMENTS), LINE).map(utf8), cut_bytes(st.sampled_from(FRAGMENTS).map(str.encode))
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "X-VoiceForge-Metadata": st.one_of(st.just('{"caller":"Ann"}'), ODD_TEXT),
        "Authorization": ODD_TEXT,
        "Accept": ODD_TEXT,
    },
)


async def a_session(
    server: Fuzzed, offer: bytes, query: Query, headers: dict[str, str], fragments: list[bytes], tag: str
) -> int:
    """Offer, trickle, look, listen and end; returns the status of the first."""
    given_headers = {"Content-Type": "application/sdp", **headers}
    url = server.url("/whip", query)
    async with server.http.post(
        url, data=offer, headers={name: header_text(value) for name, value in given_headers.items()}
    ) as response:
        server.tally["messages"] += 1
        server.tally[f"offered {response.status}"] += 1
        if response.status >= 500 and response.status not in (501, 503):
            raise AssertionError(await response.text())
        if response.status != 201:
            return response.status
        session, etag = response.headers["Location"], response.headers["ETag"]
    for fragment in fragments:
        headers = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": tag or etag}
        await ask(server, "PATCH", session, fragment, headers)
    status, state = await ask(server, "GET", session)
    if status == 200:
        assert state["state"]
    await ask(server, "DELETE", session)
    return 201


def test_mutated_offers_leave_whip_as_it_was(fuzzed: Fuzzed) -> None:
    tags = st.one_of(st.just(""), st.just(""), st.just(""), ODD_TEXT, st.just("*"))

    @settings(settings.get_profile("fuzz"), max_examples=MESSAGES if IS_DEEP else MESSAGES // 3)
    @given(OFFER, queries(CONFIG), HEADERS, st.lists(FRAGMENT, max_size=2), tags)
    def try_one(offer: bytes, query: Query, headers: dict[str, str], fragments: list[bytes], tag: str) -> None:
        fuzzed.run(a_session(fuzzed, offer, query, headers, fragments, tag))
        fuzzed.after_a_message()

    async def good() -> None:
        assert await a_session(fuzzed, OFFERS[0].encode(), [], {}, [], "") == 201

    fuzzed.run(good())
    try_one()
    fuzzed.run(good())
    assert fuzzed.tally["offered 201"] > 10
