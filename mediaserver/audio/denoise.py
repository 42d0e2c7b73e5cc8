"""Noise suppressors that work on a stream, frame by frame.

Both are gentle on purpose: Whisper hears strongly denoised speech worse than noisy speech. The libraries are imported
when first used, never at start.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Protocol

import numpy as np
import structlog

from mediaserver.audio.clock import FRAME_SAMPLES, SAMPLE_RATE, Samples
from mediaserver.errors import VoiceForgeError
from mediaserver.settings import Denoise

log = structlog.get_logger(__name__)

SPEEX_SUPPRESSION_DB = -15
"""Most that Speex takes away. Its usual −30 dB costs words."""

SPEEX_BLOCK_SAMPLES = 160
"""Speex works on 10 ms."""

SPEEX_OVERLAP_SAMPLES = 160
"""Its own delay: each block is given out when the next has been heard."""

INT16_SCALE = 32_768.0
"""Full scale of 16-bit audio."""

GATE_PROP_DECREASE = 0.6
"""Share of the noise that spectral gating takes away (8 dB). At its default, all of it, words go too."""

GATE_WINDOW_SAMPLES = 16_384
"""Audio that each call sees (1 s); cost grows with it."""

GATE_DELAY_SAMPLES = 1_024
"""How far the output lies behind the newest audio (64 ms): the mask is smoothed over 50 ms, so that later audio no
longer changes it."""

GATE_TIME_CONSTANT_S = 2.0
"""Over what time the noise floor is the mean. It is longer than the window, outside of which noisereduce takes it for
zero; the floor comes out low and the gate gentle. Shorter constants, and windows mirrored at their end, take speech for
noise: tried on 21 noisy recordings, they cost 3 to 5 points of word error rate."""

GATE_FFT_SAMPLES = 512
"""32 ms: what noisereduce advises for speech."""

GATE_FLOOR = 1e-6
"""Added to the window (120 dB below full scale): noisereduce divides by the noise floor; digital silence has none."""


class Denoiser(Protocol):
    """Takes noise out of one stream. It may be used on a thread other than the one that made it, one call at a time."""

    delay_samples: int
    """How far the output lies behind the input, constant from the first sample on."""

    def process(self, frame: Samples) -> Samples:
        """The next [512] samples in, [512] samples out; before the stream's first sample there is silence."""
        ...


def make_denoiser(kind: Denoise) -> Denoiser | None:
    """A denoiser for one stream; None for `off`. Cheap: noisereduce is imported by `preload`, or beside first frames.

    Raises:
        VoiceForgeError: the library is not installed.
    """
    match kind:
        case Denoise.OFF:
            return None
        case Denoise.SPEEX:
            return SpeexDenoiser()
        case Denoise.SPECTRAL_GATE:
            return SpectralGate()


def preload(kind: Denoise) -> None:
    """Import what `kind` needs, so that no stream waits for it. Blocks: noisereduce brings SciPy, 1 to 4 s.

    Raises:
        VoiceForgeError: the library is not installed.
    """
    match kind:
        case Denoise.OFF:
            pass
        case Denoise.SPEEX:
            _load("pyspeex_noise", "pyspeex-noise")
        case Denoise.SPECTRAL_GATE:
            _load_noisereduce()


class SpeexDenoiser:
    """Speex's preprocessor, −15 dB, without its gain control.

    Its 160-sample blocks do not divide a frame of 512, so 128 samples are held back: the most that can be left over.

    Raises:
        VoiceForgeError: pyspeex-noise is not installed.
    """

    delay_samples = SPEEX_OVERLAP_SAMPLES + 128

    def __init__(self) -> None:
        library = _load("pyspeex_noise", "pyspeex-noise")
        self._speex = library.AudioProcessor(0, SPEEX_SUPPRESSION_DB)
        self._waiting = b""  # bound: less than a block
        self._done = bytes(2 * (self.delay_samples - SPEEX_OVERLAP_SAMPLES))  # bound: 128 to 256 samples

    def process(self, frame: Samples) -> Samples:
        """[512] in, [512] out, 288 samples later."""
        # Beyond full scale Speex would hear the wrapped-round value.
        pcm = np.clip(np.rint(frame * INT16_SCALE), -32_768, 32_767).astype("<i2").tobytes()
        waiting = self._waiting + pcm
        block = 2 * SPEEX_BLOCK_SAMPLES
        whole = len(waiting) // block * block
        self._waiting = waiting[whole:]
        cleaned = (self._speex.process_10ms(waiting[at : at + block]) for at in range(0, whole, block))
        done = self._done + b"".join(cleaned)
        self._done = done[2 * FRAME_SAMPLES :]
        return np.frombuffer(done[: 2 * FRAME_SAMPLES], dtype="<i2").astype(np.float32) / np.float32(INT16_SCALE)


class SpectralGate:
    """Non-stationary spectral gating by noisereduce, over a window that slides.

    noisereduce keeps nothing between calls, so each frame costs a whole window. Where it is not imported yet
    (`preload`), a thread of its own does that, and raw audio goes through meanwhile, as late as it would be: the thread
    that all streams share has no seconds to spare.

    Raises:
        VoiceForgeError: noisereduce is not installed.
    """

    delay_samples = GATE_DELAY_SAMPLES

    def __init__(self) -> None:
        if importlib.util.find_spec("noisereduce") is None:
            raise _missing("noisereduce")
        self._reduce_noise: Callable[..., Samples] | None = None
        self._importing: threading.Thread | None = None
        self._window: Samples = np.zeros(GATE_WINDOW_SAMPLES, dtype=np.float32)

    def process(self, frame: Samples) -> Samples:
        """[512] in, [512] out, 1,024 samples later."""
        end = GATE_WINDOW_SAMPLES - GATE_DELAY_SAMPLES
        self._window = np.concatenate((self._window[FRAME_SAMPLES:], frame))
        reduce_noise = self._imported()
        if reduce_noise is None:
            return self._window[end - FRAME_SAMPLES : end]
        cleaned = reduce_noise(
            y=self._window + np.float32(GATE_FLOOR),
            sr=SAMPLE_RATE,
            prop_decrease=GATE_PROP_DECREASE,
            time_constant_s=GATE_TIME_CONSTANT_S,
            n_fft=GATE_FFT_SAMPLES,
            padding=0,  # the window brings its own
            chunk_size=GATE_WINDOW_SAMPLES,  # in one piece: more of them would go through a file
        )
        return cleaned[end - FRAME_SAMPLES : end].astype(np.float32)

    def _imported(self) -> Callable[..., Samples] | None:
        """noisereduce's function, once it is there; the first call has it imported."""
        if self._reduce_noise is None:
            # A module that is still being imported is in the table, without what it defines last.
            self._reduce_noise = getattr(sys.modules.get("noisereduce"), "reduce_noise", None)
        if self._reduce_noise is None and self._importing is None:
            self._importing = threading.Thread(target=_import_aside, name="import-noisereduce", daemon=True)
            self._importing.start()
        return self._reduce_noise


def _load(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise _missing(package) from exc


def _load_noisereduce() -> ModuleType:
    # SciPy first: it is what takes the time, and it needs nothing hidden.
    _load("scipy.signal", "noisereduce")
    with _without_torch():
        return _load("noisereduce", "noisereduce")


def _import_aside() -> None:
    try:
        _load_noisereduce()
    except VoiceForgeError as exc:  # it is installed, and cannot be imported
        log.error("no noise suppression", code=exc.code)


def _missing(package: str) -> VoiceForgeError:
    return VoiceForgeError(
        "DENOISER_NOT_INSTALLED",
        f"This noise suppressor needs the package `{package}`, which cannot be imported.",
        f"Install it with `pip install {package}`, or choose another `denoise`.",
    )


@contextmanager
def _without_torch() -> Iterator[None]:
    """Imports of torch by this thread fail, as if it were not installed.

    noisereduce imports torch where it can, for a variant that is not used here: 2 to 6 s and 200 MB and more for
    nothing. A torch that is loaded already stays as it is.
    """
    finder = _NoTorch(threading.get_ident())
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _NoTorch:
    """A finder that finds that there is no torch."""

    def __init__(self, thread_id: int) -> None:
        self._thread_id = thread_id

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Nothing to say of any module but torch, and of that only to the thread that asked not to have it."""
        if fullname == "torch" and threading.get_ident() == self._thread_id:
            raise ModuleNotFoundError("torch is kept out of this import", name=fullname)
        return None
