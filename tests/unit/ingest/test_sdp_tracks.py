"""Offers of several audio tracks: which are heard, what they are called, and how they are answered."""

from __future__ import annotations

import re

import pytest
from aiortc.sdp import SessionDescription
from test_sdp import answered, engine_answer, refusal, tracks_of_a_call

from mediaserver.errors import MediaError
from mediaserver.ingest.answer import STEREO_PARAMETERS, client_answer, engine_offer
from mediaserver.ingest.sdp import parse_offer
from mediaserver.session_config import MAX_CHANNELS


def test_each_track_of_a_bundle_is_a_channel_with_its_name() -> None:
    offer = parse_offer(tracks_of_a_call(2), allow_loopback=False)
    assert [(track.mid, track.name, track.ssrcs) for track in offer.tracks] == [
        ("0", "leg0", (100,)),
        ("1", "leg1", (101,)),
    ]
    assert offer.shares_transport
    assert offer.unheard == ()


@pytest.mark.parametrize(
    ("msid", "names"),
    [
        ("call leg{}", ["leg0", "leg1"]),
        ("call{} -", ["call0", "call1"]),
        ("- {{leg{}}}", ["{leg0}", "{leg1}"]),
        ("same", ["0", "1"]),
        ("- -", ["0", "1"]),
        ("é{}", ["0", "1"]),
        ("x" * 100 + " {}" * 0, ["0", "1"]),
    ],
)
def test_a_track_is_called_by_its_msid_or_else_by_its_tag(msid: str, names: list[str]) -> None:
    offer = parse_offer(tracks_of_a_call(2, msid=msid), allow_loopback=False)
    assert [track.name for track in offer.tracks] == names


def test_a_name_has_a_bound() -> None:
    offer = parse_offer(tracks_of_a_call(2, msid="s {}" + "x" * 100), allow_loopback=False)
    assert [len(track.name) for track in offer.tracks] == [64, 64]


def test_the_engine_sees_all_tracks_in_one_bundle() -> None:
    parsed = SessionDescription.parse(engine_offer(parse_offer(tracks_of_a_call(3), allow_loopback=False)))
    assert [media.rtp.muxId for media in parsed.media] == ["0", "1", "2", "3"]
    assert parsed.group[0].items == ["0", "1", "2", "3"]


def test_each_track_is_answered_in_its_place() -> None:
    head, (one, two, data) = answered(tracks_of_a_call(2))
    assert "a=group:BUNDLE 0 1 2" in head
    assert one[0].startswith("m=audio 5000 ")
    assert two[0].startswith("m=audio 5001 ")
    for number, section in enumerate((one, two)):
        assert f"a=mid:{number}" in section
        assert "a=recvonly" in section
    assert data[0].startswith("m=application")


def test_tracks_beyond_the_bound_are_inactive_in_the_answer() -> None:
    text = tracks_of_a_call(MAX_CHANNELS + 2)
    offer = parse_offer(text, allow_loopback=True)
    assert len(offer.tracks) == MAX_CHANNELS
    assert offer.unheard == (MAX_CHANNELS, MAX_CHANNELS + 1)
    head, sections = answered(text)
    assert ["a=inactive" in section for section in sections] == [False] * MAX_CHANNELS + [True, True, False]
    assert f"a=group:BUNDLE {' '.join(map(str, range(MAX_CHANNELS + 3)))}" in head


def test_a_track_that_the_client_only_receives_is_no_channel() -> None:
    head, one, two, data = re.split(r"(?m)^(?=m=)", tracks_of_a_call(2))
    text = head + one + two.replace("a=sendrecv", "a=recvonly") + data
    assert len(parse_offer(text, allow_loopback=False).tracks) == 1
    _, sections = answered(text)
    assert "a=inactive" in sections[1]


@pytest.mark.parametrize(("ssrc", "extension"), [(True, False), (False, True), (True, True)])
def test_packets_are_told_apart_by_source_or_tag(ssrc: bool, extension: bool) -> None:
    offer = parse_offer(tracks_of_a_call(2, ssrc=ssrc, extension=extension), allow_loopback=False)
    assert [track.mid_extension for track in offer.tracks] == [4 if extension else None] * 2


def test_packets_are_told_apart_by_payload_types() -> None:
    head, one, two, data = re.split(r"(?m)^(?=m=)", tracks_of_a_call(2, ssrc=False, extension=False))
    two = re.sub(r"SAVPF .*\r\n", "SAVPF 112\r\n", two).replace("rtpmap:111", "rtpmap:112")
    assert len(parse_offer(head + one + two + data, allow_loopback=False).tracks) == 2


def without_bundle(text: str) -> str:
    return re.sub(r"a=group:BUNDLE.*\r\n", "", text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (tracks_of_a_call(2, ssrc=False, extension=False), "TRACKS_INDISTINGUISHABLE"),
        (tracks_of_a_call(2).replace("ssrc:101", "ssrc:100"), "INVALID_SDP"),
        (without_bundle(tracks_of_a_call(2)), "TOO_MANY_AUDIO_TRACKS"),
        (tracks_of_a_call(2).replace("BUNDLE 0 1 2", "BUNDLE 0 2"), "TOO_MANY_AUDIO_TRACKS"),
        (tracks_of_a_call(12), "TOO_MANY_MEDIA_SECTIONS"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(text: str, code: str) -> None:
    assert refusal(text) == code


def test_a_stereo_track_is_two_channels_of_opus() -> None:
    text = tracks_of_a_call(1)
    offer = parse_offer(text, allow_loopback=True, is_stereo=True)
    assert [codec.name for codec in offer.tracks[0].codecs] == ["opus"]
    assert offer.channel_names == ["left", "right"]
    assert offer.channels_of(0) == range(2)
    answer = client_answer(offer, engine_answer(text, is_stereo=True))
    assert f"a=fmtp:111 {STEREO_PARAMETERS}" in answer
    assert "stereo=1" in STEREO_PARAMETERS


def test_several_stereo_tracks_are_two_channels_each_within_the_bound() -> None:
    offer = parse_offer(tracks_of_a_call(5), allow_loopback=True, is_stereo=True)
    assert len(offer.channel_names) == MAX_CHANNELS
    assert offer.channel_names[:3] == ["leg0 left", "leg0 right", "leg1 left"]
    assert offer.channels_of(1) == range(2, 4)
    assert offer.unheard == (4,)


def test_a_codec_with_one_channel_is_no_stereo_track() -> None:
    text = tracks_of_a_call(1).replace("SAVPF 111 63 9 0 8 13 110 126", "SAVPF 9 0 8")
    assert parse_offer(text, allow_loopback=True).tracks
    with pytest.raises(MediaError) as caught:
        parse_offer(text, allow_loopback=True, is_stereo=True)
    assert caught.value.code == "UNSUPPORTED_CODEC"
    assert "two channels" in caught.value.message
