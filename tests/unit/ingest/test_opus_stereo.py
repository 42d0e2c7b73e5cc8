"""Two people in the two channels of an Opus stream: decoded, concealed and corrected each by itself."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
import pytest
from aiortc.rtp import RtpPacket

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.errors import MediaError
from mediaserver.ingest.opus import OpusDecoder, has_error_correction
from mediaserver.ingest.stream import AudioStream, make_decoder
from mediaserver.metrics import Metrics


def packets(left_hz: float, right_hz: float) -> list[bytes]:
    """A second of two tones, a packet every 20 ms, with error correction."""
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = 48_000, "stereo", "s16", 64_000
    encoder.options = {"application": "voip", "frame_duration": "20", "fec": "1", "packet_loss": "20", "cutoff": "8000"}
    at = np.arange(48_000) / 48_000
    pcm = np.stack([np.sin(2 * np.pi * hz * at) * 12_000 for hz in (left_hz, right_hz)], axis=1).astype(np.int16)
    found = []
    for start in range(0, 48_000, 960):
        frame = av.AudioFrame.from_ndarray(pcm[start : start + 960].reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate, frame.pts = 48_000, start
        found += [bytes(packet) for packet in encoder.encode(frame)]
    return found


@pytest.fixture
def decoder() -> Iterator[OpusDecoder]:
    made = OpusDecoder(2)
    yield made
    made.close()


def pitch_hz(samples: Samples) -> float:
    return float(np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)[np.abs(np.fft.rfft(samples)).argmax()])


def test_the_channels_stay_apart(decoder: OpusDecoder) -> None:
    heard = np.concatenate([decoder.decode(packet).samples for packet in packets(400, 1000)])
    assert heard.shape[1] == 2
    assert heard.dtype == np.float32
    assert [round(pitch_hz(heard[4000:12000, side]), -1) for side in (0, 1)] == [400, 1000]


def test_loss_is_concealed_in_both(decoder: OpusDecoder) -> None:
    sent = packets(400, 1000)
    for packet in sent[:25]:
        decoder.decode(packet)
    made_up = decoder.conceal(320, None)
    assert made_up.samples.shape == (320, 2)
    assert made_up.made_up == 320
    assert np.abs(made_up.samples).max(axis=0).min() > 0.05
    following = next(packet for packet in sent[26:] if has_error_correction(packet))
    assert decoder.conceal(320, following).made_up == 0
    assert decoder.decode(b"\xff\xff").samples.shape[1] == 2
    assert decoder.decode(b"").samples.shape == (0, 2)


def test_a_stream_of_two_channels_is_whole() -> None:
    chunks: list[Samples] = []
    stream = AudioStream(
        {96: "audio/opus"},
        on_samples=lambda samples, concealed: chunks.append(samples),
        jitter_target_ms=40,
        jitter_max_ms=200,
        metrics=Metrics(),
        channels=2,
    )
    sent = packets(400, 1000)
    for number, payload in enumerate(sent):
        if number % 10 != 5:
            packet = RtpPacket(payload_type=96, sequence_number=number, timestamp=number * 960, ssrc=1, payload=payload)
            stream.receive(packet, number * 0.02)
    late = RtpPacket(
        payload_type=96, sequence_number=len(sent), timestamp=(len(sent) + 50) * 960, ssrc=1, payload=sent[0]
    )
    stream.receive(late, 2.0)  # after a pause of a second
    stream.flush(2.1)
    heard = np.concatenate(chunks)
    assert heard.shape == ((len(sent) + 51) * 320, 2)
    assert not heard[len(sent) * 320 + 1000 : (len(sent) + 49) * 320].any()
    stream.close()


@pytest.mark.parametrize("mime_type", ["audio/PCMU", "audio/PCMA", "audio/G722"])
def test_other_codecs_have_one_channel(mime_type: str) -> None:
    with pytest.raises(MediaError):
        make_decoder(mime_type, 2)
