"""Reads any audio file by PyAV, in bounded memory: 16 kHz float32 for the engine, 48 kHz int16 for an Opus track.

The file is opened here and handed to FFmpeg as a stream, and FFmpeg may open nothing else: a playlist or a script that
poses as audio cannot make it read other files or the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.container import InputContainer
from numpy.typing import NDArray

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.errors import MediaError

OPUS_RATE = 48_000
"""Hz; the only rate that Opus has in RTP (RFC 7587 §4.1)."""

OPUS_FRAME_SAMPLES = 960
"""20 ms at 48 kHz, what every WebRTC peer sends in a packet."""

CHUNK_SAMPLES = SAMPLE_RATE
"""1 s a chunk: 64 kB, far below what the decoder library holds itself."""

MAX_CHANNELS = 16
"""Of a file whose channels are heard one by one: more than any conference records."""

BAD_PACKETS_MAX = 50
"""Packets in a row that cannot be decoded before the rest of a file counts as lost: about a second."""

OnWarning = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file says of itself; `duration_s` is None where it does not say, and need not be exact."""

    duration_s: float | None
    codec: str
    sample_rate: int
    channels: int


def probe(path: Path, *, called: str | None = None) -> AudioInfo:
    """What kind of audio a file has, without decoding it.

    Args:
        path: of the file.
        called: what refusals call it, here and below, where its name is ours and says nothing; its name if None.

    Raises:
        MediaError: FILE_NOT_FOUND, FILE_UNREADABLE or NOT_AUDIO.
    """
    called = called or path.name
    with _opened(path, called) as container:
        stream = container.streams.audio[0]
        duration_s: float | None = None
        if stream.duration is not None and stream.time_base is not None:
            duration_s = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            duration_s = container.duration / av.time_base
        context = stream.codec_context
        if context is None:  # PyAV's types deny it, but so it is where FFmpeg has no decoder
            raise _not_audio(called, "has audio of a codec that nobody here knows")
        return AudioInfo(duration_s, context.name, context.sample_rate, context.channels)


def read_samples(
    path: Path,
    *,
    chunk_samples: int = CHUNK_SAMPLES,
    on_warning: OnWarning | None = None,
    called: str | None = None,
) -> Iterator[Samples]:
    """A file's audio for the engine: chunks [chunk_samples] float32, 16 kHz mono, the last one shorter.

    Blocks while it decodes: run it off the event loop. A damaged or cut-off end is told by `on_warning` and what could
    be decoded is given.

    Raises:
        MediaError: FILE_NOT_FOUND, FILE_UNREADABLE or NOT_AUDIO.
    """
    pending: list[Samples] = []
    held = 0
    for frame in _resampled(path, "flt", SAMPLE_RATE, on_warning, called=called):
        pending.append(frame.to_ndarray()[0])
        held += len(pending[-1])
        if held >= chunk_samples:
            joined: Samples = np.concatenate(pending)
            whole = held - held % chunk_samples
            yield from np.split(joined[:whole], whole // chunk_samples)
            pending, held = [joined[whole:]], held - whole
    if held:
        yield np.concatenate(pending)


def read_channels(
    path: Path,
    *,
    chunk_samples: int = CHUNK_SAMPLES,
    on_warning: OnWarning | None = None,
    called: str | None = None,
) -> Iterator[Samples]:
    """As `read_samples`, but each channel by itself: chunks [channels, chunk_samples], the last one shorter.

    Raises:
        MediaError: as `read_samples`, or TOO_MANY_CHANNELS.
    """
    pending: list[Samples] = []
    held = 0
    # Interleaved: PyAV reads planes of more than eight channels from beyond its memory.
    for frame in _resampled(path, "flt", SAMPLE_RATE, on_warning, called=called, layout=None):
        pending.append(frame.to_ndarray().reshape(frame.samples, -1).T.astype(np.float32, copy=False))
        held += pending[-1].shape[1]
        if held >= chunk_samples:
            joined: Samples = np.concatenate(pending, axis=1)
            whole = held - held % chunk_samples
            yield from np.split(joined[:, :whole], whole // chunk_samples, axis=1)
            pending, held = [joined[:, whole:]], held - whole
    if held:
        yield np.concatenate(pending, axis=1)


def read_opus_frames(path: Path, *, on_warning: OnWarning | None = None) -> Iterator[NDArray[np.int16]]:
    """A file's audio for an Opus track: frames [960] int16, 48 kHz mono, the last one padded with silence.

    Blocks, and raises, as `read_samples` does.
    """
    pending = np.zeros(0, np.int16)
    for frame in _resampled(path, "s16", OPUS_RATE, on_warning):
        pending = np.concatenate((pending, frame.to_ndarray()[0]))
        while len(pending) >= OPUS_FRAME_SAMPLES:
            yield pending[:OPUS_FRAME_SAMPLES]
            pending = pending[OPUS_FRAME_SAMPLES:]
    if len(pending):
        yield np.pad(pending, (0, OPUS_FRAME_SAMPLES - len(pending)))


def _resampled(
    path: Path,
    sample_format: str,
    rate: int,
    on_warning: OnWarning | None,
    *,
    called: str | None = None,
    layout: str | None = "mono",
) -> Iterator[AudioFrame]:
    """The file's audio in one format; `layout` None keeps the channels that it begins with."""
    resampler: av.AudioResampler | None = None
    form: tuple[str, str, int] | None = None
    heard = False
    called = called or path.name
    with _opened(path, called) as container:
        for frame in _decoded(container, on_warning or (lambda text: None)):
            if (frame.format.name, frame.layout.name, frame.sample_rate) != form:
                # Streams may be joined end to end, each with a form of its own (RFC 3533 §4: chained Ogg).
                if resampler is not None:
                    yield from _resample(called, resampler, None)
                form = (frame.format.name, frame.layout.name, frame.sample_rate)
                layout = layout or _own_layout(called, frame)
                resampler = av.AudioResampler(format=sample_format, layout=layout, rate=rate)
            assert resampler is not None
            for out in _resample(called, resampler, frame):
                heard = heard or out.samples > 0
                yield out
        if heard and resampler is not None:
            yield from _resample(called, resampler, None)
    if not heard:
        raise _not_audio(called, "has no audio that can be decoded")


def _resample(called: str, resampler: av.AudioResampler, frame: AudioFrame | None) -> list[AudioFrame]:
    try:
        return list(resampler.resample(frame))
    except (av.error.FFmpegError, ValueError) as exc:  # more channels than FFmpeg mixes, for example
        raise _not_audio(called, "has audio of a form that cannot be resampled") from exc


def _own_layout(called: str, frame: AudioFrame) -> str:
    channels = frame.layout.nb_channels
    if channels > MAX_CHANNELS:
        raise MediaError(
            "TOO_MANY_CHANNELS",
            f"{called} has {channels} channels; at most {MAX_CHANNELS} are transcribed one by one.",
            "Send a file with fewer channels, or leave `multichannel` out.",
        )
    return frame.layout.name


def _decoded(container: InputContainer, on_warning: OnWarning) -> Iterator[AudioFrame]:
    """The frames that can be had; bad packets are stepped over, the end of a cut-off file is the end."""
    stream = container.streams.audio[0]
    packets = container.demux(stream)
    bad = bad_in_a_row = 0
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            frames = list(packet.decode())
        except EOFError:  # av.error.EOFError is one too: flushed already
            break
        except av.error.FFmpegError as exc:
            bad += 1
            bad_in_a_row += 1
            if bad_in_a_row >= BAD_PACKETS_MAX:
                on_warning(f"The rest of the file cannot be decoded ({exc.strerror}).")
                return
            continue
        bad_in_a_row = 0
        yield from (frame for frame in frames if isinstance(frame, AudioFrame))
    if bad:
        on_warning(f"{bad} packets of the file are damaged or cut off and were left out.")


@contextmanager
def _opened(path: Path, called: str) -> Iterator[InputContainer]:
    try:
        file = path.open("rb")
    except FileNotFoundError as exc:
        raise MediaError("FILE_NOT_FOUND", f"{called} is not there.", "Check where it is.") from exc
    except OSError as exc:
        raise MediaError(
            "FILE_UNREADABLE", f"{called} cannot be read: {exc.strerror}.", "Give a file that you may read."
        ) from exc
    with file:
        if path.stat().st_size == 0:
            raise _not_audio(called, "is empty")
        try:
            container = av.open(file, mode="r", metadata_errors="replace", options={"protocol_whitelist": "none"})
        except (av.error.FFmpegError, OSError, ValueError) as exc:
            raise _not_audio(called, "is not audio") from exc
        with container:
            if not container.streams.audio:
                raise _not_audio(called, "has no audio track")
            yield container


def _not_audio(called: str, what: str) -> MediaError:
    return MediaError(
        "NOT_AUDIO",
        f"{called} {what}.",
        "Give a recording such as WAV, FLAC, MP3, M4A, Ogg or WebM.",
    )
