"""The libopus binding, against packets that PyAV's encoder makes."""

from __future__ import annotations

import ctypes
import gc
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.errors import VoiceForgeError
from mediaserver.ingest import opus
from mediaserver.ingest.opus import OpusDecoder, has_error_correction, load_libopus, packet_ticks


def encode(samples: Samples, **options: str) -> list[bytes]:
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = SAMPLE_RATE, "mono", "s16"
    encoder.bit_rate = 32_000
    encoder.options = {"application": "voip", "frame_duration": "20", **options}
    size = SAMPLE_RATE * int(encoder.options["frame_duration"]) // 1000
    pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
    packets = []
    for start in range(0, len(pcm) - size + 1, size):
        frame = av.AudioFrame.from_ndarray(pcm[None, start : start + size], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, start
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return packets


@pytest.fixture(scope="module")
def voice() -> Samples:
    """A buzz with formant-like partials that wanders: SILK takes it for speech."""
    t = np.arange(SAMPLE_RATE * 3) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * 0.7 * t)) / SAMPLE_RATE
    wave = sum(np.sin(k * phase) / k for k in range(1, 20))
    return (0.2 * wave * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))).astype(np.float32)


@pytest.fixture
def decoder() -> Iterator[OpusDecoder]:
    made = OpusDecoder()
    yield made
    made.close()


def rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples))))


def test_decodes_to_16_khz_mono(decoder: OpusDecoder, voice: Samples) -> None:
    packets = encode(voice)
    decoded = [decoder.decode(packet) for packet in packets]
    assert all(part.samples.shape == (320,) and part.samples.dtype == np.float32 for part in decoded)
    assert not any(part.made_up for part in decoded)
    heard = np.concatenate([part.samples for part in decoded])
    best = max(float(np.corrcoef(heard[lag:40_000], voice[: 40_000 - lag])[0, 1]) for lag in range(60, 300))
    assert best > 0.7  # a codec for voices keeps no waveform, but this much


def test_samples_are_the_callers_own(decoder: OpusDecoder, voice: Samples) -> None:
    packets = encode(voice)
    first = decoder.decode(packets[20]).samples
    kept = first.copy()
    decoder.decode(packets[21])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("frame_ms", [10, 20, 40, 60])
def test_duration_is_read_from_the_packet(decoder: OpusDecoder, voice: Samples, frame_ms: int) -> None:
    for packet in encode(voice[:16_000], frame_duration=str(frame_ms)):
        assert packet_ticks(packet) == decoder.duration_ticks(packet) == 48 * frame_ms
        assert len(decoder.decode(packet).samples) == 16 * frame_ms


def test_toc_table() -> None:
    """RFC 6716 table 2, one configuration of each kind, and the four frame count codes."""
    silk, hybrid, celt = 0 << 3, 12 << 3, 16 << 3
    assert [packet_ticks(bytes([silk + (k << 3), 0])) for k in range(4)] == [480, 960, 1920, 2880]
    assert [packet_ticks(bytes([hybrid + (k << 3), 0])) for k in range(2)] == [480, 960]
    assert [packet_ticks(bytes([celt + (k << 3), 0])) for k in range(4)] == [120, 240, 480, 960]
    assert [packet_ticks(bytes([celt | code, 3])) for code in range(4)] == [120, 240, 240, 360]
    assert packet_ticks(b"") == packet_ticks(b"\x03") == packet_ticks(b"\x1b\x3f") == 0


def test_a_lost_packet_comes_back_from_the_next_one(voice: Samples) -> None:
    packets = encode(voice, fec="1", packet_loss="20")
    assert sum(map(has_error_correction, packets)) > len(packets) * 0.5  # where libopus hears a voice
    reference, lossy, blind = OpusDecoder(), OpusDecoder(), OpusDecoder()
    errors, errors_blind = [], []
    for n, packet in enumerate(packets[:-1]):
        whole = reference.decode(packet).samples
        if n % 3 != 2 or not has_error_correction(packets[n + 1]):
            lossy.decode(packet)
            blind.decode(packet)
            continue
        corrected = lossy.conceal(320, packets[n + 1])
        assert corrected.made_up == 0
        errors.append(rms(corrected.samples - whole))
        errors_blind.append(rms(blind.conceal(320, None).samples - whole))
    assert len(errors) > 20
    assert np.mean(errors) < 0.6 * np.mean(errors_blind)


def test_only_the_last_of_several_lost_packets_comes_back(voice: Samples) -> None:
    packets = encode(voice, fec="1", packet_loss="20")
    decoder = OpusDecoder()
    corrected = next(n for n in range(23, len(packets)) if has_error_correction(packets[n]))
    for packet in packets[: corrected - 3]:
        decoder.decode(packet)
    decoded = decoder.conceal(3 * 320, packets[corrected])
    assert (len(decoded.samples), decoded.made_up) == (960, 640)


def test_without_error_correction_all_is_made_up(decoder: OpusDecoder, voice: Samples) -> None:
    packets = encode(voice, fec="0")
    assert not any(map(has_error_correction, packets))
    for packet in packets[:20]:
        decoder.decode(packet)
    decoded = decoder.conceal(320, packets[21])
    assert decoded.made_up == 320
    assert rms(decoded.samples) > 0.01


@pytest.mark.parametrize("n_samples", [1, 40, 333, 1600, 1601, 48_000])
def test_concealment_is_exact_in_length_and_ends_after_100_ms(
    decoder: OpusDecoder, voice: Samples, n_samples: int
) -> None:
    for packet in encode(voice)[:20]:
        decoder.decode(packet)
    decoded = decoder.conceal(n_samples, None)
    assert (len(decoded.samples), decoded.made_up) == (n_samples, n_samples)
    assert not decoded.samples[1600:].any()
    assert not decoder.conceal(1600, None).samples[1600 - min(n_samples, 1600) :].any()  # one loss, told in two parts


def test_malformed_packets_are_concealed(decoder: OpusDecoder, voice: Samples) -> None:
    good = encode(voice)[10]
    decoder.duration_ticks(good)
    decoder.decode(good)
    for bad in (b"\xff\xff\xff", b"\x03", b"\x1b\x3f\x00", b"\x7a\xfe"):
        decoded = decoder.decode(bad)
        assert decoded.made_up == len(decoded.samples) == decoder.duration_ticks(bad) // 3
    assert decoder.decode(good).made_up == 0
    assert len(decoder.decode(b"").samples) == decoder.duration_ticks(b"") == 0


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.binary(max_size=20), st.integers(0, 5000))
def test_no_payload_raises(payload: bytes, following: bytes, n_samples: int) -> None:
    decoder = OpusDecoder()
    ticks = decoder.duration_ticks(payload)
    decoded = decoder.decode(payload)
    assert len(decoded.samples) * 3 == ticks or not payload
    assert len(decoder.conceal(n_samples, following).samples) == n_samples
    decoder.close()


def test_reset_forgets_the_past(decoder: OpusDecoder, voice: Samples) -> None:
    for packet in encode(voice)[:20]:
        decoder.decode(packet)
    decoder.reset()
    assert rms(decoder.conceal(320, None).samples) < 1e-6


def test_memory_goes_with_close_and_a_late_call_is_harmless(voice: Samples) -> None:
    decoder = OpusDecoder()
    state = weakref.ref(decoder._state)  # type: ignore[arg-type]
    decoder.close()
    assert state() is None
    assert decoder.decode(encode(voice[:800])[0]).made_up == 320
    decoder.reset()


def test_libopus_is_found_in_pyav_where_the_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    if not opus._bundled_copies():
        pytest.skip("this PyAV was built without a bundled libopus")
    real = ctypes.PyDLL

    def only_files(name: str) -> ctypes.PyDLL:
        if not Path(name).is_absolute():
            raise OSError(name)
        return real(name)

    monkeypatch.setattr(ctypes, "PyDLL", only_files)
    library = load_libopus.__wrapped__()
    assert library.opus_decoder_get_size(1) > 1000


def test_without_libopus_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> ctypes.PyDLL:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "PyDLL", nothing)
    with pytest.raises(VoiceForgeError) as raised:
        load_libopus.__wrapped__()
    assert raised.value.code == "LIBOPUS_MISSING"
    assert "libopus0" in raised.value.hint


def test_decoding_allocates_nothing_that_stays(decoder: OpusDecoder, voice: Samples) -> None:
    packets = encode(voice)
    for packet in packets:
        decoder.decode(packet)
    gc.collect()
    before = sys.getallocatedblocks()
    for packet in packets:
        decoder.decode(packet)
        decoder.conceal(320, packet)
    gc.collect()
    assert sys.getallocatedblocks() - before < 100
