"""Bytes of audio in every encoding, gone astray: samples come out of them, or a refusal, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaserver.audio.clock import SAMPLE_RATE
from mediaserver.errors import ConfigError, MediaError
from mediaserver.ingest.bytestream import AudioFormat, Encoding, open_audio
from tests.fuzz.mutation import bytes_astray
from tests.fuzz.server import MESSAGES
from tests.unit.ingest.encoded_audio import encoded, opus_packets, wav

pytestmark = pytest.mark.timeout(3600)

TONE = (np.sin(np.arange(24_000) / 9)[None] * 0.3).astype(np.float32)
STEREO = np.repeat(TONE, 2, axis=0)
PCM = (TONE[0] * 32767).astype("<i2").tobytes()

CONTAINERS = {
    "wav": wav(1, 16, 1, 48_000, PCM),
    "wav float": wav(3, 32, 1, 48_000, TONE[0].tobytes()),
    "wav mulaw": wav(7, 8, 1, 8000, PCM[:4000]),
    "flac": encoded("flac", "flac", STEREO, 48_000),
    "ogg opus": encoded("ogg", "libopus", STEREO, 48_000),
    "ogg flac": encoded("ogg", "flac", TONE, 48_000),
    "webm": encoded("webm", "libopus", TONE, 48_000),
    "mp3": encoded("mp3", "mp3", TONE, 48_000),
    "aac": encoded("adts", "aac", TONE, 48_000),
}
RAW = {
    Encoding.LINEAR16: PCM,
    Encoding.LINEAR32: TONE[0].astype("<f4").tobytes(),
    Encoding.FLOAT32: TONE[0].astype("<f4").tobytes(),
    Encoding.MULAW: PCM,
    Encoding.ALAW: PCM,
}
MAX_GROWTH_S = 3600
"""Of audio out of some 100 kB: far more than any of these encodings could hold."""


def heard(audio_format: AudioFormat, pieces: list[bytes]) -> None:
    """Feed it all; what comes out is samples, or a refusal that says why."""
    try:
        audio = open_audio(audio_format)
    except ConfigError:
        return
    samples = 0
    try:
        for piece in pieces:
            out = audio.feed(piece)
            assert out.ndim == 2
            assert out.dtype == np.float32
            assert np.isfinite(out).all()
            samples += out.shape[1]
        samples += audio.finish().shape[1]
    except MediaError:
        pass
    finally:
        audio.close()
    assert samples < MAX_GROWTH_S * SAMPLE_RATE


@st.composite
def cut_up(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """A stream gone astray, in pieces of any size."""
    astray = draw(bytes_astray(st.just(data)))
    cuts = sorted(draw(st.lists(st.integers(0, len(astray)), max_size=6)))
    return [astray[start:end] for start, end in zip([0, *cuts], [*cuts, len(astray)], strict=True)]


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_gone_astray_are_heard_or_refused(name: str) -> None:
    @settings(settings.get_profile("fuzz"), max_examples=MESSAGES // 5)
    @given(cut_up(CONTAINERS[name]), st.booleans())
    def try_one(pieces: list[bytes], multichannel: bool) -> None:
        heard(AudioFormat(None, None, 2 if multichannel else 1, multichannel), pieces)

    try_one()


@pytest.mark.parametrize("encoding", RAW)
def test_raw_audio_gone_astray_is_heard(encoding: Encoding) -> None:
    @settings(settings.get_profile("fuzz"), max_examples=MESSAGES // 5)
    @given(cut_up(RAW[encoding]), st.sampled_from([8000, 16_000, 44_100, 48_000]), st.integers(1, 8), st.booleans())
    def try_one(pieces: list[bytes], rate: int, channels: int, multichannel: bool) -> None:
        heard(AudioFormat(encoding, rate, channels, multichannel), pieces)

    try_one()


def test_opus_packets_gone_astray_are_heard_or_refused() -> None:
    packets = opus_packets(TONE, 48_000)

    @settings(settings.get_profile("fuzz"), max_examples=MESSAGES // 5)
    @given(st.lists(bytes_astray(st.sampled_from(packets)), max_size=8), st.integers(1, 2))
    def try_one(pieces: list[bytes], channels: int) -> None:
        heard(AudioFormat(Encoding.OPUS, None, channels, False), pieces)

    try_one()
