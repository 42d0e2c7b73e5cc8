"""Raw audio gets the header that it lacks."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from signaling.routes.deepgram.body import LENGTH_UNKNOWN, WAV_FORMATS, Raw

DECODERS = {"linear16": "pcm_s16le", "linear32": "pcm_f32le", "mulaw": "pcm_mulaw", "alaw": "pcm_alaw"}


@pytest.mark.parametrize("encoding", WAV_FORMATS)
@pytest.mark.parametrize("is_measured", [True, False])
def test_ffmpeg_reads_it_as_what_it_is(encoding: str, is_measured: bool) -> None:
    frames, channels, rate = 800, 2, 8000
    data = bytes(frames * channels * WAV_FORMATS[encoding][1])
    raw = Raw(encoding=encoding, sample_rate=rate, channels=channels)
    file = io.BytesIO(raw.header(len(data) if is_measured else LENGTH_UNKNOWN) + data)
    with av.open(file) as container:
        stream = container.streams.audio[0]
        assert (stream.codec_context.name, stream.rate, stream.channels) == (DECODERS[encoding], rate, channels)
        assert sum(frame.samples for frame in container.decode(audio=0)) == frames


def test_the_telephones_rate_is_taken_where_none_is_said() -> None:
    header = Raw(encoding="mulaw", sample_rate=None, channels=1).header(80)
    assert int.from_bytes(header[24:28], "little") == 8000
    assert np.frombuffer(header[40:44], "<u4")[0] == 80
