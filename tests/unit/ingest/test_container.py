from __future__ import annotations

import threading
import wave
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mediaserver.errors import MediaError
from mediaserver.ingest.container import OPUS_FRAME_SAMPLES, probe, read_channels, read_opus_frames, read_samples
from tests.unit.ingest.encoded_audio import wav


def tone(seconds: float, rate: int, hz: float = 440.0) -> NDArray[np.int16]:
    return (np.sin(np.arange(int(seconds * rate)) * 2 * np.pi * hz / rate) * 16000).astype(np.int16)


def write_wav(path: Path, samples: NDArray[np.int16], rate: int, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.tobytes())
    return path


def encode(path: Path, codec: str, rate: int, samples: NDArray[np.int16], layout: str = "mono") -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate)
        stream.layout = layout
        resampler = av.AudioResampler(format=stream.codec_context.format or "fltp", layout=layout, rate=rate)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = rate
        frame.time_base = Fraction(1, rate)
        fifo = av.AudioFifo()
        for part in resampler.resample(frame):
            part.pts = None
            fifo.write(part)
        size = stream.codec_context.frame_size or 1024
        while (block := fifo.read(size)) or (block := fifo.read(0, partial=True)):
            out.mux(stream.encode(block))
        out.mux(stream.encode(None))
    return path


def all_samples(path: Path, **options: object) -> NDArray[np.float32]:
    return np.concatenate(list(read_samples(path, **options)))  # type: ignore[arg-type]


def strongest_hz(samples: NDArray[np.floating], rate: int) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * rate / len(samples))


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.flac", "flac", 44_100),
        ("a.mp3", "libmp3lame", 44_100),
        ("a.ogg", "libopus", 48_000),
        ("a.m4a", "aac", 22_050),
    ],
)
def test_common_files_come_as_16_khz_mono(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    path = encode(tmp_path / name, codec, rate, tone(2.0, rate))
    samples = all_samples(path)
    assert samples.dtype == np.float32
    assert len(samples) / 16_000 == pytest.approx(2.0, abs=0.15)
    assert strongest_hz(samples[:16_000], 16_000) == pytest.approx(440, abs=2)
    assert np.abs(samples).max() == pytest.approx(0.49, abs=0.08)
    info = probe(path)
    assert info.duration_s == pytest.approx(2.0, abs=0.15)
    assert info.sample_rate in (rate, 48_000)


def test_stereo_is_mixed_and_8_khz_is_raised(tmp_path: Path) -> None:
    left, right = tone(1.0, 8000, 300.0), tone(1.0, 8000, 1000.0)
    path = write_wav(tmp_path / "a.wav", np.stack((left, right), axis=1), 8000, channels=2)
    samples = all_samples(path)
    assert len(samples) == 16_000, "what the resampler holds at the end belongs to it"
    spectrum = np.abs(np.fft.rfft(samples[:16_000], 16_000))
    assert spectrum[300] > 100 * spectrum[600]
    assert spectrum[1000] > 100 * spectrum[600]
    assert probe(path).channels == 2


def test_chunks_have_the_length_asked_for_and_lose_nothing(tmp_path: Path) -> None:
    original = tone(1.7, 16_000)
    path = write_wav(tmp_path / "a.wav", original, 16_000)
    chunks = list(read_samples(path, chunk_samples=512))
    assert {len(chunk) for chunk in chunks[:-1]} == {512}
    assert 0 < len(chunks[-1]) <= 512
    assert np.array_equal(np.concatenate(chunks), original.astype(np.float32) / 32768)


def test_opus_frames_are_20_ms_at_48_khz_and_the_last_is_padded(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(1.01, 16_000), 16_000)
    frames = list(read_opus_frames(path))
    assert {(frame.dtype, len(frame)) for frame in frames} == {(np.dtype(np.int16), OPUS_FRAME_SAMPLES)}
    assert len(frames) == 51
    assert not frames[-1][-200:].any()
    assert strongest_hz(np.concatenate(frames), 48_000) == pytest.approx(440, abs=2)


def test_a_long_file_is_read_in_bounded_memory(tmp_path: Path) -> None:
    import tracemalloc

    path = write_wav(tmp_path / "a.wav", np.tile(tone(10.0, 16_000), 60), 16_000)
    tracemalloc.start()
    total = sum(len(chunk) for chunk in read_samples(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 600 * 16_000
    assert peak < 4_000_000, "ten minutes are 38 MB"


@pytest.mark.parametrize("name", ["text.wav", "empty.flac", "picture.png", "noise.bin"])
def test_what_is_not_audio_is_refused_with_a_hint(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "picture.png":
        with av.open(str(path), "w", format="image2") as out:
            stream = out.add_stream("png", rate=1)
            stream.width = stream.height = 16
            stream.pix_fmt = "rgb24"
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))))
            out.mux(stream.encode(None))
    else:
        content = {"text.wav": b"not audio at all\n" * 50, "empty.flac": b""}
        path.write_bytes(content.get(name, np.random.default_rng(1).bytes(4000)))
    for read in (lambda: list(read_samples(path)), lambda: list(read_opus_frames(path)), lambda: probe(path)):
        with pytest.raises(MediaError) as caught:
            read()
        assert caught.value.code == "NOT_AUDIO"
        assert name in caught.value.message
        assert "FLAC" in caught.value.hint


def test_a_codec_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "unknown.wav"
    path.write_bytes(wav(0x5A5A, 16, 1, 16_000, bytes(3200)))
    for read in (probe, lambda path: list(read_samples(path))):
        with pytest.raises(MediaError) as failure:
            read(path)
        assert failure.value.code == "NOT_AUDIO"


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MediaError) as caught:
        probe(tmp_path / "gone.wav")
    assert caught.value.code == "FILE_NOT_FOUND"
    with pytest.raises(MediaError) as caught:
        probe(tmp_path)
    assert caught.value.code == "FILE_UNREADABLE"


def test_a_cut_off_file_gives_what_it_has(tmp_path: Path, speech: object) -> None:
    whole = Path(speech.path)  # type: ignore[attr-defined]
    cut = tmp_path / "cut.flac"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    warnings: list[str] = []
    samples = all_samples(cut, on_warning=warnings.append)
    assert 0.45 < len(samples) / len(all_samples(whole)) < 0.65
    assert len(warnings) == 1


def test_damage_in_the_middle_is_stepped_over(tmp_path: Path, speech: object) -> None:
    data = bytearray(Path(speech.path).read_bytes())  # type: ignore[attr-defined]
    middle = len(data) // 2
    data[middle : middle + 9000] = bytes(9000)
    path = tmp_path / "damaged.flac"
    path.write_bytes(data)
    assert len(all_samples(path)) > 0.7 * 5.9 * 16_000


def test_a_playlist_cannot_make_the_reader_open_anything_else(tmp_path: Path) -> None:
    """A file that a user uploads must not read the server's files, nor call its network."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    secret = write_wav(tmp_path / "secret.wav", tone(1.0, 16_000), 16_000)
    try:
        for target in (
            f"http://127.0.0.1:{server.server_port}/secret.wav",
            f"file://{secret}",
            secret.name,
            str(secret),
        ):
            playlist = tmp_path / "innocent.mp3"
            playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n")
            with pytest.raises(MediaError):
                list(read_samples(playlist))
            script = tmp_path / "innocent.wav"
            script.write_text(f"ffconcat version 1.0\nfile {target}\n")
            with pytest.raises(MediaError):
                list(read_samples(script))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert asked == []


@pytest.mark.parametrize("count", [1, 2, 3, 6, 9, 16])
def test_each_channel_comes_by_itself(tmp_path: Path, count: int) -> None:
    rate = 8000
    channels = [tone(2.5, rate, 300.0 + 100 * number) for number in range(count)]
    path = write_wav(tmp_path / "a.wav", np.stack(channels, axis=1), rate, channels=count)
    chunks = list(read_channels(path))
    assert [chunk.shape for chunk in chunks] == [(count, 16_000), (count, 16_000), (count, 8000)]
    assert all(chunk.dtype == np.float32 for chunk in chunks)
    joined = np.concatenate(chunks, axis=1)
    for number, channel in enumerate(joined):
        assert strongest_hz(channel, 16_000) == pytest.approx(300.0 + 100 * number, abs=2)


def test_more_channels_than_can_be_told_apart_are_refused(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.ones((8000, 20), dtype=np.int16), 8000, channels=20)
    with pytest.raises(MediaError) as refused:
        list(read_channels(path))
    assert refused.value.code == "TOO_MANY_CHANNELS"
    with pytest.raises(MediaError) as unmixed:
        list(read_samples(path))
    assert unmixed.value.code == "NOT_AUDIO"


def test_streams_joined_end_to_end_are_read_through(tmp_path: Path) -> None:
    mono = encode(tmp_path / "mono.ogg", "libopus", 48_000, tone(2.0, 48_000))
    stereo = encode(tmp_path / "stereo.ogg", "libopus", 48_000, tone(2.0, 48_000), layout="stereo")
    chained = tmp_path / "chained.ogg"
    chained.write_bytes(mono.read_bytes() + stereo.read_bytes())
    assert len(all_samples(chained)) > 16_000
    assert {len(chunk) for chunk in read_channels(chained)} == {1}
