from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mediaserver.audio.clock import Samples
from mediaserver.errors import ConfigError
from mediaserver.ingest.bytestream import AudioFormat, Encoding, open_audio


def heard(audio_format: AudioFormat, pieces: Iterable[bytes]) -> Samples:
    """All samples of a stream that came in these pieces, [count, n]."""
    audio = open_audio(audio_format)
    parts = []
    for message in pieces:
        piece = message
        while piece:
            size = audio.slice_bytes
            parts.append(audio.feed(piece[:size]))
            piece = piece[size:]
            while audio.pending:
                parts.append(audio.feed(b""))
    parts.append(audio.finish())
    while audio.pending:
        parts.append(audio.finish())
    audio.close()
    return np.concatenate(parts, axis=1)


def tone(hz: float, rate: int, seconds: float = 0.5) -> NDArray[np.float64]:
    return np.sin(np.arange(int(seconds * rate)) * 2 * np.pi * hz / rate) * 0.5


def linear16(*channels: NDArray[np.float64]) -> bytes:
    return (np.stack(channels).T * 32767).astype("<i2").tobytes()


def strongest_hz(samples: Samples) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * 16_000 / len(samples))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def test_linear16_at_16_khz_is_what_it_was() -> None:
    pcm = tone(440, 16_000)
    samples = heard(AudioFormat(Encoding.LINEAR16, 16_000), [linear16(pcm)])
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples[0], pcm, atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
def test_any_usual_rate_keeps_pitch_level_and_length(rate: int) -> None:
    samples = heard(AudioFormat(Encoding.LINEAR16, rate), [linear16(tone(440, rate, 1.0))])[0]
    assert len(samples) == pytest.approx(16_000, abs=20)
    assert strongest_hz(samples) == pytest.approx(440, abs=1.5)
    assert np.abs(samples[2000:-2000]).max() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_each_channel_is_heard_by_itself(channels: int, rate: int) -> None:
    data = linear16(*(tone(300 + 100 * channel, rate) for channel in range(channels)))
    samples = heard(AudioFormat(Encoding.LINEAR16, rate, channels, multichannel=True), [data])
    assert len(samples) == channels
    for channel in range(channels):
        assert strongest_hz(samples[channel]) == pytest.approx(300 + 100 * channel, abs=3)


def test_channels_are_mixed_to_their_mean() -> None:
    left, right = tone(440, 16_000), np.zeros(8000)
    samples = heard(AudioFormat(Encoding.LINEAR16, 16_000, channels=2), [linear16(left, right)])
    assert samples.shape == (1, 8000)
    np.testing.assert_allclose(samples[0], left / 2, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    places=st.lists(st.integers(0, 100_000), max_size=12),
    rate=st.sampled_from([8000, 16_000, 44_100]),
    channels=st.integers(1, 3),
)
def test_raw_audio_may_be_cut_anywhere(places: list[int], rate: int, channels: int) -> None:
    data = linear16(*(tone(300 + 100 * channel, rate, 0.2) for channel in range(channels))) + b"\1"
    audio_format = AudioFormat(Encoding.LINEAR16, rate, channels, multichannel=True)
    np.testing.assert_array_equal(heard(audio_format, cut(data, places)), heard(audio_format, [data]))


@pytest.mark.parametrize(
    ("audio_format", "field"),
    [
        (AudioFormat(Encoding.LINEAR16), "sample_rate"),
        (AudioFormat(Encoding.LINEAR32), "sample_rate"),
        (AudioFormat(Encoding.LINEAR16, 7999), "sample_rate"),
        (AudioFormat(Encoding.LINEAR16, 48_001), "sample_rate"),
        (AudioFormat(None, 16_000), "sample_rate"),
        (AudioFormat(Encoding.LINEAR16, 16_000, channels=0), "channels"),
        (AudioFormat(Encoding.LINEAR16, 16_000, channels=9), "channels"),
        (AudioFormat(Encoding.OPUS, channels=3), "channels"),
    ],
)
def test_formats_that_make_no_sense_are_refused_by_name(audio_format: AudioFormat, field: str) -> None:
    with pytest.raises(ConfigError, match=f"`{field}`") as caught:
        open_audio(audio_format)
    assert caught.value.code == "INVALID_AUDIO_FORMAT"
