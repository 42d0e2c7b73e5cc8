"""G.711 and G.722 against FFmpeg's, the resampler against its numbers, and the concealment of both."""

from __future__ import annotations

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.errors import MediaError
from mediaserver.ingest.codecs import G711Decoder, G722Decoder, Repeater, Upsampler, a_law_table, mu_law_table
from mediaserver.ingest.stream import make_decoder


def ffmpeg_decode(codec_name: str, payload: bytes, rate: int) -> NDArray[np.int16]:
    codec = av.CodecContext.create(codec_name, "r")
    assert isinstance(codec, av.AudioCodecContext)
    codec.sample_rate, codec.layout = rate, "mono"
    return np.concatenate([frame.to_ndarray()[0] for frame in codec.decode(av.Packet(payload))])


def tone(frequency: float, rate: int, seconds: float) -> Samples:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def encode_g722(samples: Samples) -> bytes:
    encoder = av.CodecContext.create("g722", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = SAMPLE_RATE, "mono", "s16"
    frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts = SAMPLE_RATE, 0
    return b"".join(bytes(packet) for part in (frame, None) for packet in encoder.encode(part))


@pytest.mark.parametrize(("table", "codec_name"), [(mu_law_table(), "pcm_mulaw"), (a_law_table(), "pcm_alaw")])
def test_tables_are_those_of_the_standard(table: Samples, codec_name: str) -> None:
    expected = ffmpeg_decode(codec_name, bytes(range(256)), 8000)
    assert np.array_equal((table * 32768).astype(np.int32), expected.astype(np.int32))


def test_upsampling_has_no_seams() -> None:
    narrow = tone(440, 8000, 1.0)
    whole = Upsampler().process(narrow)
    upsampler = Upsampler()
    sizes = [160, 7, 1, 0, 300, 80, 2]
    parts, position = [], 0
    while position < len(narrow):
        size = sizes[len(parts) % len(sizes)]
        parts.append(upsampler.process(narrow[position : position + size]))
        position += size
    assert len(whole) == 2 * len(narrow)
    assert np.allclose(np.concatenate(parts), whole, atol=1e-6)


@pytest.mark.parametrize("frequency", [100, 300, 1000, 2000, 3000, 3400])
def test_upsampling_keeps_speech_and_suppresses_its_image(frequency: int) -> None:
    wide = Upsampler().process(tone(frequency, 8000, 2.0))[4000:-4000]
    spectrum = np.abs(np.fft.rfft(wide * np.hanning(len(wide))))
    bins = np.fft.rfftfreq(len(wide), 1 / SAMPLE_RATE)

    def level_db(at_hz: float) -> float:
        return float(20 * np.log10(spectrum[np.abs(bins - at_hz) < 20].max() / (0.25 * len(wide) / 2)))

    assert abs(level_db(frequency) - 0.0) < 0.3
    assert level_db(8000 - frequency) < -40


def test_upsampling_delays_by_what_it_says() -> None:
    impulse = np.zeros(100, np.float32)
    impulse[20] = 1.0
    assert int(np.argmax(Upsampler().process(impulse))) == 40 + Upsampler.TAPS


@pytest.mark.parametrize("mime_type", ["audio/PCMU", "audio/PCMA", "audio/G722"])
def test_a_payload_is_two_samples_a_byte(mime_type: str) -> None:
    decoder = make_decoder(mime_type)
    for payload in (bytes(160), bytes(80), b"\x55", b""):
        assert decoder.duration_ticks(payload) == len(payload)
        decoded = decoder.decode(payload)
        assert decoded.samples.shape == (2 * len(payload),)
        assert decoded.samples.dtype == np.float32
        assert decoded.made_up == 0
    assert decoder.clock_rate == 8000
    decoder.close()


def test_g711_speaks_at_the_right_level() -> None:
    decoder = G711Decoder(mu_law_table())
    levels = (tone(1000, 8000, 0.5)[:, None] - mu_law_table()[None, :]).__abs__().argmin(axis=1).astype(np.uint8)
    heard = np.concatenate([decoder.decode(levels[k : k + 160].tobytes()).samples for k in range(0, 4000, 160)])
    assert np.abs(heard[1000:]).max() == pytest.approx(0.5, abs=0.02)


def test_g722_is_continuous_over_packets() -> None:
    payload = encode_g722(tone(1000, SAMPLE_RATE, 0.5))
    decoder = G722Decoder()
    parts = [decoder.decode(payload[k : k + 160]).samples for k in range(0, len(payload), 160)]
    expected = ffmpeg_decode("g722", payload, SAMPLE_RATE) / 32768.0
    assert np.allclose(np.concatenate(parts), expected, atol=1e-6)
    assert np.abs(expected[1000:]).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("frequency", [80, 150, 250, 390])
def test_concealment_goes_on_with_the_pitch_and_fades(frequency: int) -> None:
    repeater = Repeater(8000)
    whole = tone(frequency, 8000, 0.3)
    repeater.heard(whole[:1600])
    made_up = repeater.conceal(800)
    assert float(np.corrcoef(made_up[:160], whole[1600:1760])[0, 1]) > 0.9
    assert not made_up[480:].any()
    assert np.abs(made_up[400:480]).max() < 0.1


@pytest.mark.parametrize("mime_type", ["audio/PCMU", "audio/PCMA", "audio/G722"])
def test_concealment_is_exact_in_length_and_ends(mime_type: str) -> None:
    decoder = make_decoder(mime_type)
    assert not decoder.conceal(320, None).samples.any() or mime_type != "audio/G722"
    rng = np.random.default_rng(1)
    for _ in range(5):
        decoder.decode(rng.integers(0, 256, 160, dtype=np.uint8).tobytes())
    for n_samples in (0, 1, 320, 321, 3200):
        decoded = decoder.conceal(n_samples, b"next")
        assert (len(decoded.samples), decoded.made_up) == (n_samples, n_samples)
    assert not decoder.conceal(320, None).samples.any()
    decoder.reset()
    decoder.close()


def test_an_unknown_codec_is_refused_by_name() -> None:
    with pytest.raises(MediaError, match="audio/speex"):
        make_decoder("audio/speex")
