"""Containers as bytes: the same audio however they are cut, and garbage is refused."""

from __future__ import annotations

import functools
import itertools
import random
import struct
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mediaserver.audio.clock import Samples
from mediaserver.errors import MediaError
from mediaserver.ingest.bytebuffer import ByteBuffer
from mediaserver.ingest.bytestream import BLOCK_SAMPLES, AudioFormat, Encoding, open_audio
from mediaserver.ingest.flac import frame_header
from mediaserver.ingest.packets import block_of
from tests.unit.ingest import encoded_audio
from tests.unit.ingest.test_bytestream import cut, heard, linear16, strongest_hz, tone

ENCODED = [
    ("wav", "pcm_s16le", 44_100, 2),
    ("wav", "pcm_s24le", 16_000, 1),
    ("wav", "pcm_s32le", 22_050, 1),
    ("wav", "pcm_f32le", 48_000, 3),
    ("wav", "pcm_mulaw", 8000, 1),
    ("wav", "pcm_alaw", 8000, 2),
    ("wav", "pcm_u8", 11_025, 1),
    ("flac", "flac", 16_000, 1),
    ("flac", "flac", 44_100, 2),
    ("flac", "flac", 48_000, 8),
    ("ogg", "libopus", 48_000, 1),
    ("ogg", "libopus", 48_000, 2),
    ("ogg", "flac", 16_000, 2),
    ("webm", "libopus", 48_000, 1),
    ("webm", "libopus", 48_000, 2),
    ("matroska", "pcm_f32le", 48_000, 1),
    ("mp3", "libmp3lame", 44_100, 2),
    ("adts", "aac", 32_000, 1),
]


@functools.cache
def stream(container: str, codec: str, rate: int, channels: int, seconds: float = 1.0) -> bytes:
    samples = np.stack([tone(300 + 100 * channel, rate, seconds) for channel in range(channels)])
    return encoded_audio.encoded(container, codec, samples.astype(np.float32), rate)


def undecodable(data: bytes, audio_format: AudioFormat | None = None) -> str:
    """The sentence that these bytes are refused with."""
    with pytest.raises(MediaError) as caught:
        heard(audio_format or AudioFormat(), [data])
    assert caught.value.code == "UNDECODABLE_AUDIO"
    return str(caught.value)


def heard_or_refused(audio_format: AudioFormat, data: bytes) -> Samples:
    """What is heard of these bytes; nothing where they are refused. Any other failure fails the test."""
    try:
        return heard(audio_format, cut(data, [100, 5000]))
    except MediaError as error:
        if error.code != "UNDECODABLE_AUDIO":
            raise
        return np.zeros((audio_format.count, 0), np.float32)


@pytest.mark.parametrize(("container", "codec", "rate", "channels"), ENCODED)
def test_containers_are_told_by_their_first_bytes(container: str, codec: str, rate: int, channels: int) -> None:
    data = stream(container, codec, rate, channels)
    samples = heard(AudioFormat(channels=channels, multichannel=True), [data])
    assert samples.shape[0] == channels
    assert samples.shape[1] == pytest.approx(16_000, rel=0.08)
    for channel in range(channels):
        assert strongest_hz(samples[channel]) == pytest.approx(300 + 100 * channel, abs=3)
        assert np.abs(samples[channel][4000:12_000]).max() == pytest.approx(0.5, abs=0.06)
    mixed = heard(AudioFormat(), [data])
    np.testing.assert_allclose(mixed[0, 2000:12_000], samples.mean(axis=0)[2000:12_000], atol=0.04)


@pytest.mark.parametrize(("container", "codec", "rate", "channels"), ENCODED)
@settings(max_examples=8, deadline=None)
@given(places=st.lists(st.integers(0, 1_000_000), max_size=30))
def test_they_may_be_cut_anywhere(container: str, codec: str, rate: int, channels: int, places: list[int]) -> None:
    data = stream(container, codec, rate, channels, 0.4)
    audio_format = AudioFormat(channels=channels, multichannel=True)
    np.testing.assert_array_equal(heard(audio_format, cut(data, places)), heard(audio_format, [data]))


@pytest.mark.parametrize(("container", "codec", "rate", "channels"), ENCODED)
def test_they_may_come_byte_by_byte(container: str, codec: str, rate: int, channels: int) -> None:
    data = stream(container, codec, rate, channels, 0.3)[: 6000 if codec.startswith("pcm") else 24_000]
    one_by_one = [data[at : at + 1] for at in range(len(data))]
    np.testing.assert_array_equal(heard(AudioFormat(), one_by_one), heard(AudioFormat(), [data]))


@pytest.mark.parametrize(("container", "codec", "rate", "channels"), ENCODED)
def test_mutated_streams_are_heard_or_refused_and_nothing_else(
    container: str, codec: str, rate: int, channels: int
) -> None:
    data = stream(container, codec, rate, channels, 0.3)
    chance = random.Random(f"{container} {codec} {channels}")
    for _ in range(60):
        mutated = bytearray(data)
        for _ in range(chance.choice((1, 3, 30))):
            at = chance.randrange(min(len(mutated), chance.choice((64, 1000, 1_000_000))))
            match chance.randrange(4):
                case 0:
                    mutated[at] = chance.randrange(256)
                case 1:
                    mutated[at : at + chance.randrange(40)] = b""
                case 2:
                    mutated[at:at] = chance.randbytes(chance.randrange(40))
                case _:
                    mutated[at : at + 8] = b"\xff" * 8
        samples = heard_or_refused(AudioFormat(channels=channels, multichannel=True), bytes(mutated))
        assert np.isfinite(samples).all()
        assert np.abs(samples).max(initial=0.0) <= 2.0  # full scale, and what a filter makes of its edges


@settings(max_examples=200, deadline=None)
@given(
    head=st.sampled_from([b"", b"RIFF", b"fLaC", b"OggS\0", b"\x1a\x45\xdf\xa3", b"ID3\4", b"\xff\xfb", b"\xff\xf1"]),
    data=st.binary(max_size=2000),
    encoding=st.sampled_from([None, Encoding.FLAC, Encoding.OGG_OPUS, Encoding.OPUS]),
)
def test_garbage_raises_nothing_but_media_errors(head: bytes, data: bytes, encoding: Encoding | None) -> None:
    heard_or_refused(AudioFormat(encoding), head + data)


def test_raw_encodings_are_what_they_say() -> None:
    pcm = tone(440, 16_000)
    wide = (pcm * 2147483647).astype("<i4").tobytes()
    np.testing.assert_allclose(heard(AudioFormat(Encoding.LINEAR32, 16_000), [wide])[0], pcm, atol=1e-6)
    floats = pcm.astype("<f4").tobytes()
    np.testing.assert_allclose(heard(AudioFormat(Encoding.FLOAT32, 16_000), [floats])[0], pcm, atol=1e-6)
    for encoding, codec in ((Encoding.MULAW, "pcm_mulaw"), (Encoding.ALAW, "pcm_alaw")):
        file = stream("wav", codec, 8000, 1)
        raw = file[file.index(b"data") + 8 :]
        np.testing.assert_array_equal(heard(AudioFormat(encoding), [raw]), heard(AudioFormat(), [file]))


def test_opus_is_a_packet_a_message() -> None:
    stereo = np.stack([tone(300, 48_000, 1.0), tone(400, 48_000, 1.0)]).astype(np.float32)
    packets = encoded_audio.opus_packets(stereo, 48_000)
    samples = heard(AudioFormat(Encoding.OPUS, channels=2, multichannel=True), packets)
    assert [strongest_hz(channel) for channel in samples] == pytest.approx([300, 400], abs=3)
    assert heard(AudioFormat(Encoding.OPUS), packets).shape[0] == 1
    assert open_audio(AudioFormat(Encoding.OPUS)).slice_bytes > 60_000


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_whose_length_nobody_knew_goes_on_to_the_end(size: int) -> None:
    pcm = linear16(tone(440, 16_000))
    assert heard(AudioFormat(), [encoded_audio.wav(1, 16, 1, 16_000, pcm, data_size=size)]).shape == (1, 8000)


def test_what_follows_the_data_of_a_wav_is_no_audio_but_another_wav_is() -> None:
    pcm = linear16(tone(440, 16_000))
    one = encoded_audio.wav(1, 16, 1, 16_000, pcm)
    assert heard(AudioFormat(), [one + b"LIST" + struct.pack("<I", 5) + b"notes\0"]).shape == (1, 8000)
    assert heard(AudioFormat(), [one, one]).shape == (1, 16_000)


def test_a_byte_of_padding_after_the_data_of_a_wav_is_stepped_over() -> None:
    odd = encoded_audio.wav(1, 8, 1, 16_000, bytes([128]) * 801) + b"\0"
    assert heard(AudioFormat(), [odd, odd]).shape == (1, 1602)


def test_a_stream_may_change_its_rate_and_loses_nothing() -> None:
    slow = encoded_audio.wav(1, 16, 1, 8000, linear16(tone(440, 8000)))
    fast = encoded_audio.wav(1, 16, 1, 44_100, linear16(tone(440, 44_100)))
    apart = heard(AudioFormat(), [slow]).shape[1] + heard(AudioFormat(), [fast]).shape[1]
    assert heard(AudioFormat(), [slow, fast]).shape == (1, apart)


def test_an_extensible_wav_says_its_format_in_a_guid() -> None:
    pcm = linear16(tone(440, 16_000))
    guid = struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")
    header = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 16_000, 32_000, 2, 16, 22, 16, 4) + guid
    body = b"WAVEfmt " + struct.pack("<I", len(header)) + header + b"data" + struct.pack("<I", len(pcm)) + pcm
    assert heard(AudioFormat(), [b"RIFF" + struct.pack("<I", len(body)) + body]).shape == (1, 8000)
    foreign = body.replace(guid[2:], bytes(14))
    assert "sub-format" in undecodable(b"RIFF" + struct.pack("<I", len(foreign)) + foreign)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (encoded_audio.wav(2, 4, 1, 8000, bytes(100)), "format 2"),
        (encoded_audio.wav(1, 16, 9, 8000, bytes(100)), "9 channels"),
        (encoded_audio.wav(1, 16, 1, 96_000, bytes(100)), "96000 Hz"),
        (b"RIFF\0\0\0\0AVI LIST", "not WAVE"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "before `fmt `"),
        (b"RIFF\0\0\0\0WAVEfmt \xff\xff\xff\x7f", "2147483647 bytes"),
        (b"RIFF\0\0\0\0WAVEJUNK\xff\xff\xff\x7f", "2147483647 bytes"),
        (b"\0\0\0\x18ftypmp42" + bytes(100), "MP4"),
        (b"FORM\0\0\0\0AIFF" + bytes(100), "AIFF"),
        (b"Hello, is anybody there?", "`encoding`"),
        (b"RIFF", "ended before"),
        (b"fLaC", "ended before"),
        (b"fLaC\x84\0\0\x10" + bytes(16), "STREAMINFO"),
        (b"OggS\0\2" + bytes(21) + b"Oggs" + bytes(30), "page"),
        (b"\xff\xfb" + bytes(100_000), "without a frame of MP3"),
        (b"\xff\xf1" + bytes(100_000), "without a frame of AAC"),
        (b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(10), "ID3"),
    ],
)
def test_what_cannot_be_heard_is_refused_by_name(data: bytes, said: str) -> None:
    assert said in undecodable(data)


def test_an_id3_tag_before_the_audio_is_stepped_over() -> None:
    data = stream("mp3", "libmp3lame", 44_100, 2)
    tag = b"ID3\4\0\0\0\0\x08\0" + bytes(1024)
    np.testing.assert_array_equal(heard(AudioFormat(), [tag + data]), heard(AudioFormat(), [data]))


def test_a_flac_rate_that_is_not_what_was_said_is_refused() -> None:
    data = stream("flac", "flac", 44_100, 2)
    assert "44100 Hz" in undecodable(data, AudioFormat(Encoding.FLAC, 16_000))
    assert heard(AudioFormat(Encoding.FLAC, 44_100), [data]).shape[1] > 0


def test_a_flac_frame_is_heard_when_the_next_one_begins() -> None:
    data = stream("flac", "flac", 16_000, 1)
    audio = open_audio(AudioFormat(Encoding.FLAC))
    assert audio.feed(data[: len(data) * 2 // 3]).shape[1] >= 3000


def test_audio_that_looks_like_the_header_of_a_flac_frame_is_audio() -> None:
    noise = np.random.default_rng(7).integers(-32_768, 32_767, 16_000, dtype=np.int16)  # too wild to be compressed

    def flac_of(samples: NDArray[np.int16]) -> bytes:
        return encoded_audio.encoded("flac", "flac", samples[None, :].astype(np.float32) / 32_768, 16_000)

    data = flac_of(noise)
    at = [place for place in range(len(data)) if frame_header(data[place : place + 16])]
    assert len(at) > 3
    third = data[at[2] : at[2] + 8]
    noise[1000:1004] = np.frombuffer(third, ">i2")
    disguised = flac_of(noise)
    assert disguised.index(third) < at[1]
    assert frame_header(third) is not None
    np.testing.assert_allclose(heard(AudioFormat(Encoding.FLAC), [disguised])[0], noise / 32_768.0, atol=1e-6)


def test_planes_that_pyav_miscounts_are_not_read() -> None:
    frame = SimpleNamespace(layout=SimpleNamespace(nb_channels=8), format=SimpleNamespace(is_planar=True))
    with pytest.raises(MediaError, match="8 channels"):
        block_of(frame)  # type: ignore[arg-type]


def test_minutes_of_silence_are_a_few_bytes_of_flac_and_come_by_the_second() -> None:
    samples = np.zeros((1, 16_000 * 120), np.float32)
    data = encoded_audio.encoded("flac", "flac", samples, 16_000)
    assert len(data) < 30_000
    audio = open_audio(AudioFormat())
    first = audio.feed(data[:16_384])
    assert audio.pending
    assert first.shape[1] <= BLOCK_SAMPLES + 65_535


def test_multichannel_containers_must_have_as_many_channels_as_was_said() -> None:
    said = AudioFormat(channels=2, multichannel=True)
    for name in (("wav", "pcm_s24le", 16_000, 1), ("ogg", "libopus", 48_000, 1), ("webm", "libopus", 48_000, 1)):
        assert "`channels`" in undecodable(stream(*name), said)


def ogg_opus(*links: list[bytes]) -> bytes:
    """Chained streams of these packets."""
    pages = []
    for serial, packets in enumerate(links):
        pages.append(encoded_audio.ogg_page(serial, [encoded_audio.opus_head(pre_skip=0)], flags=2))
        pages.append(encoded_audio.ogg_page(serial, [b"OpusTags" + bytes(8)]))
        pages += [encoded_audio.ogg_page(serial, [packet]) for packet in packets]
    return b"".join(pages)


@functools.cache
def packets_of_opus() -> list[bytes]:
    return encoded_audio.opus_packets(tone(440, 48_000, 0.5).astype(np.float32)[None, :], 48_000)


def test_chained_ogg_streams_are_one() -> None:
    packets = packets_of_opus()
    once = heard(AudioFormat(), [ogg_opus(packets)])
    assert heard(AudioFormat(), [ogg_opus(packets, packets)]).shape[1] == 2 * once.shape[1]


def test_other_streams_beside_opus_are_stepped_over() -> None:
    packets = packets_of_opus()
    pages = ogg_opus(packets)
    beside = encoded_audio.ogg_page(77, [b"\x80theora" + bytes(30)], flags=2)
    more = encoded_audio.ogg_page(77, [bytes(100)])
    np.testing.assert_array_equal(heard(AudioFormat(), [beside + pages + more]), heard(AudioFormat(), [pages]))
    assert "Theora" in undecodable(beside + more)
    assert "FLAC" in undecodable(stream("ogg", "flac", 16_000, 2), AudioFormat(Encoding.OGG_OPUS))


def test_a_packet_whose_end_never_came_is_left_out() -> None:
    packets = packets_of_opus()
    begin, rest = ogg_opus([]), b"".join(encoded_audio.ogg_page(0, [packet]) for packet in packets)
    cut_off = bytearray(encoded_audio.ogg_page(0, [bytes(255)]))
    cut_off[26] = 1  # one segment of 255 bytes: its packet goes on, but the next page does not go on with it
    del cut_off[28]
    np.testing.assert_array_equal(
        heard(AudioFormat(), [begin + bytes(cut_off) + rest]), heard(AudioFormat(), [begin + rest])
    )


def test_a_packet_may_go_on_over_pages() -> None:
    packets = packets_of_opus()
    pages = []
    for packet in packets:
        whole = bytearray(encoded_audio.ogg_page(0, [packet]))
        if len(packet) > 255:
            first, second = packet[:255], packet[255:]
            whole = bytearray(encoded_audio.ogg_page(0, [first]))
            whole[26] = 1
            del whole[28]
            whole += encoded_audio.ogg_page(0, [second], flags=1)
        pages.append(bytes(whole))
    assert sum(page.count(b"OggS") for page in pages) > len(packets)
    np.testing.assert_array_equal(
        heard(AudioFormat(), [ogg_opus([]), *pages]), heard(AudioFormat(), [ogg_opus(packets)])
    )


def test_a_buffer_is_bounded_but_for_what_is_skipped() -> None:
    buffer = ByteBuffer(100)
    buffer.append(bytes(90))
    with pytest.raises(MediaError):
        buffer.append(bytes(11))
    buffer.skip(1000)
    buffer.append(bytes(500))
    buffer.append(bytes(410) + b"after")
    assert buffer.take(5) == b"after"
    assert len(buffer) == 0


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (encoded_audio.opus_head(6, family=1), "6 channels"),
        (encoded_audio.opus_head(0), "0 channels"),
        (b"OpusHead\xf0" + bytes(20), "broken"),
        (b"OpusHead", "broken"),
    ],
)
def test_opus_headers_that_cannot_be_served_are_refused(head: bytes, said: str) -> None:
    assert said in undecodable(encoded_audio.ogg_page(1, [head], flags=2) + encoded_audio.ogg_page(1, [bytes(30)]))
    assert said in undecodable(
        encoded_audio.webm([encoded_audio.track(b"A_OPUS", head)], [encoded_audio.simple_block(b"x")])
    )


def test_opus_gain_raises_the_level() -> None:
    packets = packets_of_opus()

    def level(gain: int) -> float:
        entry = encoded_audio.track(b"A_OPUS", encoded_audio.opus_head(gain=gain))
        data = encoded_audio.webm([entry], [encoded_audio.simple_block(packet) for packet in packets])
        return float(np.abs(heard(AudioFormat(), [data])[0, 2000:6000]).max())

    assert level(-6 * 256) / level(0) == pytest.approx(10 ** (-6 / 20), abs=0.01)
    assert level(32_767) == 1.0


def xiph_laced(frames: list[bytes]) -> bytes:
    sizes = b"".join(b"\xff" * (len(frame) // 255) + bytes([len(frame) % 255]) for frame in frames[:-1])
    return bytes([len(frames) - 1]) + sizes + b"".join(frames)


def ebml_laced(frames: list[bytes]) -> bytes:
    sizes = (len(frames[0]) | 0x4000).to_bytes(2, "big") if len(frames) > 1 else b""
    for before, frame in itertools.pairwise(frames[:-1]):
        sizes += ((len(frame) - len(before) + 8191) | 0x4000).to_bytes(2, "big")
    return bytes([len(frames) - 1]) + sizes + b"".join(frames)


@pytest.mark.parametrize(("lacing", "lace"), [(1, xiph_laced), (3, ebml_laced)])
@pytest.mark.parametrize("unknown_size", [True, False])
def test_laced_blocks_are_unlaced(lacing: int, lace: Callable[[list[bytes]], bytes], *, unknown_size: bool) -> None:
    packets = packets_of_opus()
    entry = encoded_audio.track(b"A_OPUS", encoded_audio.opus_head())
    plain = encoded_audio.webm([entry], [encoded_audio.simple_block(packet) for packet in packets])
    blocks = [encoded_audio.simple_block(lace(packets[at : at + 5]), lacing=lacing) for at in range(0, len(packets), 5)]
    laced = encoded_audio.webm([entry], blocks, unknown_size=unknown_size)
    np.testing.assert_array_equal(heard(AudioFormat(), [laced]), heard(AudioFormat(), [plain]))


def test_blocks_of_equal_frames_and_block_groups_are_read() -> None:
    frames = [bytes([index]) * 320 for index in range(4)]
    audio = encoded_audio.element(
        0xE1, encoded_audio.element(0xB5, struct.pack(">d", 16_000.0)) + encoded_audio.element(0x6264, b"\x10")
    )
    entry = encoded_audio.track(b"A_PCM/INT/LIT", extra=audio)
    laced = encoded_audio.simple_block(b"\x03" + b"".join(frames), lacing=2)
    group = encoded_audio.element(
        0xA0, encoded_audio.element(0xA1, b"\x81\0\0\0" + frames[0]) + encoded_audio.element(0x9B, b"\1")
    )
    samples: Samples = heard(AudioFormat(), [encoded_audio.webm([entry], [laced, group])])
    expected = np.frombuffer(b"".join(frames) + frames[0], "<i2") / 32768.0
    np.testing.assert_allclose(samples[0], expected, atol=1e-6)


def test_video_beside_the_audio_is_stepped_over_however_large() -> None:
    packets = packets_of_opus()
    entries = [
        encoded_audio.track(b"V_VP8", number=1, kind=1),
        encoded_audio.track(b"A_OPUS", encoded_audio.opus_head(), number=2),
    ]
    blocks = [encoded_audio.simple_block(packet, number=2) for packet in packets]
    picture = encoded_audio.simple_block(bytes(2_000_000), number=1)
    data = encoded_audio.webm(entries, [*blocks[:10], picture, *blocks[10:]])
    plain = encoded_audio.webm(entries, blocks)
    pieces = [data[at : at + 16_384] for at in range(0, len(data), 16_384)]
    np.testing.assert_array_equal(heard(AudioFormat(), pieces), heard(AudioFormat(), [plain]))


def test_a_recorder_that_begins_again_is_heard_on() -> None:
    data = stream("webm", "libopus", 48_000, 1)
    assert heard(AudioFormat(), [data, data]).shape[1] == 2 * heard(AudioFormat(), [data]).shape[1]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (encoded_audio.webm([encoded_audio.track(b"A_VORBIS")], []), "A_VORBIS"),
        (encoded_audio.webm([encoded_audio.track(b"V_VP9", kind=1)], []), "no audio track"),
        (encoded_audio.webm([], [encoded_audio.simple_block(b"x")]), "no audio track"),
        (
            encoded_audio.webm([encoded_audio.track(b"A_OPUS", extra=encoded_audio.element(0x6D80, b""))], []),
            "encrypted",
        ),
        (encoded_audio.element(0x1A45DFA3, b"") + encoded_audio.simple_block(b"xyz"), "before it describes"),
        (encoded_audio.element(0x1A45DFA3, b"") + b"\x16\x54\xae\x6b\x01\0\0\0\x7f\xff\xff\xff", "2147483647 bytes"),
        (encoded_audio.element(0x1A45DFA3, b"") + b"\xec\x01\0\0\0\x7f\xff\xff\xff", "2147483656 bytes"),
        (encoded_audio.element(0x1A45DFA3, b"") + b"\xec\xff", "broken"),
        (encoded_audio.element(0x1A45DFA3, b"") + b"\0\0\0\0", "broken"),
    ],
)
def test_webm_that_cannot_be_served_is_refused(data: bytes, said: str) -> None:
    assert said in undecodable(data)


@pytest.mark.parametrize("encoding", [Encoding.FLAC, Encoding.OGG_OPUS, None])
def test_a_header_that_never_ends_fills_no_memory(encoding: Encoding | None) -> None:
    starts = {
        Encoding.FLAC: stream("flac", "flac", 16_000, 1)[:120],
        Encoding.OGG_OPUS: ogg_opus([])[:-20],
        None: encoded_audio.webm([encoded_audio.track(b"A_OPUS", encoded_audio.opus_head())], [])
        + b"\xa3\x20\xff\xff\x81",
    }
    audio = open_audio(AudioFormat(encoding))
    audio.feed(starts[encoding])

    def go_on() -> None:
        for _ in range(300):
            audio.feed(b"\x81" * 16_384)

    with pytest.raises(MediaError):
        go_on()


def test_opus_packets_that_libopus_refuses_are_refused() -> None:
    audio = open_audio(AudioFormat(Encoding.OPUS))
    with pytest.raises(MediaError):
        audio.feed(b"\xff\xff" + bytes(10))
    with pytest.raises(MediaError):
        open_audio(AudioFormat(Encoding.OPUS)).feed(bytes(100_000))
