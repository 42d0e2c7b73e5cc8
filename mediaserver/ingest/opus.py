"""Opus (RFC 6716) straight to 16 kHz mono by libopus, with its error correction and concealment.

PyAV decodes Opus too, but only to 48 kHz and without either. The binding is five functions of an interface that has
not changed since libopus 1.0, so it needs no package of its own.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mediaserver.audio.clock import SAMPLE_RATE, Samples
from mediaserver.errors import VoiceForgeError
from mediaserver.ingest.codecs import MAX_CONCEALED_S, Decoded

CLOCK_RATE = 48_000
"""Hz of Opus' RTP timestamps, whatever it was encoded from (RFC 7587 section 4.1)."""

MAX_PACKET_SAMPLES = SAMPLE_RATE * 120 // 1000
"""The longest packet is 120 ms (RFC 6716 section 3.2.5)."""

STEP_SAMPLES = SAMPLE_RATE * 5 // 2000
"""2.5 ms: libopus conceals and corrects in multiples of it."""

_OPUS_OK = 0
_OPUS_RESET_STATE = 4028
_TICKS_PER_SAMPLE = CLOCK_RATE // SAMPLE_RATE

_FRAME_TICKS = tuple(
    ((480, 960, 1920, 2880)[config & 3] if config < 12 else (480, 960)[config & 1])
    if config < 16
    else (120, 240, 480, 960)[config & 3]
    for config in range(32)
)
"""Length of one frame by the TOC's configuration (RFC 6716 table 2): SILK, hybrid, CELT."""


def packet_ticks(payload: bytes) -> int:
    """Length of a packet in ticks of 48 kHz, from its TOC (RFC 6716 section 3.1); 0 where it is malformed."""
    if not payload:
        return 0
    toc = payload[0]
    counted = payload[1] & 63 if len(payload) > 1 else 0
    frames = (1, 2, 2, counted)[toc & 3]
    ticks = _FRAME_TICKS[toc >> 3] * frames
    return ticks if ticks <= MAX_PACKET_SAMPLES * _TICKS_PER_SAMPLE else 0


def has_error_correction(payload: bytes) -> bool:
    """Whether a packet carries its predecessor again (RFC 6716 section 4.2.3: the LBRR flag of the SILK layer)."""
    if len(payload) < 2 or payload[0] >> 3 >= 16:  # CELT has none
        return False
    start = _first_frame_offset(payload)
    if start >= len(payload):
        return False
    silk_frames = max(1, _FRAME_TICKS[payload[0] >> 3] // 960)  # of 20 ms, each with a voice activity flag
    flags = payload[start]
    mid = flags >> (7 - silk_frames) & 1
    side = flags >> max(0, 6 - 2 * silk_frames) & 1 if payload[0] & 4 else 0
    return bool(mid or side)


def _first_frame_offset(payload: bytes) -> int:
    """Where the first frame starts (RFC 6716 section 3.2)."""

    def length_bytes(at: int) -> int:
        return 2 if at < len(payload) and payload[at] >= 252 else 1

    code = payload[0] & 3
    if code < 2:
        return 1
    if code == 2:
        return 1 + length_bytes(1)
    offset = 2
    if payload[1] & 64:  # padding
        while offset < len(payload) and payload[offset] == 255:
            offset += 1
        offset += 1
    if payload[1] & 128:  # frames of different lengths
        for _ in range((payload[1] & 63) - 1):
            offset += length_bytes(offset)
    return offset


@functools.cache
def load_libopus() -> ctypes.PyDLL:
    """The system's libopus, else the copy that PyAV's wheel carries.

    PyDLL, for a call takes about 50 µs and giving up the interpreter for it can cost 5 ms until it is given back.

    Raises:
        VoiceForgeError: LIBOPUS_MISSING.
    """
    names = {"darwin": ["libopus.0.dylib", "libopus.dylib"], "win32": ["opus.dll", "libopus-0.dll"]}
    candidates = names.get(sys.platform, ["libopus.so.0"]) + [str(path) for path in _bundled_copies()]
    for candidate in candidates:
        try:
            library = ctypes.PyDLL(candidate)
            _declare(library)
        except (OSError, AttributeError):  # absent, or not libopus
            continue
        return library
    raise VoiceForgeError(
        "LIBOPUS_MISSING",
        "libopus was not found, so Opus cannot be decoded.",
        "Install it (Debian: libopus0, macOS: brew install opus) or a wheel of PyAV, which carries one.",
    )


def _bundled_copies() -> list[Path]:
    spec = find_spec("av")
    if spec is None or spec.origin is None:
        return []
    package = Path(spec.origin).parent
    folders = (package.parent / "av.libs", package / ".dylibs", package)
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*opus*")) if _loads(path)]


def _loads(path: Path) -> bool:
    """Whether a file's name is that of libopus itself, not of opusfile or libopusenc."""
    stem = path.name.removeprefix("lib")
    return stem.startswith(("opus-", "opus.")) and any(end in path.name for end in (".so", ".dylib", ".dll"))


def _declare(library: ctypes.PyDLL) -> None:
    library.opus_decoder_get_size.argtypes = [ctypes.c_int]
    library.opus_decoder_get_size.restype = ctypes.c_int
    library.opus_decoder_init.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int]
    library.opus_decoder_init.restype = ctypes.c_int
    library.opus_decoder_ctl.restype = ctypes.c_int  # variadic: argument types are given with the call
    library.opus_decode_float.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_int32,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_int,
    ]
    library.opus_decode_float.restype = ctypes.c_int


class OpusDecoder:
    """One stream's decoder. Its state lives in memory of our own, so it is freed when the object is.

    Args:
        channels: that are heard, 1 or 2, whatever the packets hold: [n] samples, or [n, 2].

    Raises:
        VoiceForgeError: LIBOPUS_MISSING.
    """

    clock_rate = CLOCK_RATE

    def __init__(self, channels: int = 1) -> None:
        library = load_libopus()
        size = library.opus_decoder_get_size(channels)
        self._state: ctypes.Array[ctypes.c_char] | None = ctypes.create_string_buffer(size)
        if library.opus_decoder_init(self._state, SAMPLE_RATE, channels) != _OPUS_OK:
            raise VoiceForgeError("LIBOPUS_MISSING", "libopus refused 16 kHz.", "Install libopus 1.1 or newer.")
        self._frame = () if channels == 1 else (channels,)  # shape of the samples of one moment
        self._ctl: Callable[..., int] = library.opus_decoder_ctl
        self._decode_float: Callable[..., int] = library.opus_decode_float
        self._buffer: Samples = np.empty((MAX_PACKET_SAMPLES, *self._frame), np.float32)
        self._address = self._buffer.ctypes.data
        self._last_ticks = CLOCK_RATE * 20 // 1000  # the usual packet, until another was seen
        self._concealed = 0  # samples of the running loss

    def duration_ticks(self, payload: bytes) -> int:
        """From the TOC; a malformed packet counts as long as the one before it."""
        ticks = packet_ticks(payload)
        if ticks:
            self._last_ticks = ticks
        return ticks or (self._last_ticks if payload else 0)

    def decode(self, payload: bytes) -> Decoded:
        """The audio of one packet; where libopus refuses it, concealment of its length."""
        if not payload:
            return Decoded(np.zeros((0, *self._frame), np.float32), 0)
        count = self._decode_float(self._state, payload, len(payload), self._address, MAX_PACKET_SAMPLES, 0)
        if count < 0:
            return self.conceal((packet_ticks(payload) or self._last_ticks) // _TICKS_PER_SAMPLE, None)
        self._concealed = 0
        return Decoded(self._buffer[:count].copy(), 0)

    def conceal(self, n_samples: int, next_payload: bytes | None) -> Decoded:
        """Concealment for at most 100 ms of one loss, then zeros; at its end the next packet's copy, where it has one.

        libopus plays its memory on while it conceals, so the zeros are not smoothed into what follows; after 100 ms
        it has faded to nearly nothing itself.
        """
        samples: Samples = np.zeros((n_samples, *self._frame), np.float32)
        corrected = 0
        if next_payload is not None and has_error_correction(next_payload):
            frame = _FRAME_TICKS[next_payload[0] >> 3] // _TICKS_PER_SAMPLE
            corrected = frame if frame <= n_samples else 0  # half a frame's copy cannot be decoded
        end = n_samples - corrected
        position = 0
        budget = int(MAX_CONCEALED_S * SAMPLE_RATE) - self._concealed
        while position < end and budget > 0:
            # At most 20 ms a call; libopus wants a multiple of 2.5 ms, so the last call may give more than is used.
            wanted = min(SAMPLE_RATE // 50, end - position, budget)
            count = self._decode_float(
                self._state, None, 0, self._address, -(-wanted // STEP_SAMPLES) * STEP_SAMPLES, 0
            )
            if count <= 0:
                break
            samples[position : position + wanted] = self._buffer[:wanted]
            position += wanted
            budget -= wanted
            self._concealed += wanted
        if corrected and next_payload is not None:
            count = self._decode_float(self._state, next_payload, len(next_payload), self._address, corrected, 1)
            if count == corrected:
                samples[end:] = self._buffer[:corrected]
                self._concealed = 0
            else:
                corrected = 0
        return Decoded(samples, n_samples - corrected)

    def reset(self) -> None:
        """Forgets the past."""
        self._concealed = 0
        self._ctl(self._state, ctypes.c_int(_OPUS_RESET_STATE))

    def close(self) -> None:
        """Frees the state. A call after this is answered with silence, for libopus would follow a null pointer."""
        self._decode_float = self._ctl = lambda *_arguments: -1
        self._state = None


class OpusReader:
    """Packets of a stream that loses none (a container's, a WebSocket's) to one or two channels at 16 kHz.

    Raises:
        VoiceForgeError: LIBOPUS_MISSING.
    """

    def __init__(self, channels: int) -> None:
        library = load_libopus()
        self._state = ctypes.create_string_buffer(library.opus_decoder_get_size(channels))
        if library.opus_decoder_init(self._state, SAMPLE_RATE, channels) != _OPUS_OK:
            raise VoiceForgeError("LIBOPUS_MISSING", "libopus refused 16 kHz.", "Install libopus 1.1 or newer.")
        self._decode_float: Callable[..., int] = library.opus_decode_float
        self._buffer: Samples = np.empty((MAX_PACKET_SAMPLES, channels), np.float32)
        self._address = self._buffer.ctypes.data

    def decode(self, packet: bytes) -> Samples | None:
        """The audio of one packet, shape [channels, n]; None where libopus refuses it.

        A mono packet gives two equal channels to a stereo reader, a stereo packet its mean to a mono one.
        """
        if not packet:
            return None
        count = self._decode_float(self._state, packet, len(packet), self._address, MAX_PACKET_SAMPLES, 0)
        return self._buffer[:count].T.copy() if count >= 0 else None
